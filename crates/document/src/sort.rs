//! Sort specifications and sort keys.
//!
//! Called by `query` (local sorts), `router` (merging sorted streams), the `$sort` stage and index specifications. A
//! document's sort key is bytes: comparing keys is comparing documents.
//!
//! Always holds: an array sorts by its smallest element when ascending and by its largest when descending; a missing
//! field sorts as null and an empty array below that.

use std::cmp::Ordering;

use base::{Code, Error, Result, limits};
use bson::{Bson, Document};
use serde::{Deserialize, Serialize};

use crate::display::show_value;
use crate::expression;
use crate::key;
use crate::number::Number;
use crate::order;
use crate::path::{self, Path};
use crate::value::{DocRef, Value};

/// The direction of one field of a sort or an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SortDirection {
    /// `1`
    Ascending,
    /// `-1`
    Descending,
}

impl SortDirection {
    /// `1` or `-1`.
    pub fn to_i32(self) -> i32 {
        match self {
            SortDirection::Ascending => 1,
            SortDirection::Descending => -1,
        }
    }
}

/// The fields to sort by, the most significant first. May be empty: no order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortSpec {
    /// Each path at most once.
    pub keys: Vec<(Path, SortDirection)>,
}

impl SortSpec {
    /// Parses `{a: 1, b: -1}`.
    pub fn parse(doc: DocRef<'_>) -> Result<SortSpec> {
        let mut keys: Vec<(Path, SortDirection)> = Vec::new();
        for (name, value) in doc.iter() {
            let path = expression::field::parse(name)?;
            let direction = parse_direction(name, &value)?;
            if keys.iter().any(|(earlier, _)| *earlier == path) {
                return Err(Error::bad_value(format!("$sort key must not be duplicate: {name}")));
            }
            keys.push((path, direction));
        }
        if keys.len() > limits::INDEX_FIELDS_MAX {
            let message = format!("too many compound keys: a sort has at most {}", limits::INDEX_FIELDS_MAX);
            return Err(Error::new(Code(13_103), message));
        }
        Ok(SortSpec { keys })
    }

    /// Whether there is nothing to sort by.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The document's sort key.
    pub fn key(&self, doc: DocRef<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.keys.len() * 16);
        for (path, direction) in &self.keys {
            let value = sort_value(doc, path, *direction);
            match direction {
                SortDirection::Ascending => key::encode(&value, &mut out),
                SortDirection::Descending => key::encode_descending(&value, &mut out),
            }
        }
        out
    }

    /// The specification as a document again.
    pub fn to_document(&self) -> Document {
        let field =
            |(path, direction): &(Path, SortDirection)| (path.to_string(), Bson::Int32(direction.to_i32()));
        self.keys.iter().map(field).collect()
    }
}

/// The one of the values at `path` that the document sorts by.
fn sort_value<'a>(doc: DocRef<'a>, path: &Path, direction: SortDirection) -> Value<'a> {
    let mut best: Option<Value<'a>> = None;
    let mut consider = |value: Value<'a>| {
        let better = best.as_ref().is_none_or(|best| match direction {
            SortDirection::Ascending => order::compare(&value, best) == Ordering::Less,
            SortDirection::Descending => order::compare(&value, best) == Ordering::Greater,
        });
        if better {
            best = Some(value);
        }
    };
    path::sort_values(doc, path, &mut consider);
    best.unwrap_or(Value::Null)
}

fn parse_direction(name: &str, value: &Value<'_>) -> Result<SortDirection> {
    if let Value::Document(operator) = value {
        return Err(match operator.iter().next() {
            Some(("$meta", _)) => Error::new(Code(31_138), "Illegal $meta sort: metadata is not available"),
            _ => Error::new(Code(17_312), "$meta is the only expression supported by $sort right now"),
        });
    }
    let Some(number) = Number::of(value) else {
        let message = format!("Illegal key in $sort specification: {name}: {}", show_value(value));
        return Err(Error::new(Code(15_974), message));
    };
    match number.truncated() {
        Some(1) => Ok(SortDirection::Ascending),
        Some(-1) => Ok(SortDirection::Descending),
        _ => Err(Error::new(
            Code(15_975),
            "$sort key ordering must be 1 (for ascending) or -1 (for descending)",
        )),
    }
}
