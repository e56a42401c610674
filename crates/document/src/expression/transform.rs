//! `$map $filter $reduce $zip $sortArray`: whole arrays, element by element.
//!
//! Always holds: memory is bounded by a budget for each call, also of a `$reduce` that keeps doubling its value.

use base::{Code, Error, Result};
use bson::{Bson, Document};

use super::limit::{self, Budget};
use super::operators::{Field, optional, required};
use super::parse::{Parser, not_an_object};
use super::variable::check_name;
use super::{Call, Expression, Operand, Outcome, is_nullish, kind_name, null, value};
use crate::key;
use crate::number::Numeric;
use crate::order;
use crate::sort::{SortDirection, SortSpec};
use crate::value::{DocRef, Value};

/// Where the sort order of `$sortArray` goes when it is a document; a number otherwise.
const SORT_INPUT: usize = 0;
const SORT_BY: usize = 1;

/// `[input, in]`, with the element bound in `in`.
pub(crate) fn parse_map(value: &Value<'_>, parser: &mut Parser<'_>) -> Result<Vec<Option<Expression>>> {
    let document = value.as_document().ok_or_else(|| not_an_object(16878, "$map", value))?;
    let (mut input, mut name, mut body) = (None, None, None);
    for (field, value) in document.iter() {
        match field {
            "input" => input = Some(value),
            "as" => name = Some(value),
            "in" => body = Some(value),
            _ => return Err(Error::new(Code(16879), format!("Unrecognized parameter to $map: {field}"))),
        }
    }
    let missing = |code, field: &str| Error::new(Code(code), format!("Missing '{field}' parameter to $map"));
    let input = input.ok_or_else(|| missing(16880, "input"))?;
    let body = body.ok_or_else(|| missing(16882, "in"))?;
    let input = parser.expression(&input)?;
    Ok(vec![Some(input), Some(parser.expression_with(vec![bound_name(name)?], &body)?)])
}

pub(crate) fn map<'a>(call: &Call<'a>) -> Outcome<'a> {
    let input = call.get(0)?;
    if is_nullish(&input) {
        return null();
    }
    let elements = input.as_ref().and_then(Operand::array).ok_or_else(|| {
        Error::new(Code(16883), format!("input to $map must be an array not {}", kind_name(&input)))
    })?;
    let mut mapped = Vec::new();
    let mut budget = Budget::new("$map");
    for element in elements.iter() {
        let result = call.get_with(1, &[Some(Operand::Borrowed(element))])?.unwrap_or(Bson::Null);
        budget.charge(&result)?;
        mapped.push(result);
    }
    value(mapped)
}

/// `[input, cond, limit]`, with the element bound in `cond`.
pub(crate) fn parse_filter(value: &Value<'_>, parser: &mut Parser<'_>) -> Result<Vec<Option<Expression>>> {
    let document = value.as_document().ok_or_else(|| not_an_object(28646, "$filter", value))?;
    let (mut input, mut name, mut condition, mut limit) = (None, None, None, None);
    for (field, value) in document.iter() {
        match field {
            "input" => input = Some(value),
            "as" => name = Some(value),
            "cond" => condition = Some(value),
            "limit" => limit = Some(value),
            _ => return Err(Error::new(Code(28647), format!("Unrecognized parameter to $filter: {field}"))),
        }
    }
    let missing =
        |code, field: &str| Error::new(Code(code), format!("Missing '{field}' parameter to $filter"));
    let input = input.ok_or_else(|| missing(28648, "input"))?;
    let condition = condition.ok_or_else(|| missing(28650, "cond"))?;
    let input = parser.expression(&input)?;
    let condition = parser.expression_with(vec![bound_name(name)?], &condition)?;
    let limit = limit.map(|limit| parser.expression(&limit)).transpose()?;
    Ok(vec![Some(input), Some(condition), limit])
}

pub(crate) fn filter<'a>(call: &Call<'a>) -> Outcome<'a> {
    let input = call.get(0)?;
    if is_nullish(&input) {
        return null();
    }
    let elements = input.as_ref().and_then(Operand::array).ok_or_else(|| {
        Error::new(Code(28651), format!("input to $filter must be an array not {}", kind_name(&input)))
    })?;
    let limit = filter_limit(call)?;
    let mut kept = Vec::new();
    for element in elements.iter() {
        if kept.len() >= limit {
            break;
        }
        if call.is_true_with(1, &[Some(Operand::Borrowed(element))])? {
            kept.push(element.to_bson());
        }
    }
    value(kept)
}

