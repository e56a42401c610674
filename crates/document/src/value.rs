//! BSON values, borrowed: one type over both raw bytes and `bson`'s owned trees.
//!
//! [`Value`] is what filters, ordering and key encoding read. Its documents and arrays are either bytes that were
//! validated once at the edge ([`RawDoc`], scanned in place) or a `bson::Document` ([`DocRef::Tree`]), so that every
//! operator is written once. Format: bsonspec.org, version 1.1.
//!
//! Always holds: reading never panics. Bytes that turn out malformed end the iteration early; whoever accepts bytes
//! from a network validates them first (`validate`), whoever reads them from disk checks their checksum first.

use bson::{Bson, Document};
use bytes::Bytes;

/// A BSON document whose bytes are known to be valid: checked at the edge, or read back under a checksum.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DocBuf(Bytes);

impl DocBuf {
    /// Takes bytes that the caller knows to be a valid document.
    pub fn from_validated(bytes: Bytes) -> DocBuf {
        DocBuf(bytes)
    }

    /// Encodes a tree. Fails only on what `bson` cannot encode (a NUL in a field name or pattern), with `BadValue`.
    pub fn encode(document: &Document) -> base::Result<DocBuf> {
        let bytes =
            bson::serialize_to_vec(document).map_err(|error| base::Error::bad_value(error.to_string()))?;
        Ok(DocBuf(Bytes::from(bytes)))
    }

    /// The document for reading.
    pub fn as_doc(&self) -> DocRef<'_> {
        DocRef::Raw(RawDoc::new(&self.0))
    }

    /// The raw document for reading.
    pub fn as_raw(&self) -> RawDoc<'_> {
        RawDoc::new(&self.0)
    }

    /// The bytes, length prefix included.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes, length prefix included.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The document as an owned tree.
    pub fn to_document(&self) -> Document {
        self.as_doc().to_document()
    }
}

