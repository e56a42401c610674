//! `$eq $gt $gte $lt $lte $in`: comparison within a type bracket.
//!
//! Called by `matching` for every value at a path: the hottest code of a scan.
//!
//! Always holds: values of different brackets never match, except against MinKey and MaxKey; NaN equals only NaN;
//! a missing field counts as null, an undefined one does not.

use std::cmp::Ordering;

use bson::Bson;

use super::regex::Regex;
use crate::number::Number;
use crate::order;
use crate::value::Value;

/// A comparison operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `$eq`
    Eq,
    /// `$gt`
    Gt,
    /// `$gte`
    Gte,
    /// `$lt`
    Lt,
    /// `$lte`
    Lte,
}

impl Comparison {
    /// Whether `value <op> operand` holds, as a filter sees it.
    pub fn holds(self, value: Option<&Value<'_>>, operand: &Value<'_>) -> bool {
        let Some(value) = value else {
            return match operand {
                Value::Null => self.accepts(Ordering::Equal),
                _ => self.holds_across_types(operand),
            };
        };
        if let (Some(number), Some(bound)) = (Number::of(value), Number::of(operand)) {
            return if number.is_nan() || bound.is_nan() {
                number.is_nan() && bound.is_nan() && self.accepts(Ordering::Equal)
            } else {
                self.accepts(number.compare(bound))
            };
        }
        if order::type_rank(value) == order::type_rank(operand) {
            self.accepts(order::compare(value, operand))
        } else {
            self.holds_across_types(operand)
        }
    }

    fn accepts(self, ordering: Ordering) -> bool {
        match self {
            Comparison::Eq => ordering.is_eq(),
            Comparison::Gt => ordering.is_gt(),
            Comparison::Gte => ordering.is_ge(),
            Comparison::Lt => ordering.is_lt(),
            Comparison::Lte => ordering.is_le(),
        }
    }

    /// Everything lies between MinKey and MaxKey.
    fn holds_across_types(self, operand: &Value<'_>) -> bool {
        match operand {
            Value::MinKey => matches!(self, Comparison::Gt | Comparison::Gte),
            Value::MaxKey => matches!(self, Comparison::Lt | Comparison::Lte),
            _ => false,
        }
    }
}

/// The operand of `$in`.
#[derive(Clone, Debug, Default)]
pub struct InList {
    /// In BSON order, without duplicates.
    values: Vec<Bson>,
    regexes: Vec<Regex>,
}

impl InList {
    /// Sorts the values and drops duplicates.
    pub fn new(mut values: Vec<Bson>, regexes: Vec<Regex>) -> InList {
        values.sort_by(|a, b| order::compare(&Value::from(a), &Value::from(b)));
        values.dedup_by(|a, b| order::compare(&Value::from(&*a), &Value::from(&*b)).is_eq());
        InList { values, regexes }
    }

    /// The values in BSON order, without duplicates.
    pub fn values(&self) -> &[Bson] {
        &self.values
    }

    /// The regular expressions.
    pub fn regexes(&self) -> &[Regex] {
        &self.regexes
    }

    /// Whether one of the values equals `value`, or one of the regular expressions matches it.
    pub(super) fn contains(&self, value: Option<&Value<'_>>) -> base::Result<bool> {
        let sought = value.copied().unwrap_or(Value::Null);
        if self.values.binary_search_by(|candidate| order::compare(&Value::from(candidate), &sought)).is_ok()
        {
            return Ok(true);
        }
        for regex in &self.regexes {
            if regex.matches(value)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