fn filter_limit(call: &Call<'_>) -> Result<usize> {
    let limit = call.get(2)?;
    if is_nullish(&limit) {
        return Ok(usize::MAX);
    }
    let number = limit.as_ref().and_then(Operand::number).and_then(|limit| limit.number().integer());
    let number = number.filter(|number| i32::try_from(*number).is_ok()).ok_or_else(|| {
        Error::new(Code(327_391), "$filter: limit must be represented as a 32-bit integral value")
    })?;
    usize::try_from(number).ok().filter(|limit| *limit > 0).ok_or_else(|| {
        Error::new(Code(327_392), format!("$filter: limit must be greater than 0, found: {number}"))
    })
}

/// `[input, initialValue, in]`, with `$$value` and `$$this` bound in `in`.
pub(crate) fn parse_reduce(value: &Value<'_>, parser: &mut Parser<'_>) -> Result<Vec<Option<Expression>>> {
    let document = value.as_document().ok_or_else(|| not_an_object(40075, "$reduce", value))?;
    let (mut input, mut initial, mut body) = (None, None, None);
    for (field, value) in document.iter() {
        match field {
            "input" => input = Some(parser.expression(&value)?),
            "initialValue" => initial = Some(parser.expression(&value)?),
            "in" => {
                let names = vec!["this".to_owned(), "value".to_owned()];
                body = Some(parser.expression_with(names, &value)?);
            }
            _ => return Err(Error::new(Code(40076), format!("$reduce found an unknown argument: {field}"))),
        }
    }
    let missing =
        |code, field: &str| Error::new(Code(code), format!("$reduce requires '{field}' to be specified"));
    let input = input.ok_or_else(|| missing(40077, "input"))?;
    let initial = initial.ok_or_else(|| missing(40078, "initialValue"))?;
    let body = body.ok_or_else(|| missing(40079, "in"))?;
    Ok(vec![Some(input), Some(initial), Some(body)])
}

pub(crate) fn reduce<'a>(call: &Call<'a>) -> Outcome<'a> {
    let input = call.get(0)?;
    if is_nullish(&input) {
        return null();
    }
    let elements = input.as_ref().and_then(Operand::array).ok_or_else(|| {
        let kind = kind_name(&input);
        Error::new(Code(40080), format!("$reduce requires that 'input' be an array, found: {kind}"))
    })?;
    let mut accumulated = call.get(1)?.map(Operand::into_bson);
    for element in elements.iter() {
        let held = accumulated.take().map(Operand::Owned);
        accumulated = call.get_with(2, &[Some(Operand::Borrowed(element)), held])?;
        if let Some(accumulated) = &accumulated {
            limit::check_depth(accumulated)?;
            Budget::new("$reduce").charge(accumulated)?;
        }
    }
    Ok(accumulated.map(Operand::Owned))
}

pub(crate) static ZIP_FIELDS: &[Field] =
    &[required("inputs"), optional("useLongestLength"), optional("defaults")];

pub(crate) fn zip<'a>(call: &Call<'a>) -> Outcome<'a> {
    let refuse = |code, message: String| Err(Error::new(Code(code), message));
    let inputs = call.get(0)?;
    let Some(rows) = inputs.as_ref().and_then(Operand::array) else {
        let kind = kind_name(&inputs);
        return refuse(34461, format!("inputs must be an array of expressions, found {kind}"));
    };
    let mut arrays = Vec::new();
    for row in rows.iter() {
        match row {
            Value::Null | Value::Undefined => return null(),
            Value::Array(array) => {
                arrays.push(array.iter().map(|element| element.to_bson()).collect::<Vec<_>>())
            }
            other => {
                let kind = other.kind().name();
                return refuse(34468, format!("$zip found a non-array expression in input: {kind}"));
            }
        }
    }
    if arrays.is_empty() {
        return refuse(34465, "$zip requires at least one input array".to_owned());
    }
    let longest = call.get(1)?.is_some_and(|flag| flag.is_true());
    let defaults = match call.get(2)?.map(Operand::into_bson) {
        Some(Bson::Array(defaults)) if !longest && !defaults.is_empty() => {
            return refuse(34466, "cannot specify defaults unless useLongestLength is true".to_owned());
        }
        Some(Bson::Array(defaults)) if defaults.len() != arrays.len() && !defaults.is_empty() => {
            return refuse(34467, "defaults and inputs must have the same length".to_owned());
        }
        Some(Bson::Array(defaults)) => defaults,
        None | Some(Bson::Null) => Vec::new(),
        Some(other) => {
            let kind = kind_name(&Some(Operand::Owned(other)));
            return refuse(34462, format!("defaults must be an array of expressions, found {kind}"));
        }
    };
    let lens = arrays.iter().map(Vec::len);
    let len = if longest { lens.max() } else { lens.min() }.unwrap_or(0);
    let mut zipped = Vec::with_capacity(len);
    let mut budget = Budget::new("$zip");
    for index in 0..len {
        let tuple = arrays.iter().enumerate().map(|(column, array)| {
            array.get(index).or_else(|| defaults.get(column)).cloned().unwrap_or(Bson::Null)
        });
        let tuple = Bson::Array(tuple.collect());
        budget.charge(&tuple)?;
        zipped.push(tuple);
    }
    value(zipped)
}

