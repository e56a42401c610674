//! `$indexOfBytes $indexOfCP $replaceOne $replaceAll`.

use base::{Code, Error, Result};

use super::array::index_bounds;
use super::limit::check_string_len;
use super::operators::{Field, required};
use super::{Call, Operand, Outcome, is_nullish, kind_name, null, value};
use crate::display::show_value;

pub(crate) static REPLACE_FIELDS: &[Field] = &[required("input"), required("find"), required("replacement")];

pub(crate) fn index_of_bytes<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (input, wanted) = (call.get(0)?, call.get(1)?);
    if is_nullish(&input) {
        return null();
    }
    let text = text_of(call, &input, 40091, "first")?;
    let wanted = text_of(call, &wanted, 40092, "second")?;
    let (start, end) = index_bounds(call, text.len())?;
    let found = text.as_bytes().get(start..end).and_then(|part| find_bytes(part, wanted.as_bytes()));
    value(found.map_or(-1, |index| position(start + index)))
}

pub(crate) fn index_of_code_points<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (input, wanted) = (call.get(0)?, call.get(1)?);
    if is_nullish(&input) {
        return null();
    }
    let text = text_of(call, &input, 40093, "first")?;
    let wanted = text_of(call, &wanted, 40094, "second")?;
    let (start, end) = index_bounds(call, text.chars().count())?;
    // Byte offsets of the code points, and of the end.
    let offsets: Vec<usize> = text.char_indices().map(|(offset, _)| offset).chain([text.len()]).collect();
    let (Some(&first), Some(&last)) = (offsets.get(start), offsets.get(end)) else {
        return value(-1);
    };
    let found = text.get(first..last).and_then(|part| part.find(wanted));
    let found = found.and_then(|offset| offsets.binary_search(&(first + offset)).ok());
    value(found.map_or(-1, position))
}

pub(crate) fn replace_one<'a>(call: &Call<'a>) -> Outcome<'a> {
    replace(call, Some(1))
}

pub(crate) fn replace_all<'a>(call: &Call<'a>) -> Outcome<'a> {
    replace(call, None)
}

fn replace<'a>(call: &Call<'a>, limit: Option<usize>) -> Outcome<'a> {
    let (input, find, replacement) = (call.get(0)?, call.get(1)?, call.get(2)?);
    let part = |operand, code, name| replace_part(call, operand, code, name);
    let (text, wanted, with) = (
        part(&input, 51746, "input")?,
        part(&find, 51745, "find")?,
        part(&replacement, 51744, "replacement")?,
    );
    let (Some(text), Some(wanted), Some(with)) = (text, wanted, with) else {
        return null();
    };
    let count = text.matches(wanted).count().min(limit.unwrap_or(usize::MAX));
    check_string_len(call.name(), text.len().saturating_add(count.saturating_mul(with.len())))?;
    value(text.replacen(wanted, with, count))
}

/// `None` for null.
fn replace_part<'o>(
    call: &Call<'_>,
    operand: &'o Option<Operand<'_>>,
    code: i32,
    name: &str,
) -> Result<Option<&'o str>> {
    if is_nullish(operand) {
        return Ok(None);
    }
    operand.as_ref().and_then(Operand::text).map(Some).ok_or_else(|| {
        let shown = operand.as_ref().map_or_else(String::new, |operand| show_value(&operand.value()));
        Error::new(Code(code), format!("{} requires that '{name}' be a string, found: {shown}", call.name()))
    })
}

fn text_of<'o>(call: &Call<'_>, operand: &'o Option<Operand<'_>>, code: i32, which: &str) -> Result<&'o str> {
    operand.as_ref().and_then(Operand::text).ok_or_else(|| {
        let message = format!(
            "{} requires a string as the {which} argument, found: {}",
            call.name(),
            kind_name(operand)
        );
        Error::new(Code(code), message)
    })
}

fn find_bytes(text: &[u8], wanted: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, wanted)
}

fn position(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}
