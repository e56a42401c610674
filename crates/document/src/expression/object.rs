//! `$mergeObjects $objectToArray $arrayToObject $getField $setField $unsetField $bsonSize`.

use base::{Code, Error, Result};
use bson::{Bson, Document, doc};

use super::limit::Budget;
use super::operators::{Field, required};
use super::parse::Parser;
use super::{Call, Expression, Operand, Outcome, is_nullish, kind_name, null, value};
use crate::display::show_value;
use crate::value::{DocBuf, Value};

pub(crate) fn merge<'a>(call: &Call<'a>) -> Outcome<'a> {
    let mut merged = Document::new();
    for index in 0..call.len() {
        let operand = call.get(index)?;
        match operand.as_ref().map(Operand::value) {
            None | Some(Value::Null | Value::Undefined) => {}
            Some(Value::Document(document)) => merged.extend(document.to_document()),
            // One argument that is an array stands for its elements, as in an accumulator.
            Some(Value::Array(array)) if call.len() == 1 => {
                for element in array.iter() {
                    merge_one(&mut merged, &element)?;
                }
            }
            Some(other) => merge_one(&mut merged, &other)?,
        }
    }
    value(merged)
}

fn merge_one(merged: &mut Document, element: &Value<'_>) -> Result<()> {
    match element {
        Value::Null | Value::Undefined => {}
        Value::Document(document) => merged.extend(document.to_document()),
        other => {
            let (shown, kind) = (show_value(other), other.kind().name());
            let message =
                format!("$mergeObjects requires object inputs, but input {shown} is of type {kind}");
            return Err(Error::new(Code(40400), message));
        }
    }
    Ok(())
}

pub(crate) fn to_array<'a>(call: &Call<'a>) -> Outcome<'a> {
    let operand = call.get(0)?;
    if is_nullish(&operand) {
        return null();
    }
    let document = operand.as_ref().and_then(|operand| operand.value().as_document()).ok_or_else(|| {
        let kind = kind_name(&operand);
        Error::new(Code(40390), format!("$objectToArray requires a document input, found: {kind}"))
    })?;
    let pairs = document.iter().map(|(name, value)| Bson::Document(doc! { "k": name, "v": value.to_bson() }));
    value(pairs.collect::<Vec<_>>())
}

pub(crate) fn from_array<'a>(call: &Call<'a>) -> Outcome<'a> {
    let operand = call.get(0)?;
    if is_nullish(&operand) {
        return null();
    }
    let elements = operand.as_ref().and_then(Operand::array).ok_or_else(|| {
        let kind = kind_name(&operand);
        Error::new(Code(40386), format!("$arrayToObject requires an array input, found: {kind}"))
    })?;
    let mut document = Document::new();
    let mut of_pairs = None;
    for element in elements.iter() {
        let is_pair = matches!(element, Value::Array(_));
        if *of_pairs.get_or_insert(is_pair) != is_pair {
            let (code, expected) = if is_pair { (40391, "object") } else { (40396, "array") };
            let message = format!(
                "$arrayToObject requires a consistent input format. Elements must all be arrays or all be objects. \
                 {} was detected, now found: {}",
                if expected == "array" { "Array" } else { "Object" },
                element.kind().name()
            );
            return Err(Error::new(Code(code), message));
        }
        let (name, content) = key_and_value(&element)?;
        if name.contains('\0') {
            return Err(Error::new(Code(4_940_400), "Key field cannot contain an embedded null byte"));
        }
        document.insert(name, content);
    }
    value(document)
}

