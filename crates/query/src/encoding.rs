//! Keys and values of a shard's keyspace, byte by byte as `docs/FORMATS.md` describes them.
//!
//! Called by evaluation (which makes them), by execution (which reads them) and by whoever copies a keyspace. Keys
//! begin with a tag that says their kind and order as BSON values do; every value begins with a format version and
//! a CRC-32 of the rest. Always holds: a value whose version or checksum is wrong is a `storage::Fault`, never data.

use base::{IndexId, SessionId, ShardId, Timestamp};
use bytes::Bytes;
use document::{DocBuf, Value, key};
use storage::{Fault, KeyRange, Result};

/// Tag of the shard's own records: its state and its counters.
pub const TAG_META: u8 = b'm';
/// Tag of documents.
pub const TAG_DOCUMENT: u8 = b'd';
/// Tag of index entries.
pub const TAG_INDEX: u8 = b'i';
/// Tag of retry records.
pub const TAG_RETRY: u8 = b'r';
/// Tag kept for older versions of documents.
pub const TAG_HISTORY: u8 = b'h';
/// Tag kept for changes that others follow.
pub const TAG_CHANGE: u8 = b'c';

/// Key of the shard's state.
pub const STATE_KEY: &[u8] = b"mstate";
/// Key of the count of documents and of their bytes.
pub const COUNT_KEY: &[u8] = b"mcount";

/// The format version that this build writes; the only one so far.
const FORMAT_VERSION: u8 = 1;
/// Bytes before a document's BSON: version, checksum, commit timestamp.
const DOCUMENT_HEADER_BYTES: usize = 13;
/// Bytes of the key of a shard's own retry record: tag and session.
const RETRY_KEY_BYTES: usize = 17;
/// Bytes before an index entry's own: tag and index id.
const INDEX_PREFIX_BYTES: usize = 5;

/// The key of the document whose `_id` is `id`.
pub fn document_key(id: &Value<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    out.push(TAG_DOCUMENT);
    key::encode(id, &mut out);
    out
}

/// All documents.
pub fn document_range() -> KeyRange {
    KeyRange::prefix(&[TAG_DOCUMENT][..])
}

/// The value of a document: version, CRC-32 of what follows, commit timestamp, BSON.
pub fn encode_document(document: &[u8], commit: Timestamp) -> Bytes {
    let mut out = Vec::with_capacity(DOCUMENT_HEADER_BYTES + document.len());
    out.extend_from_slice(&[FORMAT_VERSION, 0, 0, 0, 0]);
    out.extend_from_slice(&commit.to_u64().to_be_bytes());
    out.extend_from_slice(document);
    seal(out)
}

/// A stored document and when it was committed. Shares the value's buffer.
#[derive(Clone, Debug)]
pub struct StoredDocument {
    /// The document.
    pub document: DocBuf,
    /// When the write that made it was committed.
    pub commit: Timestamp,
}

/// Reads a document's value back. Faults on a wrong version, checksum or length, naming `key`.
pub fn decode_document(key: &[u8], value: &Bytes) -> Result<StoredDocument> {
    let body = open(key, value)?;
    let (Some(commit), true) = (body.first_chunk::<8>(), body.len() >= 13) else {
        return Err(damaged(key, "is too short for a document"));
    };
    let commit = Timestamp::from_u64(u64::from_be_bytes(*commit));
    Ok(StoredDocument { document: DocBuf::from_validated(value.slice(DOCUMENT_HEADER_BYTES..)), commit })
}

/// What all entries of one index start with.
pub fn index_prefix(index: IndexId) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.push(TAG_INDEX);
    out.extend_from_slice(&index.get().to_be_bytes());
    out
}

/// All entries of one index.
pub fn index_range(index: IndexId) -> KeyRange {
    KeyRange::prefix(index_prefix(index))
}

/// The key of one index entry: `fields` as `index::keys` makes them, then the document's key without its tag.
pub fn index_entry_key(index: IndexId, fields: &[u8], document_key: &[u8]) -> Vec<u8> {
    let id = document_key.get(1..).unwrap_or_default();
    let mut out = Vec::with_capacity(INDEX_PREFIX_BYTES + fields.len() + id.len());
    out.push(TAG_INDEX);
    out.extend_from_slice(&index.get().to_be_bytes());
    out.extend_from_slice(fields);
    out.extend_from_slice(id);
    out
}

/// The value of an index entry: version, CRC-32, and how many bytes of the key its fields take. The checksum covers
/// the key too.
pub fn index_entry_value(entry_key: &[u8], fields_bytes: usize) -> Bytes {
    let fields_bytes = u32::try_from(fields_bytes).expect("a document's fields are shorter than 4 GiB");
    let mut out = Vec::with_capacity(9);
    out.extend_from_slice(&[FORMAT_VERSION, 0, 0, 0, 0]);
    out.extend_from_slice(&fields_bytes.to_le_bytes());
    let crc = entry_crc(entry_key, &fields_bytes.to_le_bytes());
    if let Some(slot) = out.get_mut(1..5) {
        slot.copy_from_slice(&crc.to_le_bytes());
    }
    Bytes::from(out)
}

