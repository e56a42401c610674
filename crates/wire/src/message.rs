//! Messages of the wire protocol as bytes: headers, OP_MSG, OP_QUERY and OP_REPLY.
//!
//! Called by the connection task with whole messages, and by it alone. Always holds: sizes are checked before memory
//! is spent, nothing panics on what a client sent, and documents come out as slices of the message, not as copies.

use base::limits::{MESSAGE_BYTES_MAX, NESTING_MAX, WRITE_BATCH_MAX};
use base::{Code, Error};
use bytes::Bytes;
use document::DocBuf;
use document::validate::{validate, validate_nested};

/// Size of every message's header.
pub const HEADER_BYTES: usize = 16;
/// What stands before the body of an OP_MSG reply: header, flags and the section's kind.
pub(crate) const REPLY_PREFIX_BYTES: usize = HEADER_BYTES + 5;

/// The reply to an OP_QUERY.
pub(crate) const OP_REPLY: i32 = 1;
/// The legacy query, kept for the handshake.
pub(crate) const OP_QUERY: i32 = 2004;
/// A packed message.
pub(crate) const OP_COMPRESSED: i32 = 2012;
/// Every other message.
pub const OP_MSG: i32 = 2013;

const FLAG_CHECKSUM_PRESENT: u32 = 1;
const FLAG_MORE_TO_COME: u32 = 1 << 1;
const FLAG_EXHAUST_ALLOWED: u32 = 1 << 16;
/// A receiver must know every flag in the lower half.
const FLAGS_REQUIRED: u32 = 0xFFFF;
/// Levels that a command adds around a document.
const COMMAND_NESTING: usize = 5;
/// Length and closing NUL.
const EMPTY_DOCUMENT_BYTES: usize = 5;

/// Why a message cannot be executed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MessageError {
    /// The stream of messages cannot be trusted any more: the connection is closed with this reason.
    #[error("{0}")]
    Fatal(String),
    /// The message was delimited well, its contents are wrong: the client gets this error as the reply.
    #[error("{0}")]
    Refused(Error),
}

impl Eq for MessageError {}

impl MessageError {
    /// A reason to close the connection.
    pub(crate) fn fatal(reason: impl Into<String>) -> MessageError {
        MessageError::Fatal(reason.into())
    }
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole message, this header included.
    pub length: usize,
    /// The sender's number for the message.
    pub request_id: i32,
    /// The message that this one answers.
    pub response_to: i32,
    /// What kind of message it is.
    pub opcode: i32,
}

impl Header {
    /// Reads and checks a header at the start of `bytes`: length within limits, known opcode.
    pub fn parse(bytes: &[u8]) -> Result<Header, MessageError> {
        let field = |at| i32_at(bytes, at).ok_or_else(|| MessageError::fatal("message header is incomplete"));
        let (claimed, request_id, response_to, opcode) = (field(0)?, field(4)?, field(8)?, field(12)?);
        let length = usize::try_from(claimed)
            .ok()
            .filter(|length| (HEADER_BYTES..=MESSAGE_BYTES_MAX).contains(length))
            .ok_or_else(|| {
                MessageError::fatal(format!(
                    "message length {claimed} is not between {HEADER_BYTES} and {MESSAGE_BYTES_MAX}"
                ))
            })?;
        if !matches!(opcode, OP_MSG | OP_QUERY | OP_COMPRESSED | OP_REPLY) {
            return Err(MessageError::fatal(format!("opcode {opcode} is not supported")));
        }
        Ok(Header { length, request_id, response_to, opcode })
    }

    /// The header's bytes.
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let length = i32::try_from(self.length).expect("messages are below 2 GiB");
        let mut bytes = [0; HEADER_BYTES];
        let fields = [length, self.request_id, self.response_to, self.opcode];
        for (slot, field) in bytes.chunks_exact_mut(4).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }
}

/// A request: one command, however it was framed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The command and its fields.
    pub body: DocBuf,
    /// Fields that came as document sequences.
    pub sequences: Vec<Sequence>,
    /// The client waits for no reply.
    pub more_to_come: bool,
    /// The client takes several replies to this one request.
    pub exhaust_allowed: bool,
}

/// A field of a command that came as a section of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The field's name.
    pub name: String,
    /// Its documents.
    pub documents: Vec<DocBuf>,
}

