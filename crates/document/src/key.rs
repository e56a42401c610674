//! Order-preserving encoding of values: comparing encoded bytes is comparing values.
//!
//! Called by `query` (document keys and index entries), `sort` (sort keys) and the routing of documents to shards (the
//! key hash). `docs/FORMATS.md` describes the format byte by byte; it is on disk, so that it never changes.
//!
//! Always holds: `encode(a) < encode(b)` exactly when `compare(a, b)` is less, and equal values have equal bytes,
//! whatever their types (1, 1.0 and a decimal 1.00). No encoding is a prefix of another, so that fields concatenate.

use crate::number::{Decimal, Scaled, truncate_to_double};
use crate::order::{rank, type_rank};
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

/// The key hash of an encoded key: xxh3, 64 bits, seed 0. Stable across versions and machines.
pub fn hash(encoded: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(encoded)
}

/// How many bytes the first of several encoded values takes; `descending` as it was encoded. `None` when the bytes are no
/// encoding.
pub fn encoded_len(bytes: &[u8], descending: bool) -> Option<usize> {
    let mask = if descending { 0xFF } else { 0x00 };
    let (first, payload) = bytes.split_first()?;
    Some(1 + payload_len(first ^ mask, payload, mask)?)
}

/// `mask` is what every byte was inverted with.
fn payload_len(rank: u8, bytes: &[u8], mask: u8) -> Option<usize> {
    let text_len = |bytes: &[u8]| Some(memchr::memchr(END ^ mask, bytes)? + 1);
    let prefixed_len = |bytes: &[u8]| {
        let length: [u8; 4] = *bytes.first_chunk()?;
        Some(u32::from_be_bytes(length.map(|byte| byte ^ mask)) as usize)
    };
    let length = match rank {
        rank::MIN_KEY | rank::UNDEFINED | rank::NULL | rank::MAX_KEY => 0,
        rank::NUMBER => number_len(bytes, mask)?,
        rank::STRING | rank::JAVASCRIPT => text_len(bytes)?,
        rank::OBJECT => fields_len(bytes, mask)?,
        rank::ARRAY => {
            let mut length = 0;
            while bytes.get(length)? ^ mask != END {
                length += 1 + payload_len(bytes.get(length)? ^ mask, bytes.get(length + 1..)?, mask)?;
            }
            length + 1
        }
        rank::BINARY => 5 + prefixed_len(bytes)?,
        rank::OBJECT_ID => 12,
        rank::BOOLEAN => 1,
        rank::DATE | rank::TIMESTAMP => 8,
        rank::REGEX => {
            let pattern = text_len(bytes)?;
            pattern + text_len(bytes.get(pattern..)?)?
        }
        rank::DB_POINTER => 4 + prefixed_len(bytes)?,
        rank::JAVASCRIPT_WITH_SCOPE => {
            let code = text_len(bytes)?;
            code + fields_len(bytes.get(code..)?, mask)?
        }
        _ => return None,
    };
    (length <= bytes.len()).then_some(length)
}

fn number_len(bytes: &[u8], mask: u8) -> Option<usize> {
    const DOUBLE_BYTES: usize = 8;
    let is_nan = bytes.get(..DOUBLE_BYTES)?.iter().all(|byte| byte ^ mask == 0);
    let negative = (bytes.first()? ^ mask) & 0x80 == 0;
    let mask = if negative { !mask } else { mask };
    if is_nan || bytes.get(DOUBLE_BYTES)? ^ mask == EXACT {
        return Some(DOUBLE_BYTES + 1);
    }
    let digits = DOUBLE_BYTES + 3;
    Some(digits + memchr::memchr(END ^ mask, bytes.get(digits..)?)? + 1)
}

fn fields_len(bytes: &[u8], mask: u8) -> Option<usize> {
    let mut length = 0;
    while bytes.get(length)? ^ mask != END {
        let name = length + 1;
        let value = name + memchr::memchr(END ^ mask, bytes.get(name..)?)? + 1;
        length = value + payload_len(bytes.get(length)? ^ mask, bytes.get(value..)?, mask)?;
    }
    Some(length + 1)
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
