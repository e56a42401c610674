//! Writes of one document that may be in any shard: the search for it, and what was found.

use base::{BootId, Result, Timestamp};
use query::evaluate::{Ballot, Fence};
use router::command::{Found, SeekCommand, SeekReply};

use super::{Wire, counter, document_key, missing, required};
use crate::v1;

impl Wire for Ballot {
    type Message = v1::Ballot;

    fn into_wire(self) -> Result<v1::Ballot> {
        Ok(v1::Ballot { round: self.round, boot: self.boot.get() })
    }

    fn from_wire(message: v1::Ballot) -> Result<Ballot> {
        Ok(Ballot { round: counter(message.round)?, boot: BootId(message.boot) })
    }
}

impl Wire for Fence {
    type Message = v1::Fence;

    fn into_wire(self) -> Result<v1::Fence> {
        Ok(v1::Fence { ballot: Some(self.ballot.into_wire()?), since: self.since.to_u64() })
    }

    fn from_wire(message: v1::Fence) -> Result<Fence> {
        let ballot = required(message.ballot, "a ballot")?;
        Ok(Fence { ballot, since: Timestamp::from_u64(message.since) })
    }
}

impl Wire for Found {
    type Message = v1::Found;

    fn into_wire(self) -> Result<v1::Found> {
        Ok(v1::Found {
            fence: self.fence.into_wire()?,
            key: self.key,
            upsert_id: self.upsert_id.into_wire()?,
        })
    }

    fn from_wire(message: v1::Found) -> Result<Found> {
        Ok(Found {
            fence: Wire::from_wire(message.fence)?,
            key: message.key.map(document_key).transpose()?,
            upsert_id: Wire::from_wire(message.upsert_id)?,
        })
    }
}

impl Wire for SeekCommand {
    type Message = v1::Seek;

    fn into_wire(self) -> Result<v1::Seek> {
        Ok(v1::Seek {
            namespace: Some(self.namespace.into_wire()?),
            filter: self.filter.into_wire()?,
            sort: self.sort.into_wire()?,
            hint: self.hint.into_wire()?,
            variables: self.variables.into_wire()?,
            stmt_id: self.stmt_id,
            ballot: Some(self.ballot.into_wire()?),
        })
    }

    fn from_wire(message: v1::Seek) -> Result<SeekCommand> {
        Ok(SeekCommand {
            namespace: required(message.namespace, "a namespace")?,
            filter: Wire::from_wire(message.filter)?,
            sort: Wire::from_wire(message.sort)?,
            hint: Wire::from_wire(message.hint)?,
            variables: Wire::from_wire(message.variables)?,
            stmt_id: message.stmt_id,
            ballot: required(message.ballot, "a ballot")?,
        })
    }
}

impl Wire for SeekReply {
    type Message = v1::SeekReply;

    fn into_wire(self) -> Result<v1::SeekReply> {
        use v1::seek_reply::Reply;
        let reply = match self {
            SeekReply::Executed => Reply::Executed(v1::SeekExecuted {}),
            SeekReply::Fenced { fence, found } => Reply::Fenced(v1::SeekFenced {
                fence: Some(fence.into_wire()?),
                found: found.map(|(sort_key, key)| v1::SeekFound { sort_key, key }),
            }),
            SeekReply::Outranked(ballot) => Reply::Outranked(ballot.into_wire()?),
        };
        Ok(v1::SeekReply { reply: Some(reply) })
    }

    fn from_wire(message: v1::SeekReply) -> Result<SeekReply> {
        use v1::seek_reply::Reply;
        Ok(match message.reply.ok_or_else(|| missing("a seek's reply"))? {
            Reply::Executed(v1::SeekExecuted {}) => SeekReply::Executed,
            Reply::Fenced(fenced) => {
                let found = fenced.found.map(|found| Ok((found.sort_key, document_key(found.key)?)));
                SeekReply::Fenced { fence: required(fenced.fence, "a fence")?, found: found.transpose()? }
            }
            Reply::Outranked(ballot) => SeekReply::Outranked(Wire::from_wire(ballot)?),
        })
    }
}