/// Reads an OP_MSG, header included.
pub fn parse_op_msg(message: &Bytes) -> Result<Request, MessageError> {
    let flags =
        i32_at(message, HEADER_BYTES).ok_or_else(|| MessageError::fatal("OP_MSG has no flags"))? as u32;
    let unknown = flags & FLAGS_REQUIRED & !(FLAG_CHECKSUM_PRESENT | FLAG_MORE_TO_COME);
    if unknown != 0 {
        return Err(MessageError::fatal(format!("OP_MSG has unknown required flags {unknown:#x}")));
    }
    let end = if flags & FLAG_CHECKSUM_PRESENT == 0 { message.len() } else { verify_checksum(message)? };
    let mut body = None;
    let mut sequences = Vec::new();
    let mut at = HEADER_BYTES + 4;
    while at < end {
        let kind = *message.get(at).ok_or_else(|| MessageError::fatal("OP_MSG section is cut off"))?;
        at += 1;
        match kind {
            0 => {
                let bytes = take_document(message, at, end)?;
                at += bytes.len();
                if body.replace(bytes).is_some() {
                    return Err(refused(40_430, "Multiple body sections in message"));
                }
            }
            1 => {
                let (sequence, next) = take_sequence(message, at, end)?;
                sequences.push(sequence);
                at = next;
            }
            other => {
                return Err(MessageError::fatal(format!("OP_MSG has a section of unknown kind {other}")));
            }
        }
    }
    let body = body.ok_or_else(|| refused(40_587, "OP_MSG messages must have a body"))?;
    Ok(Request {
        body: checked_command(body)?,
        sequences,
        more_to_come: flags & FLAG_MORE_TO_COME != 0,
        exhaust_allowed: flags & FLAG_EXHAUST_ALLOWED != 0,
    })
}

/// A legacy query, reduced to what the handshake needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyQuery {
    /// `database.collection`; commands go to `database.$cmd`.
    pub namespace: String,
    /// The query: a command, or `{$query: command}`.
    pub query: DocBuf,
}

/// Reads an OP_QUERY, header included.
pub fn parse_op_query(message: &Bytes) -> Result<LegacyQuery, MessageError> {
    let name_start = HEADER_BYTES + 4;
    let (namespace, after_name) = take_cstring(message, name_start, message.len())?;
    // Two numbers, of documents to skip and to return, have no meaning for a command.
    let query = take_document(message, after_name + 8, message.len())?;
    Ok(LegacyQuery { namespace, query: checked_command(query)? })
}

/// Completes a reply's buffer, which starts with [`REPLY_PREFIX_BYTES`] of room, to an OP_MSG.
pub(crate) fn finish_op_msg(
    mut buffer: Vec<u8>,
    request_id: i32,
    response_to: i32,
    more_to_come: bool,
) -> Vec<u8> {
    let header = Header { length: buffer.len(), request_id, response_to, opcode: OP_MSG };
    let flags = if more_to_come { FLAG_MORE_TO_COME } else { 0 };
    let prefix = buffer.first_chunk_mut::<REPLY_PREFIX_BYTES>().expect("a reply starts with its prefix");
    prefix[..HEADER_BYTES].copy_from_slice(&header.encode());
    prefix[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&flags.to_le_bytes());
    prefix[HEADER_BYTES + 4] = 0;
    buffer
}

/// Frames a body as the reply to a legacy query; `failed` sets the flag that clients look at.
pub(crate) fn encode_op_reply(body: &[u8], request_id: i32, response_to: i32, failed: bool) -> Vec<u8> {
    let header = Header { length: HEADER_BYTES + 20 + body.len(), request_id, response_to, opcode: OP_REPLY };
    let mut message = Vec::with_capacity(header.length);
    message.extend_from_slice(&header.encode());
    // Bit 3: the server waits for data; bit 1: the query failed.
    let flags: i32 = if failed { 0b1010 } else { 0b1000 };
    message.extend_from_slice(&flags.to_le_bytes());
    message.extend_from_slice(&0_i64.to_le_bytes());
    message.extend_from_slice(&0_i32.to_le_bytes());
    message.extend_from_slice(&1_i32.to_le_bytes());
    message.extend_from_slice(body);
    message
}

/// The little-endian number at `at`, if the bytes reach that far.
pub(crate) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk().copied().map(i32::from_le_bytes)
}

