//! `$trim $ltrim $rtrim`: white space or given characters off the ends of a string.

use base::{Code, Error};

use super::operators::{Field, optional, required};
use super::{Call, Operand, Outcome, is_nullish, kind_name, null, value};
use crate::display::show_value;

pub(crate) static FIELDS: &[Field] = &[required("input"), optional("chars")];

/// What is taken off when no characters are named.
const WHITE_SPACE: &[char] = &[
    '\0', ' ', '\t', '\n', '\u{b}', '\u{c}', '\r', '\u{a0}', '\u{1680}', '\u{2000}', '\u{2001}', '\u{2002}',
    '\u{2003}', '\u{2004}', '\u{2005}', '\u{2006}', '\u{2007}', '\u{2008}', '\u{2009}', '\u{200a}',
];

pub(crate) fn trim<'a>(call: &Call<'a>) -> Outcome<'a> {
    trim_with(call, |text, chars| text.trim_matches(chars))
}

pub(crate) fn ltrim<'a>(call: &Call<'a>) -> Outcome<'a> {
    trim_with(call, |text, chars| text.trim_start_matches(chars))
}

pub(crate) fn rtrim<'a>(call: &Call<'a>) -> Outcome<'a> {
    trim_with(call, |text, chars| text.trim_end_matches(chars))
}

fn trim_with<'a>(call: &Call<'a>, cut: for<'t> fn(&'t str, &[char]) -> &'t str) -> Outcome<'a> {
    let (input, chars) = (call.get(0)?, call.get(1)?);
    if is_nullish(&input) || (call.has(1) && is_nullish(&chars)) {
        return null();
    }
    let refuse = |code, what: &str, operand: &Option<Operand<'_>>| {
        let shown = operand.as_ref().map_or_else(String::new, |operand| show_value(&operand.value()));
        let kind = kind_name(operand);
        let message =
            format!("{} requires {what} to be a string, got {shown} (of type {kind}) instead.", call.name());
        Err(Error::new(Code(code), message))
    };
    let Some(text) = input.as_ref().and_then(Operand::text) else {
        return refuse(50699, "its input", &input);
    };
    if !call.has(1) {
        return value(cut(text, WHITE_SPACE));
    }
    let Some(chars) = chars.as_ref().and_then(Operand::text) else {
        return refuse(50700, "'chars'", &chars);
    };
    value(cut(text, &chars.chars().collect::<Vec<_>>()))
}
