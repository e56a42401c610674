//! `$add $subtract $multiply $divide $mod $abs $ceil $floor $round $trunc`.
//!
//! Numbers promote as `number` says; dates take part in `$add` and `$subtract`. A null or missing operand answers null.

use base::{Code, Error, Result};
use bson::{Bson, DateTime};

use super::{Call, Operand, Outcome, is_nullish, kind_name, null, value};
use crate::number::Numeric;
use crate::number::arithmetic::Rounding;
use crate::value::Value;

pub(crate) fn add<'a>(call: &Call<'a>) -> Outcome<'a> {
    let mut total = Numeric::Int32(0);
    let mut only_ints = true;
    let mut date: Option<i64> = None;
    for index in 0..call.len() {
        let operand = call.get(index)?;
        if is_nullish(&operand) {
            return null();
        }
        match operand.as_ref().map(Operand::value) {
            Some(Value::DateTime(_)) if date.is_some() => {
                return Err(Error::new(Code(16612), "only one date allowed in an $add expression"));
            }
            Some(Value::DateTime(millis)) => date = Some(millis),
            _ => {
                let number = operand.as_ref().and_then(Operand::number).ok_or_else(|| {
                    let kind = kind_name(&operand);
                    Error::type_mismatch(format!("$add only supports numeric or date types, not {kind}"))
                })?;
                only_ints &= matches!(number, Numeric::Int32(_));
                total = total.widening_add(number);
            }
        }
    }
    match (date, total) {
        (Some(millis), _) => value(date_after("$add", millis, total)?),
        (None, Numeric::Int64(sum)) if only_ints => value(Numeric::int_or_long(sum).to_bson()),
        _ => value(total.to_bson()),
    }
}

pub(crate) fn subtract<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (left, right) = (call.get(0)?, call.get(1)?);
    if is_nullish(&left) || is_nullish(&right) {
        return null();
    }
    if let (Some(a), Some(b)) = (number(&left), number(&right)) {
        return value(a.widening_subtract(b).to_bson());
    }
    match (left.as_ref().map(Operand::value), right.as_ref().map(Operand::value)) {
        (Some(Value::DateTime(a)), Some(Value::DateTime(b))) => {
            let overflow = || Error::new(Code::OVERFLOW, "date overflow in $subtract");
            value(a.checked_sub(b).ok_or_else(overflow)?)
        }
        (Some(Value::DateTime(a)), Some(_)) => match number(&right) {
            Some(b) => value(date_after("$subtract", a, Numeric::Int32(0).widening_subtract(b))?),
            None => {
                let message = format!("can't $subtract {} from Date", kind_name(&right));
                Err(Error::type_mismatch(message))
            }
        },
        _ => {
            let message = format!("can't $subtract {} from {}", kind_name(&right), kind_name(&left));
            Err(Error::type_mismatch(message))
        }
    }
}

pub(crate) fn multiply<'a>(call: &Call<'a>) -> Outcome<'a> {
    let mut product = Numeric::Int32(1);
    for index in 0..call.len() {
        let operand = call.get(index)?;
        if is_nullish(&operand) {
            return null();
        }
        let factor = number(&operand).ok_or_else(|| {
            let kind = kind_name(&operand);
            Error::type_mismatch(format!("$multiply only supports numeric types, not {kind}"))
        })?;
        product = product.widening_multiply(factor);
    }
    value(product.to_bson())
}

pub(crate) fn divide<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (left, right) = (call.get(0)?, call.get(1)?);
    if is_nullish(&left) || is_nullish(&right) {
        return null();
    }
    let (Some(a), Some(b)) = (number(&left), number(&right)) else {
        let message = format!(
            "$divide only supports numeric types, not {} and {}",
            kind_name(&left),
            kind_name(&right)
        );
        return Err(Error::type_mismatch(message));
    };
    value(a.divide(b).ok_or_else(|| Error::bad_value("can't $divide by zero"))?.to_bson())
}

