//! The constructors of the shell's literals: `ObjectId("..")`, `ISODate("..")`, `NumberLong(..)` and the others.
//!
//! Called by the parser with a name and the arguments it read. Those without arguments that make new values
//! (`ObjectId()`, `ISODate()`, `UUID()`) read the clock and draw randomness: this is the client.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, JavaScriptCodeWithScope, Timestamp, Uuid};

use super::{date, text};

/// Every constructor, with an example of its arguments; also what the shell completes.
pub const NAMES: &[(&str, &str)] = &[
    ("BinData", "BinData(0, \"aGk=\")"),
    ("Code", "Code(\"function() {}\")"),
    ("Date", "Date(\"2024-05-01\")"),
    ("Decimal128", "Decimal128(\"9.99\")"),
    ("Double", "Double(1)"),
    ("HexData", "HexData(0, \"cafe\")"),
    ("ISODate", "ISODate(\"2024-05-01T12:30:00Z\")"),
    ("Int32", "Int32(1)"),
    ("Long", "Long(\"1\")"),
    ("MaxKey", "MaxKey()"),
    ("MinKey", "MinKey()"),
    ("NumberDecimal", "NumberDecimal(\"9.99\")"),
    ("NumberInt", "NumberInt(1)"),
    ("NumberLong", "NumberLong(\"1\")"),
    ("ObjectId", "ObjectId(\"65f1c0ffee65f1c0ffee65f1\")"),
    ("RegExp", "RegExp(\"^a\", \"i\")"),
    ("Symbol", "Symbol(\"name\")"),
    ("Timestamp", "Timestamp(1714566600, 1)"),
    ("UUID", "UUID(\"12345678-9abc-4def-8123-456789abcdef\")"),
];

/// The value that `name(arguments)` stands for; `None` means that no parentheses followed.
pub(super) fn call(name: &str, arguments: Option<Vec<Bson>>) -> Result<Bson, String> {
    let Some(&(_, example)) = NAMES.iter().find(|(known, _)| *known == name) else {
        return Err(unknown(name, arguments.is_some()));
    };
    let bare = arguments.is_none();
    let arguments = arguments.unwrap_or_default();
    if bare && !matches!(name, "MinKey" | "MaxKey") {
        return Err(format!("{name} needs parentheses, as in {example}"));
    }
    match build(name, &arguments) {
        Built::Value(value) => Ok(value),
        Built::Refused(reason) => Err(format!("{name}: {reason}")),
        Built::WrongArguments => Err(format!("{name} does not take these arguments; write {example}")),
    }
}

enum Built {
    Value(Bson),
    Refused(String),
    WrongArguments,
}

impl<T: Into<Bson>> From<Result<T, String>> for Built {
    fn from(result: Result<T, String>) -> Built {
        match result {
            Ok(value) => Built::Value(value.into()),
            Err(reason) => Built::Refused(reason),
        }
    }
}

fn build(name: &str, arguments: &[Bson]) -> Built {
    match (name, arguments) {
        ("ObjectId", []) => Built::Value(ObjectId::new().into()),
        ("ObjectId", [Bson::String(hex)]) => object_id(hex).into(),
        ("ISODate" | "Date", []) => Built::Value(DateTime::now().into()),
        ("ISODate" | "Date", [Bson::String(text)]) => date::parse(text).into(),
        ("ISODate" | "Date", [Bson::Int32(ms)]) => Built::Value(DateTime::from_millis((*ms).into()).into()),
        ("ISODate" | "Date", [Bson::Int64(ms)]) => Built::Value(DateTime::from_millis(*ms).into()),
        ("NumberLong" | "Long", [value]) => whole(value).into(),
        ("NumberInt" | "Int32", [value]) => int32(value).into(),
        ("Double", [value]) => double(value).into(),
        ("NumberDecimal" | "Decimal128", [value]) => decimal(value).into(),
        ("UUID", []) => Built::Value(Bson::Binary(Uuid::new().into())),
        ("UUID", [Bson::String(text)]) => uuid(text).into(),
        ("BinData", [subtype, Bson::String(base64)]) => base64_binary(subtype, base64).into(),
        ("HexData", [subtype, Bson::String(digits)]) => hex_binary(subtype, digits).into(),
        ("Timestamp", [Bson::Document(fields)]) => match (fields.get("t"), fields.get("i")) {
            (Some(t), Some(i)) if fields.len() == 2 => timestamp(t, i).into(),
            _ => Built::WrongArguments,
        },
        ("Timestamp", [time, increment]) => timestamp(time, increment).into(),
        ("MinKey", []) => Built::Value(Bson::MinKey),
        ("MaxKey", []) => Built::Value(Bson::MaxKey),
        ("RegExp", [Bson::String(pattern)]) => text::regex(pattern, "").into(),
        ("RegExp", [Bson::String(pattern), Bson::String(options)]) => text::regex(pattern, options).into(),
        ("Code", [Bson::String(code)]) => Built::Value(Bson::JavaScriptCode(code.clone())),
        ("Code", [Bson::String(code), Bson::Document(scope)]) => {
            let with_scope = JavaScriptCodeWithScope { code: code.clone(), scope: scope.clone() };
            Built::Value(Bson::JavaScriptCodeWithScope(with_scope))
        }
        ("Symbol", [Bson::String(symbol)]) => Built::Value(Bson::Symbol(symbol.clone())),
        _ => Built::WrongArguments,
    }
}

