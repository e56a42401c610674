//! Between the product's types and the messages that travel.
//!
//! Called by both ends of a stream. Always holds: what comes from a network is checked here before it becomes one of the
//! product's types: documents by one pass over their bytes, names by their rules, numbers by their range; nothing in here
//! panics on it, and what passes converts back to the same message.

mod catalog_write;
mod command;
mod member;
mod peer;
mod raft_message;
mod reply;
mod reshard;
mod scan;
mod seek;
mod snapshot;

use base::limits::{KEY_BYTES_MAX, PEER_NESTING_MAX};
use base::{Error, Namespace, Result};
use bson::{Bson, Document};
use bytes::Bytes;
use document::DocBuf;
use document::path::Path;
use document::shard_key::SHARD_KEY_FIELDS_MAX;
use document::validate::validate_nested;
use query::encoding::TAG_DOCUMENT;

use crate::v1;

pub(crate) use peer::{answer_to_wire, request_from_wire};

/// Far above what counters ever reach, far enough below where adding to them overflows, and no more than BSON can store.
const NUMBER_MAX: u64 = u64::MAX / 2;

/// A type of the product that travels as a message.
pub(crate) trait Wire: Sized {
    /// The message.
    type Message;

    /// The message. Fails on documents that BSON cannot encode.
    fn into_wire(self) -> Result<Self::Message>;

    /// Reads a message. Fails, mostly with `FailedToParse`, on one that [`Wire::into_wire`] does not make.
    fn from_wire(message: Self::Message) -> Result<Self>;
}

/// What a message lacks.
fn missing(what: &str) -> Error {
    Error::failed_to_parse(format!("a message of another node lacks {what}"))
}

fn required<T: Wire>(message: Option<T::Message>, what: &str) -> Result<T> {
    T::from_wire(message.ok_or_else(|| missing(what))?)
}

fn all_into<T: Wire>(values: Vec<T>) -> Result<Vec<T::Message>> {
    values.into_iter().map(T::into_wire).collect()
}

fn all_from<T: Wire>(messages: Vec<T::Message>) -> Result<Vec<T>> {
    messages.into_iter().map(T::from_wire).collect()
}

/// Encodes `{v: value}`.
fn wrap(value: impl Into<Bson>) -> Result<Bytes> {
    bson::doc! { "v": value.into() }.into_wire()
}

/// Decodes `{v: value}`.
fn unwrap_value(bytes: Bytes) -> Result<Bson> {
    Document::from_wire(bytes)?.remove("v").ok_or_else(|| missing("a value"))
}

/// Decodes `{v: [...]}`.
fn unwrap_array(bytes: Bytes) -> Result<Vec<Bson>> {
    match unwrap_value(bytes)? {
        Bson::Array(values) => Ok(values),
        other => {
            Err(Error::failed_to_parse(format!("an array was expected, not {:?}", other.element_type())))
        }
    }
}

fn count(number: u64) -> Result<usize> {
    usize::try_from(number).map_err(|_| Error::failed_to_parse(format!("{number} is no count")))
}

/// A `usize` as it travels.
fn number(count: usize) -> Result<u64> {
    u64::try_from(count).map_err(|_| Error::bad_value(format!("{count} is too large to be sent")))
}

/// What counts up from 0, and is added to or stored.
fn counter(number: u64) -> Result<u64> {
    match number {
        0..=NUMBER_MAX => Ok(number),
        _ => Err(Error::failed_to_parse(format!("nothing counts as far as {number}"))),
    }
}

/// The fields of a shard key.
fn shard_key_fields(fields: Vec<String>) -> Result<Vec<String>> {
    if fields.is_empty() || fields.len() > SHARD_KEY_FIELDS_MAX {
        let message = format!("a shard key has 1 to {SHARD_KEY_FIELDS_MAX} fields, not {}", fields.len());
        return Err(Error::failed_to_parse(message));
    }
    fields.iter().try_for_each(|field| Path::parse_bounded(field).map(drop))?;
    Ok(fields)
}

/// The key of a document in a shard's keyspace.
fn document_key(key: Bytes) -> Result<Bytes> {
    match key.first() {
        Some(&TAG_DOCUMENT) if key.len() <= KEY_BYTES_MAX => Ok(key),
        _ => Err(Error::failed_to_parse(format!("{} bytes are not the key of a document", key.len()))),
    }
}

impl<T: Wire> Wire for Option<T> {
    type Message = Option<T::Message>;

    fn into_wire(self) -> Result<Self::Message> {
        self.map(T::into_wire).transpose()
    }

    fn from_wire(message: Self::Message) -> Result<Self> {
        message.map(T::from_wire).transpose()
    }
}

impl Wire for DocBuf {
    type Message = Bytes;

    fn into_wire(self) -> Result<Bytes> {
        Ok(self.into_bytes())
    }

    fn from_wire(bytes: Bytes) -> Result<DocBuf> {
        validate_nested(&bytes, PEER_NESTING_MAX)?;
        Ok(DocBuf::from_validated(bytes))
    }
}

impl Wire for Document {
    type Message = Bytes;

    fn into_wire(self) -> Result<Bytes> {
        let bytes = self.to_vec().map_err(|error| Error::bad_value(error.to_string()))?;
        Ok(bytes.into())
    }

    /// Not by way of `serde`, which would take a field named `$date` for a date.
    fn from_wire(bytes: Bytes) -> Result<Document> {
        validate_nested(&bytes, PEER_NESTING_MAX)?;
        let damaged = |error: bson::error::Error| Error::failed_to_parse(error.to_string());
        bson::RawDocument::from_bytes(&bytes).map_err(damaged)?.try_into().map_err(damaged)
    }
}

impl Wire for Bson {
    type Message = Bytes;

    fn into_wire(self) -> Result<Bytes> {
        wrap(self)
    }

    fn from_wire(bytes: Bytes) -> Result<Bson> {
        unwrap_value(bytes)
    }
}

impl Wire for Namespace {
    type Message = v1::Namespace;

    fn into_wire(self) -> Result<v1::Namespace> {
        Ok(v1::Namespace { database: self.database, collection: self.collection })
    }

    fn from_wire(message: v1::Namespace) -> Result<Namespace> {
        Namespace::new(&message.database, &message.collection)
    }
}

impl Wire for Error {
    type Message = v1::Error;

    fn into_wire(self) -> Result<v1::Error> {
        let details = self.details.map(|details| Bytes::from(details.into_vec()));
        Ok(v1::Error { code: self.code.0, message: self.message, details })
    }

    fn from_wire(message: v1::Error) -> Result<Error> {
        let mut error = Error::new(base::Code(message.code), message.message);
        if let Some(details) = message.details {
            validate_nested(&details, PEER_NESTING_MAX)?;
            error = error.with_details(details.to_vec());
        }
        Ok(error)
    }
}

#[cfg(test)]
mod tests;
