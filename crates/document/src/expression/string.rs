//! `$concat $toLower $toUpper $substr.. $split $strLen.. $strcasecmp $binarySize`.
//!
//! Numbers and dates count as strings where MongoDB lets them; null and missing are then the empty string.

use std::borrow::Cow;

use base::{Code, Error, Result};
use bson::Bson;

use super::conversion;
use super::limit::{Budget, check_string_len};
use super::{Call, Operand, Outcome, is_nullish, kind_name, null, value};
use crate::value::Value;

pub(crate) fn concat<'a>(call: &Call<'a>) -> Outcome<'a> {
    let mut joined = String::new();
    for index in 0..call.len() {
        let operand = call.get(index)?;
        if is_nullish(&operand) {
            return null();
        }
        let text = operand.as_ref().and_then(Operand::text).ok_or_else(|| {
            Error::new(Code(16702), format!("$concat only supports strings, not {}", kind_name(&operand)))
        })?;
        check_string_len("$concat", joined.len() + text.len())?;
        joined.push_str(text);
    }
    value(joined)
}

pub(crate) fn to_lower<'a>(call: &Call<'a>) -> Outcome<'a> {
    value(coerce(&call.get(0)?)?.to_ascii_lowercase())
}

pub(crate) fn to_upper<'a>(call: &Call<'a>) -> Outcome<'a> {
    value(coerce(&call.get(0)?)?.to_ascii_uppercase())
}

pub(crate) fn compare_ignoring_case<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (left, right) = (call.get(0)?, call.get(1)?);
    let (left, right) = (coerce(&left)?.to_ascii_uppercase(), coerce(&right)?.to_ascii_uppercase());
    value(left.cmp(&right) as i32)
}

pub(crate) fn substring_bytes<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (operand, name) = (call.get(0)?, "$substrBytes");
    let text = coerce(&operand)?;
    let (start, len) = (call.get(1)?, call.get(2)?);
    let number = |operand: &Option<Operand<'_>>, what: &str, code| {
        operand.as_ref().and_then(Operand::number).and_then(|number| number.number().truncated()).ok_or_else(
            || {
                let kind = kind_name(operand);
                Error::new(
                    Code(code),
                    format!("{name}:  {what} must be a numeric type (is BSON type {kind})"),
                )
            },
        )
    };
    let start = number(&start, "starting index", 16034)?;
    let len = number(&len, "length", 16035)?;
    let start = usize::try_from(start).map_err(|_| {
        Error::new(Code(50752), format!("{name}:  starting index must be non-negative (got: {start})"))
    })?;
    if start >= text.len() {
        return value("");
    }
    let end = usize::try_from(len).map_or(text.len(), |len| start.saturating_add(len).min(text.len()));
    if !text.is_char_boundary(start) {
        let message = format!("{name}:  Invalid range, starting index is a UTF-8 continuation byte.");
        return Err(Error::new(Code(28656), message));
    }
    let part = text.get(start..end).ok_or_else(|| {
        Error::new(
            Code(28657),
            format!("{name}:  Invalid range, ending index is in the middle of a UTF-8 character."),
        )
    })?;
    value(part)
}

pub(crate) fn substring_code_points<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (operand, name) = (call.get(0)?, call.name());
    let text = coerce(&operand)?;
    let start = code_point_number(&call.get(1)?, name, "starting index", 34450)?;
    let len = code_point_number(&call.get(2)?, name, "length", 34452)?;
    let len = usize::try_from(len)
        .map_err(|_| Error::new(Code(34454), format!("{name}: length must be a nonnegative integer.")))?;
    let start = usize::try_from(start).map_err(|_| {
        Error::new(Code(34455), format!("{name}: the starting index must be nonnegative integer."))
    })?;
    value(text.chars().skip(start).take(len).collect::<String>())
}

