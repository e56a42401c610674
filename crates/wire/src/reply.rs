//! Writes the body of a reply: BSON straight into the buffer that goes to the socket.
//!
//! Called by every command. The buffer starts with room for the message header, so that a reply is built once and
//! written with one system call. Always holds: documents that are already BSON are copied in, never decoded.

use std::sync::OnceLock;

use base::{Code, Error};
use bson::{Bson, Document};
use bytes::Bytes;
use document::DocBuf;

use crate::message::REPLY_PREFIX_BYTES;

/// Room for a small answer without growing the buffer.
const INITIAL_BYTES: usize = 256;

/// The body of a reply, being written.
#[derive(Debug)]
pub(crate) struct Reply {
    bytes: Vec<u8>,
    /// Where each document or array that is still open begins; the body itself comes first.
    open: Vec<usize>,
    /// Whether the command asks to be run again for a further reply, should the client have allowed that.
    pub(crate) streams: bool,
}

impl Reply {
    /// An empty body.
    pub(crate) fn new() -> Reply {
        Reply::with_capacity(INITIAL_BYTES)
    }

    /// An empty body with room for `bytes` of content.
    pub(crate) fn with_capacity(bytes: usize) -> Reply {
        let mut buffer = Vec::with_capacity(REPLY_PREFIX_BYTES + bytes);
        buffer.resize(REPLY_PREFIX_BYTES, 0);
        let mut reply = Reply { bytes: buffer, open: Vec::with_capacity(4), streams: false };
        reply.begin();
        reply
    }

    /// `{ok: 0, errmsg, code, codeName}` and what else the error carries.
    pub(crate) fn from_error(error: &Error, labels: &[String]) -> Reply {
        let mut reply = Reply::new();
        reply.f64("ok", 0.0);
        reply.str("errmsg", &error.message);
        reply.i32("code", error.code.0);
        reply.str("codeName", &error.code.name());
        if let Some(details) = &error.details {
            reply.fields_of(details);
        }
        reply.labels(labels);
        reply
    }

    /// The fields of `document`.
    pub(crate) fn from_document(document: &Document) -> Reply {
        let mut reply = Reply::new();
        reply.fields(document);
        reply
    }