fn unknown(name: &str, called: bool) -> String {
    let similar = NAMES.iter().map(|(known, _)| *known).find(|known| known.eq_ignore_ascii_case(name));
    match (similar, called) {
        (Some(similar), _) => format!("there is no {name}; did you mean {similar}?"),
        (None, true) => format!("there is no function {name}()"),
        (None, false) => format!("{name:?} is not a value; put text into quotes"),
    }
}

/// An `ObjectId` from 24 hexadecimal digits.
pub(super) fn object_id(hex: &str) -> Result<ObjectId, String> {
    ObjectId::parse_str(hex).map_err(|_| format!("{hex:?} is not 24 hexadecimal digits"))
}

/// A UUID as binary of subtype 4.
pub(super) fn uuid(text: &str) -> Result<Bson, String> {
    let uuid = Uuid::parse_str(text).map_err(|_| format!("{text:?} is not a UUID"))?;
    Ok(Bson::Binary(uuid.into()))
}

/// A Decimal128 from a number or its text.
pub(super) fn decimal(value: &Bson) -> Result<Decimal128, String> {
    let text = match value {
        Bson::String(text) => text.clone(),
        Bson::Int32(number) => number.to_string(),
        Bson::Int64(number) => number.to_string(),
        Bson::Double(number) => number.to_string(),
        _ => return Err("expected a number or a string".to_owned()),
    };
    text.parse().map_err(|_| format!("{text:?} is not a decimal number of at most 34 digits"))
}

/// Binary data of a subtype from 0 to 255.
pub(super) fn binary(subtype: u8, base64: &str) -> Result<Bson, String> {
    Binary::from_base64(base64, BinarySubtype::from(subtype))
        .map(Bson::Binary)
        .map_err(|_| format!("{base64:?} is not base64"))
}

/// A 64-bit integer from a number or its text.
pub(super) fn whole(value: &Bson) -> Result<i64, String> {
    match value {
        Bson::Int32(number) => Ok(i64::from(*number)),
        Bson::Int64(number) => Ok(*number),
        Bson::String(text) => text.parse().map_err(|_| format!("{text:?} is not a 64-bit integer")),
        _ => Err("expected an integer or its text".to_owned()),
    }
}

fn int32(value: &Bson) -> Result<i32, String> {
    let number = whole(value)?;
    i32::try_from(number).map_err(|_| format!("{number} does not fit into 32 bits"))
}

fn double(value: &Bson) -> Result<f64, String> {
    match value {
        Bson::Int32(number) => Ok(f64::from(*number)),
        Bson::Int64(number) => Ok(*number as f64),
        Bson::Double(number) => Ok(*number),
        Bson::String(text) => text.parse().map_err(|_| format!("{text:?} is not a number")),
        _ => Err("expected a number or its text".to_owned()),
    }
}

fn base64_binary(subtype: &Bson, base64: &str) -> Result<Bson, String> {
    binary(subtype_number(subtype)?, base64)
}

fn hex_binary(subtype: &Bson, digits: &str) -> Result<Bson, String> {
    let subtype = BinarySubtype::from(subtype_number(subtype)?);
    let refuse = || format!("{digits:?} is not pairs of hexadecimal digits");
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(refuse());
    }
    let bytes = (0..digits.len())
        .step_by(2)
        .map(|at| {
            digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(refuse)
        })
        .collect::<Result<Vec<u8>, String>>()?;
    Ok(Bson::Binary(Binary { subtype, bytes }))
}

fn subtype_number(value: &Bson) -> Result<u8, String> {
    u8::try_from(whole(value)?).map_err(|_| "a binary subtype lies between 0 and 255".to_owned())
}

/// A BSON timestamp from its two 32-bit halves.
pub(super) fn timestamp(time: &Bson, increment: &Bson) -> Result<Bson, String> {
    let half =
        |value: &Bson| u32::try_from(whole(value)?).map_err(|_| "both parts are 32-bit numbers".to_owned());
    Ok(Bson::Timestamp(Timestamp { time: half(time)?, increment: half(increment)? }))
}
