//! Extended JSON (version 2, canonical and relaxed): objects like `{"$oid": "..."}` that stand for a BSON value.
//!
//! Called by the parser for every object it has read. Objects whose first name begins with `$` but is none of
//! Extended JSON's stay what they are: query and update operators.

use bson::{Bson, DateTime, Document};

use super::{constructor, date, text};

/// The value that `document` stands for, which most often is `document` itself.
pub(super) fn interpret(document: Document) -> Result<Bson, String> {
    let Some((name, value)) = document.iter().next() else {
        return Ok(Bson::Document(document));
    };
    if !name.starts_with('$') {
        return Ok(Bson::Document(document));
    }
    let read = match (name.as_str(), value, document.len()) {
        ("$oid", Bson::String(hex), 1) => constructor::object_id(hex).map(Bson::from),
        ("$date", value, 1) => date_value(value).map(Bson::from),
        ("$numberInt", Bson::String(number), 1) => {
            number.parse().map(Bson::Int32).map_err(|_| format!("{number:?} is not a 32-bit integer"))
        }
        ("$numberLong", value, 1) => constructor::whole(value).map(Bson::Int64),
        ("$numberDouble", Bson::String(number), 1) => double(number).map(Bson::Double),
        ("$numberDecimal", value, 1) => constructor::decimal(value).map(Bson::from),
        ("$uuid", Bson::String(uuid), 1) => constructor::uuid(uuid),
        ("$binary", Bson::Document(fields), 1) => binary(fields),
        ("$timestamp", Bson::Document(fields), 1) => timestamp(fields),
        ("$regularExpression", Bson::Document(fields), 1) => regex(fields),
        ("$symbol", Bson::String(symbol), 1) => Ok(Bson::Symbol(symbol.clone())),
        ("$code", Bson::String(code), 1) => Ok(Bson::JavaScriptCode(code.clone())),
        ("$code", Bson::String(code), 2) => code_with_scope(code, &document),
        ("$undefined", Bson::Boolean(true), 1) => Ok(Bson::Undefined),
        ("$minKey", Bson::Int32(1), 1) => Ok(Bson::MinKey),
        ("$maxKey", Bson::Int32(1), 1) => Ok(Bson::MaxKey),
        ("$oid" | "$numberInt" | "$numberDouble" | "$uuid", _, 1) => Err("expected a string".to_owned()),
        _ => return Ok(Bson::Document(document)),
    };
    read.map_err(|reason| format!("{name}: {reason}"))
}

fn date_value(value: &Bson) -> Result<DateTime, String> {
    match value {
        Bson::String(text) => date::parse(text),
        value => constructor::whole(value)
            .map(DateTime::from_millis)
            .map_err(|_| "expected the text of a date or milliseconds since 1970".to_owned()),
    }
}

fn double(text: &str) -> Result<f64, String> {
    match text {
        "Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        "NaN" => Ok(f64::NAN),
        text => text.parse().map_err(|_| format!("{text:?} is not a number")),
    }
}

fn binary(fields: &Document) -> Result<Bson, String> {
    let (Ok(base64), Ok(subtype), 2) = (fields.get_str("base64"), fields.get_str("subType"), fields.len())
    else {
        return Err("expected {base64: \"..\", subType: \"00\"}".to_owned());
    };
    let subtype =
        u8::from_str_radix(subtype, 16).map_err(|_| format!("{subtype:?} is not a hexadecimal subtype"))?;
    constructor::binary(subtype, base64)
}

fn timestamp(fields: &Document) -> Result<Bson, String> {
    match (fields.get("t"), fields.get("i"), fields.len()) {
        (Some(time), Some(increment), 2) => constructor::timestamp(time, increment),
        _ => Err("expected {t: seconds, i: counter}".to_owned()),
    }
}

fn regex(fields: &Document) -> Result<Bson, String> {
    match (fields.get_str("pattern"), fields.get_str("options"), fields.len()) {
        (Ok(pattern), Ok(options), 2) => text::regex(pattern, options),
        _ => Err("expected {pattern: \"..\", options: \"..\"}".to_owned()),
    }
}

fn code_with_scope(code: &str, document: &Document) -> Result<Bson, String> {
    let scope = document.get_document("$scope").map_err(|_| "expected $scope beside $code".to_owned())?;
    let with_scope = bson::JavaScriptCodeWithScope { code: code.to_owned(), scope: scope.clone() };
    Ok(Bson::JavaScriptCodeWithScope(with_scope))
}
