//! Retry records: what makes a repeated write harmless.
//!
//! One record for each session holds the newest transaction number and the outcome of each of its statements. Called by
//! the evaluation of writes, and by the router through [`recorded`] for a repeat that found nothing to do. Always
//! holds: the record is in the same batch as the writes that it is about.

use base::{Code, Error, SessionId};
use bson::Bson;
use bytes::Bytes;
use document::{DocBuf, DocRef, RawDoc};
use storage::{Direction, KvBatch, Result};

use super::configure::with_state;
use super::{Evaluation, Outcome, Reader, ShardReply, TakenRecords};
use crate::encoding;
use crate::state::{Origin, ShardState};

/// Most records that one `ExpireSessions` removes.
const EXPIRE_MAX: usize = 10_000;

/// A session's newest transaction number and what its statements did.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryRecord {
    /// The transaction number.
    pub txn: i64,
    /// Wall time of the last write, in milliseconds since the Unix epoch.
    pub wall_ms: i64,
    runs: Vec<Run>,
}

/// Consecutive statements with the same outcome; one statement when the outcome is more than counts.
#[derive(Clone, Debug, PartialEq)]
struct Run {
    first: i32,
    count: u32,
    outcome: Outcome,
    /// The last document that a statement of many dealt with, while there may be more of them.
    position: Option<Bytes>,
}

/// The recorded outcomes of a session's transaction, or `None` when it wrote nothing yet. Fails with
/// `TransactionTooOld` (225) when the session has gone on.
pub fn recorded(
    reader: &dyn Reader,
    session: SessionId,
    txn: i64,
) -> Result<base::Result<Option<RetryRecord>>> {
    let newest = RetryRecord::read(reader, session)?;
    Ok(newest.map_or(Ok(None), |record| record.of_transaction(session, txn)))
}

/// Removes the records of sessions that have been idle since before `before_wall_ms`. With the last one that was taken over,
/// the shards that they came from are forgotten.
pub(super) fn expire(state: &ShardState, reader: &dyn Reader, before_wall_ms: i64) -> Result<Evaluation> {
    let mut batch = KvBatch::default();
    let mut taken_left = false;
    for entry in reader.scan(encoding::retry_range(), Direction::Forward) {
        let (key, value) = entry?;
        if batch.ops.len() == EXPIRE_MAX {
            break;
        }
        if RetryRecord::decode(&key, &value)?.wall_ms < before_wall_ms {
            batch.delete(key);
        } else {
            taken_left |= encoding::retry_origin(&key)?.is_some();
        }
    }
    let sessions = batch.ops.len() as u64;
    let done = batch.ops.len() < EXPIRE_MAX;
    let mut new = state.clone();
    if done && !taken_left && state.receiving.is_empty() {
        new.origins.clear();
    }
    Ok(with_state(state, new, batch, ShardReply::Expired { sessions, done }))
}

/// What a shard knows of a transaction: its own record, and those of shards whose place it took.
pub(super) struct Remembered<'a> {
    pub(super) own: RetryRecord,
    taken: Vec<(&'a Origin, RetryRecord)>,
    /// All that was taken over of the session, of whatever transaction.
    pub(super) all_taken: TakenRecords,
}

/// What a statement did before.
#[derive(Default)]
pub(super) struct Past<'a> {
    /// What it counted, if it did anything.
    pub(super) outcome: Option<Outcome>,
    /// Whether it need not be executed again.
    pub(super) is_complete: bool,
    /// Documents up to this key were dealt with here.
    pub(super) after: Option<Bytes>,
    /// Documents that were dealt with where they were before: those of a shard up to a key, or all of them.
    pub(super) elsewhere: Vec<(&'a Origin, Option<Bytes>)>,
}

