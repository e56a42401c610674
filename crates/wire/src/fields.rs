//! What a command's fields may be: names, types, and how far each is supported.
//!
//! Every command declares its fields once. From the declaration come the check of a request (unknown, duplicate,
//! missing and wrongly typed fields, in MongoDB's words) and the tables of `docs/COMPATIBILITY.md`.

use base::{Code, Error, Result};
use document::value::RawElement;
use document::{DocRef, Kind, Value};

/// Types that a field accepts. Null counts as absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// Anything.
    Any,
    /// A boolean.
    Bool,
    /// A boolean or a number.
    BoolOrNumber,
    /// Any number with an integral value.
    Integer,
    /// A 64-bit integer.
    Long,
    /// A string.
    String,
    /// A document.
    Object,
    /// An array.
    Array,
    /// A document or an array.
    ObjectOrArray,
    /// A string or a document.
    StringOrObject,
    /// A string, a document or an array.
    StringObjectOrArray,
}

impl Accepts {
    fn kinds(self) -> &'static [i32] {
        match self {
            Accepts::Any => &[],
            Accepts::Bool => &[8],
            Accepts::BoolOrNumber => &[8, 18, 16, 19, 1],
            Accepts::Integer => &[18, 16, 19, 1],
            Accepts::Long => &[18],
            Accepts::String => &[2],
            Accepts::Object => &[3],
            Accepts::Array => &[4],
            Accepts::ObjectOrArray => &[3, 4],
            Accepts::StringOrObject => &[2, 3],
            Accepts::StringObjectOrArray => &[2, 3, 4],
        }
    }

    /// Whether a value of BSON type `tag` will do.
    pub(crate) fn allows(self, tag: u8) -> bool {
        let kinds = self.kinds();
        kinds.is_empty() || kinds.contains(&i32::from(tag))
    }
}

/// How far a field is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Support {
    /// It does what it says.
    Full,
    /// It is accepted and changes nothing, for the given reason.
    Ignored(&'static str),
    /// A value that would change something is refused.
    Refused,
}

/// One field of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its types.
    pub(crate) accepts: Accepts,
    /// Whether a request without it is refused.
    pub(crate) required: bool,
    /// How far it is supported.
    pub(crate) support: Support,
}

/// A field that does what it says.
pub(crate) const fn field(name: &'static str, accepts: Accepts) -> Field {
    Field { name, accepts, required: false, support: Support::Full }
}

/// A field without which a request is refused.
pub(crate) const fn required(name: &'static str, accepts: Accepts) -> Field {
    Field { name, accepts, required: true, support: Support::Full }
}

/// A field that is accepted and changes nothing.
pub(crate) const fn ignored(name: &'static str, accepts: Accepts, reason: &'static str) -> Field {
    Field { name, accepts, required: false, support: Support::Ignored(reason) }
}

/// A field that is known and refused.
pub(crate) const fn refused(name: &'static str, accepts: Accepts) -> Field {
    Field { name, accepts, required: false, support: Support::Refused }
}

const TRANSACTIONS: &str = "belongs to multi-document transactions, which are refused";
const CLUSTER: &str = "meant for other servers";

/// The fields that every command accepts.
pub(crate) const GENERIC: &[Field] = &[
    ignored("$audit", Accepts::Any, CLUSTER),
    ignored("$client", Accepts::Any, CLUSTER),
    field("$clusterTime", Accepts::Object),
    ignored("$configServerState", Accepts::Any, CLUSTER),
    ignored("$configTime", Accepts::Any, CLUSTER),
    field("$db", Accepts::String),
    ignored("$queryOptions", Accepts::Object, "legacy form of `$readPreference`"),
    field("$readPreference", Accepts::Object),
    ignored("$replData", Accepts::Any, CLUSTER),
    ignored("allowImplicitCollectionCreation", Accepts::Any, CLUSTER),
    field("apiDeprecationErrors", Accepts::Bool),
    field("apiStrict", Accepts::Bool),
    field("apiVersion", Accepts::String),
    ignored("autocommit", Accepts::Bool, TRANSACTIONS),
    ignored("clientOperationKey", Accepts::Any, CLUSTER),
    ignored("comment", Accepts::Any, "kept nowhere yet"),
    ignored("databaseVersion", Accepts::Any, CLUSTER),
    field("lsid", Accepts::Object),
    field("maxTimeMS", Accepts::Integer),
    ignored("maxTimeMSOpOnly", Accepts::Integer, CLUSTER),
    ignored("mayBypassWriteBlocking", Accepts::Bool, CLUSTER),
    field("readConcern", Accepts::Object),
    ignored("shardVersion", Accepts::Any, CLUSTER),
    ignored("startTransaction", Accepts::Bool, TRANSACTIONS),
    field("txnNumber", Accepts::Long),
    ignored("txnRetryCounter", Accepts::Integer, TRANSACTIONS),
    field("writeConcern", Accepts::Object),
];