/// A borrowed BSON value.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// 64-bit float.
    Double(f64),
    /// UTF-8 string.
    String(&'a str),
    /// Embedded document.
    Document(DocRef<'a>),
    /// Array.
    Array(ArrayRef<'a>),
    /// Binary data with its subtype.
    Binary {
        /// Subtype byte.
        subtype: u8,
        /// The data, without its length.
        bytes: &'a [u8],
    },
    /// Undefined (deprecated).
    Undefined,
    /// Object id.
    ObjectId([u8; 12]),
    /// Boolean.
    Boolean(bool),
    /// Milliseconds since the Unix epoch.
    DateTime(i64),
    /// Null.
    Null,
    /// Regular expression.
    Regex {
        /// The pattern.
        pattern: &'a str,
        /// Its option letters.
        options: &'a str,
    },
    /// DBPointer (deprecated): the value's bytes, namespace string and id.
    DbPointer(&'a [u8]),
    /// JavaScript code.
    JavaScript(&'a str),
    /// Symbol (deprecated).
    Symbol(&'a str),
    /// JavaScript code with its scope.
    JavaScriptWithScope {
        /// The code.
        code: &'a str,
        /// The scope.
        scope: DocRef<'a>,
    },
    /// 32-bit integer.
    Int32(i32),
    /// Internal timestamp.
    Timestamp(base::Timestamp),
    /// 64-bit integer.
    Int64(i64),
    /// 128-bit decimal.
    Decimal128(bson::Decimal128),
    /// Below everything.
    MinKey,
    /// Above everything.
    MaxKey,
}

/// A value's BSON type: its number in `$type` and its name in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub i32);

impl Kind {
    /// The alias that `$type` knows and messages print.
    pub fn name(self) -> &'static str {
        match self.0 {
            1 => "double",
            2 => "string",
            3 => "object",
            4 => "array",
            5 => "binData",
            6 => "undefined",
            7 => "objectId",
            8 => "bool",
            9 => "date",
            10 => "null",
            11 => "regex",
            12 => "dbPointer",
            13 => "javascript",
            14 => "symbol",
            15 => "javascriptWithScope",
            16 => "int",
            17 => "timestamp",
            18 => "long",
            19 => "decimal",
            -1 => "minKey",
            127 => "maxKey",
            _ => "missing",
        }
    }
}

impl<'a> Value<'a> {
    /// The value's BSON type.
    pub fn kind(&self) -> Kind {
        Kind(match self {
            Value::Double(_) => 1,
            Value::String(_) => 2,
            Value::Document(_) => 3,
            Value::Array(_) => 4,
            Value::Binary { .. } => 5,
            Value::Undefined => 6,
            Value::ObjectId(_) => 7,
            Value::Boolean(_) => 8,
            Value::DateTime(_) => 9,
            Value::Null => 10,
            Value::Regex { .. } => 11,
            Value::DbPointer(_) => 12,
            Value::JavaScript(_) => 13,
            Value::Symbol(_) => 14,
            Value::JavaScriptWithScope { .. } => 15,
            Value::Int32(_) => 16,
            Value::Timestamp(_) => 17,
            Value::Int64(_) => 18,
            Value::Decimal128(_) => 19,
            Value::MinKey => -1,
            Value::MaxKey => 127,
        })
    }

    /// Whether the value is one of the four numeric types.
    pub fn is_number(&self) -> bool {
        matches!(self, Value::Double(_) | Value::Int32(_) | Value::Int64(_) | Value::Decimal128(_))
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&'a str> {
        if let Value::String(text) = self { Some(text) } else { None }
    }

    /// The document, if it is one.
    pub fn as_document(&self) -> Option<DocRef<'a>> {
        if let Value::Document(document) = self { Some(*document) } else { None }
    }

    /// The array, if it is one.
    pub fn as_array(&self) -> Option<ArrayRef<'a>> {
        if let Value::Array(array) = self { Some(*array) } else { None }
    }

    /// An owned copy. A malformed remainder of raw bytes is left out.
    pub fn to_bson(&self) -> Bson {
        match *self {
            Value::Double(number) => Bson::Double(number),
            Value::String(text) => Bson::String(text.to_owned()),
            Value::Document(document) => Bson::Document(document.to_document()),
            Value::Array(array) => Bson::Array(array.iter().map(|value| value.to_bson()).collect()),
            Value::Binary { subtype, bytes } => {
                Bson::Binary(bson::Binary { subtype: subtype.into(), bytes: bytes.to_vec() })
            }
            Value::Undefined => Bson::Undefined,
            Value::ObjectId(bytes) => Bson::ObjectId(bson::oid::ObjectId::from_bytes(bytes)),
            Value::Boolean(flag) => Bson::Boolean(flag),
            Value::DateTime(millis) => Bson::DateTime(bson::DateTime::from_millis(millis)),
            Value::Null => Bson::Null,
            Value::Regex { pattern, options } => owned_regex(pattern, options).unwrap_or(Bson::Null),
            Value::DbPointer(bytes) => owned_db_pointer(bytes),
            Value::JavaScript(code) => Bson::JavaScriptCode(code.to_owned()),
            Value::Symbol(text) => Bson::Symbol(text.to_owned()),
            Value::JavaScriptWithScope { code, scope } => {
                Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope {
                    code: code.to_owned(),
                    scope: scope.to_document(),
                })
            }
            Value::Int32(number) => Bson::Int32(number),
            Value::Timestamp(time) => {
                Bson::Timestamp(bson::Timestamp { time: time.seconds, increment: time.counter })
            }
            Value::Int64(number) => Bson::Int64(number),
            Value::Decimal128(number) => Bson::Decimal128(number),
            Value::MinKey => Bson::MinKey,
            Value::MaxKey => Bson::MaxKey,
        }
    }
}

/// `None` when a part holds a NUL, which raw bytes cannot.
fn owned_regex(pattern: &str, options: &str) -> Option<Bson> {
    let pattern = bson::raw::CString::try_from(pattern).ok()?;
    let options = bson::raw::CString::try_from(options).ok()?;
    Some(Bson::RegularExpression(bson::Regex { pattern, options }))
}

/// `bson` keeps a DBPointer's fields private, so that its own decoder must make one.
fn owned_db_pointer(bytes: &[u8]) -> Bson {
    let mut document = Vec::with_capacity(bytes.len() + 8);
    document.extend_from_slice(&i32::try_from(bytes.len() + 8).unwrap_or(i32::MAX).to_le_bytes());
    document.extend_from_slice(&[0x0C, b'p', 0]);
    document.extend_from_slice(bytes);
    document.push(0);
    let decoded: Option<Document> = bson::deserialize_from_slice(&document).ok();
    decoded.and_then(|mut document| document.remove("p")).unwrap_or(Bson::Null)
}

impl<'a> From<&'a Bson> for Value<'a> {
    fn from(value: &'a Bson) -> Value<'a> {
        match value {
            Bson::Double(number) => Value::Double(*number),
            Bson::String(text) => Value::String(text),
            Bson::Document(document) => Value::Document(DocRef::Tree(document)),
            Bson::Array(array) => Value::Array(ArrayRef::Tree(array)),
            Bson::Binary(binary) => Value::Binary { subtype: binary.subtype.into(), bytes: &binary.bytes },
            Bson::Undefined => Value::Undefined,
            Bson::ObjectId(id) => Value::ObjectId(id.bytes()),
            Bson::Boolean(flag) => Value::Boolean(*flag),
            Bson::DateTime(time) => Value::DateTime(time.timestamp_millis()),
            Bson::Null => Value::Null,
            Bson::RegularExpression(regex) => {
                Value::Regex { pattern: regex.pattern.as_str(), options: regex.options.as_str() }
            }
            // A tree's DBPointer keeps its fields to itself; raw documents, which is what the store holds, keep them.
            Bson::DbPointer(_) => Value::DbPointer(&[]),
            Bson::JavaScriptCode(code) => Value::JavaScript(code),
            Bson::Symbol(text) => Value::Symbol(text),
            Bson::JavaScriptCodeWithScope(code) => {
                Value::JavaScriptWithScope { code: &code.code, scope: DocRef::Tree(&code.scope) }
            }
            Bson::Int32(number) => Value::Int32(*number),
            Bson::Timestamp(time) => {
                Value::Timestamp(base::Timestamp { seconds: time.time, counter: time.increment })
            }
            Bson::Int64(number) => Value::Int64(*number),
            Bson::Decimal128(number) => Value::Decimal128(*number),
            Bson::MinKey => Value::MinKey,
            Bson::MaxKey => Value::MaxKey,
        }
    }
}

/// A borrowed document: raw bytes or a tree.
#[derive(Clone, Copy, Debug)]
pub enum DocRef<'a> {
    /// Bytes validated at the edge.
    Raw(RawDoc<'a>),
    /// An owned tree.
    Tree(&'a Document),
}

impl<'a> DocRef<'a> {
    /// The fields in order.
    pub fn iter(self) -> Fields<'a> {
        match self {
            DocRef::Raw(raw) => Fields::Raw(raw.iter()),
            DocRef::Tree(document) => Fields::Tree(document.iter()),
        }
    }

    /// The first field called `name` (no dots: one field of this document).
    pub fn get(self, name: &str) -> Option<Value<'a>> {
        match self {
            DocRef::Raw(raw) => raw.get(name),
            DocRef::Tree(document) => document.get(name).map(Value::from),
        }
    }

    /// Whether there is no field.
    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }

    /// An owned copy. Of fields with equal names the first wins, as in [`DocRef::get`]: what an index or a filter saw in
    /// the bytes is what an update of the tree keeps.
    pub fn to_document(self) -> Document {
        match self {
            DocRef::Raw(raw) => {
                let mut document = Document::new();
                for (name, value) in raw.iter() {
                    document.entry(name).or_insert_with(|| value.to_bson());
                }
                document
            }
            DocRef::Tree(document) => document.clone(),
        }
    }
}

