//! `$addToSet`: appends the values that an array does not have yet.

use base::{Code, Error, Result};
use bson::Bson;

use super::assign::shown_document;
use super::operator::{Change, Site, kind_name};
use crate::order;
use crate::value::Value;

/// The values to add, each different from the others.
#[derive(Debug)]
pub(super) struct AddToSet(Vec<Bson>);

impl AddToSet {
    /// Reads a value, or `{$each: [..]}`.
    pub(super) fn parse(argument: &Bson) -> Result<AddToSet> {
        let mut distinct = Vec::new();
        match each(argument)? {
            Some(values) => {
                add_missing(&mut distinct, values);
            }
            None => distinct.push(argument.clone()),
        }
        Ok(AddToSet(distinct))
    }

    /// An absent field counts as an empty array.
    pub(super) fn create(&self) -> Bson {
        Bson::Array(self.0.clone())
    }

    /// Appends what is missing.
    pub(super) fn modify(&self, value: &mut Bson, site: &Site<'_>) -> Result<Change> {
        let Bson::Array(elements) = value else {
            return Err(Error::bad_value(format!(
                "Cannot apply $addToSet to non-array field. Field named '{}' has non-array type {}",
                site.name(),
                kind_name(value)
            )));
        };
        Ok(if add_missing(elements, &self.0) { Change::Written } else { Change::Same })
    }
}

fn each(argument: &Bson) -> Result<Option<&Vec<Bson>>> {
    let Bson::Document(clauses) = argument else { return Ok(None) };
    match clauses.iter().next() {
        Some((name, Bson::Array(values))) if name == "$each" => {
            if clauses.len() > 1 {
                return Err(Error::bad_value(format!(
                    "Found unexpected fields after $each in $addToSet: {}",
                    shown_document(clauses)
                )));
            }
            Ok(Some(values))
        }
        Some((name, other)) if name == "$each" => Err(Error::new(
            Code::TYPE_MISMATCH,
            format!(
                "The argument to $each in $addToSet must be an array but it was of type {}",
                kind_name(other)
            ),
        )),
        _ => Ok(None),
    }
}

/// Whether anything was missing.
fn add_missing(elements: &mut Vec<Bson>, values: &[Bson]) -> bool {
    let before = elements.len();
    for value in values {
        let wanted = Value::from(value);
        if !elements.iter().any(|element| order::compare(&Value::from(element), &wanted).is_eq()) {
            elements.push(value.clone());
        }
    }
    elements.len() > before
}