/// `Location40415` for a field that `owner` does not have.
pub(crate) fn unknown_field(owner: &str, name: &str) -> Error {
    Error::new(Code::UNKNOWN_FIELD, format!("BSON field '{owner}.{name}' is an unknown field."))
}

/// `Location40414` for a field that `owner` needs.
pub(crate) fn missing_field(owner: &str, name: &str) -> Error {
    let message = format!("BSON field '{owner}.{name}' is missing but a required field");
    Error::new(Code::MISSING_FIELD, message)
}

/// `Location40413` for a field that is there twice.
pub(crate) fn duplicate_field(owner: &str, name: &str) -> Error {
    Error::new(Code::DUPLICATE_FIELD, format!("BSON field '{owner}.{name}' is a duplicate field"))
}

/// `TypeMismatch` (14) for a field of a wrong type.
pub(crate) fn wrong_type(owner: &str, name: &str, actual: Kind, accepts: Accepts) -> Error {
    let kinds = accepts.kinds();
    let names: Vec<&str> = kinds.iter().map(|kind| Kind(*kind).name()).collect();
    let expected = match names.as_slice() {
        [single] => format!("type '{single}'"),
        several => format!("types '[{}]'", several.join(", ")),
    };
    Error::type_mismatch(format!(
        "BSON field '{owner}.{name}' is the wrong type '{}', expected {expected}",
        actual.name()
    ))
}

/// `NotImplemented` (238) for a field that is known and refused.
fn refused_field(owner: &str, name: &str) -> Error {
    Error::new(Code::NOT_IMPLEMENTED, format!("BSON field '{owner}.{name}' is not supported"))
}

/// The fields of one document, checked against its declaration.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    /// The command, or `command.field` for a document within it; as messages name it.
    pub(crate) owner: &'static str,
    declared: &'static [Field],
    values: smallvec::SmallVec<[Option<RawElement<'a>>; 24]>,
}

impl<'a> Fields<'a> {
    /// No field yet.
    pub(crate) fn empty(owner: &'static str, declared: &'static [Field]) -> Fields<'a> {
        Fields { owner, declared, values: smallvec::smallvec![None; declared.len()] }
    }

    /// Reads a document whose every field must be declared. Fails as [`Fields::add`] and [`Fields::check_required`].
    pub(crate) fn read(
        owner: &'static str,
        declared: &'static [Field],
        document: document::RawDoc<'a>,
    ) -> Result<Fields<'a>> {
        let mut fields = Fields::empty(owner, declared);
        let mut elements = document.iter();
        while let Some(element) = elements.next_element() {
            if !fields.add(element)? {
                return Err(unknown_field(owner, name_of(&element)));
            }
        }
        fields.check_required(|_| false)?;
        Ok(fields)
    }

    /// Takes an element if its name is declared. Fails when it is there twice, has a wrong type, or would ask for
    /// what is refused.
    pub(crate) fn add(&mut self, element: RawElement<'a>) -> Result<bool> {
        let Some(position) = self.declared.iter().position(|field| field.name.as_bytes() == element.name)
        else {
            return Ok(false);
        };
        let (Some(field), Some(slot)) = (self.declared.get(position), self.values.get_mut(position)) else {
            return Ok(false);
        };
        if slot.is_some() {
            return Err(duplicate_field(self.owner, field.name));
        }
        check(self.owner, field, &element)?;
        *slot = Some(element);
        Ok(true)
    }

    /// Fails when a required field is absent and `elsewhere` does not know it either.
    pub(crate) fn check_required(&self, elsewhere: impl Fn(&str) -> bool) -> Result<()> {
        for (field, value) in self.declared.iter().zip(&self.values) {
            let absent = value.is_none_or(|element| is_null(element.tag));
            if field.required && absent && !elsewhere(field.name) {
                return Err(missing_field(self.owner, field.name));
            }
        }
        Ok(())
    }

    /// Whether the document may have a field of this name.
    pub(crate) fn declares(&self, name: &str) -> bool {
        self.declared.iter().any(|field| field.name == name)
    }

    /// The field's element; null counts as absent unless anything is accepted.
    pub(crate) fn element(&self, name: &str) -> Option<RawElement<'a>> {
        let position = self.declared.iter().position(|field| field.name == name);
        let position = position.expect("a command reads only fields that it declares");
        let accepts_null = self.declared.get(position).is_some_and(|field| field.accepts == Accepts::Any);
        self.values.get(position).copied().flatten().filter(|element| accepts_null || !is_null(element.tag))
    }

    /// The field's value.
    pub(crate) fn value(&self, name: &str) -> Option<Value<'a>> {
        self.element(name).and_then(|element| element.decode())
    }

    /// A string.
    pub(crate) fn str(&self, name: &str) -> Option<&'a str> {
        self.value(name).and_then(|value| value.as_str())
    }

    /// A boolean, or whether a number is not zero.
    pub(crate) fn bool(&self, name: &str) -> Option<bool> {
        self.value(name).map(|value| is_truthy(&value))
    }

    /// A number with an integral value. Fails with `BadValue` on a fraction or a number beyond 64 bits.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>> {
        self.value(name).map(|value| integral(self.owner, name, &value)).transpose()
    }

    /// A number that is not negative. Fails as MongoDB: `Location51024`.
    pub(crate) fn non_negative(&self, name: &str) -> Result<Option<u64>> {
        let Some(number) = self.integer(name)? else { return Ok(None) };
        u64::try_from(number).map(Some).map_err(|_| {
            let message = format!("BSON field '{name}' value must be >= 0, actual value '{number}'");
            Error::new(Code(51_024), message)
        })
    }
}