/// An index entry taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry<'a> {
    /// The encoded fields.
    pub fields: &'a [u8],
    /// The document's key, without its tag.
    pub id: &'a [u8],
}

impl IndexEntry<'_> {
    /// The key of the document that the entry points to.
    pub fn document_key(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + self.id.len());
        out.push(TAG_DOCUMENT);
        out.extend_from_slice(self.id);
        out
    }
}

/// Takes an index entry apart. Faults when its version, checksum or length is wrong.
pub fn decode_index_entry<'a>(entry_key: &'a [u8], value: &[u8]) -> Result<IndexEntry<'a>> {
    let short = || damaged(entry_key, "is too short for an index entry");
    let (&[version, c0, c1, c2, c3], length) = value.split_first_chunk::<5>().ok_or_else(short)?;
    check_version(entry_key, version)?;
    if u32::from_le_bytes([c0, c1, c2, c3]) != entry_crc(entry_key, length) {
        return Err(damaged(entry_key, "has a wrong checksum"));
    }
    let fields_bytes = u32::from_le_bytes(length.try_into().map_err(|_| short())?) as usize;
    let rest = entry_key.get(INDEX_PREFIX_BYTES..).ok_or_else(short)?;
    let (fields, id) = rest.split_at_checked(fields_bytes).ok_or_else(short)?;
    Ok(IndexEntry { fields, id })
}

/// What the key of a retry record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryKey {
    /// The session.
    pub session: SessionId,
    /// Which statements' outcomes are in it.
    pub page: i32,
    /// From which shard it was taken over; `None` for the shard's own.
    pub origin: Option<ShardId>,
}

/// The key of a page of a session's retry record.
pub fn retry_key(session: SessionId, page: i32) -> Vec<u8> {
    let mut out = Vec::with_capacity(RETRY_KEY_BYTES + 4);
    out.push(TAG_RETRY);
    out.extend_from_slice(&session.0);
    if page != 0 {
        out.extend_from_slice(&page.to_be_bytes());
    }
    out
}

/// The key of a retry record that a shard took over from `origin`.
pub fn taken_retry_key(own_key: &[u8], origin: ShardId) -> Vec<u8> {
    let mut out = Vec::with_capacity(own_key.len() + 8);
    out.extend_from_slice(own_key);
    out.extend_from_slice(&origin.get().to_be_bytes());
    out
}

/// Reads the key of a retry record. Faults on a key of another length.
pub fn parse_retry_key(key: &[u8]) -> Result<RetryKey> {
    let wrong = || damaged(key, "is not the key of a retry record");
    let (&[_, ref session @ ..], rest) = key.split_first_chunk::<RETRY_KEY_BYTES>().ok_or_else(wrong)?;
    // A page's number is half as long as a shard's, so that the length alone tells which are there.
    let (page, origin) = if rest.len() % 8 == 4 { rest.split_at(4) } else { rest.split_at(0) };
    let page = match page {
        [] => 0,
        page => i32::from_be_bytes(page.try_into().map_err(|_| wrong())?),
    };
    let origin = match origin {
        [] => None,
        origin => Some(ShardId(u64::from_be_bytes(origin.try_into().map_err(|_| wrong())?))),
    };
    Ok(RetryKey { session: SessionId(*session), page, origin })
}

/// The retry records of one session: its own, and those that were taken over.
pub fn retry_range_of(session: SessionId) -> KeyRange {
    KeyRange::prefix(retry_key(session, 0))
}

/// The key of the note of what changed at `commit`.
pub fn note_key(commit: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(9);
    out.push(TAG_CHANGE);
    out.extend_from_slice(&commit.to_u64().to_be_bytes());
    out
}

/// The notes of what changed after `commit`.
pub fn notes_after(commit: Timestamp) -> KeyRange {
    let mut range = KeyRange::prefix(&[TAG_CHANGE][..]);
    // No timestamp is the highest of all: it would lie in the year 2106.
    range.start = note_key(Timestamp::from_u64(commit.to_u64().saturating_add(1))).into();
    range
}

/// The value of a note: version, CRC-32, and the keys that changed, each with its length before it.
pub fn encode_note<'a>(keys: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let mut body = Vec::new();
    for key in keys {
        let length = u16::try_from(key.len()).expect("keys are limited to 16-bit lengths");
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(key);
    }
    encode_record(&body)
}

/// When a note was made, and the keys that changed.
pub fn decode_note(key: &[u8], value: &[u8]) -> Result<(Timestamp, Vec<Bytes>)> {
    let wrong = || damaged(key, "is not a note of changes");
    let commit = key.get(1..).and_then(|commit| commit.try_into().ok()).ok_or_else(wrong)?;
    let mut rest = decode_record(key, value)?;
    let mut keys = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (changed, after) =
            after.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(wrong)?;
        keys.push(Bytes::copy_from_slice(changed));
        rest = after;
    }
    if rest.is_empty() { Ok((Timestamp::from_u64(u64::from_be_bytes(commit)), keys)) } else { Err(wrong()) }
}

/// All retry records.
pub fn retry_range() -> KeyRange {
    KeyRange::prefix(&[TAG_RETRY][..])
}

