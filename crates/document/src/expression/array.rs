//! `$size $arrayElemAt $first $last $in $slice $concatArrays $reverseArray $range $indexOfArray $isArray`.

use base::{Code, Error, Result, limits};
use bson::Bson;

use super::limit::Budget;
use super::{Call, Operand, Outcome, is_nullish, kind_name, null, value};
use crate::display::show_value;
use crate::order;
use crate::value::Value;

pub(crate) fn size<'a>(call: &Call<'a>) -> Outcome<'a> {
    let operand = call.get(0)?;
    let array = operand.as_ref().and_then(Operand::array).ok_or_else(|| {
        let message =
            format!("The argument to $size must be an array, but was of type: {}", kind_name(&operand));
        Error::new(Code(17124), message)
    })?;
    value(i32::try_from(array.len()).unwrap_or(i32::MAX))
}

pub(crate) fn is_array<'a>(call: &Call<'a>) -> Outcome<'a> {
    value(call.get(0)?.is_some_and(|operand| operand.array().is_some()))
}

pub(crate) fn element_at<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (array, index) = (call.get(0)?, call.get(1)?);
    if is_nullish(&array) || is_nullish(&index) {
        return null();
    }
    let Some(elements) = array.as_ref().and_then(Operand::array) else {
        let message = format!("$arrayElemAt's first argument must be an array, but is {}", kind_name(&array));
        return Err(Error::new(Code(28689), message));
    };
    let Some(number) = index.as_ref().and_then(Operand::number) else {
        let message =
            format!("$arrayElemAt's second argument must be a numeric value, but is {}", kind_name(&index));
        return Err(Error::new(Code(28690), message));
    };
    let Some(index) = number.number().integer().and_then(|index| i32::try_from(index).ok()) else {
        let message = format!(
            "$arrayElemAt's second argument must be representable as a 32-bit integer: {}",
            show_value(&Value::from(&number.to_bson()))
        );
        return Err(Error::new(Code(28691), message));
    };
    let position = if index >= 0 {
        usize::try_from(index).ok()
    } else {
        elements.len().checked_sub(index.unsigned_abs() as usize)
    };
    Ok(position.and_then(|position| array.and_then(|array| array.into_element(position))))
}

pub(crate) fn first<'a>(call: &Call<'a>) -> Outcome<'a> {
    end_of(call, |_| Some(0))
}

pub(crate) fn last<'a>(call: &Call<'a>) -> Outcome<'a> {
    end_of(call, |len| len.checked_sub(1))
}

fn end_of<'a>(call: &Call<'a>, position: fn(usize) -> Option<usize>) -> Outcome<'a> {
    let array = call.get(0)?;
    if is_nullish(&array) {
        return null();
    }
    let Some(elements) = array.as_ref().and_then(Operand::array) else {
        let message = format!("{}'s argument must be an array, but is {}", call.name(), kind_name(&array));
        return Err(Error::new(Code(28689), message));
    };
    let position = position(elements.len());
    Ok(position.and_then(|position| array.and_then(|array| array.into_element(position))))
}

pub(crate) fn contains<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (wanted, array) = (call.get(0)?, call.get(1)?);
    let elements = array.as_ref().and_then(Operand::array).ok_or_else(|| {
        Error::new(
            Code(40081),
            format!("$in requires an array as a second argument, found: {}", kind_name(&array)),
        )
    })?;
    let Some(wanted) = wanted else {
        return value(false);
    };
    value(elements.iter().any(|element| order::compare(&element, &wanted.value()).is_eq()))
}

pub(crate) fn concat<'a>(call: &Call<'a>) -> Outcome<'a> {
    let mut all = Vec::new();
    let mut budget = Budget::new("$concatArrays");
    for index in 0..call.len() {
        let operand = call.get(index)?;
        if is_nullish(&operand) {
            return null();
        }
        let elements = operand.as_ref().and_then(Operand::array).ok_or_else(|| {
            Error::new(
                Code(28664),
                format!("$concatArrays only supports arrays, not {}", kind_name(&operand)),
            )
        })?;
        for element in elements.iter() {
            let element = element.to_bson();
            budget.charge(&element)?;
            all.push(element);
        }
    }
    value(all)
}

pub(crate) fn reverse<'a>(call: &Call<'a>) -> Outcome<'a> {
    let operand = call.get(0)?;
    if is_nullish(&operand) {
        return null();
    }
    match operand.map(Operand::into_bson) {
        Some(Bson::Array(mut elements)) => {
            elements.reverse();
            value(elements)
        }
        other => {
            let kind = kind_name(&other.map(Operand::Owned));
            let message = format!("The argument to $reverseArray must be an array, but was of type: {kind}");
            Err(Error::new(Code(34435), message))
        }
    }
}

