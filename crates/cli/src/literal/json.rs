//! Values written for programs: one line of Extended JSON (version 2).
//!
//! Called by the one-shot commands and by export. The relaxed form writes numbers and dates as JSON readers expect
//! them; the canonical form keeps every type, so that an export imports again without loss.

use std::fmt::Write as _;

use bson::{Bson, Document};

use super::{date, print};

/// How numbers and dates are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Plain numbers; the width of integers is lost.
    Relaxed,
    /// Every number carries its type.
    Canonical,
}

/// One line of Extended JSON for `document`, without a line break.
pub fn document_line(document: &Document, form: Form) -> String {
    let mut out = String::with_capacity(256);
    write_document(document, form, &mut out);
    out
}

/// One line of Extended JSON for `value`, without a line break.
pub fn line(value: &Bson, form: Form) -> String {
    let mut out = String::new();
    write_value(value, form, &mut out);
    out
}

/// A JSON string with its quotes.
pub fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A double with a point or an exponent, so that it reads back as a double.
pub fn double_text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    format!("{number:?}")
}

/// Standard base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - group.len()));
        for position in 0..4 {
            let index = (bits >> (18 - 6 * position)) & 63;
            let symbol = ALPHABET.get(index as usize).copied().unwrap_or(b'=');
            out.push(if position <= group.len() { char::from(symbol) } else { '=' });
        }
    }
    out
}

fn write_document(document: &Document, form: Form, out: &mut String) {
    out.push('{');
    for (index, (name, value)) in document.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(name, out);
        out.push(':');
        write_value(value, form, out);
    }
    out.push('}');
}

fn write_value(value: &Bson, form: Form, out: &mut String) {
    match value {
        Bson::Document(document) => write_document(document, form, out),
        Bson::Array(values) => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(value, form, out);
            }
            out.push(']');
        }
        Bson::String(text) => write_string(text, out),
        Bson::Boolean(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Bson::Null => out.push_str("null"),
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) => write_number(value, form, out),
        other => write_typed(other, form, out),
    }
}

fn write_number(value: &Bson, form: Form, out: &mut String) {
    let (wrapper, text, plain) = match value {
        Bson::Int32(number) => ("$numberInt", number.to_string(), true),
        Bson::Int64(number) => ("$numberLong", number.to_string(), true),
        Bson::Double(number) => ("$numberDouble", double_text(*number), number.is_finite()),
        _ => return,
    };
    if plain && form == Form::Relaxed {
        out.push_str(&text);
    } else {
        let _ = write!(out, "{{\"{wrapper}\":\"{text}\"}}");
    }
}

/// The types that JSON lacks.
fn write_typed(value: &Bson, form: Form, out: &mut String) {
    let _ = match value {
        Bson::ObjectId(id) => write!(out, "{{\"$oid\":\"{}\"}}", id.to_hex()),
        Bson::Decimal128(number) => write!(out, "{{\"$numberDecimal\":\"{number}\"}}"),
        Bson::DateTime(when) => {
            let ms = when.timestamp_millis();
            match date::write(*when).filter(|_| form == Form::Relaxed && ms >= 0) {
                Some(text) => write!(out, "{{\"$date\":\"{text}\"}}"),
                None => write!(out, "{{\"$date\":{{\"$numberLong\":\"{ms}\"}}}}"),
            }
        }
        Bson::Binary(binary) => match print::uuid_text(binary).filter(|_| form == Form::Relaxed) {
            Some(uuid) => write!(out, "{{\"$uuid\":\"{uuid}\"}}"),
            None => {
                let subtype = u8::from(binary.subtype);
                let data = base64(&binary.bytes);
                write!(out, "{{\"$binary\":{{\"base64\":\"{data}\",\"subType\":\"{subtype:02x}\"}}}}")
            }
        },
        Bson::Timestamp(stamp) => {
            write!(out, "{{\"$timestamp\":{{\"t\":{},\"i\":{}}}}}", stamp.time, stamp.increment)
        }
        Bson::RegularExpression(regex) => {
            out.push_str("{\"$regularExpression\":{\"pattern\":");
            write_string(regex.pattern.as_str(), out);
            out.push_str(",\"options\":");
            write_string(regex.options.as_str(), out);
            write!(out, "}}}}")
        }
        Bson::JavaScriptCode(code) => wrapped("$code", code, out),
        Bson::JavaScriptCodeWithScope(code) => {
            out.push_str("{\"$code\":");
            write_string(&code.code, out);
            out.push_str(",\"$scope\":");
            write_document(&code.scope, form, out);
            write!(out, "}}")
        }
        Bson::Symbol(symbol) => wrapped("$symbol", symbol, out),
        Bson::Undefined => write!(out, "{{\"$undefined\":true}}"),
        Bson::MinKey => write!(out, "{{\"$minKey\":1}}"),
        Bson::MaxKey => write!(out, "{{\"$maxKey\":1}}"),
        other => wrapped("$dbPointer", &other.to_string(), out),
    };
}

fn wrapped(wrapper: &str, text: &str, out: &mut String) -> std::fmt::Result {
    write!(out, "{{\"{wrapper}\":")?;
    write_string(text, out);
    write!(out, "}}")
}