/// `[input, sortBy]`, the order as a constant.
pub(crate) fn parse_sort(value: &Value<'_>, parser: &mut Parser<'_>) -> Result<Vec<Option<Expression>>> {
    let document = value.as_document().ok_or_else(|| not_an_object(2_942_500, "$sortArray", value))?;
    let mut arguments = vec![None, None];
    for (field, value) in document.iter() {
        let (slot, argument) = match field {
            "input" => (SORT_INPUT, parser.expression(&value)?),
            "sortBy" => {
                check_order(&value)?;
                (SORT_BY, Expression::constant(value.to_bson()))
            }
            _ => {
                return Err(Error::new(
                    Code(2_942_501),
                    format!("$sortArray found an unknown argument: {field}"),
                ));
            }
        };
        if let Some(slot) = arguments.get_mut(slot) {
            *slot = Some(argument);
        }
    }
    for (name, argument) in ["input", "sortBy"].iter().zip(&arguments) {
        if argument.is_none() {
            let message = format!("$sortArray requires '{name}' to be specified");
            return Err(Error::new(Code(2_942_502), message));
        }
    }
    Ok(arguments)
}

fn check_order(value: &Value<'_>) -> Result<()> {
    match value {
        Value::Document(spec) => SortSpec::parse(*spec).map(|_| ()),
        other => direction(other).map(|_| ()),
    }
}

fn direction(value: &Value<'_>) -> Result<SortDirection> {
    match Numeric::of(value).and_then(|number| number.number().integer()) {
        Some(1) => Ok(SortDirection::Ascending),
        Some(-1) => Ok(SortDirection::Descending),
        _ => {
            let message = "The $sort element value must be either 1 or -1";
            Err(Error::bad_value(message))
        }
    }
}

pub(crate) fn sort<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (input, by) = (call.get(SORT_INPUT)?, call.get(SORT_BY)?);
    if is_nullish(&input) {
        return null();
    }
    let Some(Operand::Owned(Bson::Array(mut elements))) =
        input.map(|input| Operand::Owned(input.into_bson()))
    else {
        return Err(Error::new(Code(2_942_504), "The input argument to $sortArray must be an array"));
    };
    match by.as_ref().map(Operand::value) {
        Some(Value::Document(spec)) => {
            let spec = SortSpec::parse(spec)?;
            elements.sort_by_cached_key(|element| sort_key(&spec, element));
        }
        Some(by) => {
            let direction = direction(&by)?;
            elements.sort_by(|a, b| {
                let ordering = order::compare(&Value::from(a), &Value::from(b));
                if direction == SortDirection::Ascending { ordering } else { ordering.reverse() }
            });
        }
        None => {}
    }
    value(elements)
}

/// Elements that are no documents have none of the fields, and follow their own order among themselves.
fn sort_key(spec: &SortSpec, element: &Bson) -> Vec<u8> {
    match element {
        Bson::Document(document) => spec.key(DocRef::Tree(document)),
        other => {
            let mut key = spec.key(DocRef::Tree(&Document::new()));
            key::encode(&Value::from(other), &mut key);
            key
        }
    }
}

/// The name of the bound element: `this` unless `as` says otherwise.
fn bound_name(name: Option<Value<'_>>) -> Result<String> {
    let Some(name) = name else {
        return Ok("this".to_owned());
    };
    let name = name.as_str().ok_or_else(|| Error::failed_to_parse("'as' must be a string"))?;
    check_name(name)?;
    Ok(name.to_owned())
}
