//! `$dateToParts` and `$dateFromParts`.

use base::{Code, Error, Result};
use bson::{Bson, DateTime, Document};

use super::date::{int, millis_of};
use super::operators::{Field, optional, required};
use super::timezone::{self, DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, TimeZone};
use super::{Call, Operand, Outcome, is_nullish, kind_name, null, value};

pub(crate) static TO_FIELDS: &[Field] = &[required("date"), optional("timezone"), optional("iso8601")];

pub(crate) fn to_parts<'a>(call: &Call<'a>) -> Outcome<'a> {
    let date = call.get(0)?;
    let Some(timezone) = TimeZone::of(&call.get(1)?, call.has(1))? else {
        return null();
    };
    let iso = call.get(2)?;
    if call.has(2) && is_nullish(&iso) {
        return null();
    }
    let Some(millis) = millis_of(&date)? else {
        return null();
    };
    let civil = timezone.civil(millis);
    let date = if iso.is_some_and(|iso| iso.is_true()) {
        let (year, week) = civil.iso_week();
        [("isoWeekYear", year), ("isoWeek", week), ("isoDayOfWeek", civil.iso_weekday())]
    } else {
        [("year", civil.year), ("month", civil.month), ("day", civil.day)]
    };
    let time = [
        ("hour", civil.hour()),
        ("minute", civil.minute()),
        ("second", civil.second()),
        ("millisecond", civil.millisecond()),
    ];
    let parts = date.into_iter().chain(time).map(|(name, part)| (name.to_owned(), int(part)));
    value(parts.collect::<Document>())
}

const YEAR: usize = 0;
const ISO_YEAR: usize = 1;
const TIMEZONE: usize = 10;

pub(crate) static FROM_FIELDS: &[Field] = &[
    optional("year"),
    optional("isoWeekYear"),
    optional("month"),
    optional("isoWeek"),
    optional("day"),
    optional("isoDayOfWeek"),
    optional("hour"),
    optional("minute"),
    optional("second"),
    optional("millisecond"),
    optional("timezone"),
];

/// Parts beyond their range carry over: month 13 is January of the next year.
pub(crate) fn from_parts<'a>(call: &Call<'a>) -> Outcome<'a> {
    let iso = call.has(ISO_YEAR);
    if iso == call.has(YEAR) {
        let message = if iso {
            "$dateFromParts does not allow mixing natural dates with ISO dates"
        } else {
            "$dateFromParts requires either 'year' or 'isoWeekYear' to be present"
        };
        return Err(Error::new(Code(if iso { 40489 } else { 40516 }), message));
    }
    let Some(timezone) = TimeZone::of(&call.get(TIMEZONE)?, call.has(TIMEZONE))? else {
        return null();
    };
    let mut parts = [0_i64; TIMEZONE];
    for (index, slot) in parts.iter_mut().enumerate() {
        let default = if index <= 5 { 1 } else { 0 };
        match part(call, index, default)? {
            Some(number) => *slot = number,
            None => return null(),
        }
    }
    let [year, iso_year, month, iso_week, day, iso_day, hour, minute, second, millisecond] = parts;
    let days = if iso {
        check_year("isoWeekYear", 31095, iso_year)?;
        timezone::iso_year_start(iso_year).map(|start| start + (iso_week - 1) * 7 + iso_day - 1)
    } else {
        check_year("year", 40523, year)?;
        timezone::days_of_date(year, month, day)
    };
    let time = hour * HOUR_MS + minute * MINUTE_MS + second * SECOND_MS + millisecond;
    let local = days.and_then(|days| days.checked_mul(DAY_MS)).and_then(|local| local.checked_add(time));
    let local = local.ok_or_else(|| Error::new(Code::OVERFLOW, "date overflow in $dateFromParts"))?;
    value(Bson::DateTime(DateTime::from_millis(timezone.moment(local))))
}

fn check_year(name: &str, code: i32, year: i64) -> Result<()> {
    if (1..=9999).contains(&year) {
        return Ok(());
    }
    let message = format!("'{name}' must evaluate to an integer in the range 1 to 9999, found {year}");
    Err(Error::new(Code(code), message))
}

/// `None` for null.
fn part(call: &Call<'_>, index: usize, default: i64) -> Result<Option<i64>> {
    if !call.has(index) {
        return Ok(Some(default));
    }
    let operand = call.get(index)?;
    if is_nullish(&operand) {
        return Ok(None);
    }
    let name = FROM_FIELDS.get(index).map_or("", |field| field.name);
    let number = operand.as_ref().and_then(Operand::number).and_then(|number| number.number().integer());
    let number = number.ok_or_else(|| {
        let kind = kind_name(&operand);
        Error::new(Code(40515), format!("'{name}' must evaluate to an integer, found {kind}"))
    })?;
    if i32::try_from(number).is_err() {
        let message =
            format!("'{name}' must evaluate to a value in the range of a 32-bit integer, found {number}");
        return Err(Error::new(Code(31034), message));
    }
    Ok(Some(number))
}
