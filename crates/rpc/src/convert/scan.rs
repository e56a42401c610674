//! A shard's part of a read, and its batches.
//!
//! Positions travel as they are: `query::position` checks what it reads.

use base::{Error, Result};
use bytes::Bytes;
use query::state::HashRange;
use router::command::{CursorId, ScanCommand, ScanReply, ScanScope, ScanSize};

use super::{Wire, all_from, all_into, required, shard_key_fields, unwrap_array, wrap};
use crate::v1;

impl Wire for ScanCommand {
    type Message = v1::Scan;

    fn into_wire(self) -> Result<v1::Scan> {
        let pipeline = match self.pipeline.is_empty() {
            true => Bytes::new(),
            false => wrap(self.pipeline)?,
        };
        Ok(v1::Scan {
            namespace: Some(self.namespace.into_wire()?),
            filter: self.filter.into_wire()?,
            sort: self.sort.into_wire()?,
            projection: self.projection.into_wire()?,
            skip: self.skip,
            limit: self.limit,
            hint: self.hint.into_wire()?,
            variables: self.variables.into_wire()?,
            pipeline,
            ranked: self.ranked,
            after: self.after,
            scopes: all_into(self.scopes)?,
            size: Some(self.size.into_wire()?),
            keep: self.keep,
        })
    }

    fn from_wire(message: v1::Scan) -> Result<ScanCommand> {
        let pipeline = match message.pipeline.is_empty() {
            true => Vec::new(),
            false => unwrap_array(message.pipeline)?,
        };
        Ok(ScanCommand {
            namespace: required(message.namespace, "a namespace")?,
            filter: Wire::from_wire(message.filter)?,
            sort: Wire::from_wire(message.sort)?,
            projection: Wire::from_wire(message.projection)?,
            skip: message.skip,
            limit: message.limit,
            hint: Wire::from_wire(message.hint)?,
            variables: Wire::from_wire(message.variables)?,
            pipeline,
            ranked: message.ranked,
            after: message.after,
            scopes: all_from(message.scopes)?,
            size: required(message.size, "a size")?,
            keep: message.keep,
        })
    }
}

impl Wire for ScanScope {
    type Message = v1::ScanScope;

    fn into_wire(self) -> Result<v1::ScanScope> {
        let range = HashRange { first: self.first, last: self.last };
        Ok(v1::ScanScope { shard_key: self.shard_key, range: Some(range.into_wire()?) })
    }

    fn from_wire(message: v1::ScanScope) -> Result<ScanScope> {
        let HashRange { first, last } = required(message.range, "a range of hashes")?;
        Ok(ScanScope { shard_key: shard_key_fields(message.shard_key)?, first, last })
    }
}

impl Wire for ScanSize {
    type Message = v1::ScanSize;

    fn into_wire(self) -> Result<v1::ScanSize> {
        Ok(v1::ScanSize { documents_max: self.documents_max, bytes_max: self.bytes_max })
    }

    fn from_wire(message: v1::ScanSize) -> Result<ScanSize> {
        Ok(ScanSize { documents_max: message.documents_max, bytes_max: message.bytes_max })
    }
}

/// `Operation::Continue`.
pub(super) struct Continued {
    pub(super) namespace: String,
    pub(super) cursor: CursorId,
    pub(super) size: ScanSize,
}

impl Wire for Continued {
    type Message = v1::ContinueScan;

    fn into_wire(self) -> Result<v1::ContinueScan> {
        let size = Some(self.size.into_wire()?);
        Ok(v1::ContinueScan { namespace: self.namespace, cursor: self.cursor.0, size })
    }

    fn from_wire(message: v1::ContinueScan) -> Result<Continued> {
        let size = required(message.size, "a size")?;
        Ok(Continued { namespace: message.namespace, cursor: CursorId(message.cursor), size })
    }
}

impl Wire for ScanReply {
    type Message = v1::ScanReply;

    fn into_wire(self) -> Result<v1::ScanReply> {
        Ok(v1::ScanReply {
            documents: all_into(self.documents)?,
            sort_keys: self.sort_keys,
            position: self.position,
            cursor: self.cursor.map(|cursor| cursor.0),
            is_done: self.is_done,
        })
    }

    /// Fails also when some of the documents have sort keys and others have none.
    fn from_wire(message: v1::ScanReply) -> Result<ScanReply> {
        let (documents, sort_keys) = (message.documents.len(), message.sort_keys.len());
        if sort_keys != 0 && sort_keys != documents {
            let message = format!("{documents} documents come with {sort_keys} sort keys");
            return Err(Error::failed_to_parse(message));
        }
        Ok(ScanReply {
            documents: all_from(message.documents)?,
            sort_keys: message.sort_keys,
            position: message.position,
            cursor: message.cursor.map(CursorId),
            is_done: message.is_done,
        })
    }
}
