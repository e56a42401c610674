//! What an owner loop does wrong when a bug is put back. Called by the loop where it would have made the mistake.

use std::sync::Arc;
use std::time::Duration;

use base::{LogIndex, MonoTime, Term};
use bytes::Bytes;
use storage::{Direction, KeyRange, ReplicaLogState, Scan, View};

use super::peers::nanos;
use super::{Owner, RETRY_TAG};
use crate::apply::{Change, Committed};
use crate::bugs::Bug;
use crate::group::{LEASE, Logging};
use crate::machine::StateMachine;

/// The whole election timeout of a voter.
const ELECTION_TIMEOUT: Duration = Duration::from_millis(400);

/// What bugs remember.
#[derive(Default)]
pub(super) struct Mischief {
    /// Up to where entries were applied that may not be committed.
    pub(super) applied_early: Option<LogIndex>,
    /// The term that was written last, and whether a newer one waits for the next write.
    written_term: Option<Term>,
    owes_term: bool,
}

impl<M: StateMachine> Owner<M> {
    /// What a log write says of term and vote.
    pub(super) fn buggy_state(&mut self, vote: bool, commits: bool) -> Option<ReplicaLogState> {
        if self.node.has_bug(Bug::VoteWithoutPersisting) {
            return None;
        }
        let state = self.log_state();
        if !self.node.has_bug(Bug::TermAndVoteApart) {
            return (vote || commits).then_some(state);
        }
        let written = *self.mischief.written_term.get_or_insert(Term(state.term.get() - 1));
        if vote {
            self.mischief.owes_term = true;
            return Some(ReplicaLogState { term: written, ..state });
        }
        self.mischief.written_term = Some(state.term);
        std::mem::take(&mut self.mischief.owes_term).then_some(state)
    }

    /// A leader takes its election for a proof, though it may not know yet what is committed.
    pub(super) fn serve_early(&mut self) {
        if self.group.leads() && self.node.has_bug(Bug::ReadBeforeFirstCommit) {
            self.shared.proved_ns.raise(nanos(self.node.options.clock.monotonic()) + 1);
            self.shared.readers.notify_waiters();
        }
    }

    /// A follower applies what it is about to log.
    pub(super) fn apply_early(&mut self, logging: &Logging) {
        if self.group.leads() || !self.node.has_bug(Bug::ApplyBeforeCommit) {
            return;
        }
        let mut early = Vec::new();
        for entry in
            logging.runs.iter().flatten().filter(|entry| Some(entry.index) > self.mischief.applied_early)
        {
            let data = if entry.kind == 0 { entry.data.clone() } else { Bytes::new() };
            early.push(Committed { index: entry.index, change: Change::Data(data) });
        }
        if let Some(last) = early.last() {
            self.mischief.applied_early = Some(last.index);
            self.applier.submit(early);
        }
    }

    /// The end of a lease, when it is wrong.
    pub(super) fn buggy_lease_end(&self, sent: MonoTime) -> Option<MonoTime> {
        if self.node.has_bug(Bug::LeaseWithoutMargin) {
            return Some(sent + ELECTION_TIMEOUT);
        }
        self.node.has_bug(Bug::LeaseFromReceipt).then(|| self.node.options.clock.monotonic() + LEASE)
    }

    /// Whether a leader changes the membership although it knows little yet.
    pub(super) fn is_hasty(&self) -> bool {
        self.group.leads() && self.node.has_bug(Bug::ChangeBeforeFirstCommit)
    }

    /// What a snapshot is made of.
    pub(super) fn buggy_view(&self, view: Arc<dyn View>) -> Arc<dyn View> {
        match self.node.has_bug(Bug::SnapshotWithoutRetryRecords) {
            true => Arc::new(WithoutRetryRecords(view)),
            false => view,
        }
    }
}

/// A view in which scans pass over retry records.
struct WithoutRetryRecords(Arc<dyn View>);

impl View for WithoutRetryRecords {
    fn get(&self, key: &[u8]) -> storage::Result<Option<Bytes>> {
        self.0.get(key)
    }

    fn scan(&self, range: KeyRange, direction: Direction) -> Scan {
        let is_kept = |pair: &storage::Result<(Bytes, Bytes)>| {
            pair.as_ref().is_ok_and(|(key, _)| key.first() != Some(&RETRY_TAG))
        };
        Box::new(self.0.scan(range, direction).filter(is_kept))
    }

    fn applied_index(&self) -> storage::Result<LogIndex> {
        self.0.applied_index()
    }
}
