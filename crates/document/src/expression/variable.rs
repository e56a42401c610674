//! `$let` and `$literal`, and the `let` of commands.

use base::{Code, Error, Result};

use super::parse::{Parser, not_an_object};
use super::{Call, Expression, Operand, Outcome};
use crate::context::{EvalContext, Variables};
use crate::value::{DocRef, RawDoc, Value};

/// The value as it stands, without reading `$` in it.
pub(crate) fn parse_literal(value: &Value<'_>, _: &mut Parser<'_>) -> Result<Vec<Option<Expression>>> {
    Ok(vec![Some(Expression::constant(value.to_bson()))])
}

pub(crate) fn literal<'a>(call: &Call<'a>) -> Outcome<'a> {
    call.get(0)
}

/// `[value, value, .., in]`
pub(crate) fn parse_let(value: &Value<'_>, parser: &mut Parser<'_>) -> Result<Vec<Option<Expression>>> {
    let document = value.as_document().ok_or_else(|| not_an_object(16874, "$let", value))?;
    let (mut vars, mut body) = (None, None);
    for (name, value) in document.iter() {
        match name {
            "vars" => vars = Some(value),
            "in" => body = Some(value),
            _ => return Err(Error::new(Code(16875), format!("Unrecognized parameter to $let: {name}"))),
        }
    }
    let vars = vars.ok_or_else(|| Error::new(Code(16876), "Missing 'vars' parameter to $let"))?;
    let body = body.ok_or_else(|| Error::new(Code(16877), "Missing 'in' parameter to $let"))?;
    let vars = vars.as_document().ok_or_else(|| {
        let message = format!("invalid parameter: expected an object (vars), found: {}", vars.kind().name());
        Error::new(Code(10065), message)
    })?;
    let (mut names, mut arguments) = (Vec::new(), Vec::new());
    for (name, value) in vars.iter() {
        check_name(name)?;
        arguments.push(Some(parser.expression(&value)?));
        names.push(name.to_owned());
    }
    arguments.push(Some(parser.expression_with(names, &body)?));
    Ok(arguments)
}

pub(crate) fn apply_let<'a>(call: &Call<'a>) -> Outcome<'a> {
    let body = call.len().saturating_sub(1);
    let values: Vec<_> = (0..body).map(|index| call.get(index)).collect::<Result<_>>()?;
    Ok(call.get_with(body, &values)?.map(Operand::Owned))
}

/// The variables of a command's `let`: expressions that read no document, each of which may use those before it.
///
/// Errors are MongoDB's: `FailedToParse` (9) for a name, 4890500 for an expression that reads a field, and those of
/// expressions.
pub fn command_variables(given: DocRef<'_>, cx: &EvalContext) -> Result<Variables> {
    const NOTHING: &[u8] = &[5, 0, 0, 0, 0];
    let mut variables = Variables::default();
    for (name, value) in given.iter() {
        check_name(name)?;
        let expression = Expression::parse(&value, &variables)?;
        if expression.field_paths().is_none_or(|paths| !paths.is_empty()) {
            let message = "Command let Expression tried to access a field, but this is not allowed because command \
                           let Expressions run before the query examines any documents.";
            return Err(Error::new(Code(4_890_500), message));
        }
        let value = expression.evaluate(DocRef::Raw(RawDoc::new(NOTHING)), cx)?;
        variables.insert(name, value.unwrap_or(bson::Bson::Null));
    }
    Ok(variables)
}

/// Checks the name of a variable that a user binds.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let Some(first) = name.chars().next() else {
        return Err(Error::failed_to_parse("empty variable names are not allowed"));
    };
    if name == "CURRENT" {
        return Ok(());
    }
    if !first.is_ascii_lowercase() && first.is_ascii() {
        let message = format!("'{name}' starts with an invalid character for a user variable name");
        return Err(Error::failed_to_parse(message));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii();
    if let Some(refused) = name.chars().find(|&c| !allowed(c)) {
        let message = format!("'{name}' contains an invalid character for a variable name: '{refused}'");
        return Err(Error::failed_to_parse(message));
    }
    Ok(())
}