impl<'a> From<&'a Document> for DocRef<'a> {
    fn from(document: &'a Document) -> DocRef<'a> {
        DocRef::Tree(document)
    }
}

/// A borrowed array: raw bytes or a tree.
#[derive(Clone, Copy, Debug)]
pub enum ArrayRef<'a> {
    /// Bytes validated at the edge.
    Raw(RawDoc<'a>),
    /// An owned array.
    Tree(&'a [Bson]),
}

impl<'a> ArrayRef<'a> {
    /// The elements in order.
    pub fn iter(self) -> Elements<'a> {
        match self {
            ArrayRef::Raw(raw) => Elements::Raw(raw.iter()),
            ArrayRef::Tree(array) => Elements::Tree(array.iter()),
        }
    }

    /// The element at `index`.
    pub fn get(self, index: usize) -> Option<Value<'a>> {
        match self {
            ArrayRef::Raw(raw) => raw.iter().nth(index).map(|(_, value)| value),
            ArrayRef::Tree(array) => array.get(index).map(Value::from),
        }
    }

    /// The number of elements; counted for raw bytes.
    pub fn len(self) -> usize {
        match self {
            ArrayRef::Raw(raw) => raw.iter().count(),
            ArrayRef::Tree(array) => array.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }
}

/// Iterator over a document's fields.
pub enum Fields<'a> {
    /// Of raw bytes.
    Raw(RawFields<'a>),
    /// Of a tree.
    Tree(bson::document::Iter<'a>),
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Fields::Raw(fields) => fields.next(),
            Fields::Tree(fields) => fields.next().map(|(name, value)| (name.as_str(), Value::from(value))),
        }
    }
}

