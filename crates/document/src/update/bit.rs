//! `$bit`: bitwise and, or, xor with integers.

use base::{Error, Result};
use bson::Bson;

use super::assign::{replace, shown_document};
use super::operator::{Change, Site, kind_name};

/// The operations, applied one after another.
#[derive(Debug)]
pub(super) struct Bits(Vec<(Operation, Integer)>);

#[derive(Clone, Copy, Debug)]
enum Operation {
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, Debug)]
enum Integer {
    Int32(i32),
    Int64(i64),
}

impl Bits {
    /// Reads `{and: 1, or: 2, xor: 3}`.
    pub(super) fn parse(argument: &Bson) -> Result<Bits> {
        let Bson::Document(operations) = argument else {
            return Err(Error::bad_value(format!(
                "The $bit modifier is not compatible with a {}. You must pass in an embedded document: \
                 {{$bit: {{field: {{and/or/xor: #}}}}",
                kind_name(argument)
            )));
        };
        let mut parsed = Vec::new();
        for (name, operand) in operations {
            let operation = match name.as_str() {
                "and" => Operation::And,
                "or" => Operation::Or,
                "xor" => Operation::Xor,
                other => {
                    return Err(Error::bad_value(format!(
                        "The $bit modifier only supports 'and', 'or', and 'xor', not '{other}' which is an \
                         unknown operator: {}",
                        shown_document(operations)
                    )));
                }
            };
            let operand = Integer::of(operand).ok_or_else(|| {
                Error::bad_value(format!(
                    "The $bit modifier field must be an Integer(32/64 bit); a '{}' is not supported here: {}",
                    kind_name(operand),
                    shown_document(operations)
                ))
            })?;
            parsed.push((operation, operand));
        }
        if parsed.is_empty() {
            return Err(Error::bad_value(
                "You must pass in at least one bitwise operation. The format is: \
                 {$bit: {field: {and/or/xor: #}}",
            ));
        }
        Ok(Bits(parsed))
    }

    /// An absent field counts as 0.
    pub(super) fn create(&self) -> Bson {
        self.apply(Integer::Int32(0)).into_bson()
    }

    /// Applies the operations to an integer.
    pub(super) fn modify(&self, value: &mut Bson, site: &Site<'_>) -> Result<Change> {
        let Some(integer) = Integer::of(value) else {
            return Err(Error::bad_value(format!(
                "Cannot apply $bit to a value of non-integral type.{} has the field {} of non-integer type {}",
                site.shown_id(),
                site.name(),
                kind_name(value)
            )));
        };
        Ok(replace(value, self.apply(integer).into_bson()))
    }

    fn apply(&self, start: Integer) -> Integer {
        self.0.iter().fold(start, |value, (operation, operand)| operation.apply(value, *operand))
    }
}

impl Operation {
    fn apply(self, a: Integer, b: Integer) -> Integer {
        match (a, b) {
            (Integer::Int32(a), Integer::Int32(b)) => Integer::Int32(match self {
                Operation::And => a & b,
                Operation::Or => a | b,
                Operation::Xor => a ^ b,
            }),
            (a, b) => {
                let (a, b) = (a.wide(), b.wide());
                Integer::Int64(match self {
                    Operation::And => a & b,
                    Operation::Or => a | b,
                    Operation::Xor => a ^ b,
                })
            }
        }
    }
}

impl Integer {
    fn of(value: &Bson) -> Option<Integer> {
        match value {
            Bson::Int32(number) => Some(Integer::Int32(*number)),
            Bson::Int64(number) => Some(Integer::Int64(*number)),
            _ => None,
        }
    }

    fn wide(self) -> i64 {
        match self {
            Integer::Int32(number) => i64::from(number),
            Integer::Int64(number) => number,
        }
    }

    fn into_bson(self) -> Bson {
        match self {
            Integer::Int32(number) => Bson::Int32(number),
            Integer::Int64(number) => Bson::Int64(number),
        }
    }
}
