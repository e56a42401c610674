//! The distinct values of a field.
//!
//! Called by the router for `distinct`, with the documents that the executor gives. Always holds: values that compare
//! equal count once, and the first one met stays; arrays count by their elements.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use base::limits::DOCUMENT_BYTES_MAX;
use base::{Code, Error, Result};
use bson::Bson;
use document::path::{Leaf, Path, walk};
use document::{DocRef, Value, key};

/// Values collected so far.
#[derive(Debug)]
pub struct Distinct {
    path: Path,
    values: BTreeMap<Vec<u8>, Bson>,
    bytes: usize,
}

impl Distinct {
    /// Collects the values at `path`.
    pub fn new(path: Path) -> Distinct {
        Distinct { path, values: BTreeMap::new(), bytes: 0 }
    }

    /// Adds a document's values. Fails with 17217 when the values exceed the size of a document.
    pub fn add(&mut self, document: DocRef<'_>) -> Result<()> {
        let parts = self.path.clone();
        let _ = walk(document, parts.parts(), Leaf::Whole, None, &mut |value, _| {
            match value {
                None => {}
                Some(Value::Array(array)) => array.iter().for_each(|element| self.insert(&element)),
                Some(value) => self.insert(&value),
            }
            ControlFlow::Continue(())
        });
        self.check_size()
    }

    /// Adds a value that another shard found. Fails as [`Distinct::add`] does.
    pub fn add_value(&mut self, value: &Bson) -> Result<()> {
        self.insert(&Value::from(value));
        self.check_size()
    }

    fn check_size(&self) -> Result<()> {
        match self.bytes > DOCUMENT_BYTES_MAX {
            true => Err(Error::new(Code(17_217), "distinct too big, 16mb cap")),
            false => Ok(()),
        }
    }

    /// The values in BSON order.
    pub fn into_values(self) -> Vec<Bson> {
        self.values.into_values().collect()
    }

    fn insert(&mut self, value: &Value<'_>) {
        let mut encoded = Vec::new();
        key::encode(value, &mut encoded);
        if !self.values.contains_key(&encoded) {
            self.bytes += encoded.len();
            self.values.insert(encoded, value.to_bson());
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn equal_values_of_different_types_and_array_elements_count_once() {
        let mut distinct = Distinct::new(Path::parse("a.b"));
        for document in [
            doc! { "a": { "b": 1 } },
            doc! { "a": [{ "b": 1.0 }, { "b": [2, "x"] }, 5] },
            doc! { "a": { "b": Bson::Null } },
            doc! { "c": 1 },
        ] {
            distinct.add(DocRef::Tree(&document)).expect("small");
        }
        let expected = vec![Bson::Null, Bson::Int32(1), Bson::Int32(2), Bson::String("x".to_owned())];
        assert_eq!(distinct.into_values(), expected);
    }
}
