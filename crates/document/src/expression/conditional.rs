//! `$cond`, `$ifNull`, `$switch`.
//!
//! Always holds: a branch that is not taken is not evaluated.

use base::{Code, Error, Result};

use super::operators::{Field, required};
use super::parse::Parser;
use super::{Call, Expression, Outcome, is_nullish};
use crate::value::{DocRef, Value};

static COND_FIELDS: &[Field] = &[required("if"), required("then"), required("else")];

/// `[if, then, else]`, from either form.
pub(crate) fn parse_cond(value: &Value<'_>, parser: &mut Parser<'_>) -> Result<Vec<Option<Expression>>> {
    let Value::Document(document) = value else {
        let elements: Vec<_> = match value {
            Value::Array(array) => array.iter().collect(),
            single => vec![*single],
        };
        if elements.len() != 3 {
            let count = elements.len();
            let message = format!("Expression $cond takes exactly 3 arguments. {count} were passed in.");
            return Err(Error::new(Code(16020), message));
        }
        return elements.iter().map(|element| parser.expression(element).map(Some)).collect();
    };
    for (name, _) in document.iter() {
        if !COND_FIELDS.iter().any(|field| field.name == name) {
            return Err(Error::new(Code(17083), format!("Unrecognized parameter to $cond: {name}")));
        }
    }
    for (field, code) in COND_FIELDS.iter().zip([17080, 17081, 17082]) {
        if document.get(field.name).is_none() {
            return Err(Error::new(Code(code), format!("Missing '{}' parameter to $cond", field.name)));
        }
    }
    parser.named("$cond", COND_FIELDS, value)
}

pub(crate) fn cond<'a>(call: &Call<'a>) -> Outcome<'a> {
    let is_true = call.get(0)?.is_some_and(|condition| condition.is_true());
    call.get(if is_true { 1 } else { 2 })
}

pub(crate) fn if_null<'a>(call: &Call<'a>) -> Outcome<'a> {
    let last = call.len().saturating_sub(1);
    for index in 0..last {
        let operand = call.get(index)?;
        if !is_nullish(&operand) {
            return Ok(operand);
        }
    }
    call.get(last)
}

/// `[default, case, then, case, then, ..]`
pub(crate) fn parse_switch(value: &Value<'_>, parser: &mut Parser<'_>) -> Result<Vec<Option<Expression>>> {
    let document = value.as_document().ok_or_else(|| {
        let message = format!("$switch requires an object as an argument, found: {}", value.kind().name());
        Error::new(Code(40060), message)
    })?;
    let mut arguments = vec![None];
    let mut default = None;
    for (name, value) in document.iter() {
        match name {
            "default" => default = Some(parser.expression(&value)?),
            "branches" => {
                let branches = value.as_array().ok_or_else(|| {
                    let kind = value.kind().name();
                    let message = format!("$switch expected an array for 'branches', found: {kind}");
                    Error::new(Code(40061), message)
                })?;
                for branch in branches.iter() {
                    parse_branch(&branch, parser, &mut arguments)?;
                }
            }
            _ => {
                let message = format!("$switch found an unknown argument: {name}");
                return Err(Error::new(Code(40067), message));
            }
        }
    }
    if arguments.len() < 2 {
        return Err(Error::new(Code(40068), "$switch requires at least one branch."));
    }
    if let Some(first) = arguments.first_mut() {
        *first = default;
    }
    Ok(arguments)
}

fn parse_branch(
    branch: &Value<'_>,
    parser: &mut Parser<'_>,
    arguments: &mut Vec<Option<Expression>>,
) -> Result<()> {
    let document: DocRef<'_> = branch.as_document().ok_or_else(|| {
        let message =
            format!("$switch expected each branch to be an object, found: {}", branch.kind().name());
        Error::new(Code(40062), message)
    })?;
    if let Some((name, _)) = document.iter().find(|(name, _)| !matches!(*name, "case" | "then")) {
        let message = format!("$switch found an unknown argument to a branch: {name}");
        return Err(Error::new(Code(40063), message));
    }
    for (name, code) in [("case", 40064), ("then", 40065)] {
        let part = document.get(name).ok_or_else(|| {
            let message = format!("$switch requires each branch have a '{name}' expression");
            Error::new(Code(code), message)
        })?;
        arguments.push(Some(parser.expression(&part)?));
    }
    Ok(())
}

pub(crate) fn switch<'a>(call: &Call<'a>) -> Outcome<'a> {
    for case in (1..call.len()).step_by(2) {
        if call.get(case)?.is_some_and(|condition| condition.is_true()) {
            return call.get(case + 1);
        }
    }
    if call.has(0) {
        return call.get(0);
    }
    let message = "$switch could not find a matching branch for an input, and no default was specified.";
    Err(Error::new(Code(40066), message))
}