fn refused(code: i32, message: &str) -> MessageError {
    MessageError::Refused(Error::new(Code(code), message))
}

/// Where the sections end, the checksum being right.
fn verify_checksum(message: &[u8]) -> Result<usize, MessageError> {
    let split = message
        .len()
        .checked_sub(4)
        .filter(|at| *at >= HEADER_BYTES + 4)
        .ok_or_else(|| MessageError::fatal("OP_MSG is too short for its checksum"))?;
    let stated = i32_at(message, split).map(|stated| stated as u32);
    let actual = crc32c::crc32c(message.get(..split).unwrap_or_default());
    if stated != Some(actual) {
        return Err(MessageError::fatal("OP_MSG checksum does not match contents"));
    }
    Ok(split)
}

fn take_document(message: &Bytes, at: usize, end: usize) -> Result<Bytes, MessageError> {
    let wrong = || MessageError::fatal("a document's length does not fit its message");
    let length = i32_at(message, at).and_then(|length| usize::try_from(length).ok()).ok_or_else(wrong)?;
    let stop = at.checked_add(length).ok_or_else(wrong)?;
    if length < EMPTY_DOCUMENT_BYTES || stop > end {
        return Err(wrong());
    }
    Ok(message.slice(at..stop))
}

/// A command nests deeper than the documents in it: an array of statements, each with a document or a pipeline.
fn checked_command(bytes: Bytes) -> Result<DocBuf, MessageError> {
    validate_nested(&bytes, NESTING_MAX + COMMAND_NESTING).map_err(MessageError::Refused)?;
    Ok(DocBuf::from_validated(bytes))
}

/// The documents of an insert are stored as they are; those of other sequences are statements.
fn checked_item(sequence: &str, bytes: Bytes) -> Result<DocBuf, MessageError> {
    if sequence != "documents" {
        return checked_command(bytes);
    }
    validate(&bytes).map_err(MessageError::Refused)?;
    Ok(DocBuf::from_validated(bytes))
}

fn take_cstring(message: &[u8], at: usize, end: usize) -> Result<(String, usize), MessageError> {
    let unterminated = || MessageError::fatal("a name in the message has no end");
    let rest = message.get(at..end).ok_or_else(unterminated)?;
    let length = rest.iter().position(|byte| *byte == 0).ok_or_else(unterminated)?;
    let name = rest.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let name = name.ok_or_else(|| MessageError::fatal("a name in the message is not UTF-8"))?;
    Ok((name.to_owned(), at + length + 1))
}

/// A document sequence and where the next section starts.
fn take_sequence(message: &Bytes, at: usize, end: usize) -> Result<(Sequence, usize), MessageError> {
    let wrong = || MessageError::fatal("a document sequence's size does not fit its message");
    let size = i32_at(message, at).and_then(|size| usize::try_from(size).ok()).ok_or_else(wrong)?;
    let stop = at.checked_add(size).filter(|stop| *stop <= end && size >= 5).ok_or_else(wrong)?;
    let (name, first) = take_cstring(message, at + 4, stop)?;
    let mut documents = Vec::with_capacity(count_documents(message, first, stop)?);
    let mut next = first;
    while next < stop {
        let bytes = take_document(message, next, stop)?;
        next += bytes.len();
        documents.push(checked_item(&name, bytes)?);
    }
    Ok((Sequence { name, documents }, stop))
}

/// Counts before anything is allocated for them.
fn count_documents(message: &Bytes, first: usize, stop: usize) -> Result<usize, MessageError> {
    let (mut next, mut count) = (first, 0);
    while next < stop {
        let length = i32_at(message, next).and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|length| *length >= EMPTY_DOCUMENT_BYTES);
        next += length.ok_or_else(|| MessageError::fatal("a document's length does not fit its message"))?;
        count += 1;
    }
    if count > WRITE_BATCH_MAX {
        return Err(MessageError::Refused(batch_size_error(count)));
    }
    Ok(count)
}

/// `InvalidLength` (16) for a batch of writes that is empty or too long.
pub(crate) fn batch_size_error(count: usize) -> Error {
    let message =
        format!("Write batch sizes must be between 1 and {WRITE_BATCH_MAX}. Got {count} operations.");
    Error::new(Code::INVALID_LENGTH, message)
}
