//! A shard of a collection as a state machine that a replica can drive.
//!
//! Evaluation itself is in `query`; here it is given the overlay to read through, and the shard's own state, which the
//! leader keeps decoded: with everything proposed in it, while readers get the one that the apply side publishes.

use base::limits::SESSION_IDLE_MS_MAX;
use bytes::Bytes;
use query::encoding::STATE_KEY;
use query::evaluate::{Evaluator, Reader, ShardCommand, ShardReply, WriteContext};
use query::state::ShardState;
use storage::{Direction, Fault, KeyRange, KvBatch, View};

use crate::machine::{EvaluateContext, StateMachine};
use crate::overlay::OverlayReader;

/// Evaluates a shard's commands.
#[derive(Default)]
pub struct ShardMachine {
    /// `None` before the first reset.
    evaluator: Option<Evaluator>,
}

impl StateMachine for ShardMachine {
    type Command = ShardCommand;
    type Reply = ShardReply;
    type State = ShardState;

    fn evaluate(
        &mut self,
        cx: &EvaluateContext,
        reader: OverlayReader<'_>,
        command: &ShardCommand,
        batch: &mut KvBatch,
    ) -> storage::Result<base::Result<ShardReply>> {
        let evaluator = self.evaluator.as_mut().expect("a machine is reset before it evaluates");
        let cx = WriteContext {
            now: bson::DateTime::from_millis(cx.wall_ms),
            commit_timestamp: cx.commit_timestamp,
            #[cfg(feature = "bugs")]
            route_unchecked: cx.route_unchecked,
        };
        let (changes, reply) = evaluator.evaluate(&cx, &reader, command)?;
        *batch = changes;
        Ok(reply)
    }

    fn complete(&mut self, batch: &mut KvBatch) {
        if let Some(evaluator) = &mut self.evaluator {
            evaluator.complete(batch);
        }
    }

    fn reset(&mut self, reader: OverlayReader<'_>) -> storage::Result<()> {
        self.evaluator = Some(Evaluator::load(&reader)?);
        Ok(())
    }

    fn upkeep(&mut self, wall_ms: i64) -> Option<ShardCommand> {
        let idle_ms = i64::try_from(SESSION_IDLE_MS_MAX).expect("minutes");
        Some(ShardCommand::ExpireSessions { before_wall_ms: wall_ms.saturating_sub(idle_ms) })
    }

    fn load_state(view: &dyn View) -> storage::Result<ShardState> {
        let stored = view.get(STATE_KEY)?;
        require(stored.map(|stored| ShardState::decode(&stored)).transpose()?)
    }

    fn next_state(_previous: &ShardState, batch: &KvBatch) -> storage::Result<Option<ShardState>> {
        let written = batch.ops.iter().rev().find(|op| op.key() == STATE_KEY);
        written
            .map(|op| require(op.value().map(|stored| ShardState::decode(stored)).transpose()?))
            .transpose()
    }
}

impl Reader for OverlayReader<'_> {
    fn get(&self, key: &[u8]) -> storage::Result<Option<Bytes>> {
        OverlayReader::get(self, key)
    }

    fn scan<'a>(
        &'a self,
        range: KeyRange,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = storage::Result<(Bytes, Bytes)>> + 'a> {
        OverlayReader::scan(self, range, direction)
    }
}

fn require(state: Option<ShardState>) -> storage::Result<ShardState> {
    state.ok_or_else(|| Fault::corruption("a shard's keyspace has no shard state in it"))
}
