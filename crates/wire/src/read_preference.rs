//! Read preferences: `$readPreference` as drivers send it.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{Code, Error, Result};
use document::{RawDoc, Value};
use router::command::{ReadMode, ReadPreference};

use crate::fields::{Accepts, Field, Fields, field, ignored};

/// The least `maxStalenessSeconds` that may be asked for.
const STALENESS_SECONDS_MIN: i64 = 90;

/// Reads `{mode, tags, maxStalenessSeconds}`.
pub(crate) fn parse(document: RawDoc<'_>) -> Result<ReadPreference> {
    const FIELDS: &[Field] = &[
        ignored("hedge", Accepts::Object, "reads are sent to one replica at a time"),
        field("maxStalenessSeconds", Accepts::Any),
        field("mode", Accepts::String),
        field("tags", Accepts::Array),
    ];
    let fields = Fields::read("$readPreference", FIELDS, document)?;
    let mode = match fields.str("mode") {
        Some("primary") => ReadMode::Primary,
        Some("primaryPreferred") => ReadMode::PrimaryPreferred,
        Some("secondary") => ReadMode::Secondary,
        Some("secondaryPreferred") => ReadMode::SecondaryPreferred,
        Some("nearest") => ReadMode::Nearest,
        other => {
            let message = format!("Could not parse $readPreference mode '{}'", other.unwrap_or_default());
            return Err(Error::failed_to_parse(message));
        }
    };
    let preference =
        ReadPreference { mode, tags: tags(&fields)?, staleness_max: staleness(&fields)?, causal: false };
    if mode == ReadMode::Primary && (!preference.tags.is_empty() || preference.staleness_max.is_some()) {
        let message = "mode 'primary' takes neither tags nor maxStalenessSeconds";
        return Err(Error::bad_value(message));
    }
    Ok(preference)
}

fn staleness(fields: &Fields<'_>) -> Result<Option<Duration>> {
    let seconds = match fields.value("maxStalenessSeconds") {
        None | Some(Value::Null) => return Ok(None),
        Some(number) if number.is_number() => {
            crate::fields::integral("$readPreference", "maxStalenessSeconds", &number)?
        }
        Some(_) => return Err(Error::type_mismatch("maxStalenessSeconds must be a number")),
    };
    match u64::try_from(seconds) {
        Ok(limit) if seconds >= STALENESS_SECONDS_MIN => Ok(Some(Duration::from_secs(limit))),
        // How drivers say "no limit".
        Err(_) if seconds == -1 => Ok(None),
        _ => Err(Error::new(
            Code::MAX_STALENESS_OUT_OF_RANGE,
            format!("maxStalenessSeconds must be at least {STALENESS_SECONDS_MIN}, and is {seconds}"),
        )),
    }
}

/// Sets of labels; an empty one allows every node.
fn tags(fields: &Fields<'_>) -> Result<Vec<BTreeMap<String, String>>> {
    let Some(Value::Array(sets)) = fields.value("tags") else { return Ok(Vec::new()) };
    let wrong = || Error::bad_value("$readPreference.tags must be an array of objects of strings");
    let set = |value: Value<'_>| -> Result<BTreeMap<String, String>> {
        let tags = value.as_document().ok_or_else(wrong)?;
        tags.iter()
            .map(|(name, value)| Ok((name.to_owned(), value.as_str().ok_or_else(wrong)?.to_owned())))
            .collect()
    };
    sets.iter().map(set).collect()
}
