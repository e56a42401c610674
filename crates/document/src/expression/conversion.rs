//! `$convert`, its short forms (`$toInt`, ..), `$type` and `$isNumber`.
//!
//! Always holds: a conversion never loses more than the fraction of a number; what does not fit is an error, or
//! `onError`.

use std::str::FromStr;

use base::{Code, Error, Result};
use bson::oid::ObjectId;
use bson::{Bson, DateTime};

use super::date_format::{iso_text, parse_iso};
use super::operators::{Field, optional, required};
use super::timezone::SECOND_MS;
use super::{Call, Operand, Outcome, is_nullish, kind_name, null, value};
use crate::display::show_value;
use crate::number::{Decimal, Number, Numeric};
use crate::value::{Kind, Value};

pub(crate) static CONVERT_FIELDS: &[Field] = &[
    required("input"),
    required("to"),
    optional("onError"),
    optional("onNull"),
    optional("format"),
    optional("byteOrder"),
];

pub(crate) fn convert<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (input, to) = (call.get(0)?, call.get(1)?);
    if is_nullish(&to) && !is_nullish(&input) {
        return null();
    }
    if is_nullish(&input) {
        return if call.has(3) { call.get(3) } else { null() };
    }
    let target = target_kind(&to)?;
    match convert_to(input, target) {
        Ok(converted) => value(converted),
        Err(error) if error.code == Code::CONVERSION_FAILURE && call.has(2) => call.get(2),
        Err(error) => Err(error),
    }
}

pub(crate) fn to_bool<'a>(call: &Call<'a>) -> Outcome<'a> {
    short_form(call, 8)
}

pub(crate) fn to_date<'a>(call: &Call<'a>) -> Outcome<'a> {
    short_form(call, 9)
}

pub(crate) fn to_decimal<'a>(call: &Call<'a>) -> Outcome<'a> {
    short_form(call, 19)
}

pub(crate) fn to_double<'a>(call: &Call<'a>) -> Outcome<'a> {
    short_form(call, 1)
}

pub(crate) fn to_int<'a>(call: &Call<'a>) -> Outcome<'a> {
    short_form(call, 16)
}

pub(crate) fn to_long<'a>(call: &Call<'a>) -> Outcome<'a> {
    short_form(call, 18)
}

pub(crate) fn to_object_id<'a>(call: &Call<'a>) -> Outcome<'a> {
    short_form(call, 7)
}

pub(crate) fn to_text<'a>(call: &Call<'a>) -> Outcome<'a> {
    short_form(call, 2)
}

fn short_form<'a>(call: &Call<'a>, target: i32) -> Outcome<'a> {
    let input = call.get(0)?;
    if is_nullish(&input) { null() } else { value(convert_to(input, Kind(target))?) }
}

pub(crate) fn type_name<'a>(call: &Call<'a>) -> Outcome<'a> {
    value(kind_name(&call.get(0)?))
}

pub(crate) fn is_number<'a>(call: &Call<'a>) -> Outcome<'a> {
    value(call.get(0)?.is_some_and(|operand| operand.value().is_number()))
}

/// The type that `to` names, by alias or number.
fn target_kind(to: &Option<Operand<'_>>) -> Result<Kind> {
    const TARGETS: [i32; 10] = [1, 2, 5, 7, 8, 9, 16, 18, 19, 3];
    let by_name = |name: &str| TARGETS.into_iter().map(Kind).find(|kind| kind.name() == name);
    match to.as_ref().map(Operand::value) {
        Some(Value::String(name)) => {
            by_name(name).ok_or_else(|| Error::bad_value(format!("Unknown type name: {name}")))
        }
        Some(other) => {
            let code = Number::of(&other).and_then(Number::integer);
            let known = code.and_then(|code| TARGETS.into_iter().find(|target| i64::from(*target) == code));
            known.map(Kind).ok_or_else(|| {
                let shown = show_value(&other);
                Error::failed_to_parse(format!(
                    "In $convert, numeric 'to' argument is not a known type: {shown}"
                ))
            })
        }
        None => Err(Error::failed_to_parse("$convert requires 'to' to be a type")),
    }
}

/// `input` is not null.
fn convert_to(input: Option<Operand<'_>>, target: Kind) -> Result<Bson> {
    let Some(input) = input else {
        return Ok(Bson::Null);
    };
    if input.kind() == target {
        return Ok(input.into_bson());
    }
    let value = input.value();
    let converted = match target.0 {
        1 => double_of(&value)?.map(Bson::Double),
        2 => text_of(&value).map(Bson::String),
        7 => object_id_of(&value)?,
        8 => Some(Bson::Boolean(bool_of(&value))),
        9 => date_of(&value)?.map(|millis| Bson::DateTime(DateTime::from_millis(millis))),
        16 => int_of(&value)?.map(Bson::Int32),
        18 => long_of(&value)?.map(Bson::Int64),
        19 => decimal_of(&value)?.map(|number| Bson::Decimal128(number.to_bson())),
        _ => None,
    };
    converted.ok_or_else(|| {
        let message = format!(
            "Unsupported conversion from {} to {} in $convert with no onError value",
            value.kind().name(),
            target.name()
        );
        Error::new(Code::CONVERSION_FAILURE, message)
    })
}

