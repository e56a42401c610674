//! When an owner loop drops entries of its Raft log that the store durably has.
//!
//! Called at the end of every turn. Always holds: no entry goes that the store does not durably have; what a replica that
//! answers still needs stays, up to a limit, since a log that outruns a snapshot on its way makes that snapshot useless.

use std::sync::atomic::Ordering;

use base::LogIndex;
use storage::ReplicaWrites;

use super::Owner;
use crate::machine::StateMachine;
use crate::metrics::count;
use crate::trace::Event;

/// How many times as much of the log as the policy says is kept for replicas that are behind and answer.
const BEHIND_FACTOR: u64 = 8;

impl<M: StateMachine> Owner<M> {
    /// Drops entries that the store durably has and that nobody needs, when there are enough of them.
    pub(super) fn compact(&mut self) -> storage::Result<()> {
        let durable = self.shared.durable.index().min(self.applied);
        let truncated = self.group.log().truncated().0;
        if durable <= truncated {
            return Ok(());
        }
        let policy = self.node.options.compaction;
        let wanted = self.shared.compaction_wanted.swap(false, Ordering::SeqCst);
        let entries = durable.get() - truncated.get();
        if !wanted && entries < policy.entries_max && self.log_bytes < policy.bytes_max {
            return Ok(());
        }
        let bytes_held_max = (policy.bytes_max as u64).saturating_mul(BEHIND_FACTOR);
        let may_hold = entries < policy.entries_max.saturating_mul(BEHIND_FACTOR)
            && (self.log_bytes as u64) < bytes_held_max;
        let end = if may_hold { self.needed_from().min(durable) } else { durable };
        match end > truncated {
            true => self.compact_to(end),
            false => Ok(()),
        }
    }

    fn compact_to(&mut self, end: LogIndex) -> storage::Result<()> {
        let (truncated, last) = (self.group.log().truncated().0, self.group.last_index());
        let term =
            self.group.log().term_of(end)?.expect("an applied entry is in the log until it is compacted");
        self.group.log_mut().compact(end, term);
        self.durable_membership.last_timestamp = self.clock.last();
        // How large each entry is was not kept: those that stay count as much as those that go.
        let (kept, all) = (last.get() - end.get(), last.get() - truncated.get());
        let kept_bytes = self.log_bytes as u128 * u128::from(kept) / u128::from(all);
        self.log_bytes = usize::try_from(kept_bytes).expect("a part of it").max(self.in_flight_bytes);
        let state = Some(self.log_state());
        let writes = ReplicaWrites { state, compact_to: Some(end), ..ReplicaWrites::default() };
        self.submit(vec![(self.shared.name.replica, writes)], None);
        count(&self.node.metrics.compactions, 1);
        self.trace(|| Event::Compacted { index: end });
        Ok(())
    }

    /// The index after which some replica that answers needs entries, as far as a leader knows; those before the log's
    /// beginning are past help, unless a snapshot is on its way to them.
    fn needed_from(&self) -> LogIndex {
        let truncated = self.group.log().truncated().0;
        let sending = self.shared.sending.lock();
        let needs = |replica: &base::ReplicaId| {
            let matched = self.group.matched(*replica).filter(|matched| *matched >= truncated);
            matched.or_else(|| sending.get(replica).copied())
        };
        let answering = self.heard.keys().filter(|replica| self.answers(**replica));
        answering.filter_map(needs).min().unwrap_or(LogIndex(u64::MAX))
    }
}
