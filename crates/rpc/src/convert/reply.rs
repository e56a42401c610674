//! Answers to commands on documents.

use base::{Error, LogIndex, Result};
use bson::Bson;
use router::command::{CollectionStats, CursorId, FindAndModifyReply, WriteReply};
use router::peer::{Executed, OperationReply};

use super::{Wire, count, number, required, unwrap_array, wrap};
use crate::v1;

impl Wire for WriteReply {
    type Message = v1::WriteReply;

    fn into_wire(self) -> Result<v1::WriteReply> {
        let upserted = self
            .upserted
            .into_iter()
            .map(|(statement, id)| Ok(v1::Upserted { statement: number(statement)?, id: id.into_wire()? }));
        let errors = self.write_errors.into_iter().map(|(statement, error)| {
            Ok(v1::WriteError { statement: number(statement)?, error: Some(error.into_wire()?) })
        });
        Ok(v1::WriteReply {
            n: self.n,
            n_modified: self.n_modified,
            upserted: upserted.collect::<Result<_>>()?,
            write_errors: errors.collect::<Result<_>>()?,
            retried_statement_ids: self.retried_statement_ids,
        })
    }

    fn from_wire(message: v1::WriteReply) -> Result<WriteReply> {
        let upserted = message.upserted.into_iter();
        let upserted =
            upserted.map(|upserted| Ok((count(upserted.statement)?, Bson::from_wire(upserted.id)?)));
        let errors = message.write_errors.into_iter();
        let errors =
            errors.map(|failed| Ok((count(failed.statement)?, required::<Error>(failed.error, "an error")?)));
        Ok(WriteReply {
            n: message.n,
            n_modified: message.n_modified,
            upserted: upserted.collect::<Result<_>>()?,
            write_errors: errors.collect::<Result<_>>()?,
            retried_statement_ids: message.retried_statement_ids,
        })
    }
}

impl Wire for FindAndModifyReply {
    type Message = v1::FindAndModifyReply;

    fn into_wire(self) -> Result<v1::FindAndModifyReply> {
        Ok(v1::FindAndModifyReply {
            value: self.value.into_wire()?,
            n: self.n,
            updated_existing: self.updated_existing,
            upserted: self.upserted.into_wire()?,
            retried: self.retried,
        })
    }

    fn from_wire(message: v1::FindAndModifyReply) -> Result<FindAndModifyReply> {
        Ok(FindAndModifyReply {
            value: Wire::from_wire(message.value)?,
            n: message.n,
            updated_existing: message.updated_existing,
            upserted: Wire::from_wire(message.upserted)?,
            retried: message.retried,
        })
    }
}

impl Wire for CollectionStats {
    type Message = v1::CollectionStats;

    fn into_wire(self) -> Result<v1::CollectionStats> {
        let indexes = self.indexes.into_iter().map(|(name, bytes)| v1::IndexSize { name, bytes }).collect();
        Ok(v1::CollectionStats {
            documents: self.documents,
            data_bytes: self.data_bytes,
            storage_bytes: self.storage_bytes,
            indexes,
            shards: number(self.shards)?,
        })
    }

    fn from_wire(message: v1::CollectionStats) -> Result<CollectionStats> {
        Ok(CollectionStats {
            documents: message.documents,
            data_bytes: message.data_bytes,
            storage_bytes: message.storage_bytes,
            indexes: message.indexes.into_iter().map(|index| (index.name, index.bytes)).collect(),
            shards: count(message.shards)?,
        })
    }
}

impl Wire for Executed {
    type Message = v1::OperationReply;

    fn into_wire(self) -> Result<v1::OperationReply> {
        Ok(v1::OperationReply { reply: Some(self.reply.into_wire()?), applied: self.applied.get() })
    }

    fn from_wire(message: v1::OperationReply) -> Result<Executed> {
        Ok(Executed { reply: required(message.reply, "a reply")?, applied: LogIndex(message.applied) })
    }
}

impl Wire for OperationReply {
    type Message = v1::operation_reply::Reply;

    fn into_wire(self) -> Result<v1::operation_reply::Reply> {
        use v1::operation_reply::Reply;
        Ok(match self {
            OperationReply::Write(reply) => Reply::Write(reply.into_wire()?),
            OperationReply::FindAndModify(reply) => Reply::FindAndModify(reply.into_wire()?),
            OperationReply::Scan(reply) => Reply::Scan(reply.into_wire()?),
            OperationReply::Seek(reply) => Reply::Seek(reply.into_wire()?),
            OperationReply::Received(source) => Reply::Received(source.into_wire()?),
            OperationReply::Killed(cursors) => Reply::Killed(v1::KilledCursors {
                cursors: cursors.into_iter().map(|cursor| cursor.0).collect(),
            }),
            OperationReply::Count(count) => Reply::Count(count),
            OperationReply::Values(values) => Reply::Values(wrap(values)?),
            OperationReply::Document(document) => Reply::Document(document.into_wire()?),
            OperationReply::Reconciled => Reply::Reconciled(v1::Reconciled {}),
            OperationReply::CollectionStats(stats) => Reply::CollectionStats(stats.into_wire()?),
        })
    }

    fn from_wire(message: v1::operation_reply::Reply) -> Result<OperationReply> {
        use v1::operation_reply::Reply;
        Ok(match message {
            Reply::Write(reply) => OperationReply::Write(Wire::from_wire(reply)?),
            Reply::FindAndModify(reply) => OperationReply::FindAndModify(Wire::from_wire(reply)?),
            Reply::Scan(reply) => OperationReply::Scan(Wire::from_wire(reply)?),
            Reply::Seek(reply) => OperationReply::Seek(Wire::from_wire(reply)?),
            Reply::Received(source) => OperationReply::Received(Wire::from_wire(source)?),
            Reply::Killed(killed) => {
                OperationReply::Killed(killed.cursors.into_iter().map(CursorId).collect())
            }
            Reply::Count(count) => OperationReply::Count(count),
            Reply::Values(values) => OperationReply::Values(unwrap_array(values)?),
            Reply::Document(document) => OperationReply::Document(Wire::from_wire(document)?),
            Reply::Reconciled(v1::Reconciled {}) => OperationReply::Reconciled,
            Reply::CollectionStats(stats) => OperationReply::CollectionStats(Wire::from_wire(stats)?),
        })
    }
}