pub(crate) fn modulo<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (left, right) = (call.get(0)?, call.get(1)?);
    if is_nullish(&left) || is_nullish(&right) {
        return null();
    }
    let (Some(a), Some(b)) = (number(&left), number(&right)) else {
        let (a, b) = (kind_name(&left), kind_name(&right));
        return Err(Error::new(Code(16611), format!("$mod only supports numeric types, not {a} and {b}")));
    };
    value(a.remainder(b).ok_or_else(|| Error::new(Code(16610), "can't $mod by zero"))?.to_bson())
}

pub(crate) fn abs<'a>(call: &Call<'a>) -> Outcome<'a> {
    map_number(call, |number| {
        let overflow = || Error::new(Code(28680), "can't take $abs of long long min");
        number.abs().ok_or_else(overflow)
    })
}

pub(crate) fn ceil<'a>(call: &Call<'a>) -> Outcome<'a> {
    map_number(call, |number| Ok(number.round_to(0, Rounding::Ceiling).unwrap_or(number)))
}

pub(crate) fn floor<'a>(call: &Call<'a>) -> Outcome<'a> {
    map_number(call, |number| Ok(number.round_to(0, Rounding::Floor).unwrap_or(number)))
}

pub(crate) fn round<'a>(call: &Call<'a>) -> Outcome<'a> {
    round_with(call, Rounding::HalfEven)
}

pub(crate) fn trunc<'a>(call: &Call<'a>) -> Outcome<'a> {
    round_with(call, Rounding::Truncate)
}

fn round_with<'a>(call: &Call<'a>, rounding: Rounding) -> Outcome<'a> {
    let name = call.name();
    let operand = call.get(0)?;
    let place = if call.has(1) { call.get(1)? } else { Some(Operand::from(0)) };
    if is_nullish(&operand) || is_nullish(&place) {
        return null();
    }
    let number = number(&operand).ok_or_else(|| {
        let kind = kind_name(&operand);
        Error::new(Code(51081), format!("{name} only supports numeric types, not {kind}"))
    })?;
    let place = place.as_ref().and_then(Operand::number).and_then(|place| place.number().integer());
    let place = place.ok_or_else(|| {
        Error::new(Code(51082), format!("precision argument to  {name} must be a integral value"))
    })?;
    if !(-20..=100).contains(&place) {
        let message = format!("cannot apply {name} with precision value {place} value must be in [-20, 100]");
        return Err(Error::new(Code(51083), message));
    }
    let overflow = || {
        Error::new(
            Code(51080),
            format!("invalid conversion from Decimal128 result in {name} resulting from arguments"),
        )
    };
    value(number.round_to(place, rounding).ok_or_else(overflow)?.to_bson())
}

/// Applies `f` to the one argument, a number; null stays null.
pub(crate) fn map_number<'a>(call: &Call<'a>, f: impl FnOnce(Numeric) -> Result<Numeric>) -> Outcome<'a> {
    let operand = call.get(0)?;
    if is_nullish(&operand) {
        return null();
    }
    let number = number(&operand).ok_or_else(|| {
        let message = format!("{} only supports numeric types, not {}", call.name(), kind_name(&operand));
        Error::new(Code(28765), message)
    })?;
    value(f(number)?.to_bson())
}

fn number(operand: &Option<Operand<'_>>) -> Option<Numeric> {
    operand.as_ref().and_then(Operand::number)
}

/// The date that is `millis` milliseconds after another; a fraction of a millisecond rounds.
fn date_after(operator: &str, date: i64, millis: Numeric) -> Result<Bson> {
    let whole = match millis {
        Numeric::Double(millis) => Numeric::Double(millis.round()),
        Numeric::Decimal(millis) => Numeric::Decimal(millis.quantize(0, Rounding::HalfEven)),
        integer => integer,
    };
    let overflow = || Error::new(Code::OVERFLOW, format!("date overflow in {operator}"));
    let whole = whole.number().truncated().ok_or_else(overflow)?;
    Ok(Bson::DateTime(DateTime::from_millis(date.checked_add(whole).ok_or_else(overflow)?)))
}
