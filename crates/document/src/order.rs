//! BSON comparison order: one total order over all values.
//!
//! Called by filters, sorts, updates (`$min`, `$max`), expressions and `key`, whose bytes sort the same way. Types first
//! (numbers together, strings and symbols together), then values. Reference: "Comparison/Sort Order" of the MongoDB
//! manual.
//!
//! Always holds: the order is total and transitive; a field that is absent is not a value and has no place in it.

use std::cmp::Ordering;

use crate::number::Number;
use crate::value::{ArrayRef, DocRef, Value};

/// The rank of each bracket of types. They are also the first byte of an encoded key, so that they never change.
pub(crate) mod rank {
    pub(crate) const MIN_KEY: u8 = 0x08;
    pub(crate) const UNDEFINED: u8 = 0x10;
    pub(crate) const NULL: u8 = 0x18;
    pub(crate) const NUMBER: u8 = 0x20;
    pub(crate) const STRING: u8 = 0x28;
    pub(crate) const OBJECT: u8 = 0x30;
    pub(crate) const ARRAY: u8 = 0x38;
    pub(crate) const BINARY: u8 = 0x40;
    pub(crate) const OBJECT_ID: u8 = 0x48;
    pub(crate) const BOOLEAN: u8 = 0x50;
    pub(crate) const DATE: u8 = 0x58;
    pub(crate) const TIMESTAMP: u8 = 0x60;
    pub(crate) const REGEX: u8 = 0x68;
    pub(crate) const DB_POINTER: u8 = 0x70;
    pub(crate) const JAVASCRIPT: u8 = 0x78;
    pub(crate) const JAVASCRIPT_WITH_SCOPE: u8 = 0x80;
    pub(crate) const MAX_KEY: u8 = 0xF0;
}

/// Compares two values.
pub fn compare(a: &Value<'_>, b: &Value<'_>) -> Ordering {
    let (a_rank, b_rank) = (type_rank(a), type_rank(b));
    if a_rank != b_rank {
        return a_rank.cmp(&b_rank);
    }
    compare_within_rank(a, b)
}

/// Compares two documents: field by field the type, then the name, then the value; a prefix is less.
pub fn compare_documents(a: DocRef<'_>, b: DocRef<'_>) -> Ordering {
    let (mut a_fields, mut b_fields) = (a.iter(), b.iter());
    loop {
        let ((a_name, a_value), (b_name, b_value)) = match (a_fields.next(), b_fields.next()) {
            (Some(a_field), Some(b_field)) => (a_field, b_field),
            (a_field, b_field) => return a_field.is_some().cmp(&b_field.is_some()),
        };
        let ordering = type_rank(&a_value)
            .cmp(&type_rank(&b_value))
            .then_with(|| a_name.cmp(b_name))
            .then_with(|| compare_within_rank(&a_value, &b_value));
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
}

/// The bracket of types that the value sorts in. Numbers share one, and so do strings and symbols.
pub fn type_rank(value: &Value<'_>) -> u8 {
    match value {
        Value::MinKey => rank::MIN_KEY,
        Value::Undefined => rank::UNDEFINED,
        Value::Null => rank::NULL,
        Value::Int32(_) | Value::Int64(_) | Value::Double(_) | Value::Decimal128(_) => rank::NUMBER,
        Value::String(_) | Value::Symbol(_) => rank::STRING,
        Value::Document(_) => rank::OBJECT,
        Value::Array(_) => rank::ARRAY,
        Value::Binary { .. } => rank::BINARY,
        Value::ObjectId(_) => rank::OBJECT_ID,
        Value::Boolean(_) => rank::BOOLEAN,
        Value::DateTime(_) => rank::DATE,
        Value::Timestamp(_) => rank::TIMESTAMP,
        Value::Regex { .. } => rank::REGEX,
        Value::DbPointer(_) => rank::DB_POINTER,
        Value::JavaScript(_) => rank::JAVASCRIPT,
        Value::JavaScriptWithScope { .. } => rank::JAVASCRIPT_WITH_SCOPE,
        Value::MaxKey => rank::MAX_KEY,
    }
}

/// Both values have the same rank.
fn compare_within_rank(a: &Value<'_>, b: &Value<'_>) -> Ordering {
    match (a, b) {
        (Value::Int32(a), Value::Int32(b)) => a.cmp(b),
        (Value::String(a) | Value::Symbol(a), Value::String(b) | Value::Symbol(b)) => a.cmp(b),
        (Value::Document(a), Value::Document(b)) => compare_documents(*a, *b),
        (Value::Array(a), Value::Array(b)) => compare_arrays(*a, *b),
        (Value::Binary { subtype: a_subtype, bytes: a }, Value::Binary { subtype: b_subtype, bytes: b }) => {
            a.len().cmp(&b.len()).then(a_subtype.cmp(b_subtype)).then_with(|| a.cmp(b))
        }
        (Value::ObjectId(a), Value::ObjectId(b)) => a.cmp(b),
        (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
        (Value::DateTime(a), Value::DateTime(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (
            Value::Regex { pattern: a, options: a_options },
            Value::Regex { pattern: b, options: b_options },
        ) => a.cmp(b).then_with(|| a_options.cmp(b_options)),
        (Value::DbPointer(a), Value::DbPointer(b)) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
        (Value::JavaScript(a), Value::JavaScript(b)) => a.cmp(b),
        (
            Value::JavaScriptWithScope { code: a, scope: a_scope },
            Value::JavaScriptWithScope { code: b, scope: b_scope },
        ) => a.cmp(b).then_with(|| compare_documents(*a_scope, *b_scope)),
        _ => match (Number::of(a), Number::of(b)) {
            (Some(a), Some(b)) => a.compare(b),
            _ => Ordering::Equal,
        },
    }
}

fn compare_arrays(a: ArrayRef<'_>, b: ArrayRef<'_>) -> Ordering {
    let (mut a_elements, mut b_elements) = (a.iter(), b.iter());
    loop {
        let ordering = match (a_elements.next(), b_elements.next()) {
            (Some(a), Some(b)) => compare(&a, &b),
            (a, b) => return a.is_some().cmp(&b.is_some()),
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
}
