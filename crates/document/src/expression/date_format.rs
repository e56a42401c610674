//! `$dateToString` and `$dateFromString`, and the formats that both understand.
//!
//! Also the ISO 8601 form that conversions to and from strings use.

use base::{Code, Error, Result};
use bson::{Bson, DateTime};

use super::date::millis_of;
use super::operators::{Field, optional, required};
use super::timezone::{self, DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, TimeZone};
use super::{Call, Operand, Outcome, is_nullish, kind_name, null, value};
use crate::display::show_value;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub(crate) static TO_STRING_FIELDS: &[Field] =
    &[required("date"), optional("format"), optional("timezone"), optional("onNull")];

pub(crate) fn to_string<'a>(call: &Call<'a>) -> Outcome<'a> {
    let date = call.get(0)?;
    let format = call.get(1)?;
    if call.has(1) && !is_nullish(&format) && format.as_ref().and_then(Operand::text).is_none() {
        let shown = format.as_ref().map_or_else(String::new, |format| show_value(&format.value()));
        let kind = kind_name(&format);
        let message =
            format!("$dateToString requires that 'format' be a string, found: {kind} with value {shown}");
        return Err(Error::new(Code(18533), message));
    }
    let timezone = TimeZone::of(&call.get(2)?, call.has(2))?;
    let Some(millis) = millis_of(&date)? else {
        return if call.has(3) { call.get(3) } else { null() };
    };
    let Some(timezone) = timezone else {
        return null();
    };
    match format.as_ref().and_then(Operand::text) {
        Some(format) => value(format_date(format, millis, &timezone)?),
        None if call.has(1) => null(),
        None if timezone.is_utc() => value(format_date("%Y-%m-%dT%H:%M:%S.%LZ", millis, &timezone)?),
        None => value(format_date("%Y-%m-%dT%H:%M:%S.%L", millis, &timezone)?),
    }
}

/// A date by a format of `%` letters.
fn format_date(format: &str, millis: i64, timezone: &TimeZone) -> Result<String> {
    let civil = timezone.civil(millis);
    let mut out = String::with_capacity(format.len() + 16);
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let Some(letter) = letters.next() else {
            return Err(Error::new(Code(18535), "Unmatched '%' at end of format string"));
        };
        match letter {
            '%' => out.push('%'),
            'Y' => out.push_str(&format!("{:04}", checked_year(civil.year)?)),
            'm' => out.push_str(&format!("{:02}", civil.month)),
            'd' => out.push_str(&format!("{:02}", civil.day)),
            'H' => out.push_str(&format!("{:02}", civil.hour())),
            'M' => out.push_str(&format!("{:02}", civil.minute())),
            'S' => out.push_str(&format!("{:02}", civil.second())),
            'L' => out.push_str(&format!("{:03}", civil.millisecond())),
            'j' => out.push_str(&format!("{:03}", civil.day_of_year())),
            'w' => out.push_str(&(civil.weekday() + 1).to_string()),
            'u' => out.push_str(&civil.iso_weekday().to_string()),
            'U' => out.push_str(&format!("{:02}", civil.week())),
            'V' => out.push_str(&format!("{:02}", civil.iso_week().1)),
            'G' => out.push_str(&format!("{:04}", checked_year(civil.iso_week().0)?)),
            'b' => out.push_str(month_name(civil.month).get(..3).unwrap_or_default()),
            'B' => out.push_str(month_name(civil.month)),
            'z' => out.push_str(&offset_text(timezone.offset_ms(millis))),
            'Z' => out.push_str(&format!("{:+}", timezone.offset_ms(millis) / MINUTE_MS)),
            other => {
                let message = format!("Invalid format character '%{other}' in format string");
                return Err(Error::new(Code(18536), message));
            }
        }
    }
    Ok(out)
}

fn checked_year(year: i64) -> Result<i64> {
    if (0..=9999).contains(&year) {
        return Ok(year);
    }
    let message = format!("$dateToString is only defined on year 0-9999, tried to use year {year}");
    Err(Error::new(Code(18537), message))
}

fn month_name(month: i64) -> &'static str {
    let index = usize::try_from(month - 1).unwrap_or(0);
    MONTHS.get(index).copied().unwrap_or_default()
}

fn offset_text(offset_ms: i64) -> String {
    let minutes = offset_ms.abs() / MINUTE_MS;
    let sign = if offset_ms < 0 { '-' } else { '+' };
    format!("{sign}{:02}{:02}", minutes / 60, minutes % 60)
}

/// `2020-01-02T03:04:05.006Z`; years beyond four digits are written out.
pub(crate) fn iso_text(millis: i64) -> String {
    let civil = TimeZone::UTC.civil(millis);
    let (hour, minute, second, ms) = (civil.hour(), civil.minute(), civil.second(), civil.millisecond());
    format!(
        "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z",
        civil.year, civil.month, civil.day
    )
}

pub(crate) static FROM_STRING_FIELDS: &[Field] = &[
    required("dateString"),
    optional("format"),
    optional("timezone"),
    optional("onError"),
    optional("onNull"),
];

