//! `$mod`: divisor and remainder, both truncated to integers.
//!
//! Called by `parse` and `matching`.

use base::{Error, Result};

use crate::number::Number;
use crate::value::{ArrayRef, Value};

/// The operand of `$mod`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modulo {
    /// Never zero.
    pub divisor: i64,
    /// What must be left.
    pub remainder: i64,
}

impl Modulo {
    /// Whether the value is a number whose integer part leaves the remainder.
    pub(super) fn matches(self, value: &Value<'_>) -> bool {
        let dividend = Number::of(value).and_then(Number::truncated);
        // The one overflow, the least integer divided by -1, leaves no remainder.
        dividend.is_some_and(|dividend| dividend.wrapping_rem(self.divisor) == self.remainder)
    }

    /// Reads `[divisor, remainder]`.
    pub(super) fn parse(operand: &Value<'_>) -> Result<Modulo> {
        let Value::Array(parts) = operand else {
            return Err(Error::bad_value("malformed mod, needs to be an array"));
        };
        let (divisor, remainder) = two_elements(*parts)?;
        let divisor = integer(&divisor, "divisor")?;
        let remainder = integer(&remainder, "remainder")?;
        if divisor == 0 {
            return Err(Error::bad_value("divisor cannot be 0"));
        }
        Ok(Modulo { divisor, remainder })
    }
}

fn two_elements(parts: ArrayRef<'_>) -> Result<(Value<'_>, Value<'_>)> {
    let mut parts = parts.iter();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(divisor), Some(remainder), None) => Ok((divisor, remainder)),
        (_, _, Some(_)) => Err(Error::bad_value("malformed mod, too many elements")),
        _ => Err(Error::bad_value("malformed mod, not enough elements")),
    }
}

fn integer(value: &Value<'_>, what: &str) -> Result<i64> {
    let number =
        Number::of(value).ok_or_else(|| Error::bad_value(format!("malformed mod, {what} not a number")))?;
    number.truncated().ok_or_else(|| {
        let reason = match number {
            _ if number.is_nan() => "Unable to coerce NaN/Inf to integral type",
            _ if !number.is_finite() => "Unable to coerce NaN/Inf to integral type",
            _ => "Out of bounds coercing to integral value",
        };
        Error::bad_value(format!("malformed mod, {what} value is invalid :: caused by :: {reason}"))
    })
}
