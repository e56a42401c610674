//! `$inc` and `$mul`: arithmetic that widens int to long to double to decimal as the operands need.

use base::{Error, Result};
use bson::Bson;

use super::assign::{replace, shown};
use super::operator::{Change, Site, kind_name};
use crate::number::Numeric;
use crate::value::Value;

/// The operator and its argument.
#[derive(Debug)]
pub(super) struct Arithmetic {
    operation: Operation,
    operand: Bson,
}

/// Which arithmetic.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    /// `$inc`.
    Add,
    /// `$mul`.
    Multiply,
}

impl Arithmetic {
    /// Reads the operator's argument, a number.
    pub(super) fn parse(operation: Operation, field: &str, argument: &Bson) -> Result<Arithmetic> {
        if !Value::from(argument).is_number() {
            let verb = match operation {
                Operation::Add => "increment",
                Operation::Multiply => "multiply",
            };
            return Err(Error::type_mismatch(format!(
                "Cannot {verb} with non-numeric argument: {}",
                shown(field, argument)
            )));
        }
        Ok(Arithmetic { operation, operand: argument.clone() })
    }

    /// An absent field counts as 0: `$inc` gives the operand, `$mul` a zero of its type.
    pub(super) fn create(&self) -> Bson {
        match self.operation {
            Operation::Add => self.operand.clone(),
            Operation::Multiply => {
                compute(self.operation, &Bson::Int32(0), &self.operand).unwrap_or(Bson::Int32(0))
            }
        }
    }

    /// Applies the operation to a number.
    pub(super) fn modify(&self, value: &mut Bson, site: &Site<'_>) -> Result<Change> {
        if !Value::from(&*value).is_number() {
            return Err(Error::type_mismatch(format!(
                "Cannot apply {} to a value of non-numeric type. {} has the field '{}' of non-numeric type {}",
                self.operation.name(),
                site.shown_id(),
                site.name(),
                kind_name(value)
            )));
        }
        match compute(self.operation, value, &self.operand) {
            Some(result) => Ok(replace(value, result)),
            None => Err(Error::bad_value(format!(
                "Failed to apply {} operations to current value (({}){}) for document {}",
                self.operation.name(),
                if matches!(value, Bson::Int32(_)) { "NumberInt" } else { "NumberLong" },
                crate::display::show_bson(value),
                site.shown_id()
            ))),
        }
    }
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Add => "$inc",
            Operation::Multiply => "$mul",
        }
    }
}

/// `None` when two integers overflow a long.
fn compute(operation: Operation, a: &Bson, b: &Bson) -> Option<Bson> {
    let (a, b) = (Numeric::of(&Value::from(a))?, Numeric::of(&Value::from(b))?);
    let result = match operation {
        Operation::Add => a.checked_add(b)?,
        Operation::Multiply => a.checked_multiply(b)?,
    };
    Some(result.to_bson())
}