/// Wraps a record's body: version and CRC-32 before it.
pub fn encode_record(body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(5 + body.len());
    out.extend_from_slice(&[FORMAT_VERSION, 0, 0, 0, 0]);
    out.extend_from_slice(body);
    seal(out)
}

/// A record's body. Faults on a wrong version or checksum, naming `key`.
pub fn decode_record<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8]> {
    open(key, value)
}

/// The shard's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Documents in the shard.
    pub documents: u64,
    /// Bytes of their BSON.
    pub bytes: u64,
}

/// What a write does to a shard's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CountChange {
    pub(crate) documents: i64,
    pub(crate) bytes: i64,
}

impl Count {
    /// The counters after `change`. Faults when they would fall below zero.
    pub(crate) fn moved(self, change: CountChange) -> Result<Count> {
        let below = || Fault::corruption("the shard's counters are below what it holds");
        Ok(Count {
            documents: self.documents.checked_add_signed(change.documents).ok_or_else(below)?,
            bytes: self.bytes.checked_add_signed(change.bytes).ok_or_else(below)?,
        })
    }

    /// The stored form.
    pub fn encode(self) -> Bytes {
        let mut body = [0; 16];
        let (documents, bytes) = body.split_at_mut(8);
        documents.copy_from_slice(&self.documents.to_le_bytes());
        bytes.copy_from_slice(&self.bytes.to_le_bytes());
        encode_record(&body)
    }

    /// Reads the stored form; an absent record counts nothing.
    pub fn decode(value: Option<&[u8]>) -> Result<Count> {
        let Some(value) = value else { return Ok(Count::default()) };
        let body = decode_record(COUNT_KEY, value)?;
        let read = |at: usize| body.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        match (read(0), read(8)) {
            (Some(documents), Some(bytes)) => Ok(Count { documents, bytes }),
            _ => Err(damaged(COUNT_KEY, "is too short for the counters")),
        }
    }
}

/// A corruption fault about the value under `key`.
pub(crate) fn damaged(key: &[u8], what: &str) -> Fault {
    let hex: String = key.iter().take(64).map(|byte| format!("{byte:02x}")).collect();
    Fault::corruption(format!("the value under key {hex} {what}"))
}

/// Fills in the checksum of a value that starts with its version and four bytes of room.
fn seal(mut value: Vec<u8>) -> Bytes {
    let crc = value.get(5..).map_or(0, crc32fast::hash);
    if let Some(slot) = value.get_mut(1..5) {
        slot.copy_from_slice(&crc.to_le_bytes());
    }
    Bytes::from(value)
}

/// Checks version and checksum, and gives what follows them.
fn open<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8]> {
    let Some((&[version, c0, c1, c2, c3], body)) = value.split_first_chunk::<5>() else {
        return Err(damaged(key, "is too short"));
    };
    check_version(key, version)?;
    if u32::from_le_bytes([c0, c1, c2, c3]) != crc32fast::hash(body) {
        return Err(damaged(key, "has a wrong checksum"));
    }
    Ok(body)
}

fn check_version(key: &[u8], version: u8) -> Result<()> {
    if version == FORMAT_VERSION {
        return Ok(());
    }
    Err(damaged(key, &format!("has format version {version}; this build reads {FORMAT_VERSION}")))
}

fn entry_crc(entry_key: &[u8], length: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(entry_key);
    hasher.update(length);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn a_document_reads_back_with_its_commit_timestamp() {
        let document = DocBuf::encode(&doc! { "_id": 1, "name": "Ada" }).expect("encodes");
        let commit = Timestamp { seconds: 7, counter: 3 };
        let value = encode_document(document.bytes(), commit);
        let stored = decode_document(b"d1", &value).expect("intact");
        assert_eq!((stored.document, stored.commit), (document, commit));
    }

    #[test]
    fn any_changed_byte_of_a_value_is_a_corruption() {
        let document = DocBuf::encode(&doc! { "_id": 1 }).expect("encodes");
        let value = encode_document(document.bytes(), Timestamp { seconds: 1, counter: 1 });
        for at in 0..value.len() {
            let mut changed = value.to_vec();
            changed[at] ^= 0x20;
            let fault = decode_document(b"d1", &Bytes::from(changed)).expect_err("damaged");
            assert_eq!(fault.kind, storage::fault::FaultKind::Corruption);
        }
        assert!(decode_document(b"d1", &value.slice(..8)).is_err());
    }

    #[test]
    fn an_index_entry_splits_into_its_fields_and_its_document() {
        let document_key = document_key(&Value::Int32(5));
        let key = index_entry_key(IndexId(2), b"fields", &document_key);
        let value = index_entry_value(&key, 6);
        let entry = decode_index_entry(&key, &value).expect("intact");
        assert_eq!((entry.fields, entry.document_key()), (&b"fields"[..], document_key));
        assert!(index_range(IndexId(2)).contains(&key) && !index_range(IndexId(3)).contains(&key));
        let mut moved = key.clone();
        moved[1] ^= 1;
        assert!(decode_index_entry(&moved, &value).is_err(), "the checksum covers the key");
    }
}