pub(crate) fn from_string<'a>(call: &Call<'a>) -> Outcome<'a> {
    let text = call.get(0)?;
    let format = call.get(1)?;
    let timezone = call.get(2)?;
    if is_nullish(&text) {
        return if call.has(4) { call.get(4) } else { null() };
    }
    if (call.has(1) && is_nullish(&format)) || (call.has(2) && is_nullish(&timezone)) {
        return null();
    }
    match read_date(&text, &format, call.has(2).then_some(&timezone)) {
        Ok(millis) => value(Bson::DateTime(DateTime::from_millis(millis))),
        Err(error) if error.code == Code::CONVERSION_FAILURE && call.has(3) => call.get(3),
        Err(error) => Err(error),
    }
}

fn read_date(
    text: &Option<Operand<'_>>,
    format: &Option<Operand<'_>>,
    timezone: Option<&Option<Operand<'_>>>,
) -> Result<i64> {
    let shown = |operand: &Option<Operand<'_>>| {
        let shown = operand.as_ref().map_or_else(String::new, |operand| show_value(&operand.value()));
        format!("{} with value {shown}", kind_name(operand))
    };
    let Some(string) = text.as_ref().and_then(Operand::text) else {
        let message =
            format!("$dateFromString requires that 'dateString' be a string, found: {}", shown(text));
        return Err(Error::new(Code::CONVERSION_FAILURE, message));
    };
    let zone = match timezone {
        Some(operand) => TimeZone::of(operand, true)?,
        None => None,
    };
    let Some(format) = format else {
        return parse_iso(string, zone.as_ref()).ok_or_else(|| unreadable(string, "no date was recognized"));
    };
    let Some(format) = format.text() else {
        let message = format!(
            "$dateFromString requires that 'format' be a string, found: {}",
            kind_name(&Some(format.clone()))
        );
        return Err(Error::new(Code(40684), message));
    };
    parse_format(string, format, zone.as_ref())
}

fn unreadable(text: &str, why: &str) -> Error {
    let message = format!("Error parsing date string '{text}'; {why}");
    Error::new(Code::CONVERSION_FAILURE, message)
}

/// What was read of a date so far.
#[derive(Default)]
struct Parts {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    iso_year: Option<i64>,
    iso_week: Option<i64>,
    iso_day: Option<i64>,
    time_ms: i64,
    offset_ms: Option<i64>,
}

impl Parts {
    /// `None` when the parts make no date.
    fn moment(&self, zone: Option<&TimeZone>) -> Option<i64> {
        let days = match (self.year, self.iso_year) {
            (Some(year), None) => match self.day_of_year {
                Some(day) => timezone::days_of_date(year, 1, day)?,
                None => {
                    let (month, day) = (self.month.unwrap_or(1), self.day.unwrap_or(1));
                    if !(1..=12).contains(&month)
                        || !(1..=timezone::days_in_month(year, month)).contains(&day)
                    {
                        return None;
                    }
                    timezone::days_of_date(year, month, day)?
                }
            },
            (None, Some(year)) => {
                let (week, day) = (self.iso_week.unwrap_or(1), self.iso_day.unwrap_or(1));
                timezone::iso_year_start(year)? + (week - 1) * 7 + day - 1
            }
            _ => return None,
        };
        let local = days.checked_mul(DAY_MS)?.checked_add(self.time_ms)?;
        match (self.offset_ms, zone) {
            (Some(offset), None) => local.checked_sub(offset),
            (None, Some(zone)) => Some(zone.moment(local)),
            (None, None) => Some(local),
            // A zone in the text and one beside it contradict each other.
            (Some(_), Some(_)) => None,
        }
    }
}

/// A cursor over the text.
struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    /// From `min` to `max` digits.
    fn digits(&mut self, min: usize, max: usize) -> Option<i64> {
        let count = self.rest.bytes().take(max).take_while(u8::is_ascii_digit).count();
        if count < min {
            return None;
        }
        let (digits, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        digits.parse().ok()
    }

    /// Digits with a value in the range.
    fn number(&mut self, min: usize, max: usize, low: i64, high: i64) -> Option<i64> {
        self.digits(min, max).filter(|number| (low..=high).contains(number))
    }

    fn skip(&mut self, expected: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(expected)?;
        Some(())
    }

    /// One to three digits of a fraction of a second, in milliseconds; further digits are dropped.
    fn millis(&mut self) -> Option<i64> {
        let count = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        let kept = digits.get(..count.min(3)).filter(|kept| !kept.is_empty())?;
        format!("{kept:0<3}").parse().ok()
    }

    /// `Z`, `+hh`, `+hhmm`, `+hh:mm`.
    fn offset(&mut self) -> Option<i64> {
        if self.rest.starts_with(['Z', 'z']) {
            self.rest = self.rest.get(1..)?;
            return Some(0);
        }
        let sign = if self.rest.starts_with('-') { -1 } else { 1 };
        self.rest = self.rest.strip_prefix(['+', '-'])?;
        let hours = self.number(2, 2, 0, 23)?;
        let minutes = match self.rest.bytes().next() {
            Some(b':') => {
                self.skip(':')?;
                self.number(2, 2, 0, 59)?
            }
            Some(digit) if digit.is_ascii_digit() => self.number(2, 2, 0, 59)?,
            _ => 0,
        };
        Some(sign * (hours * HOUR_MS + minutes * MINUTE_MS))
    }

    fn month_name(&mut self, full: bool) -> Option<i64> {
        for (number, name) in (1_i64..).zip(MONTHS) {
            let name = if full { name } else { name.get(..3)? };
            let matches = self.rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
            if matches {
                self.rest = self.rest.get(name.len()..)?;
                return Some(number);
            }
        }
        None
    }
}

