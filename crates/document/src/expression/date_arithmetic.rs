//! `$dateAdd $dateSubtract $dateDiff $dateTrunc`.
//!
//! Days and longer units follow the local calendar, so that a day may have 23 or 25 hours; shorter units are exact.

use base::{Code, Error, Result};
use bson::{Bson, DateTime};

use super::date::millis_of;
use super::operators::{Field, optional, required};
use super::timezone::{self, Civil, DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, TimeZone};
use super::{Call, Operand, Outcome, is_nullish, kind_name, null, value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Of the calendar, in months.
    Months(i64),
    /// Of the calendar, in days.
    Days(i64),
    /// Of the clock, in milliseconds.
    Millis(i64),
}

impl Unit {
    fn parse(call: &Call<'_>, index: usize) -> Result<Option<Unit>> {
        let operand = call.get(index)?;
        if is_nullish(&operand) {
            return Ok(None);
        }
        let text = operand.as_ref().and_then(Operand::text).ok_or_else(|| {
            let message =
                format!("{} requires 'unit' to be a string, but got {}", call.name(), kind_name(&operand));
            Error::new(Code(5_439_013), message)
        })?;
        Ok(Some(match text {
            "year" => Unit::Months(12),
            "quarter" => Unit::Months(3),
            "month" => Unit::Months(1),
            "week" => Unit::Days(7),
            "day" => Unit::Days(1),
            "hour" => Unit::Millis(HOUR_MS),
            "minute" => Unit::Millis(MINUTE_MS),
            "second" => Unit::Millis(SECOND_MS),
            "millisecond" => Unit::Millis(1),
            _ => {
                let message = format!("{} parameter 'unit' value parsing failed", call.name());
                return Err(Error::failed_to_parse(format!(
                    "{message} :: caused by :: unknown time unit value: {text}"
                )));
            }
        }))
    }
}

pub(crate) static ADD_FIELDS: &[Field] =
    &[required("startDate"), required("unit"), required("amount"), optional("timezone")];

pub(crate) fn add<'a>(call: &Call<'a>) -> Outcome<'a> {
    shift(call, 1)
}

pub(crate) fn subtract<'a>(call: &Call<'a>) -> Outcome<'a> {
    shift(call, -1)
}

fn shift<'a>(call: &Call<'a>, sign: i64) -> Outcome<'a> {
    let (start, amount) = (call.get(0)?, call.get(2)?);
    let (Some(unit), Some(timezone)) = (Unit::parse(call, 1)?, TimeZone::of(&call.get(3)?, call.has(3))?)
    else {
        return null();
    };
    if is_nullish(&amount) {
        return null();
    }
    let Some(start) = date_argument(call, &start, "startDate", 5_166_403)? else {
        return null();
    };
    let amount = amount.as_ref().and_then(Operand::number).and_then(|amount| amount.number().integer());
    let amount = amount.and_then(|amount| amount.checked_mul(sign)).ok_or_else(|| {
        Error::new(Code(5_166_405), format!("{} expects integer amount of time units", call.name()))
    })?;
    let overflow = || Error::new(Code(5_166_406), format!("{} overflowed", call.name()));
    let moved = add_units(start, unit, amount, &timezone).ok_or_else(overflow)?;
    value(Bson::DateTime(DateTime::from_millis(moved)))
}

/// `None` when out of range.
fn add_units(start: i64, unit: Unit, amount: i64, timezone: &TimeZone) -> Option<i64> {
    match unit {
        Unit::Millis(millis) => start.checked_add(amount.checked_mul(millis)?),
        Unit::Days(days) => {
            let shifted = amount.checked_mul(days)?.checked_mul(DAY_MS)?;
            Some(timezone.moment(timezone.local_ms(start).checked_add(shifted)?))
        }
        Unit::Months(months) => {
            let civil = timezone.civil(start);
            let total = civil.year.checked_mul(12)?.checked_add(civil.month - 1)?;
            let total = total.checked_add(amount.checked_mul(months)?)?;
            let (year, month) = (total.div_euclid(12), total.rem_euclid(12) + 1);
            let day = civil.day.min(timezone::days_in_month(year, month));
            Some(timezone.moment(Civil { year, month, day, ..civil }.local_ms()?))
        }
    }
}

pub(crate) static DIFF_FIELDS: &[Field] = &[
    required("startDate"),
    required("endDate"),
    required("unit"),
    optional("timezone"),
    optional("startOfWeek"),
];

/// How many boundaries of the unit lie between the two dates.
pub(crate) fn diff<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (start, end) = (call.get(0)?, call.get(1)?);
    let (Some(unit), Some(timezone)) = (Unit::parse(call, 2)?, TimeZone::of(&call.get(3)?, call.has(3))?)
    else {
        return null();
    };
    let Some(first_weekday) = start_of_week(call, 4)? else {
        return null();
    };
    let start = date_argument(call, &start, "startDate", 5_166_307)?;
    let end = date_argument(call, &end, "endDate", 5_166_307)?;
    let (Some(start), Some(end)) = (start, end) else {
        return null();
    };
    let (start_civil, end_civil) = (timezone.civil(start), timezone.civil(end));
    let difference = match unit {
        Unit::Months(months) => {
            let index = |civil: Civil| (civil.year * 12 + civil.month - 1).div_euclid(months);
            index(end_civil) - index(start_civil)
        }
        Unit::Days(1) => end_civil.days() - start_civil.days(),
        Unit::Days(_) => {
            let index = |civil: Civil| (civil.days() + 4 - first_weekday).div_euclid(7);
            index(end_civil) - index(start_civil)
        }
        Unit::Millis(millis) if millis > MINUTE_MS => {
            // Hours begin on the local clock, whose offset need not be whole hours.
            let offset = timezone.offset_ms(start);
            end.saturating_add(offset).div_euclid(millis) - start.saturating_add(offset).div_euclid(millis)
        }
        Unit::Millis(millis) => end
            .div_euclid(millis)
            .checked_sub(start.div_euclid(millis))
            .ok_or_else(|| Error::new(Code(5_166_308), "dateDiff overflowed"))?,
    };
    value(difference)
}

