//! `$min` and `$max`: write a value when it is below or above the field's, in BSON order.

use std::cmp::Ordering;

use bson::Bson;

use super::operator::Change;
use crate::order;
use crate::value::Value;

/// The operator and its argument.
#[derive(Debug)]
pub(super) struct MinMax {
    /// The value to write.
    pub(super) value: Bson,
    /// How it must compare with the field's value to be written.
    pub(super) wanted: Ordering,
}

impl MinMax {
    /// Writes the value if it is the lesser or the greater.
    pub(super) fn modify(&self, value: &mut Bson) -> Change {
        if order::compare(&Value::from(&self.value), &Value::from(&*value)) != self.wanted {
            return Change::Same;
        }
        *value = self.value.clone();
        Change::Written
    }
}
