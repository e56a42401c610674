//! Values as error messages show them.
//!
//! Called wherever a message quotes a field or a document. The form follows the MongoDB shell's: `{ a: 1, b: "x" }`,
//! doubles with a fraction, `ObjectId('..')`.
//!
//! Always holds: a message stays short, however large the value: text is cut at [`SHOWN_BYTES_MAX`].

use std::fmt::{self, Write};

use bson::Bson;

use crate::value::{DocRef, Value};

/// Most bytes of a value that a message quotes.
pub const SHOWN_BYTES_MAX: usize = 1024;

/// The value, as a message shows it.
pub fn show_value(value: &Value<'_>) -> String {
    bounded(|out| write_value(out, value))
}

/// The owned value, as a message shows it.
pub fn show_bson(value: &Bson) -> String {
    show_value(&Value::from(value))
}

/// The document with spaces inside its braces: `{ a: 1 }`.
pub fn show_document(doc: DocRef<'_>) -> String {
    bounded(|out| write_document(out, doc))
}

/// A field in tight braces: `{a: 1}`.
pub fn show_field(name: &str, value: &Value<'_>) -> String {
    format!("{{{name}: {}}}", show_value(value))
}

/// Refuses what goes past the limit, which ends the writing.
struct Bounded {
    text: String,
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = SHOWN_BYTES_MAX - self.text.len();
        if text.len() <= room {
            self.text.push_str(text);
            return Ok(());
        }
        let cut = text.floor_char_boundary(room);
        self.text.push_str(text.get(..cut).unwrap_or_default());
        Err(fmt::Error)
    }
}

fn bounded(write: impl FnOnce(&mut Bounded) -> fmt::Result) -> String {
    let mut out = Bounded { text: String::new() };
    if write(&mut out).is_err() {
        out.text.push_str("...");
    }
    out.text
}

fn write_document(out: &mut Bounded, doc: DocRef<'_>) -> fmt::Result {
    let mut separator = "{ ";
    for (name, value) in doc.iter() {
        write!(out, "{separator}{name}: ")?;
        write_value(out, &value)?;
        separator = ", ";
    }
    out.write_str(if separator == "{ " { "{}" } else { " }" })
}

fn write_value(out: &mut Bounded, value: &Value<'_>) -> fmt::Result {
    match *value {
        Value::Double(number) => write_double(out, number),
        Value::String(text) => write!(out, "\"{text}\""),
        Value::Document(doc) => write_document(out, doc),
        Value::Array(array) => {
            let mut separator = "[ ";
            for element in array.iter() {
                out.write_str(separator)?;
                write_value(out, &element)?;
                separator = ", ";
            }
            out.write_str(if separator == "[ " { "[]" } else { " ]" })
        }
        Value::Binary { subtype, bytes } => {
            write!(out, "BinData({subtype}, ")?;
            write_hex(out, bytes)?;
            out.write_str(")")
        }
        Value::Undefined => out.write_str("undefined"),
        Value::ObjectId(bytes) => {
            out.write_str("ObjectId('")?;
            write_hex(out, &bytes)?;
            out.write_str("')")
        }
        Value::Boolean(flag) => write!(out, "{flag}"),
        Value::DateTime(millis) => write!(out, "new Date({millis})"),
        Value::Null => out.write_str("null"),
        Value::Regex { pattern, options } => write!(out, "/{pattern}/{options}"),
        Value::DbPointer(_) => out.write_str("DBRef(..)"),
        Value::JavaScript(code) => out.write_str(code),
        Value::Symbol(text) => write!(out, "\"{text}\""),
        Value::JavaScriptWithScope { code, scope } => {
            write!(out, "CodeWScope( {code}, ")?;
            write_document(out, scope)?;
            out.write_str(")")
        }
        Value::Int32(number) => write!(out, "{number}"),
        Value::Timestamp(time) => write!(out, "Timestamp({}, {})", time.seconds, time.counter),
        Value::Int64(number) => write!(out, "{number}"),
        Value::Decimal128(number) => write!(out, "{number}"),
        Value::MinKey => out.write_str("MinKey"),
        Value::MaxKey => out.write_str("MaxKey"),
    }
}

fn write_double(out: &mut Bounded, number: f64) -> fmt::Result {
    match number {
        _ if number.is_nan() => out.write_str("nan.0"),
        f64::INFINITY => out.write_str("inf.0"),
        f64::NEG_INFINITY => out.write_str("-inf.0"),
        // `Debug` keeps the fraction of whole numbers.
        _ => write!(out, "{number:?}"),
    }
}

fn write_hex(out: &mut Bounded, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn values_show_as_the_shell_writes_them() {
        let tree = doc! { "a": 1, "b": [2.0, "x", Bson::Null], "c": {}, "d": [], "e": true };
        assert_eq!(
            show_document(DocRef::Tree(&tree)),
            r#"{ a: 1, b: [ 2.0, "x", null ], c: {}, d: [], e: true }"#
        );
        assert_eq!(show_field("a", &Value::String("x")), r#"{a: "x"}"#);
    }

    #[test]
    fn a_large_value_is_cut_at_a_character_boundary() {
        let text = "é".repeat(SHOWN_BYTES_MAX);
        let shown = show_value(&Value::String(&text));
        assert!(shown.len() <= SHOWN_BYTES_MAX + 3);
        assert!(shown.ends_with("..."));
    }
}