    /// A double.
    pub(crate) fn f64(&mut self, name: &str, value: f64) {
        self.name(0x01, name);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A 32-bit integer.
    pub(crate) fn i32(&mut self, name: &str, value: i32) {
        self.name(0x10, name);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A 64-bit integer.
    pub(crate) fn i64(&mut self, name: &str, value: i64) {
        self.name(0x12, name);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A count: as a 32-bit integer where it fits, as a 64-bit integer otherwise.
    pub(crate) fn count(&mut self, name: &str, value: u64) {
        match i32::try_from(value) {
            Ok(small) => self.i32(name, small),
            Err(_) => self.i64(name, i64::try_from(value).unwrap_or(i64::MAX)),
        }
    }

    /// A boolean.
    pub(crate) fn bool(&mut self, name: &str, value: bool) {
        self.name(0x08, name);
        self.bytes.push(u8::from(value));
    }

    /// A string.
    pub(crate) fn str(&mut self, name: &str, value: &str) {
        self.name(0x02, name);
        self.bytes.extend_from_slice(&length_of(value.len() + 1).to_le_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
    }

    /// Null.
    pub(crate) fn null(&mut self, name: &str) {
        self.name(0x0A, name);
    }

    /// A date, in milliseconds since the Unix epoch.
    pub(crate) fn date(&mut self, name: &str, millis: i64) {
        self.name(0x09, name);
        self.bytes.extend_from_slice(&millis.to_le_bytes());
    }

    /// A timestamp.
    pub(crate) fn timestamp(&mut self, name: &str, value: base::Timestamp) {
        self.name(0x11, name);
        self.bytes.extend_from_slice(&value.to_u64().to_le_bytes());
    }

    /// A document that is BSON already.
    pub(crate) fn document(&mut self, name: &str, value: &DocBuf) {
        self.name(0x03, name);
        self.bytes.extend_from_slice(value.bytes());
    }

    /// Any value.
    pub(crate) fn value(&mut self, name: &str, value: &Bson) {
        match value {
            Bson::Int32(number) => self.i32(name, *number),
            Bson::Int64(number) => self.i64(name, *number),
            Bson::Double(number) => self.f64(name, *number),
            Bson::String(text) => self.str(name, text),
            Bson::Boolean(flag) => self.bool(name, *flag),
            Bson::Null => self.null(name),
            other => {
                let single: Document = [(name.to_owned(), other.clone())].into_iter().collect();
                self.fields(&single);
            }
        }
    }

    /// All fields of a document, at the level that is open.
    pub(crate) fn fields(&mut self, document: &Document) {
        let encoded =
            bson::serialize_to_vec(document).expect("the server's own documents hold no NUL in a name");
        self.fields_of(&encoded);
    }

    /// All fields of a document's bytes, at the level that is open.
    pub(crate) fn fields_of(&mut self, document: &[u8]) {
        let end = document.len().saturating_sub(1);
        self.bytes.extend_from_slice(document.get(4..end).unwrap_or_default());
    }

    /// An array of documents that are BSON already.
    pub(crate) fn documents(&mut self, name: &str, documents: &[DocBuf]) {
        let total_bytes: usize = documents.iter().map(|document| document.bytes().len() + 10).sum();
        self.bytes.reserve(total_bytes + 64);
        self.begin_array(name);
        let mut index = ArrayIndex::default();
        for document in documents {
            self.document(index.next(), document);
        }
        self.end();
    }

    /// An array of any values.
    pub(crate) fn values(&mut self, name: &str, values: &[Bson]) {
        self.begin_array(name);
        let mut index = ArrayIndex::default();
        for value in values {
            self.value(index.next(), value);
        }
        self.end();
    }

    /// An array of strings.
    pub(crate) fn strings<'s>(&mut self, name: &str, values: impl IntoIterator<Item = &'s str>) {
        self.begin_array(name);
        let mut index = ArrayIndex::default();
        for value in values {
            self.str(index.next(), value);
        }
        self.end();
    }

    /// `errorLabels`, where there are any.
    pub(crate) fn labels(&mut self, labels: &[String]) {
        if !labels.is_empty() {
            self.strings("errorLabels", labels.iter().map(String::as_str));
        }
    }

    /// `operationTime` and `$clusterTime`. Nobody signs times here: the signature is that of a server without users.
    pub(crate) fn times(&mut self, time: base::Timestamp) {
        self.timestamp("operationTime", time);
        self.begin_document("$clusterTime");
        self.timestamp("clusterTime", time);
        self.begin_document("signature");
        self.fields_of(no_signature());
        self.end();
        self.end();
    }

    /// Opens an embedded document, closed by [`Reply::end`].
    pub(crate) fn begin_document(&mut self, name: &str) {
        self.name(0x03, name);
        self.begin();
    }

    /// Opens an array, closed by [`Reply::end`].
    pub(crate) fn begin_array(&mut self, name: &str) {
        self.name(0x04, name);
        self.begin();
    }

    /// Closes what was opened last.
    pub(crate) fn end(&mut self) {
        let start = self.open.pop().expect("every end follows its begin");
        self.bytes.push(0);
        let len = length_of(self.bytes.len() - start);
        let prefix = self.bytes.get_mut(start..start + 4).expect("begin wrote the prefix");
        prefix.copy_from_slice(&len.to_le_bytes());
    }

    /// A cursor reply: `cursor: {id, ns, <batch_name>: [...]}`.
    pub(crate) fn cursor(&mut self, id: i64, namespace: &str, batch_name: &str, batch: &[DocBuf]) {
        self.begin_document("cursor");
        self.documents(batch_name, batch);
        self.i64("id", id);
        self.str("ns", namespace);
        self.end();
    }

    /// Ends a successful reply with `ok: 1`.
    pub(crate) fn ok(mut self) -> Reply {
        self.f64("ok", 1.0);
        self
    }

    /// The finished buffer: room for the header, then the body.
    pub(crate) fn into_message(mut self) -> Vec<u8> {
        self.end();
        assert!(self.open.is_empty(), "a reply was finished with an open document");
        self.bytes
    }

    /// The finished body alone.
    pub(crate) fn into_body(self) -> Bytes {
        Bytes::from(self.into_message()).slice(REPLY_PREFIX_BYTES..)
    }

    fn name(&mut self, tag: u8, name: &str) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
    }

    fn begin(&mut self) {
        self.open.push(self.bytes.len());
        self.bytes.extend_from_slice(&[0; 4]);
    }
}

/// BSON lengths are signed 32-bit; replies are bounded far below that.
fn length_of(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("a reply is smaller than 2 GiB")
}

/// The names "0", "1", "2", ... without a division for each.
#[derive(Default)]
pub(crate) struct ArrayIndex {
    digits: smallvec::SmallVec<[u8; 12]>,
}

impl ArrayIndex {
    /// The next name.
    pub(crate) fn next(&mut self) -> &str {
        if self.digits.is_empty() {
            self.digits.push(b'0');
        } else {
            self.increment();
        }
        std::str::from_utf8(&self.digits).expect("digits are ASCII")
    }

    fn increment(&mut self) {
        for digit in self.digits.iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
        self.digits.insert(0, b'1');
    }
}

/// The fields `hash` and `keyId` of a signature that nobody made, as a document.
fn no_signature() -> &'static [u8] {
    static ENCODED: OnceLock<Vec<u8>> = OnceLock::new();
    ENCODED.get_or_init(|| {
        let hash = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![0; 20] };
        let signature = bson::doc! { "hash": hash, "keyId": 0_i64 };
        bson::serialize_to_vec(&signature).expect("a constant document encodes")
    })
}

