//! The parts of a date: `$year $month $dayOfMonth .. $millisecond`.

use base::{Code, Error, Result};
use bson::Bson;

use super::parse::Parser;
use super::timezone::{Civil, SECOND_MS, TimeZone};
use super::{Call, Expression, Operand, Outcome, null, value};
use crate::value::Value;

/// `[date, timezone]`, from `{date, timezone}` or a date alone.
pub(crate) fn parse_part(value: &Value<'_>, parser: &mut Parser<'_>) -> Result<Vec<Option<Expression>>> {
    match value {
        Value::Document(document)
            if !document.iter().next().is_some_and(|(name, _)| name.starts_with('$')) =>
        {
            let (mut date, mut timezone) = (None, None);
            for (name, value) in document.iter() {
                match name {
                    "date" => date = Some(parser.expression(&value)?),
                    "timezone" => timezone = Some(parser.expression(&value)?),
                    _ => {
                        let message = format!("unrecognized option to a date part: \"{name}\"");
                        return Err(Error::new(Code(40535), message));
                    }
                }
            }
            if date.is_none() {
                return Err(Error::new(Code(40539), "missing 'date' argument to a date part"));
            }
            Ok(vec![date, timezone])
        }
        Value::Array(array) => match (array.get(0), array.get(1)) {
            (Some(date), None) => Ok(vec![Some(parser.expression(&date)?), None]),
            _ => {
                let message = format!(
                    "a date part accepts exactly one argument if given an array, but was given {}",
                    array.len()
                );
                Err(Error::new(Code(40536), message))
            }
        },
        other => Ok(vec![Some(parser.expression(other)?), None]),
    }
}

fn part<'a>(call: &Call<'a>, read: fn(Civil) -> i64) -> Outcome<'a> {
    let date = call.get(0)?;
    let Some(timezone) = TimeZone::of(&call.get(1)?, call.has(1))? else {
        return null();
    };
    match millis_of(&date)? {
        Some(millis) => value(int(read(timezone.civil(millis)))),
        None => null(),
    }
}

/// An int; the years of the most distant dates are longs.
pub(crate) fn int(number: i64) -> Bson {
    i32::try_from(number).map_or(Bson::Int64(number), Bson::Int32)
}

/// The moment that a date, a timestamp or an object id stands for; `None` for null.
pub(crate) fn millis_of(operand: &Option<Operand<'_>>) -> Result<Option<i64>> {
    let Some(operand) = operand else {
        return Ok(None);
    };
    match operand.value() {
        Value::Null | Value::Undefined => Ok(None),
        Value::DateTime(millis) => Ok(Some(millis)),
        Value::Timestamp(time) => Ok(Some(i64::from(time.seconds) * SECOND_MS)),
        Value::ObjectId([a, b, c, d, ..]) => {
            Ok(Some(i64::from(u32::from_be_bytes([a, b, c, d])) * SECOND_MS))
        }
        other => {
            let message = format!("can't convert from BSON type {} to Date", other.kind().name());
            Err(Error::new(Code(16006), message))
        }
    }
}

pub(crate) fn year<'a>(call: &Call<'a>) -> Outcome<'a> {
    part(call, |civil| civil.year)
}

pub(crate) fn month<'a>(call: &Call<'a>) -> Outcome<'a> {
    part(call, |civil| civil.month)
}

pub(crate) fn day_of_month<'a>(call: &Call<'a>) -> Outcome<'a> {
    part(call, |civil| civil.day)
}

pub(crate) fn day_of_week<'a>(call: &Call<'a>) -> Outcome<'a> {
    part(call, |civil| civil.weekday() + 1)
}

pub(crate) fn day_of_year<'a>(call: &Call<'a>) -> Outcome<'a> {
    part(call, Civil::day_of_year)
}

pub(crate) fn hour<'a>(call: &Call<'a>) -> Outcome<'a> {
    part(call, Civil::hour)
}

pub(crate) fn minute<'a>(call: &Call<'a>) -> Outcome<'a> {
    part(call, Civil::minute)
}

pub(crate) fn second<'a>(call: &Call<'a>) -> Outcome<'a> {
    part(call, Civil::second)
}

pub(crate) fn millisecond<'a>(call: &Call<'a>) -> Outcome<'a> {
    part(call, Civil::millisecond)
}

pub(crate) fn week<'a>(call: &Call<'a>) -> Outcome<'a> {
    part(call, Civil::week)
}

pub(crate) fn iso_week<'a>(call: &Call<'a>) -> Outcome<'a> {
    part(call, |civil| civil.iso_week().1)
}

pub(crate) fn iso_week_year<'a>(call: &Call<'a>) -> Outcome<'a> {
    part(call, |civil| civil.iso_week().0)
}

pub(crate) fn iso_day_of_week<'a>(call: &Call<'a>) -> Outcome<'a> {
    part(call, Civil::iso_weekday)
}
