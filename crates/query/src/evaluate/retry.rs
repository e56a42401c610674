//! Retry records: what makes a repeated write harmless.
//!
//! One record for each session holds the newest transaction number and the outcome of each of its statements; see
//! `retry_record` for how it is stored. Called by the evaluation of writes and of probes. Always holds: the record is in the
//! same batch as the writes that it is about.

use std::collections::BTreeMap;

use base::{SessionId, ShardId};
use bytes::Bytes;
use storage::{Direction, KvBatch, Result};

use super::configure::with_state;
use super::retry_record::{RetryPage, RetryRecord};
use super::{Evaluation, Outcome, Reader, ShardReply, TakenRecords};
use crate::encoding::{self, RetryKey};
use crate::state::{Origin, ShardState};

/// Pages after which one `ExpireSessions` removes no more sessions.
const EXPIRE_MAX: usize = 10_000;

/// Removes what is known of transactions whose last write was before `before_wall_ms`. With the last record that was taken
/// over, the shards that they came from are forgotten.
///
/// While a shard receives it may have the oldest part of a transaction without the newest, and what it removed would not come
/// again. What its sources remove it is told to remove.
pub(super) fn expire(state: &ShardState, reader: &dyn Reader, before_wall_ms: i64) -> Result<Evaluation> {
    if !state.receiving.is_empty() {
        let nothing = ShardReply::Expired { sessions: 0, done: true };
        return Ok(with_state(state, state.clone(), KvBatch::default(), nothing));
    }
    let mut expiry = Expiry { before_wall_ms, batch: KvBatch::default(), taken_left: false };
    let (mut session, mut done) = (Vec::new(), true);
    for entry in reader.scan(encoding::retry_range(), Direction::Forward) {
        let (key, value) = entry?;
        let RetryKey { session: id, origin, .. } = encoding::parse_retry_key(&key)?;
        if session.last().is_some_and(|last: &Stored| last.session != id) {
            expiry.take(&mut session);
            if expiry.batch.ops.len() >= EXPIRE_MAX {
                done = false;
                break;
            }
        }
        let RetryPage { txn, wall_ms, .. } = RetryPage::decode(&key, &value)?;
        session.push(Stored { session: id, key, txn, wall_ms, is_taken: origin.is_some() });
    }
    expiry.take(&mut session);
    let sessions = expiry.batch.ops.len() as u64;
    let mut new = state.clone();
    if done && !expiry.taken_left {
        new.origins.clear();
    }
    Ok(with_state(state, new, expiry.batch, ShardReply::Expired { sessions, done }))
}

/// A page of a retry record, as far as its age matters.
struct Stored {
    session: SessionId,
    key: Bytes,
    txn: i64,
    wall_ms: i64,
    is_taken: bool,
}

struct Expiry {
    before_wall_ms: i64,
    batch: KvBatch,
    taken_left: bool,
}

impl Expiry {
    /// Decides about all that is stored of one session. What is known of one transaction goes together: a command may take longer
    /// than a session may be idle, and when it is sent again its first statements have to be recognised too.
    fn take(&mut self, session: &mut Vec<Stored>) {
        let mut newest_ms: BTreeMap<i64, i64> = BTreeMap::new();
        for page in session.iter() {
            let newest = newest_ms.entry(page.txn).or_insert(page.wall_ms);
            *newest = page.wall_ms.max(*newest);
        }
        for page in session.drain(..) {
            if newest_ms.get(&page.txn).is_some_and(|newest| *newest < self.before_wall_ms) {
                self.batch.delete(page.key);
            } else {
                self.taken_left |= page.is_taken;
            }
        }
    }
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
        // The own record, once there is one, has counted what the others had, as theirs have what was before them.
        let count = past.outcome.is_none();
        let telling = self.taken.iter().filter(|(_, record)| record.outcome(stmt_id).is_some());
        let is_counted = |shard: ShardId| telling.clone().any(|(later, _)| later.counted.contains(&shard));
        for (origin, record) in &self.taken {
            let Some(outcome) = record.outcome(stmt_id) else { continue };
            let upto = record.position(stmt_id).cloned();
            let has_all = origin.range.includes(state.hash_range) && origin.shard_key == state.shard_key;
            past.is_complete |= upto.is_none() && has_all;
            past.elsewhere.push((*origin, upto));
            if count {
                let counts = origin.counts && !is_counted(origin.shard);
                let counted = if counts { outcome.clone() } else { nothing_of(outcome) };
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