/// ISO 8601 in its usual forms: date, date and time with `T` or a space, fraction, zone.
pub(crate) fn parse_iso(text: &str, zone: Option<&TimeZone>) -> Option<i64> {
    let mut reader = Reader { rest: text.trim() };
    let mut parts = Parts { year: reader.digits(4, 4), ..Parts::default() };
    parts.year?;
    reader.skip('-')?;
    parts.month = Some(reader.number(1, 2, 1, 12)?);
    if reader.skip('-').is_some() {
        parts.day = Some(reader.number(1, 2, 1, 31)?);
    }
    if reader.skip('T').is_some()
        || reader.skip('t').is_some()
        || (reader.rest.starts_with(' ') && reader.skip(' ').is_some())
    {
        let mut time = reader.number(1, 2, 0, 23)? * HOUR_MS;
        reader.skip(':')?;
        time += reader.number(2, 2, 0, 59)? * MINUTE_MS;
        if reader.skip(':').is_some() {
            time += reader.number(2, 2, 0, 59)? * SECOND_MS;
            if reader.skip('.').is_some() || reader.skip(',').is_some() {
                time += reader.millis()?;
            }
        }
        parts.time_ms = time;
    }
    reader.rest = reader.rest.trim_start();
    if !reader.rest.is_empty() {
        parts.offset_ms = match reader.offset() {
            Some(offset) => Some(offset),
            None => return named_zone(&reader, &parts, zone),
        };
    }
    if reader.rest.is_empty() { parts.moment(zone) } else { None }
}

/// A zone's name at the end of the text.
fn named_zone(reader: &Reader<'_>, parts: &Parts, zone: Option<&TimeZone>) -> Option<i64> {
    let named = TimeZone::parse(reader.rest).ok()?;
    if zone.is_some() { None } else { parts.moment(Some(&named)) }
}

fn parse_format(text: &str, format: &str, zone: Option<&TimeZone>) -> Result<i64> {
    let mut reader = Reader { rest: text };
    let mut parts = Parts::default();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            reader.skip(letter).ok_or_else(|| unreadable(text, &format!("expected '{letter}'")))?;
            continue;
        }
        let Some(letter) = letters.next() else {
            return Err(Error::new(Code(18535), "Unmatched '%' at end of format string"));
        };
        let read = read_part(&mut reader, &mut parts, letter)?;
        read.ok_or_else(|| unreadable(text, &format!("the part '%{letter}' was not found")))?;
    }
    if !reader.rest.is_empty() {
        return Err(unreadable(text, "trailing data"));
    }
    parts.moment(zone).ok_or_else(|| unreadable(text, "the parts make no date"))
}

fn read_part(reader: &mut Reader<'_>, parts: &mut Parts, letter: char) -> Result<Option<()>> {
    let mut time = |number: Option<i64>, unit: i64| number.map(|number| parts.time_ms += number * unit);
    Ok(match letter {
        'H' => time(reader.number(1, 2, 0, 23), HOUR_MS),
        'M' => time(reader.number(1, 2, 0, 59), MINUTE_MS),
        'S' => time(reader.number(1, 2, 0, 59), SECOND_MS),
        'L' => time(reader.millis(), 1),
        '%' => reader.skip('%'),
        _ => {
            let (slot, number) = match letter {
                'Y' => (&mut parts.year, reader.digits(4, 4)),
                'm' => (&mut parts.month, reader.number(1, 2, 1, 12)),
                'd' => (&mut parts.day, reader.number(1, 2, 1, 31)),
                'j' => (&mut parts.day_of_year, reader.number(3, 3, 1, 366)),
                'G' => (&mut parts.iso_year, reader.digits(4, 4)),
                'V' => (&mut parts.iso_week, reader.number(1, 2, 1, 53)),
                'u' => (&mut parts.iso_day, reader.number(1, 1, 1, 7)),
                'b' => (&mut parts.month, reader.month_name(false)),
                'B' => (&mut parts.month, reader.month_name(true)),
                'z' => (&mut parts.offset_ms, reader.offset()),
                'Z' => {
                    let sign = if reader.rest.starts_with('-') { -1 } else { 1 };
                    reader.rest = reader.rest.strip_prefix(['+', '-']).unwrap_or(reader.rest);
                    (&mut parts.offset_ms, reader.digits(1, 4).map(|minutes| sign * minutes * MINUTE_MS))
                }
                other => {
                    let message = format!("Invalid format character '%{other}' in format string");
                    return Err(Error::new(Code(18536), message));
                }
            };
            *slot = number;
            number.map(|_| ())
        }
    })
}
