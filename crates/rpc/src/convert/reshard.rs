//! Pieces of a shard on their way to those that are about to take its place.
//!
//! Stored values have checksums of their own, which whoever takes them checks. Always holds: numbers that a shard's state keeps
//! are such as it can store.

use base::{Error, Result, ShardId, Term, Timestamp};
use bytes::Bytes;
use document::ShardKey;
use query::encoding::{TAG_RETRY, parse_retry_key};
use query::evaluate::Batch;
use query::state::{Driver, HashRange, Origin, Reached, Source};

use super::{Wire, all_from, all_into, counter, document_key, required, shard_key_fields};
use crate::v1;

/// The key of a document or of a retry record: nothing else of a shard is copied.
fn copied_key(key: Bytes) -> Result<Bytes> {
    match key.first() {
        Some(&TAG_RETRY) if parse_retry_key(&key).is_ok() => Ok(key),
        Some(&TAG_RETRY) => {
            Err(Error::failed_to_parse(format!("{} bytes are not the key of a retry record", key.len())))
        }
        _ => document_key(key),
    }
}

impl Wire for HashRange {
    type Message = v1::HashRange;

    fn into_wire(self) -> Result<v1::HashRange> {
        Ok(v1::HashRange { first: self.first, last: self.last })
    }

    fn from_wire(message: v1::HashRange) -> Result<HashRange> {
        let v1::HashRange { first, last } = message;
        match first <= last {
            true => Ok(HashRange { first, last }),
            false => Err(Error::failed_to_parse(format!("there are no hashes from {first} to {last}"))),
        }
    }
}

impl Wire for ShardKey {
    type Message = Vec<String>;

    fn into_wire(self) -> Result<Vec<String>> {
        Ok(self.into())
    }

    fn from_wire(fields: Vec<String>) -> Result<ShardKey> {
        shard_key_fields(fields).map(ShardKey::from)
    }
}

impl Wire for Reached {
    type Message = v1::CopyReached;

    fn into_wire(self) -> Result<v1::CopyReached> {
        Ok(v1::CopyReached {
            scanned: self.scanned,
            all_scanned: self.all_scanned,
            followed: self.followed.to_u64(),
            complete: self.complete,
        })
    }

    fn from_wire(message: v1::CopyReached) -> Result<Reached> {
        let scanned = match message.scanned.is_empty() {
            true => Bytes::new(),
            false => copied_key(message.scanned)?,
        };
        Ok(Reached {
            scanned,
            all_scanned: message.all_scanned,
            followed: Timestamp::from_u64(message.followed),
            complete: message.complete,
        })
    }
}

impl Wire for Driver {
    type Message = v1::CopyDriver;

    fn into_wire(self) -> Result<v1::CopyDriver> {
        Ok(v1::CopyDriver { term: self.term.get(), run: self.run })
    }

    fn from_wire(message: v1::CopyDriver) -> Result<Driver> {
        Ok(Driver { term: Term(counter(message.term)?), run: counter(message.run)? })
    }
}

impl Wire for Source {
    type Message = v1::CopySource;

    fn into_wire(self) -> Result<v1::CopySource> {
        Ok(v1::CopySource {
            shard: self.shard.get(),
            driver: Some(self.driver.into_wire()?),
            number: self.number,
            reached: Some(self.reached.into_wire()?),
        })
    }

    fn from_wire(message: v1::CopySource) -> Result<Source> {
        Ok(Source {
            shard: ShardId(counter(message.shard)?),
            driver: required(message.driver, "who copies")?,
            number: counter(message.number)?,
            reached: required(message.reached, "how far copying has come")?,
        })
    }
}

impl Wire for Origin {
    type Message = v1::CopyOrigin;

    fn into_wire(self) -> Result<v1::CopyOrigin> {
        Ok(v1::CopyOrigin {
            shard: self.shard.get(),
            range: Some(self.range.into_wire()?),
            shard_key: self.shard_key.into_wire()?,
            counts: self.counts,
            counted: self.counted.into_iter().map(ShardId::get).collect(),
        })
    }

    fn from_wire(message: v1::CopyOrigin) -> Result<Origin> {
        Ok(Origin {
            shard: ShardId(counter(message.shard)?),
            range: required(message.range, "a range of hashes")?,
            shard_key: Wire::from_wire(message.shard_key)?,
            counts: message.counts,
            counted: message
                .counted
                .into_iter()
                .map(|shard| counter(shard).map(ShardId))
                .collect::<Result<_>>()?,
        })
    }
}

impl Wire for Batch {
    type Message = v1::CopyBatch;

    fn into_wire(self) -> Result<v1::CopyBatch> {
        Ok(v1::CopyBatch {
            source: self.source.get(),
            driver: Some(self.driver.into_wire()?),
            number: self.number,
            pairs: self.pairs.into_iter().map(|(key, value)| v1::CopyPair { key, value }).collect(),
            reached: Some(self.reached.into_wire()?),
            origins: all_into(self.origins)?,
        })
    }

    fn from_wire(message: v1::CopyBatch) -> Result<Batch> {
        let pairs = message.pairs.into_iter().map(|pair| Ok((copied_key(pair.key)?, pair.value)));
        Ok(Batch {
            source: ShardId(counter(message.source)?),
            driver: required(message.driver, "who copies")?,
            number: counter(message.number)?,
            pairs: pairs.collect::<Result<_>>()?,
            reached: required(message.reached, "how far copying has come")?,
            origins: all_from(message.origins)?,
        })
    }
}