impl<'a> Remembered<'a> {
    /// Fails with `TransactionTooOld` (225) when the session has gone on.
    pub(super) fn new(
        state: &'a ShardState,
        session: SessionId,
        txn: i64,
        own: Option<RetryRecord>,
        all_taken: &TakenRecords,
    ) -> base::Result<Remembered<'a>> {
        let of_transaction = |record: RetryRecord| record.of_transaction(session, txn);
        let own = own.map(of_transaction).transpose()?.flatten();
        let mut taken = Vec::new();
        for (shard, record) in all_taken.iter() {
            let origin = state.origins.iter().find(|origin| origin.shard == *shard);
            if let (Some(origin), Some(record)) = (origin, of_transaction(record.clone())?) {
                taken.push((origin, record));
            }
        }
        let own = own.unwrap_or_else(|| RetryRecord::new(txn));
        Ok(Remembered { own, taken, all_taken: all_taken.clone() })
    }

    /// What a statement of one document did, wherever that was.
    pub(super) fn outcome_of_one(&self, stmt_id: i32) -> Option<&Outcome> {
        let complete = |record: &'_ RetryRecord| record.position(stmt_id).is_none();
        let own = self.own.outcome(stmt_id).filter(|_| complete(&self.own));
        let taken = self.taken.iter().filter(|(_, record)| complete(record));
        own.or_else(|| taken.filter_map(|(_, record)| record.outcome(stmt_id)).next())
    }

    /// What a statement did before.
    pub(super) fn past(&self, state: &ShardState, stmt_id: i32, is_multi: bool) -> Past<'a> {
        if !is_multi {
            let outcome = self.outcome_of_one(stmt_id).cloned();
            return Past { is_complete: outcome.is_some(), outcome, ..Past::default() };
        }
        let own = self.own.outcome(stmt_id).cloned();
        let after = self.own.position(stmt_id).cloned();
        let mut past = Past {
            is_complete: own.is_some() && after.is_none(),
            outcome: own,
            after,
            elsewhere: Vec::new(),
        };
        // The own record, once there is one, has counted what the others had.
        let count = past.outcome.is_none();
        for (origin, record) in &self.taken {
            let Some(outcome) = record.outcome(stmt_id) else { continue };
            let upto = record.position(stmt_id).cloned();
            let has_all = origin.range.includes(state.hash_range) && origin.shard_key == state.shard_key;
            past.is_complete |= upto.is_none() && has_all;
            past.elsewhere.push((*origin, upto));
            if count {
                let counted = if origin.counts { outcome.clone() } else { nothing_of(outcome) };
                past.outcome = Some(past.outcome.into_iter().fold(counted, sum));
            }
        }
        past
    }
}

/// The outcome of a statement that counted nothing.
fn nothing_of(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Updated { .. } => {
            Outcome::Updated { matched: 0, modified: 0, upserted: None, document: None }
        }
        Outcome::Deleted { .. } => Outcome::Deleted { deleted: 0, document: None },
        other => other.clone(),
    }
}

/// What two parts of one statement did together.
pub(super) fn sum(left: Outcome, right: Outcome) -> Outcome {
    match (left, right) {
        (
            Outcome::Updated { matched, modified, upserted, document },
            Outcome::Updated { matched: more_matched, modified: more_modified, upserted: other, .. },
        ) => Outcome::Updated {
            matched: matched + more_matched,
            modified: modified + more_modified,
            upserted: upserted.or(other),
            document,
        },
        (Outcome::Deleted { deleted, document }, Outcome::Deleted { deleted: more_deleted, .. }) => {
            Outcome::Deleted { deleted: deleted + more_deleted, document }
        }
        (outcome, _) => outcome,
    }
}

impl RetryRecord {
    pub(super) fn new(txn: i64) -> RetryRecord {
        RetryRecord { txn, wall_ms: 0, runs: Vec::new() }
    }

    /// Reads the session's newest record.
    pub(super) fn read(reader: &dyn Reader, session: SessionId) -> Result<Option<RetryRecord>> {
        let key = encoding::retry_key(session);
        let Some(value) = reader.get(&key)? else { return Ok(None) };
        RetryRecord::decode(&key, &value).map(Some)
    }

    /// The record, if it is about this transaction; `None` when the transaction is newer. Fails when it is older.
    pub(super) fn of_transaction(self, session: SessionId, txn: i64) -> base::Result<Option<RetryRecord>> {
        match self.txn.cmp(&txn) {
            std::cmp::Ordering::Less => Ok(None),
            std::cmp::Ordering::Equal => Ok(Some(self)),
            std::cmp::Ordering::Greater => Err(too_old(session, txn, self.txn)),
        }
    }

    /// What the statement did, if it was executed.
    pub fn outcome(&self, stmt_id: i32) -> Option<&Outcome> {
        let run = self.runs.iter().find(|run| {
            let offset = i64::from(stmt_id) - i64::from(run.first);
            (0..i64::from(run.count)).contains(&offset)
        })?;
        Some(&run.outcome)
    }

    /// The last document that the statement dealt with, when it may go on behind it.
    pub fn position(&self, stmt_id: i32) -> Option<&Bytes> {
        self.runs.iter().find(|run| run.first == stmt_id)?.position.as_ref()
    }