/// `code` is for a value that is no number; the next code for one that is no 32-bit integer.
fn code_point_number(operand: &Option<Operand<'_>>, name: &str, what: &str, code: i32) -> Result<i64> {
    let number = operand.as_ref().and_then(Operand::number).ok_or_else(|| {
        let kind = kind_name(operand);
        Error::new(Code(code), format!("{name}: {what} must be a numeric type (is BSON type {kind})"))
    })?;
    number.number().integer().filter(|number| i32::try_from(*number).is_ok()).ok_or_else(|| {
        let shown = number.to_f64();
        let message = format!("{name}: {what} cannot be represented as a 32-bit integral value: {shown}");
        Error::new(Code(code + 1), message)
    })
}

pub(crate) fn split<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (operand, separator) = (call.get(0)?, call.get(1)?);
    if is_nullish(&operand) || is_nullish(&separator) {
        return null();
    }
    let requires = "$split requires an expression that evaluates to a string as a";
    let text = operand.as_ref().and_then(Operand::text).ok_or_else(|| {
        Error::new(Code(40085), format!("{requires} first argument, found: {}", kind_name(&operand)))
    })?;
    let separator = separator.as_ref().and_then(Operand::text).ok_or_else(|| {
        Error::new(Code(40086), format!("{requires} second argument, found: {}", kind_name(&separator)))
    })?;
    if separator.is_empty() {
        return Err(Error::new(Code(40087), "$split requires a non-empty separator"));
    }
    let mut parts = Vec::new();
    let mut budget = Budget::new("$split");
    for part in text.split(separator) {
        let part = Bson::String(part.to_owned());
        budget.charge(&part)?;
        parts.push(part);
    }
    value(parts)
}

pub(crate) fn len_bytes<'a>(call: &Call<'a>) -> Outcome<'a> {
    len_of(call, 34473, str::len)
}

pub(crate) fn len_code_points<'a>(call: &Call<'a>) -> Outcome<'a> {
    len_of(call, 34471, |text| text.chars().count())
}

fn len_of<'a>(call: &Call<'a>, code: i32, len: fn(&str) -> usize) -> Outcome<'a> {
    let operand = call.get(0)?;
    let text = operand.as_ref().and_then(Operand::text).ok_or_else(|| {
        let message = format!("{} requires a string argument, found: {}", call.name(), kind_name(&operand));
        Error::new(Code(code), message)
    })?;
    value(i32::try_from(len(text)).unwrap_or(i32::MAX))
}

pub(crate) fn binary_size<'a>(call: &Call<'a>) -> Outcome<'a> {
    let operand = call.get(0)?;
    if is_nullish(&operand) {
        return null();
    }
    let len = match operand.as_ref().map(Operand::value) {
        Some(Value::String(text)) => text.len(),
        Some(Value::Binary { bytes, .. }) => bytes.len(),
        _ => {
            let kind = kind_name(&operand);
            let message = format!("$binarySize requires a string or BinData argument, found: {kind}");
            return Err(Error::new(Code(51276), message));
        }
    };
    value(i32::try_from(len).unwrap_or(i32::MAX))
}

/// The operand as text: strings as they are, numbers and dates in their text form, nothing as the empty string.
fn coerce<'o>(operand: &'o Option<Operand<'_>>) -> Result<Cow<'o, str>> {
    let Some(operand) = operand else {
        return Ok(Cow::Borrowed(""));
    };
    match operand.value() {
        Value::Null | Value::Undefined => Ok(Cow::Borrowed("")),
        Value::String(text) | Value::Symbol(text) | Value::JavaScript(text) => Ok(Cow::Borrowed(text)),
        other @ (Value::Int32(_)
        | Value::Int64(_)
        | Value::Double(_)
        | Value::Decimal128(_)
        | Value::DateTime(_)
        | Value::Timestamp(_)) => Ok(Cow::Owned(conversion::text_of(&other).unwrap_or_default())),
        other => {
            let message = format!("can't convert from BSON type {} to String", other.kind().name());
            Err(Error::new(Code(16007), message))
        }
    }
}
