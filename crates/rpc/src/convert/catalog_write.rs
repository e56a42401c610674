//! Changes of the catalog, in the form in which `serde` has them.
//!
//! Always holds: a user's own documents in them travel beside that form: `serde` takes a field named `$date` in a document
//! for a date.

use std::mem;

use base::limits::PEER_NESTING_MAX;
use base::{Error, Result};
use bson::Document;
use bytes::Bytes;
use catalog::{Command, Reply};
use document::validate::validate_nested;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Wire, missing};
use crate::v1;

/// BSON has to be a document.
#[derive(Serialize, Deserialize)]
struct Wrapped<T> {
    v: T,
}

/// Where a command or a reply has a user's document.
trait Options {
    fn options(&mut self) -> Option<&mut Document>;
}

impl Options for Command {
    fn options(&mut self) -> Option<&mut Document> {
        match self {
            Command::CreateCollection { options, .. } => Some(options),
            _ => None,
        }
    }
}

impl Options for Reply {
    fn options(&mut self) -> Option<&mut Document> {
        match self {
            Reply::Collection(record) => Some(&mut record.options),
            Reply::Done | Reply::Indexes(_) | Reply::Node(_) | Reply::Reshard(_) => None,
        }
    }
}

impl Wire for Command {
    type Message = v1::CatalogWrite;

    fn into_wire(self) -> Result<v1::CatalogWrite> {
        encode(self)
    }

    fn from_wire(message: v1::CatalogWrite) -> Result<Command> {
        decode(message)
    }
}

impl Wire for Reply {
    type Message = v1::CatalogWrite;

    fn into_wire(self) -> Result<v1::CatalogWrite> {
        encode(self)
    }

    fn from_wire(message: v1::CatalogWrite) -> Result<Reply> {
        decode(message)
    }
}

fn encode<T: Options + Serialize>(mut v: T) -> Result<v1::CatalogWrite> {
    let options = v.options().map(mem::take).into_wire()?;
    let content =
        bson::serialize_to_vec(&Wrapped { v }).map_err(|error| Error::bad_value(error.to_string()))?;
    Ok(v1::CatalogWrite { content: Bytes::from(content), options })
}

fn decode<T: Options + DeserializeOwned>(message: v1::CatalogWrite) -> Result<T> {
    validate_nested(&message.content, PEER_NESTING_MAX)?;
    let damaged = |error: bson::error::Error| Error::failed_to_parse(error.to_string());
    let Wrapped { mut v } = bson::deserialize_from_slice::<Wrapped<T>>(&message.content).map_err(damaged)?;
    if let Some(options) = v.options() {
        let sent = message.options.ok_or_else(|| missing("a collection's options"))?;
        *options = Document::from_wire(sent)?;
    }
    Ok(v)
}