    /// Adds or replaces the outcome so far of a statement that goes on behind `position`.
    pub(super) fn add_partial(&mut self, stmt_id: i32, outcome: &Outcome, position: Bytes) {
        self.forget_partial(stmt_id);
        self.runs.push(Run { first: stmt_id, count: 1, outcome: outcome.clone(), position: Some(position) });
    }

    fn forget_partial(&mut self, stmt_id: i32) {
        self.runs.retain(|run| run.first != stmt_id || run.position.is_none());
    }

    /// Adds a statement's outcome.
    pub(super) fn add(&mut self, stmt_id: i32, outcome: &Outcome) {
        self.forget_partial(stmt_id);
        if let Some(last) = self.runs.last_mut()
            && i64::from(last.first) + i64::from(last.count) == i64::from(stmt_id)
            && is_counts_only(outcome)
            && last.outcome == *outcome
            && last.position.is_none()
        {
            last.count += 1;
            return;
        }
        self.runs.push(Run { first: stmt_id, count: 1, outcome: outcome.clone(), position: None });
    }

    /// The stored form.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(16 + 9 * self.runs.len());
        out.extend_from_slice(&self.txn.to_le_bytes());
        out.extend_from_slice(&self.wall_ms.to_le_bytes());
        for run in &self.runs {
            out.extend_from_slice(&run.first.to_le_bytes());
            out.extend_from_slice(&run.count.to_le_bytes());
            if let Some(position) = &run.position {
                out.push(KIND_PARTIAL);
                let length = u32::try_from(position.len()).expect("a document's key is short");
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(position);
            }
            encode_outcome(&run.outcome, &mut out);
        }
        encoding::encode_record(&out)
    }

    /// Reads the stored form.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<RetryRecord> {
        let body = encoding::decode_record(key, value)?;
        parse(&mut Cursor(body)).ok_or_else(|| encoding::damaged(key, "is not a retry record"))
    }
}

fn too_old(session: SessionId, txn: i64, newest: i64) -> Error {
    let message = format!(
        "Retryable write with txnNumber {txn} is prohibited on session {session:?} because a newer retryable write \
         with txnNumber {newest} has already started on this session."
    );
    Error::new(Code::TRANSACTION_TOO_OLD, message)
}

fn is_counts_only(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Inserted => true,
        Outcome::Updated { upserted, document, .. } => upserted.is_none() && document.is_none(),
        Outcome::Deleted { document, .. } => document.is_none(),
        Outcome::LostCandidate => false,
    }
}

const KIND_INSERTED: u8 = 0;
const KIND_UPDATED: u8 = 1;
const KIND_DELETED: u8 = 2;
/// Stands before the kind of an outcome that may go on, with the position behind which it does.
const KIND_PARTIAL: u8 = 3;

fn encode_outcome(outcome: &Outcome, out: &mut Vec<u8>) {
    match outcome {
        Outcome::Inserted => out.push(KIND_INSERTED),
        Outcome::Updated { matched, modified, upserted, document } => {
            out.push(KIND_UPDATED);
            out.extend_from_slice(&matched.to_le_bytes());
            out.extend_from_slice(&modified.to_le_bytes());
            let upserted = upserted.as_ref().map(|id| {
                let document = bson::doc! { "_id": id.clone() };
                DocBuf::encode(&document).expect("an _id that was stored encodes")
            });
            encode_document(upserted.as_ref(), out);
            encode_document(document.as_ref(), out);
        }
        Outcome::Deleted { deleted, document } => {
            out.push(KIND_DELETED);
            out.extend_from_slice(&deleted.to_le_bytes());
            encode_document(document.as_ref(), out);
        }
        Outcome::LostCandidate => unreachable!("a statement without an outcome is not recorded"),
    }
}

fn encode_document(document: Option<&DocBuf>, out: &mut Vec<u8>) {
    out.push(u8::from(document.is_some()));
    if let Some(document) = document {
        out.extend_from_slice(document.bytes());
    }
}

/// Reads a record's body from front to back; `None` where it is cut short.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*chunk)
    }

    fn document(&mut self) -> Option<Option<DocBuf>> {
        if self.fixed::<1>()? == [0] {
            return Some(None);
        }
        let length = usize::try_from(i32::from_le_bytes(*self.0.first_chunk()?)).ok()?;
        let (document, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Some(DocBuf::from_validated(Bytes::copy_from_slice(document))))
    }
}

