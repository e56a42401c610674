//! Dates in literals: what `ISODate("...")` and `{$date: "..."}` accept, and how a date is written.
//!
//! Called by the constructors, the Extended JSON reader and both printers. All texts without a zone mean UTC.

use bson::DateTime;

/// First and last millisecond of the years 0 to 9999, which RFC 3339 can write.
const WRITABLE_MS: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// Reads `2024-05-01`, `2024-05-01T12:30`, `2024-05-01 12:30:15.250+02:00` and what lies between.
pub(super) fn parse(text: &str) -> Result<DateTime, String> {
    let text = text.trim();
    let refuse = || format!("{text:?} is not a date; write it as 2024-05-01 or 2024-05-01T12:30:00Z");
    let (day, time) = match text.split_once(['T', 't', ' ']) {
        Some((day, time)) => (day, time),
        None => (text, "00:00:00Z"),
    };
    let zone_at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at_checked(zone_at).ok_or_else(refuse)?;
    let seconds = if clock.matches(':').count() == 1 { ":00" } else { "" };
    let zone = match zone.as_bytes() {
        [] => "Z".to_owned(),
        [_, _, _, _, _] if zone.is_ascii() => {
            format!("{}:{}", zone.get(..3).unwrap_or_default(), zone.get(3..).unwrap_or_default())
        }
        _ => zone.to_ascii_uppercase(),
    };
    DateTime::parse_rfc3339_str(format!("{day}T{clock}{seconds}{zone}")).map_err(|_| refuse())
}

/// The date as RFC 3339 in UTC with milliseconds, if its year has four digits.
pub(super) fn write(date: DateTime) -> Option<String> {
    let ms = date.timestamp_millis();
    if !WRITABLE_MS.contains(&ms) {
        return None;
    }
    let seconds = DateTime::from_millis(ms.div_euclid(1000) * 1000).try_to_rfc3339_string().ok()?;
    let fraction = ms.rem_euclid(1000);
    let stem = seconds.strip_suffix('Z')?;
    Some(if fraction == 0 { format!("{stem}Z") } else { format!("{stem}.{fraction:03}Z") })
}
