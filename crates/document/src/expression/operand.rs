//! What an expression evaluates to: a value read in place, or one that was computed.
//!
//! Called by every operator. A field of a stored document stays in its bytes until somebody needs to own it.

use bson::Bson;

use crate::number::Numeric;
use crate::value::{ArrayRef, Kind, Value};

/// A value in the middle of an evaluation. A missing one is `None` of an `Option<Operand>`.
#[derive(Clone, Debug)]
pub(crate) enum Operand<'a> {
    /// Read in place.
    Borrowed(Value<'a>),
    /// Computed.
    Owned(Bson),
}

impl<'a> Operand<'a> {
    /// The value for reading.
    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            Operand::Borrowed(value) => *value,
            Operand::Owned(value) => Value::from(value),
        }
    }

    /// The value to keep.
    pub(crate) fn into_bson(self) -> Bson {
        match self {
            Operand::Borrowed(value) => value.to_bson(),
            Operand::Owned(value) => value,
        }
    }

    /// Null or undefined.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value(), Value::Null | Value::Undefined)
    }

    /// The value's type.
    pub(crate) fn kind(&self) -> Kind {
        self.value().kind()
    }

    /// The value as a number.
    pub(crate) fn number(&self) -> Option<Numeric> {
        Numeric::of(&self.value())
    }

    /// The string, if it is one; symbols count.
    pub(crate) fn text(&self) -> Option<&str> {
        match self.value() {
            Value::String(text) | Value::Symbol(text) => Some(text),
            _ => None,
        }
    }

    /// The array, if it is one.
    pub(crate) fn array(&self) -> Option<ArrayRef<'_>> {
        self.value().as_array()
    }

    /// One element of an array, without copying the others.
    pub(crate) fn into_element(self, index: usize) -> Option<Operand<'a>> {
        match self {
            Operand::Borrowed(Value::Array(array)) => array.get(index).map(Operand::Borrowed),
            Operand::Owned(Bson::Array(mut array)) => {
                (index < array.len()).then(|| Operand::Owned(array.swap_remove(index)))
            }
            _ => None,
        }
    }

    /// One field of a document, without copying the others.
    pub(crate) fn into_field(self, name: &str) -> Option<Operand<'a>> {
        match self {
            Operand::Borrowed(Value::Document(document)) => document.get(name).map(Operand::Borrowed),
            Operand::Owned(Bson::Document(mut document)) => document.remove(name).map(Operand::Owned),
            _ => None,
        }
    }

    /// What conditions ask: everything is true but false, zero, null and undefined.
    pub(crate) fn is_true(&self) -> bool {
        match self.value() {
            Value::Boolean(flag) => flag,
            Value::Null | Value::Undefined => false,
            value => Numeric::of(&value).is_none_or(|number| !number.is_zero()),
        }
    }
}

impl<T: Into<Bson>> From<T> for Operand<'_> {
    fn from(value: T) -> Self {
        Operand::Owned(value.into())
    }
}

/// Missing, null or undefined: what most operators answer null to.
pub(crate) fn is_nullish(operand: &Option<Operand<'_>>) -> bool {
    operand.as_ref().is_none_or(Operand::is_null)
}

/// The name of the operand's type in messages.
pub(crate) fn kind_name(operand: &Option<Operand<'_>>) -> &'static str {
    operand.as_ref().map_or("missing", |operand| operand.kind().name())
}