/// Iterator over an array's elements.
pub enum Elements<'a> {
    /// Of raw bytes.
    Raw(RawFields<'a>),
    /// Of an owned array.
    Tree(std::slice::Iter<'a, Bson>),
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Elements::Raw(fields) => fields.next().map(|(_, value)| value),
            Elements::Tree(elements) => elements.next().map(Value::from),
        }
    }
}

/// A document's bytes, length prefix included, scanned in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawDoc<'a>(&'a [u8]);

impl<'a> RawDoc<'a> {
    /// Takes bytes that were validated, or that a checksum vouches for.
    pub fn new(bytes: &'a [u8]) -> RawDoc<'a> {
        RawDoc(bytes)
    }

    /// The bytes, length prefix included.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The fields in order.
    pub fn iter(self) -> RawFields<'a> {
        RawFields { rest: self.0.get(4..).unwrap_or_default() }
    }

    /// The first field called `name`. Skips over other fields without decoding them.
    pub fn get(self, name: &str) -> Option<Value<'a>> {
        let mut rest = self.0.get(4..)?;
        loop {
            let (&tag, after_tag) = rest.split_first()?;
            if tag == 0 {
                return None;
            }
            let found = after_tag.get(name.len()) == Some(&0) && after_tag.starts_with(name.as_bytes());
            let name_len = if found { name.len() } else { name_len(after_tag)? };
            let value = after_tag.get(name_len + 1..)?;
            let value_len = value_len(tag, value)?;
            if found {
                let name = after_tag.get(..name_len)?;
                return RawElement { tag, name, value: value.get(..value_len)? }.decode();
            }
            rest = value.get(value_len..)?;
        }
    }
}

/// Iterator over a raw document's fields.
#[derive(Clone, Debug)]
pub struct RawFields<'a> {
    rest: &'a [u8],
}

