//! `$pop`: drops the first or the last element of an array.

use base::{Error, Result};
use bson::Bson;

use super::assign::shown;
use super::operator::{Change, Site, kind_name};
use crate::number::Number;
use crate::value::Value;

/// Which end loses an element.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// `-1`.
    First,
    /// `1`.
    Last,
}

impl End {
    /// Reads the operator's argument.
    pub(super) fn parse(field: &str, argument: &Bson) -> Result<End> {
        let Some(number) = Number::of(&Value::from(argument)) else {
            return Err(Error::failed_to_parse(format!("Expected a number in: {}", shown(field, argument))));
        };
        match number.integer() {
            Some(1) => Ok(End::Last),
            Some(-1) => Ok(End::First),
            Some(other) => Err(Error::failed_to_parse(format!("$pop expects 1 or -1, found: {other}"))),
            None => Err(Error::failed_to_parse(format!("Expected an integer: {}", shown(field, argument)))),
        }
    }

    /// Drops the element, if there is one.
    pub(super) fn modify(self, value: &mut Bson, site: &Site<'_>) -> Result<Change> {
        let Bson::Array(elements) = value else {
            return Err(Error::type_mismatch(format!(
                "Path '{}' contains an element of non-array type '{}'",
                site.dotted(),
                kind_name(value)
            )));
        };
        if elements.is_empty() {
            return Ok(Change::Same);
        }
        match self {
            End::First => drop(elements.remove(0)),
            End::Last => drop(elements.pop()),
        }
        Ok(Change::Written)
    }
}
