//! `$regexMatch $regexFind $regexFindAll`.
//!
//! Always holds: a pattern that is constant is compiled once, at parsing.

use base::{Code, Error, Result};
use bson::{Bson, doc};

use super::limit::Budget;
use super::operators::{Field, optional, required};
use super::parse::Parser;
use super::{Call, Expression, Operand, Outcome, is_nullish, null, value};
use crate::filter::Regex;
use crate::value::Value;

static FIELDS: &[Field] = &[required("input"), required("regex"), optional("options")];

/// A pattern that is known at parsing.
#[derive(Clone, Debug)]
pub(crate) struct CompiledRegex(Regex);

impl PartialEq for CompiledRegex {
    fn eq(&self, other: &CompiledRegex) -> bool {
        self.0.pattern() == other.0.pattern() && self.0.options() == other.0.options()
    }
}

impl CompiledRegex {
    pub(crate) fn to_bson(&self) -> Bson {
        Value::Regex { pattern: self.0.pattern(), options: self.0.options() }.to_bson()
    }
}

/// `[input, regex, options]`; a constant pattern with its options becomes one compiled argument.
pub(crate) fn parse(value: &Value<'_>, parser: &mut Parser<'_>) -> Result<Vec<Option<Expression>>> {
    let mut arguments = parser.named("$regexMatch", FIELDS, value)?;
    let [_, pattern, options] = arguments.as_mut_slice() else {
        return Ok(arguments);
    };
    let constant = pattern.as_ref().and_then(Expression::as_constant);
    let constant_options = match options {
        Some(options) => options.as_constant(),
        None => Some(&Bson::Null),
    };
    if let (Some(constant), Some(constant_options)) = (constant, constant_options) {
        let pattern_operand = Some(Operand::Borrowed(Value::from(constant)));
        let options_operand = Some(Operand::Borrowed(Value::from(constant_options)));
        if let Some(compiled) = compile("$regexMatch", &pattern_operand, &options_operand)? {
            *pattern = Some(Expression::compiled_regex(CompiledRegex(compiled)));
            *options = None;
        }
    }
    Ok(arguments)
}

pub(crate) fn matches<'a>(call: &Call<'a>) -> Outcome<'a> {
    let input = call.get(0)?;
    match (pattern(call)?, text_of(call, &input)?) {
        (Some(regex), Some(text)) => value(regex.is_match(text)?),
        _ => value(false),
    }
}

pub(crate) fn find<'a>(call: &Call<'a>) -> Outcome<'a> {
    let found = all(call, 1)?;
    found.into_iter().next().map_or_else(null, value)
}

pub(crate) fn find_all<'a>(call: &Call<'a>) -> Outcome<'a> {
    value(all(call, usize::MAX)?)
}

/// At most `limit` matches as `{match, idx, captures}`, the index in code points.
fn all(call: &Call<'_>, limit: usize) -> Result<Vec<Bson>> {
    let input = call.get(0)?;
    let (Some(regex), Some(text)) = (pattern(call)?, text_of(call, &input)?) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    let mut budget = Budget::new(call.name());
    let (mut counted_bytes, mut counted) = (0, 0_i32);
    for captures in regex.captures(text).take(limit) {
        let captures = captures?;
        let Some(whole) = captures.get(0) else {
            continue;
        };
        let between = text.get(counted_bytes..whole.start()).unwrap_or_default().chars().count();
        counted = counted.saturating_add(i32::try_from(between).unwrap_or(i32::MAX));
        counted_bytes = whole.start();
        let groups = (1..captures.len()).map(|group| {
            captures.get(group).map_or(Bson::Null, |group| Bson::String(group.as_str().to_owned()))
        });
        let entry = doc! { "match": whole.as_str(), "idx": counted, "captures": groups.collect::<Vec<_>>() };
        let entry = Bson::Document(entry);
        budget.charge(&entry)?;
        found.push(entry);
    }
    Ok(found)
}

/// The compiled pattern; `None` when it is null.
fn pattern(call: &Call<'_>) -> Result<Option<Regex>> {
    match call.compiled_regex(1) {
        Some(compiled) => Ok(Some(compiled.0.clone())),
        None => compile(call.name(), &call.get(1)?, &call.get(2)?),
    }
}

fn compile(
    name: &str,
    pattern: &Option<Operand<'_>>,
    options: &Option<Operand<'_>>,
) -> Result<Option<Regex>> {
    let given = match options.as_ref().map(Operand::value) {
        None | Some(Value::Null | Value::Undefined) => "",
        Some(Value::String(options)) => options,
        Some(_) => {
            return Err(Error::new(Code(51106), format!("{name} needs 'options' to be of type string")));
        }
    };
    match pattern.as_ref().map(Operand::value) {
        None | Some(Value::Null | Value::Undefined) => Ok(None),
        Some(Value::String(pattern)) => Regex::new(pattern, given).map(Some),
        Some(Value::Regex { options, .. }) if !options.is_empty() && !given.is_empty() => {
            let message =
                format!("{name}: found regex option(s) specified in both 'regex' and 'option' fields");
            Err(Error::new(Code(51107), message))
        }
        Some(Value::Regex { pattern, options }) => {
            Regex::new(pattern, if given.is_empty() { options } else { given }).map(Some)
        }
        Some(_) => {
            Err(Error::new(Code(51105), format!("{name} needs 'regex' to be of type string or regex")))
        }
    }
}

/// `None` for null.
fn text_of<'o>(call: &Call<'_>, input: &'o Option<Operand<'_>>) -> Result<Option<&'o str>> {
    if is_nullish(input) {
        return Ok(None);
    }
    let text = input.as_ref().and_then(Operand::text);
    text.map(Some)
        .ok_or_else(|| Error::new(Code(51104), format!("{} needs 'input' to be of type string", call.name())))
}