/// One field of a raw document, not yet decoded.
#[derive(Clone, Copy, Debug)]
pub struct RawElement<'a> {
    /// The element's type byte.
    pub tag: u8,
    /// The field's name without its NUL.
    pub name: &'a [u8],
    /// The value's bytes.
    pub value: &'a [u8],
}

impl<'a> RawFields<'a> {
    /// The next field without decoding its value.
    pub fn next_element(&mut self) -> Option<RawElement<'a>> {
        let (&tag, rest) = self.rest.split_first()?;
        if tag == 0 {
            return None;
        }
        let name_len = name_len(rest)?;
        let (name, rest) = (rest.get(..name_len)?, rest.get(name_len + 1..)?);
        let value_len = value_len(tag, rest)?;
        let value = rest.get(..value_len)?;
        self.rest = rest.get(value_len..)?;
        Some(RawElement { tag, name, value })
    }

    /// What has not been read yet, the document's closing NUL included.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for RawFields<'a> {
    type Item = (&'a str, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let element = self.next_element()?;
        Some((std::str::from_utf8(element.name).ok()?, element.decode()?))
    }
}

impl<'a> RawElement<'a> {
    /// The value. `None` when its bytes are malformed.
    pub fn decode(&self) -> Option<Value<'a>> {
        let bytes = self.value;
        Some(match self.tag {
            0x01 => Value::Double(f64::from_le_bytes(fixed(bytes)?)),
            0x02 => Value::String(string(bytes)?),
            0x03 => Value::Document(DocRef::Raw(RawDoc(bytes))),
            0x04 => Value::Array(ArrayRef::Raw(RawDoc(bytes))),
            0x05 => binary(bytes)?,
            0x06 => Value::Undefined,
            0x07 => Value::ObjectId(fixed(bytes)?),
            0x08 => Value::Boolean(*bytes.first()? != 0),
            0x09 => Value::DateTime(i64::from_le_bytes(fixed(bytes)?)),
            0x0A => Value::Null,
            0x0B => regex(bytes)?,
            0x0C => Value::DbPointer(bytes),
            0x0D => Value::JavaScript(string(bytes)?),
            0x0E => Value::Symbol(string(bytes)?),
            0x0F => code_with_scope(bytes)?,
            0x10 => Value::Int32(i32::from_le_bytes(fixed(bytes)?)),
            0x11 => Value::Timestamp(base::Timestamp::from_u64(u64::from_le_bytes(fixed(bytes)?))),
            0x12 => Value::Int64(i64::from_le_bytes(fixed(bytes)?)),
            0x13 => Value::Decimal128(bson::Decimal128::from_bytes(fixed(bytes)?)),
            0xFF => Value::MinKey,
            0x7F => Value::MaxKey,
            _ => return None,
        })
    }
}

/// How many bytes the name at the start of `bytes` takes, without its NUL.
fn name_len(bytes: &[u8]) -> Option<usize> {
    // Most names are shorter than what a vectorized search pays for.
    bytes.iter().position(|byte| *byte == 0)
}

/// How many bytes a value of type `tag` at the start of `bytes` takes.
pub(crate) fn value_len(tag: u8, bytes: &[u8]) -> Option<usize> {
    let prefixed = |extra: usize| length(bytes)?.checked_add(extra);
    match tag {
        0x01 | 0x09 | 0x11 | 0x12 => Some(8),
        0x02 | 0x0D | 0x0E => prefixed(4),
        0x03 | 0x04 | 0x0F => prefixed(0),
        0x05 => prefixed(5),
        0x06 | 0x0A | 0xFF | 0x7F => Some(0),
        0x07 => Some(12),
        0x08 => Some(1),
        0x0B => {
            let pattern_len = memchr::memchr(0, bytes)? + 1;
            Some(pattern_len + memchr::memchr(0, bytes.get(pattern_len..)?)? + 1)
        }
        0x0C => prefixed(16),
        0x10 => Some(4),
        0x13 => Some(16),
        _ => None,
    }
}

