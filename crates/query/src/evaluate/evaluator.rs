//! What a leader keeps decoded between evaluations: the shard's state, its counters and the newest retry records, all
//! with everything proposed in them.
//!
//! Owned by the machine of a shard, which loads it when its replica begins to lead. Always holds: it equals what a fresh
//! load from the same reader would give, except that counters which changed are in no batch before
//! [`Evaluator::complete`], which therefore comes before the entry of those batches is proposed.

use std::collections::HashMap;
use std::sync::Arc;

use base::{SessionId, ShardId};
use storage::{Direction, Fault, KvBatch, Result};

use super::probe::Fences;
use super::retry::Remembered;
use super::retry_record::{RetryPage, RetryRecord};
use super::{Evaluation, Reader, ShardCommand, ShardReply, WriteContext, evaluate, notes};
use crate::encoding::{self, Count, RetryKey};
use crate::state::ShardState;

/// Retry records kept decoded. More sessions than this are read from the store again.
const RECORDS_MAX: usize = 4_096;

/// See the module's comment.
pub struct Evaluator {
    state: ShardState,
    count: Count,
    count_changed: bool,
    records: Records,
}

/// What is remembered of sessions: decoded retry records of those that wrote lately, and ballots.
#[derive(Default)]
pub(super) struct Records {
    sessions: HashMap<SessionId, Kept>,
    pub(super) fences: Fences,
}

/// A session's newest records: the shard's own, and those that it has taken over.
#[derive(Clone)]
struct Kept {
    own: Option<RetryRecord>,
    taken: Arc<[(ShardId, RetryRecord)]>,
}

impl Records {
    /// What is known of a transaction that may go on writing. Fails when the session has gone on.
    pub(super) fn load<'a>(
        &self,
        state: &'a ShardState,
        reader: &dyn Reader,
        session: SessionId,
        txn: i64,
    ) -> Result<base::Result<Remembered<'a>>> {
        let kept = match self.sessions.get(&session) {
            Some(kept) => kept.clone(),
            None => Kept::read(state, reader, session)?,
        };
        Ok(Remembered::new(state, session, txn, kept.own, &kept.taken))
    }

    fn keep(&mut self, session: SessionId, record: RetryRecord, taken: Arc<[(ShardId, RetryRecord)]>) {
        if self.sessions.len() >= RECORDS_MAX {
            self.sessions.clear();
        }
        self.sessions.insert(session, Kept { own: Some(record), taken });
    }
}

impl Kept {
    fn read(state: &ShardState, reader: &dyn Reader, session: SessionId) -> Result<Kept> {
        let own = RetryRecord::read(reader, session)?;
        if state.origins.is_empty() {
            return Ok(Kept { own, taken: Arc::new([]) });
        }
        let mut taken = Vec::new();
        for pair in reader.scan(encoding::retry_range_of(session), Direction::Forward) {
            let (key, value) = pair?;
            if let RetryKey { page, origin: Some(origin), .. } = encoding::parse_retry_key(&key)? {
                taken.push((origin, RetryRecord::of_page(page, RetryPage::decode(&key, &value)?)));
            }
        }
        Ok(Kept { own, taken: taken.into() })
    }
}

impl Evaluator {
    /// Reads what the shard has. Faults when it has no state.
    pub fn load(reader: &dyn Reader) -> Result<Evaluator> {
        let state = ShardState::load(reader)?;
        let state = state.ok_or_else(|| Fault::corruption("a shard's keyspace has no shard state in it"))?;
        let count = Count::decode(reader.get(encoding::COUNT_KEY)?.as_deref())?;
        Ok(Evaluator { state, count, count_changed: false, records: Records::default() })
    }

    /// The shard's state with everything proposed in it.
    pub fn state(&self) -> &ShardState {
        &self.state
    }

    /// Evaluates a command. The changes are empty when the answer is an error. Fails only on a fault of the store.
    pub fn evaluate(
        &mut self,
        cx: &WriteContext,
        reader: &dyn Reader,
        command: &ShardCommand,
    ) -> Result<(KvBatch, base::Result<ShardReply>)> {
        let Evaluation { mut batch, reply, new_state, counted, record } =
            evaluate(&self.state, &mut self.records, cx, reader, command)?;
        if reply.is_err() {
            return Ok((KvBatch::default(), reply));
        }
        if self.state.noting.is_some() {
            notes::note(&mut batch, cx.commit_timestamp);
        }
        if let Some(state) = new_state {
            self.state = state;
        }
        if counted.documents != 0 || counted.bytes != 0 {
            self.count = self.count.moved(counted)?;
            self.count_changed = true;
        }
        if let Some((session, record, taken)) = record {
            self.records.keep(session, record, taken);
        }
        if matches!(command, ShardCommand::ExpireSessions { .. } | ShardCommand::Receive(_)) {
            self.records.sessions.clear();
        }
        Ok((batch, reply))
    }

    /// Adds what the evaluations since the last call changed together, once for all of them.
    pub fn complete(&mut self, batch: &mut KvBatch) {
        if std::mem::take(&mut self.count_changed) {
            batch.put(encoding::COUNT_KEY, self.count.encode());
        }
    }
}