/// `["k", v]` or `{k: "k", v: v}`.
fn key_and_value(element: &Value<'_>) -> Result<(String, Bson)> {
    let refuse = |code, message: String| Err(Error::new(Code(code), message));
    let (name, content, name_code) = match element {
        Value::Array(pair) => match (pair.get(0), pair.get(1), pair.get(2)) {
            (Some(name), Some(content), None) => (name, content, 40395),
            _ => {
                let len = pair.len();
                let message =
                    format!("$arrayToObject requires an array of size 2 arrays,found array of size: {len}");
                return refuse(40397, message);
            }
        },
        Value::Document(pair) => match (pair.get("k"), pair.get("v"), pair.iter().nth(2)) {
            (Some(name), Some(content), None) => (name, content, 40394),
            (_, _, Some(_)) | (_, _, None) if pair.iter().count() != 2 => {
                let count = pair.iter().count();
                let message = format!(
                    "$arrayToObject requires an object keys of 'k' and 'v'. Found incorrect number of keys:{count}"
                );
                return refuse(40392, message);
            }
            _ => {
                let message =
                    "$arrayToObject requires an object with keys 'k' and 'v'. Missing either or both keys";
                return refuse(40393, format!("{message} from: {}", show_value(element)));
            }
        },
        other => {
            let message =
                format!("Unrecognised input type format for $arrayToObject: {}", other.kind().name());
            return refuse(40398, message);
        }
    };
    match name {
        Value::String(name) => Ok((name.to_owned(), content.to_bson())),
        other => {
            let kind = other.kind().name();
            let message = format!(
                "$arrayToObject requires an object with keys 'k' and 'v', where the value of 'k' must be of type string. Found type: {kind}"
            );
            refuse(name_code, message)
        }
    }
}

/// `[field, input]`, from either form.
pub(crate) fn parse_get_field(value: &Value<'_>, parser: &mut Parser<'_>) -> Result<Vec<Option<Expression>>> {
    let short = match value {
        Value::Document(document) => document.iter().next().is_some_and(|(name, _)| name.starts_with('$')),
        _ => true,
    };
    let (field, input) = if short {
        (parser.expression(value)?, parser.expression(&Value::String("$$CURRENT"))?)
    } else {
        static FIELDS: &[Field] = &[required("field"), required("input")];
        let mut arguments = parser.named("$getField", FIELDS, value)?.into_iter().flatten();
        match (arguments.next(), arguments.next()) {
            (Some(field), Some(input)) => (field, input),
            _ => {
                return Err(Error::failed_to_parse("$getField requires 'field' and 'input' to be specified"));
            }
        }
    };
    Ok(vec![Some(field), Some(input)])
}

pub(crate) fn get_field<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (field, input) = (call.get(0)?, call.get(1)?);
    let Some(name) = field.as_ref().and_then(Operand::text) else {
        let message =
            format!("$getField requires 'field' to evaluate to type String, but got {}", kind_name(&field));
        return Err(Error::new(Code(3_041_704), message));
    };
    if input.as_ref().is_some_and(Operand::is_null) {
        return null();
    }
    Ok(input.and_then(|input| input.into_field(name)))
}

pub(crate) static SET_FIELD_FIELDS: &[Field] = &[required("field"), required("input"), required("value")];

/// As `$setField` with `$$REMOVE`.
pub(crate) fn parse_unset_field(
    value: &Value<'_>,
    parser: &mut Parser<'_>,
) -> Result<Vec<Option<Expression>>> {
    static FIELDS: &[Field] = &[required("field"), required("input")];
    let mut arguments = parser.named("$unsetField", FIELDS, value)?;
    arguments.push(Some(parser.expression(&Value::String("$$REMOVE"))?));
    Ok(arguments)
}

pub(crate) fn set_field<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (field, input) = (call.get(0)?, call.get(1)?);
    let Some(name) = field.as_ref().and_then(Operand::text) else {
        let message = format!(
            "{} requires 'field' to evaluate to a constant string, but got {}",
            call.name(),
            kind_name(&field)
        );
        return Err(Error::new(Code(4_161_107), message));
    };
    if is_nullish(&input) {
        return null();
    }
    let Some(Bson::Document(mut document)) = input.map(Operand::into_bson) else {
        let message = format!("{} requires 'input' to evaluate to type Object", call.name());
        return Err(Error::new(Code(4_161_105), message));
    };
    match call.get(2)? {
        Some(new) => {
            let new = new.into_bson();
            Budget::new(call.name()).charge(&new)?;
            document.insert(name.to_owned(), new);
        }
        None => {
            document.remove(name);
        }
    }
    value(document)
}

pub(crate) fn bson_size<'a>(call: &Call<'a>) -> Outcome<'a> {
    let operand = call.get(0)?;
    if is_nullish(&operand) {
        return null();
    }
    let document = operand.as_ref().and_then(|operand| operand.value().as_document()).ok_or_else(|| {
        let kind = kind_name(&operand);
        Error::new(Code(31393), format!("$bsonSize requires a document input, found: {kind}"))
    })?;
    let bytes = DocBuf::encode(&document.to_document())?;
    value(i32::try_from(bytes.bytes().len()).unwrap_or(i32::MAX))
}
