//! What a leader keeps decoded between evaluations: the shard's state, its counters and the newest retry records, all
//! with everything proposed in them.
//!
//! Owned by the machine of a shard, which loads it when its replica begins to lead. Always holds: it equals what a fresh
//! load from the same reader would give, except that counters which changed are in no batch before
//! [`Evaluator::complete`], which therefore comes before the entry of those batches is proposed.

use std::collections::HashMap;

use base::SessionId;
use storage::{Fault, KvBatch, Result};

use super::retry::RetryRecord;
use super::{Evaluation, Reader, ShardCommand, ShardReply, WriteContext, evaluate};
use crate::encoding::{self, Count};
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

/// Decoded retry records of sessions that wrote lately.
#[derive(Default)]
pub(super) struct Records(HashMap<SessionId, RetryRecord>);

impl Records {
    /// The session's newest record, for a transaction that may go on writing it. Fails when the session has gone on.
    pub(super) fn load(
        &self,
        reader: &dyn Reader,
        session: SessionId,
        txn: i64,
    ) -> Result<base::Result<RetryRecord>> {
        let newest = match self.0.get(&session) {
            Some(record) => Some(record.clone()),
            None => RetryRecord::read(reader, session)?,
        };
        let current = newest.map_or(Ok(None), |record| record.of_transaction(session, txn));
        Ok(current.map(|record| record.unwrap_or_else(|| RetryRecord::new(txn))))
    }

    fn keep(&mut self, session: SessionId, record: RetryRecord) {
        if self.0.len() >= RECORDS_MAX {
            self.0.clear();
        }
        self.0.insert(session, record);
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
        let Evaluation { batch, reply, new_state, counted, record } =
            evaluate(&self.state, &self.records, cx, reader, command)?;
        if reply.is_err() {
            return Ok((KvBatch::default(), reply));
        }
        if let Some(state) = new_state {
            self.state = state;
        }
        if counted.documents != 0 || counted.bytes != 0 {
            self.count = self.count.moved(counted)?;
            self.count_changed = true;
        }
        if let Some((session, record)) = record {
            self.records.keep(session, record);
        }
        if matches!(command, ShardCommand::ExpireSessions { .. }) {
            self.records.0.clear();
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
