//! `$type`: the set of BSON types that a value may have. (`$exists` needs no code of its own.)
//!
//! Called by `parse` and `matching`.

use base::{Code, Error, Result};

use crate::display::show_value;
use crate::number::Number;
use crate::value::{Kind, Value};

/// A set of BSON types.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeSet {
    kinds: Vec<Kind>,
}

const NUMBER_KINDS: [Kind; 4] = [Kind(1), Kind(16), Kind(18), Kind(19)];

impl TypeSet {
    /// The types in the order of the filter.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Whether the value has one of the types.
    pub fn contains(&self, value: &Value<'_>) -> bool {
        self.kinds.contains(&value.kind())
    }

    /// Reads the operand: a number, an alias, or an array of them.
    pub(super) fn parse(operand: &Value<'_>) -> Result<TypeSet> {
        let mut set = TypeSet::default();
        match operand {
            Value::Array(types) => {
                for value in types.iter() {
                    set.add(&value)?;
                }
                if set.kinds.is_empty() {
                    return Err(Error::failed_to_parse("a must match at least one type"));
                }
            }
            value => set.add(value)?,
        }
        Ok(set)
    }

    fn add(&mut self, value: &Value<'_>) -> Result<()> {
        match value {
            Value::String("number") => self.kinds.extend(NUMBER_KINDS),
            Value::String(alias) => self.kinds.push(kind_of_alias(alias)?),
            value => match Number::of(value) {
                Some(number) => self.kinds.push(kind_of_number(number, value)?),
                None => {
                    return Err(Error::type_mismatch("type must be represented as a number or a string"));
                }
            },
        }
        Ok(())
    }
}

fn kind_of_alias(alias: &str) -> Result<Kind> {
    all_kinds()
        .find(|kind| kind.name() == alias)
        .ok_or_else(|| Error::bad_value(format!("Unknown type name alias: {alias}")))
}

fn kind_of_number(number: Number, value: &Value<'_>) -> Result<Kind> {
    let code = number.integer().and_then(|code| i32::try_from(code).ok());
    if code == Some(0) {
        let message = "Invalid numerical type code: 0. Instead use {$exists:false}.";
        return Err(Error::new(Code::BAD_VALUE, message));
    }
    code.and_then(|code| all_kinds().find(|kind| kind.0 == code))
        .ok_or_else(|| Error::bad_value(format!("Invalid numerical type code: {}", show_value(value))))
}

fn all_kinds() -> impl Iterator<Item = Kind> {
    (1..=19).chain([-1, 127]).map(Kind)
}