fn failure(message: String) -> Error {
    Error::new(Code::CONVERSION_FAILURE, format!("{message} in $convert with no onError value"))
}

fn unparsable(text: &str, what: &str) -> Error {
    failure(format!("Failed to parse number '{text}'{what}"))
}

fn overflow(value: &Value<'_>) -> Error {
    failure(format!("Conversion would overflow target type: {}", show_value(value)))
}

fn bool_of(value: &Value<'_>) -> bool {
    match value {
        Value::Boolean(flag) => *flag,
        other => Numeric::of(other).is_none_or(|number| !number.is_zero()),
    }
}

fn double_of(value: &Value<'_>) -> Result<Option<f64>> {
    Ok(Some(match value {
        Value::Boolean(flag) => f64::from(u8::from(*flag)),
        Value::DateTime(millis) => *millis as f64,
        Value::String(text) => {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
            let named = matches!(
                text.trim_start_matches(['+', '-']).to_ascii_lowercase().as_str(),
                "inf" | "infinity" | "nan"
            );
            let parsed = if plain || named { text.parse::<f64>().ok() } else { None };
            parsed.ok_or_else(|| unparsable(text, ""))?
        }
        other => match Numeric::of(other) {
            Some(number) => {
                let double = number.to_f64();
                if double.is_infinite() && number.number().is_finite() {
                    return Err(overflow(value));
                }
                double
            }
            None => return Ok(None),
        },
    }))
}

fn long_of(value: &Value<'_>) -> Result<Option<i64>> {
    Ok(Some(match value {
        Value::Boolean(flag) => i64::from(*flag),
        Value::DateTime(millis) => *millis,
        Value::String(text) => parse_integer(text)?,
        other => match Number::of(other) {
            Some(number) => whole(number, value)?,
            None => return Ok(None),
        },
    }))
}

fn int_of(value: &Value<'_>) -> Result<Option<i32>> {
    let long = match value {
        Value::Boolean(flag) => i64::from(*flag),
        Value::String(text) => parse_integer(text)?,
        other => match Number::of(other) {
            Some(number) => whole(number, value)?,
            None => return Ok(None),
        },
    };
    let narrowed = i32::try_from(long).map_err(|_| match value {
        Value::String(text) => unparsable(text, "Overflow"),
        other => overflow(other),
    })?;
    Ok(Some(narrowed))
}

fn whole(number: Number, value: &Value<'_>) -> Result<i64> {
    if number.is_nan() {
        return Err(failure("Attempt to convert NaN value to integer type".to_owned()));
    }
    if !number.is_finite() {
        return Err(failure("Attempt to convert infinity value to integer type".to_owned()));
    }
    number.truncated().ok_or_else(|| overflow(value))
}

fn parse_integer(text: &str) -> Result<i64> {
    text.parse::<i64>().map_err(|_| unparsable(text, " as an integer"))
}

fn decimal_of(value: &Value<'_>) -> Result<Option<Decimal>> {
    Ok(Some(match value {
        Value::Boolean(flag) => Numeric::Int32(i32::from(*flag)).to_decimal(),
        Value::DateTime(millis) => Numeric::Int64(*millis).to_decimal(),
        Value::String(text) => Decimal::parse(text).ok_or_else(|| unparsable(text, ""))?,
        other => match Numeric::of(other) {
            Some(number) => number.to_decimal(),
            None => return Ok(None),
        },
    }))
}

fn date_of(value: &Value<'_>) -> Result<Option<i64>> {
    Ok(Some(match value {
        Value::Timestamp(time) => i64::from(time.seconds) * SECOND_MS,
        Value::ObjectId([a, b, c, d, ..]) => i64::from(u32::from_be_bytes([*a, *b, *c, *d])) * SECOND_MS,
        Value::String(text) => parse_iso(text, None)
            .ok_or_else(|| failure(format!("Error parsing date string '{text}'; no date was recognized")))?,
        // An int is no date: it cannot hold the milliseconds of a recent one.
        Value::Int64(_) | Value::Double(_) | Value::Decimal128(_) => match Number::of(value) {
            Some(number) => whole(number, value)?,
            None => return Ok(None),
        },
        _ => return Ok(None),
    }))
}

fn object_id_of(value: &Value<'_>) -> Result<Option<Bson>> {
    let Value::String(text) = value else {
        return Ok(None);
    };
    ObjectId::from_str(text).map(|id| Some(Bson::ObjectId(id))).map_err(|_| {
        failure(format!("Failed to parse objectId '{text}': it is no string of 24 hexadecimal digits"))
    })
}

/// The value's text; `None` for types that have none.
pub(crate) fn text_of(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::String(text) | Value::Symbol(text) => (*text).to_owned(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Int32(number) => number.to_string(),
        Value::Int64(number) => number.to_string(),
        Value::Double(number) => double_text(*number),
        Value::Decimal128(number) => number.to_string(),
        Value::DateTime(millis) => iso_text(*millis),
        Value::ObjectId(id) => ObjectId::from_bytes(*id).to_hex(),
        Value::Timestamp(time) => format!("Timestamp({}, {})", time.seconds, time.counter),
        _ => return None,
    })
}

/// The shortest text that reads back as the same double; an exponent from 1e21 and below 1e-6.
fn double_text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{number:e}");
        return if text.contains("e-") { text } else { text.replace('e', "e+") };
    }
    number.to_string()
}