fn parse(cursor: &mut Cursor<'_>) -> Option<RetryRecord> {
    let mut record = RetryRecord::new(i64::from_le_bytes(cursor.fixed()?));
    record.wall_ms = i64::from_le_bytes(cursor.fixed()?);
    while !cursor.0.is_empty() {
        let first = i32::from_le_bytes(cursor.fixed()?);
        let count = u32::from_le_bytes(cursor.fixed()?);
        let position = parse_position(cursor)?;
        record.runs.push(Run { first, count, outcome: parse_outcome(cursor)?, position });
    }
    Some(record)
}

/// The position of an outcome that may go on; `None` inside where the outcome is complete.
fn parse_position(cursor: &mut Cursor<'_>) -> Option<Option<Bytes>> {
    if *cursor.0.first()? != KIND_PARTIAL {
        return Some(None);
    }
    cursor.fixed::<1>()?;
    let length = usize::try_from(u32::from_le_bytes(cursor.fixed()?)).ok()?;
    let (position, rest) = cursor.0.split_at_checked(length)?;
    cursor.0 = rest;
    Some(Some(Bytes::copy_from_slice(position)))
}

fn parse_outcome(cursor: &mut Cursor<'_>) -> Option<Outcome> {
    let [kind] = cursor.fixed()?;
    Some(match kind {
        KIND_INSERTED => Outcome::Inserted,
        KIND_UPDATED => {
            let matched = u64::from_le_bytes(cursor.fixed()?);
            let modified = u64::from_le_bytes(cursor.fixed()?);
            let upserted = cursor.document()?.and_then(|document| id_of(document.as_raw()));
            Outcome::Updated { matched, modified, upserted, document: cursor.document()? }
        }
        KIND_DELETED => {
            let deleted = u64::from_le_bytes(cursor.fixed()?);
            Outcome::Deleted { deleted, document: cursor.document()? }
        }
        _ => return None,
    })
}

fn id_of(document: RawDoc<'_>) -> Option<Bson> {
    DocRef::Raw(document).get("_id").map(|id| id.to_bson())
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn a_record_reads_back_with_every_kind_of_outcome() {
        let document = DocBuf::encode(&doc! { "_id": 1, "n": 2 }).expect("encodes");
        let outcomes = [
            Outcome::Inserted,
            Outcome::Updated { matched: 1, modified: 0, upserted: None, document: Some(document.clone()) },
            Outcome::Updated { matched: 0, modified: 0, upserted: Some(Bson::Int64(7)), document: None },
            Outcome::Deleted { deleted: 1, document: Some(document) },
            Outcome::Deleted { deleted: 0, document: None },
        ];
        let mut record = RetryRecord::new(5);
        for (stmt_id, outcome) in (0..).zip(&outcomes) {
            record.add(stmt_id, outcome);
        }
        let back = RetryRecord::decode(b"r", &record.encode()).expect("intact");
        assert_eq!(back, record);
        for (stmt_id, outcome) in (0..).zip(&outcomes) {
            assert_eq!(back.outcome(stmt_id), Some(outcome));
        }
        assert_eq!(back.outcome(5), None);
    }

    #[test]
    fn a_statement_of_many_documents_keeps_its_position_until_it_is_complete() {
        let done = |deleted| Outcome::Deleted { deleted, document: None };
        let mut record = RetryRecord::new(1);
        record.add(0, &done(1));
        record.add_partial(1, &done(500), Bytes::from_static(b"k500"));
        record.add_partial(1, &done(900), Bytes::from_static(b"k900"));
        let back = RetryRecord::decode(b"r", &record.encode()).expect("intact");
        assert_eq!(
            (back.outcome(1), back.position(1)),
            (Some(&done(900)), Some(&Bytes::from_static(b"k900")))
        );
        record.add(1, &done(901));
        let back = RetryRecord::decode(b"r", &record.encode()).expect("intact");
        assert_eq!((back.outcome(1), back.position(1)), (Some(&done(901)), None));
        assert_eq!(back.outcome(0), Some(&done(1)));
    }

    #[test]
    fn consecutive_statements_with_equal_counts_share_a_run() {
        let mut record = RetryRecord::new(1);
        for stmt_id in 0..100_000 {
            record.add(stmt_id, &Outcome::Inserted);
        }
        assert!(record.encode().len() < 64);
        assert_eq!(record.outcome(99_999), Some(&Outcome::Inserted));
        assert_eq!(record.outcome(100_000), None);
    }
}