/// Whether a driver may repeat a retryable write that failed with this code.
pub(crate) fn is_retryable_write_error(code: Code) -> bool {
    matches!(
        code,
        Code::INTERRUPTED_AT_SHUTDOWN
            | Code::INTERRUPTED_DUE_TO_REPL_STATE_CHANGE
            | Code::NOT_WRITABLE_PRIMARY
            | Code::PRIMARY_STEPPED_DOWN
            | Code::SHUTDOWN_IN_PROGRESS
            | Code::HOST_NOT_FOUND
            | Code::HOST_UNREACHABLE
            | Code::NETWORK_TIMEOUT
            | Code::EXCEEDED_TIME_LIMIT
            | Code(13_435 | 13_436 | 9_001 | 384)
    )
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn array_names_count_upwards_through_every_carry() {
        let mut index = ArrayIndex::default();
        for expected in 0..1_234 {
            assert_eq!(index.next(), expected.to_string());
        }
    }

    #[test]
    fn a_written_body_decodes_to_the_fields_that_were_written() {
        let mut reply = Reply::new();
        reply.begin_document("nested");
        reply.values("list", &[Bson::Int32(1), Bson::DateTime(bson::DateTime::from_millis(3))]);
        reply.timestamp("at", base::Timestamp { seconds: 7, counter: 8 });
        reply.end();
        reply.documents("documents", &[DocBuf::encode(&doc! { "a": 1 }).expect("encodes")]);
        reply.strings("names", ["x", "y"]);
        let body = reply.ok().into_body();
        let decoded: Document = bson::deserialize_from_slice(&body).expect("valid BSON");
        let expected = doc! {
            "nested": {
                "list": [1, bson::DateTime::from_millis(3)], "at": bson::Timestamp { time: 7, increment: 8 },
            },
            "documents": [{ "a": 1 }], "names": ["x", "y"], "ok": 1.0,
        };
        assert_eq!(decoded, expected);
    }
}
