//! Time zones and the calendar: milliseconds since the epoch to local dates and back.
//!
//! Called by the date operators. Zones come from the tz database that is linked in; the proleptic Gregorian calendar is
//! computed here, since BSON dates reach further than any library's. Algorithms: Howard Hinnant, "chrono-compatible
//! low-level date algorithms".
//!
//! Always holds: every 64-bit number of milliseconds has a local date; nothing overflows.

use std::sync::LazyLock;

use base::{Code, Error, Result};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{self, TimeZoneDatabase};

use super::{Operand, is_nullish, kind_name};

static DATABASE: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

pub(crate) const SECOND_MS: i64 = 1_000;
pub(crate) const MINUTE_MS: i64 = 60 * SECOND_MS;
pub(crate) const HOUR_MS: i64 = 60 * MINUTE_MS;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;

/// A time zone: a fixed offset or a place.
#[derive(Clone, Debug)]
pub(crate) enum TimeZone {
    /// Milliseconds east of Greenwich.
    Fixed(i64),
    /// With its rules.
    Named(tz::TimeZone),
}

/// A date and time of day in some zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// 1 to 12.
    pub(crate) month: i64,
    /// 1 to 31.
    pub(crate) day: i64,
    /// Milliseconds since midnight.
    pub(crate) time_ms: i64,
}

impl TimeZone {
    pub(crate) const UTC: TimeZone = TimeZone::Fixed(0);

    /// Reads a name (`Europe/Paris`) or an offset (`+05:30`, `+0530`, `+05`).
    pub(crate) fn parse(text: &str) -> Result<TimeZone> {
        if text == "Z" || text == "UTC" || text == "GMT" {
            return Ok(TimeZone::UTC);
        }
        if let Some(offset) = parse_offset(text) {
            return Ok(TimeZone::Fixed(offset));
        }
        let zone = DATABASE
            .get(text)
            .map_err(|_| Error::new(Code(40485), format!("unrecognized time zone identifier: \"{text}\"")))?;
        Ok(TimeZone::Named(zone))
    }

    /// The zone that an argument names; `None` for null.
    pub(crate) fn of(operand: &Option<Operand<'_>>, given: bool) -> Result<Option<TimeZone>> {
        if !given {
            return Ok(Some(TimeZone::UTC));
        }
        if is_nullish(operand) {
            return Ok(None);
        }
        let text = operand.as_ref().and_then(Operand::text).ok_or_else(|| {
            let kind = kind_name(operand);
            Error::new(Code(40517), format!("timezone must evaluate to a string, found {kind}"))
        })?;
        TimeZone::parse(text).map(Some)
    }

    pub(crate) fn is_utc(&self) -> bool {
        matches!(self, TimeZone::Fixed(0))
    }

    /// How far local time is ahead of UTC at a moment, in milliseconds.
    pub(crate) fn offset_ms(&self, millis: i64) -> i64 {
        match self {
            TimeZone::Fixed(offset) => *offset,
            TimeZone::Named(zone) => {
                let seconds = millis.div_euclid(SECOND_MS);
                let clamped = seconds.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
                let moment = Timestamp::from_second(clamped).unwrap_or(Timestamp::UNIX_EPOCH);
                i64::from(zone.to_offset(moment).seconds()) * SECOND_MS
            }
        }
    }

    /// Milliseconds since the epoch on the local clock.
    pub(crate) fn local_ms(&self, millis: i64) -> i64 {
        millis.saturating_add(self.offset_ms(millis))
    }

    /// The date and time on the local clock.
    pub(crate) fn civil(&self, millis: i64) -> Civil {
        Civil::of_local(self.local_ms(millis))
    }

    /// The moment when the local clock shows this. In a gap the clock has moved on; of two the earlier.
    pub(crate) fn moment(&self, local_ms: i64) -> i64 {
        match self {
            TimeZone::Fixed(offset) => local_ms.saturating_sub(*offset),
            TimeZone::Named(zone) => {
                let known = civil_of_jiff(local_ms)
                    .and_then(|civil| zone.to_ambiguous_timestamp(civil).compatible().ok());
                match known {
                    Some(moment) => moment.as_second() * SECOND_MS + local_ms.rem_euclid(SECOND_MS),
                    None => local_ms.saturating_sub(self.offset_ms(local_ms)),
                }
            }
        }
    }
}

