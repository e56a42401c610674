//! `$set`, `$setOnInsert` and `$currentDate`: operators that give a field a value.

use base::{Error, Result};
use bson::Bson;

use super::operator::{Change, kind_name};
use crate::context::EvalContext;
use crate::display;
use crate::value::{DocRef, Value};

/// A constant to write, with its bytes for `splice`.
#[derive(Debug)]
pub(super) struct Assign {
    /// The value.
    pub(super) value: Bson,
    /// The value's type byte and bytes.
    pub(super) encoded: (u8, Vec<u8>),
    /// Levels of documents and arrays in the value; 0 for a scalar.
    pub(super) depth: usize,
}

impl Assign {
    /// Encodes the value once for all documents.
    pub(super) fn new(value: Bson) -> Result<Assign> {
        let mut bytes = Vec::new();
        let tag = super::splice::encode_value(value.clone(), &mut bytes)?;
        let depth = super::finish::depth(&value);
        Ok(Assign { value, encoded: (tag, bytes), depth })
    }

    /// Overwrites the value.
    pub(super) fn modify(&self, value: &mut Bson) -> Change {
        if identical(value, &self.value) {
            return Change::Same;
        }
        *value = self.value.clone();
        Change::Written
    }
}

/// What `$currentDate` writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum CurrentDate {
    /// A date.
    Date,
    /// A timestamp.
    Timestamp,
}

impl CurrentDate {
    /// Reads the operator's argument.
    pub(super) fn parse(argument: &Bson) -> Result<CurrentDate> {
        match argument {
            Bson::Boolean(_) => Ok(CurrentDate::Date),
            Bson::Document(options) => {
                if let Some(name) = options.keys().find(|name| *name != "$type") {
                    return Err(Error::bad_value(format!("Unrecognized $currentDate option: {name}")));
                }
                match options.get_str("$type") {
                    Ok("date") => Ok(CurrentDate::Date),
                    Ok("timestamp") => Ok(CurrentDate::Timestamp),
                    _ => Err(Error::bad_value(
                        "The '$type' string field is required to be 'date' or 'timestamp': \
                         {$currentDate: {field : {$type: 'date'}}}",
                    )),
                }
            }
            other => Err(Error::bad_value(format!(
                "{} is not valid type for $currentDate. Please use a boolean ('true') or a $type expression \
                 ({{$type: 'timestamp/date'}}).",
                kind_name(other)
            ))),
        }
    }

    /// The command's time.
    pub(super) fn value(self, cx: &EvalContext) -> Bson {
        match self {
            CurrentDate::Date => Bson::DateTime(cx.now),
            CurrentDate::Timestamp => Bson::Timestamp(bson::Timestamp {
                time: cx.cluster_time.seconds,
                increment: cx.cluster_time.counter,
            }),
        }
    }
}

/// Overwrites `value` and says whether that changed it.
pub(super) fn replace(value: &mut Bson, new: Bson) -> Change {
    if identical(value, &new) {
        return Change::Same;
    }
    *value = new;
    Change::Written
}

/// Whether two values have the same bytes: type, order of fields and sign of zero included.
pub(super) fn identical(a: &Bson, b: &Bson) -> bool {
    match (a, b) {
        (Bson::Double(a), Bson::Double(b)) => a.to_bits() == b.to_bits(),
        (Bson::Document(a), Bson::Document(b)) => identical_documents(a, b),
        (Bson::Array(a), Bson::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| identical(a, b))
        }
        (Bson::JavaScriptCodeWithScope(a), Bson::JavaScriptCodeWithScope(b)) => {
            a.code == b.code && identical_documents(&a.scope, &b.scope)
        }
        _ => a == b,
    }
}

/// As [`identical`], for documents.
pub(super) fn identical_documents(a: &bson::Document, b: &bson::Document) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|((a_name, a), (b_name, b))| a_name == b_name && identical(a, b))
}

/// `{a: 1}` for the field of an operator's argument.
pub(super) fn shown(name: &str, value: &Bson) -> String {
    display::show_field(name, &Value::from(value))
}

/// `{ a: 1 }` for a document in an operator's argument.
pub(super) fn shown_document(document: &bson::Document) -> String {
    display::show_document(DocRef::Tree(document))
}
