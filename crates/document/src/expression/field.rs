//! Field paths of expressions: `$a.b` and what follows a variable's name.
//!
//! Called by the parser (checks) and the evaluator (reading in place). Unlike in filters, a numeric part is a field name
//! and never an array index, and a path through an array yields the array of what its documents have there.

use base::{Code, Error, Result};
use bson::Bson;

use super::operand::Operand;
use crate::path::{Part, Path};
use crate::value::{ArrayRef, DocRef, Value};

/// Reads and checks a path without its `$`.
pub(crate) fn parse(text: &str) -> Result<Path> {
    if text.is_empty() {
        return Err(Error::new(Code(40352), "FieldPath cannot be constructed with empty string"));
    }
    if text.ends_with('.') {
        return Err(Error::new(Code(40353), "FieldPath must not end with a '.'."));
    }
    let path = Path::parse_bounded(text)?;
    for part in path.parts() {
        check_name(&part.name)?;
    }
    Ok(path)
}

/// Checks one field name of a path or an object literal.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::new(Code(15998), "FieldPath field names may not be empty strings."));
    }
    if name.starts_with('$') {
        return Err(Error::new(
            Code(16410),
            "FieldPath field names may not start with '$'. Consider using $getField or $setField.",
        ));
    }
    if name.contains('\0') {
        return Err(Error::new(Code(16411), "FieldPath field names may not contain '\0'."));
    }
    Ok(())
}

/// The value at `parts`.
pub(crate) fn read<'a>(document: DocRef<'a>, parts: &[Part]) -> Option<Operand<'a>> {
    let (first, rest) = parts.split_first()?;
    let value = document.get(&first.name)?;
    if rest.is_empty() {
        return Some(Operand::Borrowed(value));
    }
    match value {
        Value::Document(inner) => read(inner, rest),
        Value::Array(array) => Some(Operand::Owned(read_array(array, rest))),
        _ => None,
    }
}

/// The value at `parts` of a variable's value.
pub(crate) fn read_value<'a>(value: Value<'a>, parts: &[Part]) -> Option<Operand<'a>> {
    match value {
        _ if parts.is_empty() => Some(Operand::Borrowed(value)),
        Value::Document(document) => read(document, parts),
        Value::Array(array) => Some(Operand::Owned(read_array(array, parts))),
        _ => None,
    }
}

fn read_array(array: ArrayRef<'_>, parts: &[Part]) -> Bson {
    let documents = array.iter().filter_map(|element| element.as_document());
    Bson::Array(documents.filter_map(|inner| read(inner, parts)).map(Operand::into_bson).collect())
}
