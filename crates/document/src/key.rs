//! Order-preserving encoding of values: comparing encoded bytes is comparing values.
//!
//! Called by `query` (document keys and index entries), `sort` (sort keys) and the routing of documents to shards (the
//! key hash). `docs/FORMATS.md` describes the format byte by byte; it is on disk, so that it never changes.
//!
//! Always holds: `encode(a) < encode(b)` exactly when `compare(a, b)` is less, and equal values have equal bytes,
//! whatever their types (1, 1.0 and a decimal 1.00). No encoding is a prefix of another, so that fields concatenate.

use crate::number::{Decimal, Scaled, truncate_to_double};
use crate::order::type_rank;
use crate::value::{ArrayRef, DocRef, Value};

/// Ends strings, documents and arrays. Below every byte that can follow in their place.
const END: u8 = 0x00;
/// In a string, 0x00 and 0x01 become this byte and one more.
const ESCAPE: u8 = 0x01;
/// After the double that a number truncates to: whether the number is that double.
const EXACT: u8 = 0x00;
const INEXACT: u8 = 0x01;
/// Added to decimal exponents, so that they are positive.
const EXPONENT_BIAS: i32 = 0x8000;
/// Integers up to this magnitude are doubles.
const EXACT_INTEGER_MAX: u64 = 1 << 53;

/// Appends the ascending encoding of a value.
pub fn encode(value: &Value<'_>, out: &mut Vec<u8>) {
    out.push(type_rank(value));
    encode_payload(value, out);
}

/// Appends the descending encoding: the ascending one with every bit inverted.
pub fn encode_descending(value: &Value<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    encode(value, out);
    invert(out, start);
}

/// Appends the ascending encoding of an absent field: that of null.
pub fn encode_missing(out: &mut Vec<u8>) {
    encode(&Value::Null, out);
}

/// The key hash of an encoded key: xxh3, 64 bits, seed 0. Stable across versions and machines.
pub fn hash(encoded: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(encoded)
}

fn encode_payload(value: &Value<'_>, out: &mut Vec<u8>) {
    match *value {
        Value::MinKey | Value::Undefined | Value::Null | Value::MaxKey => {}
        Value::Int32(number) => encode_int(i64::from(number), out),
        Value::Int64(number) => encode_int(number, out),
        Value::Double(number) => encode_double(number, out),
        Value::Decimal128(number) => encode_decimal(Decimal::new(number), out),
        Value::String(text) | Value::Symbol(text) | Value::JavaScript(text) => encode_text(text, out),
        Value::Document(document) => encode_document(document, out),
        Value::Array(array) => encode_array(array, out),
        Value::Binary { subtype, bytes } => {
            encode_len(bytes.len(), out);
            out.push(subtype);
            out.extend_from_slice(bytes);
        }
        Value::ObjectId(id) => out.extend_from_slice(&id),
        Value::Boolean(flag) => out.push(u8::from(flag)),
        Value::DateTime(millis) => out.extend_from_slice(&(millis as u64 ^ 1 << 63).to_be_bytes()),
        Value::Timestamp(time) => out.extend_from_slice(&time.to_u64().to_be_bytes()),
        Value::Regex { pattern, options } => {
            encode_text(pattern, out);
            encode_text(options, out);
        }
        Value::DbPointer(bytes) => {
            encode_len(bytes.len(), out);
            out.extend_from_slice(bytes);
        }
        Value::JavaScriptWithScope { code, scope } => {
            encode_text(code, out);
            encode_document(scope, out);
        }
    }
}

/// Each field: its type, its name, its value; the order in which documents compare.
fn encode_document(document: DocRef<'_>, out: &mut Vec<u8>) {
    for (name, value) in document.iter() {
        out.push(type_rank(&value));
        encode_text(name, out);
        encode_payload(&value, out);
    }
    out.push(END);
}

fn encode_array(array: ArrayRef<'_>, out: &mut Vec<u8>) {
    for element in array.iter() {
        encode(&element, out);
    }
    out.push(END);
}

fn encode_text(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(position) = memchr::memchr2(0x00, 0x01, rest) {
        let (plain, special) = rest.split_at(position);
        out.extend_from_slice(plain);
        let (byte, after) = special.split_first().expect("memchr2 found it");
        out.extend_from_slice(&[ESCAPE, byte + 1]);
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(END);
}

fn encode_len(len: usize, out: &mut Vec<u8>) {
    let len = u32::try_from(len).expect("a value is shorter than 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
}

fn encode_int(number: i64, out: &mut Vec<u8>) {
    if number.unsigned_abs() <= EXACT_INTEGER_MAX {
        return encode_exact(number as f64, out);
    }
    encode_finite(number < 0, u128::from(number.unsigned_abs()), 0, out);
}

fn encode_double(number: f64, out: &mut Vec<u8>) {
    match number {
        // Below minus infinity, whose form is 0x000F_FFFF_FFFF_FFFF.
        _ if number.is_nan() => out.extend_from_slice(&[0; 9]),
        0.0 => encode_exact(0.0, out),
        _ => encode_exact(number, out),
    }
}

fn encode_decimal(decimal: Decimal, out: &mut Vec<u8>) {
    match decimal {
        Decimal::NaN => encode_double(f64::NAN, out),
        Decimal::Infinity { negative: true } => encode_exact(f64::NEG_INFINITY, out),
        Decimal::Infinity { negative: false } => encode_exact(f64::INFINITY, out),
        Decimal::Finite { coefficient: 0, .. } => encode_exact(0.0, out),
        Decimal::Finite { negative, coefficient, exponent } => {
            encode_finite(negative, coefficient, exponent, out);
        }
    }
}

/// `coefficient` is not zero.
fn encode_finite(negative: bool, coefficient: u128, exponent: i32, out: &mut Vec<u8>) {
    let (magnitude, exact) = truncate_to_double(coefficient, exponent);
    let double = if negative { -magnitude } else { magnitude };
    if exact {
        return encode_exact(double, out);
    }
    out.extend_from_slice(&sortable(double).to_be_bytes());
    let start = out.len();
    out.push(INEXACT);
    encode_digits(Scaled::new(coefficient, exponent), out);
    if negative {
        invert(out, start);
    }
}

fn encode_exact(double: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(&sortable(double).to_be_bytes());
    // What is inexact lies farther from zero.
    out.push(if double.is_sign_negative() { !EXACT } else { EXACT });
}

/// The decimal exponent, then the digits in pairs, each plus one, without trailing zeros.
fn encode_digits(scaled: Scaled, out: &mut Vec<u8>) {
    let exponent = u16::try_from(scaled.adjusted + EXPONENT_BIAS).expect("within decimal128's range");
    out.extend_from_slice(&exponent.to_be_bytes());
    let mut rest = scaled.digits;
    let mut unit = 10_u128.pow(32);
    while rest != 0 {
        out.push((rest / unit) as u8 + 1);
        rest %= unit;
        unit /= 100;
    }
    out.push(END);
}

/// Bits whose unsigned order is the order of doubles.
fn sortable(double: f64) -> u64 {
    let bits = double.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn invert(out: &mut [u8], start: usize) {
    for byte in out.iter_mut().skip(start) {
        *byte = !*byte;
    }
}