fn length(bytes: &[u8]) -> Option<usize> {
    usize::try_from(i32::from_le_bytes(bytes.first_chunk().copied()?)).ok()
}

fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn string(bytes: &[u8]) -> Option<&str> {
    let end = bytes.len().checked_sub(1)?;
    std::str::from_utf8(bytes.get(4..end)?).ok()
}

fn binary(bytes: &[u8]) -> Option<Value<'_>> {
    let subtype = *bytes.get(4)?;
    let data = bytes.get(5..)?;
    // The old binary subtype repeats its length inside the data.
    let data = if subtype == 2 { data.get(4..)? } else { data };
    Some(Value::Binary { subtype, bytes: data })
}

fn regex(bytes: &[u8]) -> Option<Value<'_>> {
    let split = memchr::memchr(0, bytes)?;
    let options = bytes.get(split + 1..bytes.len().checked_sub(1)?)?;
    Some(Value::Regex {
        pattern: std::str::from_utf8(bytes.get(..split)?).ok()?,
        options: std::str::from_utf8(options).ok()?,
    })
}

fn code_with_scope(bytes: &[u8]) -> Option<Value<'_>> {
    let rest = bytes.get(4..)?;
    let code_len = length(rest)?.checked_add(4)?;
    let code = string(rest.get(..code_len)?)?;
    Some(Value::JavaScriptWithScope { code, scope: DocRef::Raw(RawDoc(rest.get(code_len..)?)) })
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    fn everything() -> Document {
        doc! {
            "double": 1.5, "string": "é", "object": { "a": [1, { "b": 2_i64 }] }, "array": [],
            "binary": Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![1, 2] }),
            "undefined": Bson::Undefined, "oid": bson::oid::ObjectId::from_bytes([7; 12]), "bool": true,
            "date": bson::DateTime::from_millis(-5), "null": Bson::Null,
            "regex": owned_regex("^a", "im").expect("no NUL"),
            "code": Bson::JavaScriptCode("f()".into()), "symbol": Bson::Symbol("s".into()),
            "scoped": bson::JavaScriptCodeWithScope { code: "g".into(), scope: doc! { "x": 1 } },
            "int": 3, "timestamp": bson::Timestamp { time: 4, increment: 5 }, "long": 6_i64,
            "decimal": "1.50".parse::<bson::Decimal128>().expect("a decimal"), "min": Bson::MinKey, "max": Bson::MaxKey,
        }
    }

    #[test]
    fn a_raw_document_reads_back_as_the_tree_it_was_encoded_from() {
        let tree = everything();
        let raw = DocBuf::encode(&tree).expect("encodes");
        assert_eq!(raw.to_document(), tree);
        assert_eq!(DocRef::Tree(&tree).to_document(), tree);
        for (name, value) in &tree {
            assert_eq!(raw.as_doc().get(name).expect("present").to_bson(), *value, "{name}");
        }
        assert!(raw.as_doc().get("absent").is_none());
    }

    #[test]
    fn of_fields_with_equal_names_the_first_is_read_and_kept() {
        let mut bytes = DocBuf::encode(&doc! { "a": 1, "b": 2 }).expect("encodes").into_bytes().to_vec();
        let name = bytes.iter().position(|byte| *byte == b'b').expect("has the name");
        bytes[name] = b'a';
        let twice = DocBuf::from_validated(bytes.into());
        assert_eq!(twice.as_doc().get("a").map(|value| value.to_bson()), Some(Bson::Int32(1)));
        assert_eq!(twice.to_document(), doc! { "a": 1 });
    }

    #[test]
    fn truncated_bytes_end_the_iteration_without_a_panic() {
        let raw = DocBuf::encode(&everything()).expect("encodes");
        for len in 0..raw.bytes().len() {
            let cut = RawDoc::new(&raw.bytes()[..len]);
            assert!(cut.iter().count() <= everything().len());
        }
    }
}