pub(crate) static TRUNC_FIELDS: &[Field] =
    &[required("date"), required("unit"), optional("binSize"), optional("timezone"), optional("startOfWeek")];

/// The beginning of the unit, or of the bin of so many units, counted from 2000-01-01.
pub(crate) fn trunc<'a>(call: &Call<'a>) -> Outcome<'a> {
    let date = call.get(0)?;
    let (Some(unit), Some(timezone)) = (Unit::parse(call, 1)?, TimeZone::of(&call.get(3)?, call.has(3))?)
    else {
        return null();
    };
    let (Some(bin), Some(first_weekday)) = (bin_size(call)?, start_of_week(call, 4)?) else {
        return null();
    };
    let Some(millis) = date_argument(call, &date, "date", 5_439_012)? else {
        return null();
    };
    let overflow = || Error::new(Code::OVERFLOW, "date overflow in $dateTrunc");
    let truncated = truncate(millis, unit, bin, first_weekday, &timezone).ok_or_else(overflow)?;
    value(Bson::DateTime(DateTime::from_millis(truncated)))
}

/// `None` when out of range.
fn truncate(millis: i64, unit: Unit, bin: i64, first_weekday: i64, timezone: &TimeZone) -> Option<i64> {
    let reference = timezone::days_of_date(2000, 1, 1)?;
    let below = |number: i64, bin: i64| number.checked_sub(number.rem_euclid(bin));
    match unit {
        Unit::Months(months) => {
            let civil = timezone.civil(millis);
            let index = below((civil.year - 2000) * 12 + civil.month - 1, bin.checked_mul(months)?)?;
            let days = timezone::days_of_date(2000, index.checked_add(1)?, 1)?;
            Some(timezone.moment(days.checked_mul(DAY_MS)?))
        }
        Unit::Days(days) => {
            let start = if days == 7 {
                reference + (first_weekday - timezone::weekday(reference)).rem_euclid(7)
            } else {
                reference
            };
            let today = timezone.civil(millis).days();
            let index = below(today - start, bin.checked_mul(days)?)?;
            Some(timezone.moment((start.checked_add(index)?).checked_mul(DAY_MS)?))
        }
        Unit::Millis(unit_ms) => {
            let offset = timezone.offset_ms(millis);
            let start = reference * DAY_MS;
            let local = millis.checked_add(offset)?;
            start
                .checked_add(below(local.checked_sub(start)?, bin.checked_mul(unit_ms)?)?)?
                .checked_sub(offset)
        }
    }
}

/// `None` for null.
fn bin_size(call: &Call<'_>) -> Result<Option<i64>> {
    if !call.has(2) {
        return Ok(Some(1));
    }
    let operand = call.get(2)?;
    if is_nullish(&operand) {
        return Ok(None);
    }
    let number = operand.as_ref().and_then(Operand::number).and_then(|number| number.number().integer());
    let number = number.ok_or_else(|| {
        let kind = kind_name(&operand);
        let message =
            format!("$dateTrunc requires 'binSize' to be a 64-bit integer, but got value of type {kind}");
        Error::new(Code(5_439_017), message)
    })?;
    if number <= 0 {
        let message = format!("$dateTrunc requires 'binSize' to be greater than 0, but got value {number}");
        return Err(Error::new(Code(5_439_018), message));
    }
    Ok(Some(number))
}

/// 0 for Sunday, the default, to 6. `None` for null.
fn start_of_week(call: &Call<'_>, index: usize) -> Result<Option<i64>> {
    if !call.has(index) {
        return Ok(Some(0));
    }
    let operand = call.get(index)?;
    if is_nullish(&operand) {
        return Ok(None);
    }
    let text = operand.as_ref().and_then(Operand::text).map(str::to_ascii_lowercase).ok_or_else(|| {
        let message =
            format!("{} requires 'startOfWeek' to be a string, but got {}", call.name(), kind_name(&operand));
        Error::new(Code(5_439_015), message)
    })?;
    const DAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
    let day =
        (0_i64..).zip(DAYS).find(|(_, day)| *day == text || (text.len() == 3 && day.starts_with(&text)));
    day.map(|(day, _)| Some(day)).ok_or_else(|| {
        let message = format!(
            "{} parameter 'startOfWeek' value cannot be recognized as a day of a week: {text}",
            call.name()
        );
        Error::new(Code(5_439_016), message)
    })
}

/// A date; `None` for null.
fn date_argument(
    call: &Call<'_>,
    operand: &Option<Operand<'_>>,
    name: &str,
    code: i32,
) -> Result<Option<i64>> {
    millis_of(operand).map_err(|_| {
        let kind = kind_name(operand);
        Error::new(Code(code), format!("{} requires '{name}' to be a date, but got {kind}", call.name()))
    })
}
