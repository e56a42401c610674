//! Between the product's types and the messages that travel.
//!
//! Called by both ends of a stream. Always holds: what comes from a network is checked here before it becomes one of the
//! product's types: documents by one pass over their bytes, names by their rules, numbers by their range; nothing in here
//! panics on it, and what passes converts back to the same message.

mod command;
mod member;
mod peer;
mod raft_message;
mod reply;
mod snapshot;

use base::limits::PEER_NESTING_MAX;
use base::{Error, Namespace, Result};
use bson::{Bson, Document};
use bytes::Bytes;
use document::DocBuf;
use document::validate::validate_nested;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::v1;

pub(crate) use peer::{answer_to_wire, request_from_wire};

/// A type of the product that travels as a message.
pub(crate) trait Wire: Sized {
    /// The message.
    type Message;

    /// The message. Fails on documents that BSON cannot encode.
    fn into_wire(self) -> Result<Self::Message>;

    /// Reads a message. Fails, mostly with `FailedToParse`, on one that [`Wire::into_wire`] does not make.
    fn from_wire(message: Self::Message) -> Result<Self>;
}

/// A document or value in one field, where BSON has to be a document.
#[derive(serde::Serialize, serde::Deserialize)]
struct Wrapped<T> {
    v: T,
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
fn wrap<T: Serialize>(v: T) -> Result<Bytes> {
    let bytes = bson::serialize_to_vec(&Wrapped { v });
    bytes.map(Bytes::from).map_err(|error| Error::bad_value(error.to_string()))
}

/// Decodes `{v: value}`.
fn unwrap_value<T: DeserializeOwned>(bytes: &Bytes) -> Result<T> {
    Ok(decode::<Wrapped<T>>(bytes)?.v)
}

fn decode<T: DeserializeOwned>(bytes: &Bytes) -> Result<T> {
    validate_nested(bytes, PEER_NESTING_MAX)?;
    bson::deserialize_from_slice(bytes).map_err(|error| Error::failed_to_parse(error.to_string()))
}

fn count(number: u64) -> Result<usize> {
    usize::try_from(number).map_err(|_| Error::failed_to_parse(format!("{number} is no count")))
}

/// A `usize` as it travels.
fn number(count: usize) -> Result<u64> {
    u64::try_from(count).map_err(|_| Error::bad_value(format!("{count} is too large to be sent")))
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
        DocBuf::encode(&self).map(DocBuf::into_bytes)
    }

    fn from_wire(bytes: Bytes) -> Result<Document> {
        decode(&bytes)
    }
}

impl Wire for Bson {
    type Message = Bytes;

    fn into_wire(self) -> Result<Bytes> {
        wrap(self)
    }

    fn from_wire(bytes: Bytes) -> Result<Bson> {
        unwrap_value(&bytes)
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