pub(crate) fn slice<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (array, second) = (call.get(0)?, call.get(1)?);
    let third = if call.len() > 2 { Some(call.get(2)?) } else { None };
    if is_nullish(&array) || is_nullish(&second) || third.as_ref().is_some_and(is_nullish) {
        return null();
    }
    let elements = array.as_ref().and_then(Operand::array).ok_or_else(|| {
        let message =
            format!("First argument to $slice must be an array, but is of type: {}", kind_name(&array));
        Error::new(Code(28724), message)
    })?;
    let len = i64::try_from(elements.len()).unwrap_or(i64::MAX);
    let second = slice_number(&second, "Second", 28725, 28726)?;
    let from_end = |index: i64| if index < 0 { (len + index).max(0) } else { index.min(len) };
    let (start, end) = match third {
        None if second >= 0 => (0, second.min(len)),
        None => (from_end(second), len),
        Some(third) => {
            let count = slice_number(&third, "Third", 28727, 28728)?;
            if count <= 0 {
                let message = format!("Third argument to $slice must be positive: {count}");
                return Err(Error::new(Code(28729), message));
            }
            let start = from_end(second);
            (start, (start + count).min(len))
        }
    };
    let (start, count) = (to_usize(start), to_usize(end - start));
    value(elements.iter().skip(start).take(count).map(|element| element.to_bson()).collect::<Vec<_>>())
}

fn slice_number(operand: &Option<Operand<'_>>, which: &str, not_number: i32, not_int: i32) -> Result<i64> {
    let number = operand.as_ref().and_then(Operand::number).ok_or_else(|| {
        let kind = kind_name(operand);
        let message = format!("{which} argument to $slice must be numeric, but is of type: {kind}");
        Error::new(Code(not_number), message)
    })?;
    number.number().integer().filter(|number| i32::try_from(*number).is_ok()).ok_or_else(|| {
        let message = format!("{which} argument to $slice can't be represented as a 32-bit integer");
        Error::new(Code(not_int), message)
    })
}

pub(crate) fn range<'a>(call: &Call<'a>) -> Outcome<'a> {
    let start = range_number(&call.get(0)?, "starting value", 34443, 34444)?;
    let end = range_number(&call.get(1)?, "ending value", 34445, 34446)?;
    let step = if call.len() > 2 { range_number(&call.get(2)?, "step value", 34447, 34448)? } else { 1 };
    if step == 0 {
        return Err(Error::new(Code(34449), "$range requires a non-zero step value"));
    }
    let distance = if step > 0 { end - start } else { start - end };
    let count = if distance <= 0 { 0 } else { to_usize((distance - 1) / step.abs() + 1) };
    Budget::new("$range").charge_bytes(count.saturating_mul(size_of::<Bson>()))?;
    let numbers = (0_i64..).take(count).map(|index| start + index * step);
    value(numbers.map(|number| Bson::Int32(i32::try_from(number).unwrap_or(i32::MAX))).collect::<Vec<_>>())
}

fn range_number(operand: &Option<Operand<'_>>, what: &str, not_number: i32, not_int: i32) -> Result<i64> {
    let number = operand.as_ref().and_then(Operand::number).ok_or_else(|| {
        let message = format!("$range requires a numeric {what}, found value of type:{}", kind_name(operand));
        Error::new(Code(not_number), message)
    })?;
    number.number().integer().filter(|number| i32::try_from(*number).is_ok()).ok_or_else(|| {
        let shown = show_value(&Value::from(&number.to_bson()));
        let message = format!(
            "$range requires a {what} that can be represented as a 32-bit integer, found value: {shown}"
        );
        Error::new(Code(not_int), message)
    })
}

pub(crate) fn index_of<'a>(call: &Call<'a>) -> Outcome<'a> {
    let array = call.get(0)?;
    if is_nullish(&array) {
        return null();
    }
    let elements = array.as_ref().and_then(Operand::array).ok_or_else(|| {
        let message =
            format!("$indexOfArray requires an array as a first argument, found: {}", kind_name(&array));
        Error::new(Code(40090), message)
    })?;
    let Some(wanted) = call.get(1)? else {
        return value(-1);
    };
    let (start, end) = index_bounds(call, elements.len())?;
    let found = elements
        .iter()
        .enumerate()
        .take(end)
        .skip(start)
        .find(|(_, element)| order::compare(element, &wanted.value()).is_eq());
    value(found.map_or(-1, |(index, _)| i32::try_from(index).unwrap_or(i32::MAX)))
}

/// The optional third and fourth arguments of `$indexOf..`: where to begin and where to end.
pub(crate) fn index_bounds(call: &Call<'_>, len: usize) -> Result<(usize, usize)> {
    let bound = |index: usize, what: &str| -> Result<Option<usize>> {
        if call.len() <= index {
            return Ok(None);
        }
        let operand = call.get(index)?;
        let number = operand.as_ref().and_then(Operand::number).and_then(|number| number.number().integer());
        let name = call.name();
        let number = number.ok_or_else(|| {
            let kind = kind_name(&operand);
            let message = format!("{name} requires an integral {what} index, found a value of type: {kind}");
            Error::new(Code(40096), message)
        })?;
        let negative = |_| {
            Error::new(Code(40097), format!("{name} requires a nonnegative {what} index, found: {number}"))
        };
        usize::try_from(number).map(Some).map_err(negative)
    };
    let start = bound(2, "starting")?.unwrap_or(0);
    let end = bound(3, "ending")?.unwrap_or(len).min(len);
    Ok((start, end))
}

/// Sizes of what is in memory; negative ones are none.
fn to_usize(number: i64) -> usize {
    usize::try_from(number.max(0)).unwrap_or(limits::SORT_MEMORY_BYTES_MAX)
}