impl Civil {
    pub(crate) fn of_local(local_ms: i64) -> Civil {
        let days = local_ms.div_euclid(DAY_MS);
        let (year, month, day) = date_of_days(days);
        Civil { year, month, day, time_ms: local_ms.rem_euclid(DAY_MS) }
    }

    /// Milliseconds on the local clock. `None` when out of range.
    pub(crate) fn local_ms(self) -> Option<i64> {
        days_of_date(self.year, self.month, self.day)?.checked_mul(DAY_MS)?.checked_add(self.time_ms)
    }

    /// Days since the epoch.
    pub(crate) fn days(self) -> i64 {
        days_of_date(self.year, self.month, self.day).unwrap_or(0)
    }

    pub(crate) fn hour(self) -> i64 {
        self.time_ms / HOUR_MS
    }

    pub(crate) fn minute(self) -> i64 {
        self.time_ms / MINUTE_MS % 60
    }

    pub(crate) fn second(self) -> i64 {
        self.time_ms / SECOND_MS % 60
    }

    pub(crate) fn millisecond(self) -> i64 {
        self.time_ms % SECOND_MS
    }

    /// 1 to 366.
    pub(crate) fn day_of_year(self) -> i64 {
        self.days() - days_of_date(self.year, 1, 1).unwrap_or(0) + 1
    }

    /// 0 for Sunday to 6.
    pub(crate) fn weekday(self) -> i64 {
        weekday(self.days())
    }

    /// 1 for Monday to 7.
    pub(crate) fn iso_weekday(self) -> i64 {
        (self.weekday() + 6) % 7 + 1
    }

    /// The week of the year, 0 to 53; weeks begin on Sunday.
    pub(crate) fn week(self) -> i64 {
        (self.day_of_year() + 6 - self.weekday()) / 7
    }

    /// The ISO 8601 year and week.
    pub(crate) fn iso_week(self) -> (i64, i64) {
        let thursday = self.days() + 4 - self.iso_weekday();
        let (year, _, _) = date_of_days(thursday);
        let first = days_of_date(year, 1, 1).unwrap_or(0);
        (year, (thursday - first) / 7 + 1)
    }
}

/// 0 for Sunday to 6. The epoch was a Thursday.
pub(crate) fn weekday(days: i64) -> i64 {
    (days + 4).rem_euclid(7)
}

/// Days since the epoch of the Monday that begins the ISO year. `None` when out of range.
pub(crate) fn iso_year_start(year: i64) -> Option<i64> {
    let fourth = days_of_date(year, 1, 4)?;
    Some(fourth - (weekday(fourth) + 6) % 7)
}

/// Days since the epoch; months and days beyond their range carry over. `None` when out of range.
pub(crate) fn days_of_date(year: i64, month: i64, day: i64) -> Option<i64> {
    let months = month.checked_sub(1)?;
    let year = year.checked_add(months.div_euclid(12))?;
    let month = months.rem_euclid(12) + 1;
    // Years begin in March here, so that the leap day comes last.
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era.checked_mul(146_097)?.checked_add(day_of_era - 719_468)?.checked_add(day.checked_sub(1)?)
}

pub(crate) fn date_of_days(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

pub(crate) fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `None` outside the years that the tz database covers.
fn civil_of_jiff(local_ms: i64) -> Option<DateTime> {
    let civil = Civil::of_local(local_ms);
    DateTime::new(
        i16::try_from(civil.year).ok()?,
        i8::try_from(civil.month).ok()?,
        i8::try_from(civil.day).ok()?,
        i8::try_from(civil.hour()).ok()?,
        i8::try_from(civil.minute()).ok()?,
        i8::try_from(civil.second()).ok()?,
        0,
    )
    .ok()
}

/// `+hh`, `+hhmm` or `+hh:mm`, in milliseconds.
fn parse_offset(text: &str) -> Option<i64> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest.len() {
        2 => (rest, "00"),
        4 => rest.split_at_checked(2)?,
        5 => rest.split_once(':').filter(|(hours, _)| hours.len() == 2)?,
        _ => return None,
    };
    if !hours.bytes().chain(minutes.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes) = (hours.parse::<i64>().ok()?, minutes.parse::<i64>().ok()?);
    (minutes < 60).then_some(sign * (hours * HOUR_MS + minutes * MINUTE_MS))
}