fn check(owner: &str, field: &Field, element: &RawElement<'_>) -> Result<()> {
    if is_null(element.tag) {
        return Ok(());
    }
    if !field.accepts.allows(element.tag) {
        let kind = element.decode().map_or(Kind(0), |value| value.kind());
        return Err(wrong_type(owner, field.name, kind, field.accepts));
    }
    let asks_for_something = || element.decode().is_some_and(|value| !is_without_effect(field.name, &value));
    if field.support == Support::Refused && asks_for_something() {
        return Err(refused_field(owner, field.name));
    }
    Ok(())
}

fn is_null(tag: u8) -> bool {
    matches!(tag, 0x06 | 0x0A)
}

fn name_of<'a>(element: &RawElement<'a>) -> &'a str {
    std::str::from_utf8(element.name).unwrap_or_default()
}

/// Whether a value of a refused field asks for nothing: false, zero, empty, or the simple collation.
fn is_without_effect(name: &str, value: &Value<'_>) -> bool {
    match value {
        Value::Document(document) if name == "collation" => {
            document.is_empty() || is_simple_collation(*document)
        }
        Value::Document(document) => document.is_empty(),
        Value::Array(array) => array.is_empty(),
        Value::String(text) => text.is_empty(),
        other => !is_truthy(other),
    }
}

fn is_simple_collation(collation: DocRef<'_>) -> bool {
    collation.get("locale").and_then(|locale| locale.as_str()) == Some("simple")
}

/// What MongoDB takes for true: everything but false, zero, null and undefined.
pub(crate) fn is_truthy(value: &Value<'_>) -> bool {
    match value {
        Value::Boolean(flag) => *flag,
        Value::Int32(number) => *number != 0,
        Value::Int64(number) => *number != 0,
        Value::Double(number) => *number != 0.0,
        Value::Decimal128(number) => !matches!(number.to_string().parse::<f64>(), Ok(0.0)),
        Value::Null | Value::Undefined => false,
        _ => true,
    }
}

/// The integral value of a number. Doubles are cut off, as MongoDB does for such fields, if they fit 64 bits.
pub(crate) fn integral(owner: &str, name: &str, value: &Value<'_>) -> Result<i64> {
    let float = |number: f64| {
        // 2^63 is exact as a double; every double below it converts without loss of range.
        let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number);
        fits.then_some(number as i64)
    };
    let number = match value {
        Value::Int32(number) => Some(i64::from(*number)),
        Value::Int64(number) => Some(*number),
        Value::Double(number) => float(*number),
        Value::Decimal128(number) => {
            let text = number.to_string();
            text.parse::<i64>().ok().or_else(|| text.parse::<f64>().ok().and_then(float))
        }
        other => return Err(wrong_type(owner, name, other.kind(), Accepts::Integer)),
    };
    number.ok_or_else(|| {
        Error::bad_value(format!("BSON field '{owner}.{name}' is not a number that fits 64 bits"))
    })
}
