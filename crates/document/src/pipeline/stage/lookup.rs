//! `$lookup`, the equality form: the documents of another collection whose field equals one of the row's.
//!
//! The router runs it: it asks [`LookupSpec::foreign_filter`] what to find for a row and gives the answer to
//! [`LookupSpec::attach`].

use base::{Error, Result};
use bson::{Bson, Document};

use super::Stage;
use crate::context::Variables;
use crate::display::show_value;
use crate::expression::field;
use crate::filter::{Filter, InList, Node, Predicate};
use crate::path::Path;
use crate::pipeline::row::{Row, set_path};
use crate::value::{DocRef, Value};

/// A parsed `$lookup`.
#[derive(Clone, Debug, PartialEq)]
pub struct LookupSpec {
    /// The other collection, in the same database.
    pub from: String,
    /// The row's field.
    pub local_field: Path,
    /// The other documents' field.
    pub foreign_field: Path,
    /// Where the array of matching documents goes.
    pub as_field: Path,
}

impl LookupSpec {
    /// The values that the foreign field is compared with: an array's elements, or null where the row has nothing.
    pub fn local_values(&self, row: DocRef<'_>) -> Vec<Bson> {
        let value = field::read(row, self.local_field.parts());
        match value.map(|value| value.into_bson()) {
            None | Some(Bson::Null | Bson::Undefined) => vec![Bson::Null],
            Some(Bson::Array(elements)) => elements,
            Some(other) => vec![other],
        }
    }

    /// What the matching documents of the other collection satisfy.
    pub fn foreign_filter(&self, row: DocRef<'_>) -> Filter {
        let values = InList::new(self.local_values(row), Vec::new());
        Filter::from_node(Node::Field { path: self.foreign_field.clone(), predicate: Predicate::In(values) })
    }

    /// The same as a filter that can travel.
    pub fn foreign_query(&self, row: DocRef<'_>) -> Document {
        let path = self.foreign_field.to_string();
        let (patterns, values): (Vec<Bson>, Vec<Bson>) =
            self.local_values(row).into_iter().partition(|value| matches!(value, Bson::RegularExpression(_)));
        if patterns.is_empty() {
            return bson::doc! { path: { "$in": values } };
        }
        // Within $in, a regular expression would be a pattern.
        let mut any = vec![Bson::Document(bson::doc! { &path: { "$in": values } })];
        any.extend(patterns.into_iter().map(|value| Bson::Document(bson::doc! { &path: { "$eq": value } })));
        bson::doc! { "$or": any }
    }

    /// The row with the documents that were found.
    pub fn attach(&self, row: Row, found: Vec<Document>) -> Row {
        let mut document = row.into_tree();
        let found = found.into_iter().map(Bson::Document).collect();
        set_path(&mut document, self.as_field.parts(), Bson::Array(found));
        Row::Tree(document)
    }
}

pub(super) fn parse(argument: &Value<'_>, _: &Variables, out: &mut Vec<Stage>) -> Result<()> {
    let document = argument.as_document().ok_or_else(|| {
        Error::failed_to_parse(format!(
            "the $lookup specification must be an Object, found {}",
            show_value(argument)
        ))
    })?;
    let (mut from, mut local, mut foreign, mut target) = (None, None, None, None);
    for (name, value) in document.iter() {
        let slot = match name {
            "from" => &mut from,
            "localField" => &mut local,
            "foreignField" => &mut foreign,
            "as" => &mut target,
            _ => return Err(Error::failed_to_parse(format!("unknown argument to $lookup: {name}"))),
        };
        *slot = Some(value.as_str().ok_or_else(|| {
            let (shown, kind) = (show_value(&value), value.kind().name());
            Error::failed_to_parse(format!(
                "$lookup argument '{name}: {shown}' must be a string, is type {kind}"
            ))
        })?);
    }
    let from = from.ok_or_else(|| Error::failed_to_parse("must specify 'from' field for a $lookup"))?;
    let target = target.ok_or_else(|| Error::failed_to_parse("must specify 'as' field for a $lookup"))?;
    let (local, foreign) = match (local, foreign) {
        (Some(local), Some(foreign)) => (local, foreign),
        (None, None) => {
            let message =
                "$lookup requires either 'pipeline' or both 'localField' and 'foreignField' to be specified";
            return Err(Error::failed_to_parse(message));
        }
        _ => {
            let message =
                "$lookup requires both or neither of 'localField' and 'foreignField' to be specified";
            return Err(Error::failed_to_parse(message));
        }
    };
    out.push(Stage::Lookup(LookupSpec {
        from: from.to_owned(),
        local_field: field::parse(local)?,
        foreign_field: field::parse(foreign)?,
        as_field: field::parse(target)?,
    }));
    Ok(())
}
