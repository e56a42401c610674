//! What the owner loop, the apply side and the handles of one replica share: atomics, and two bells.
//!
//! The owner loop writes `commit` and the lease, the apply side writes `applied` and the published state, the log
//! writer's callback writes `logged`. Always holds: `commit` is published before a write is answered, and a reader that
//! finds `applied` at or above the `commit` it saw gets a view that contains every write answered before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use base::{LogIndex, ReplicaId, Term};
use parking_lot::Mutex;
use storage::KeyspaceName;
use tokio::sync::Notify;

use crate::lease::Lease;
use crate::membership::Membership;

/// A number that one side raises and others read.
#[derive(Debug, Default)]
pub(crate) struct Mark(AtomicU64);

impl Mark {
    pub(crate) fn new(value: u64) -> Mark {
        Mark(AtomicU64::new(value))
    }

    pub(crate) fn raise(&self, value: u64) {
        self.0.fetch_max(value, Ordering::SeqCst);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn index(&self) -> LogIndex {
        LogIndex(self.get())
    }
}

/// Shared by all who work on one replica.
pub(crate) struct Shared<S> {
    /// The replica's keyspace.
    pub(crate) name: KeyspaceName,
    /// Highest committed index.
    pub(crate) commit: Mark,
    /// Highest index that the store has applied and the published state reflects.
    pub(crate) applied: Mark,
    /// Highest number of log writes that are durable.
    pub(crate) logged: Mark,
    /// Highest applied index that is durable in the store.
    pub(crate) durable: Mark,
    /// Current term.
    pub(crate) term: Mark,
    /// Until when reads may be answered here.
    pub(crate) lease: Lease,
    /// One more than when the newest round of messages was sent that proved that this replica led, in nanoseconds of the
    /// node's monotonic clock; 0 for none. A read that began before needs no lease.
    pub(crate) proved_ns: Mark,
    /// Whether a reader waits for such a proof.
    pub(crate) proof_wanted: AtomicBool,
    /// When this replica last had everything that its leader said was committed, in nanoseconds of the node's monotonic
    /// clock.
    pub(crate) fresh_ns: Mark,
    /// The replica that leads as far as is known here; 0 for none.
    pub(crate) leader: AtomicU64,
    /// Who belongs to the group, as of what is committed here.
    pub(crate) membership: ArcSwap<Membership>,
    /// Replicas that a snapshot is being sent to, and the index that it was taken at.
    pub(crate) sending: Mutex<BTreeMap<ReplicaId, LogIndex>>,
    /// Reads and commands that this replica was asked for.
    pub(crate) operations: AtomicU64,
    /// Whether the store has applied something since it was last flushed.
    pub(crate) unflushed: AtomicBool,
    /// Whether the Raft log asks to be compacted whatever its size.
    pub(crate) compaction_wanted: AtomicBool,
    /// Whether the owner loop shall finish and end.
    pub(crate) stopping: AtomicBool,
    /// Whether it ends for good: nothing that it has is wanted any more.
    pub(crate) going: AtomicBool,
    /// Whether the owner loop has ended.
    pub(crate) stopped: AtomicBool,
    /// Wakes the owner loop.
    pub(crate) owner: Notify,
    /// Wakes readers that wait for the store, for a leader or for the end.
    pub(crate) readers: Notify,
    /// Wakes those who wait for the end of the owner loop.
    pub(crate) ended: Notify,
    state: ArcSwap<S>,
    /// Odd while the store and the published state are being changed together.
    state_version: AtomicU64,
}

impl<S> Shared<S> {
    /// The shared part of a replica that is being opened.
    pub(crate) fn new(
        name: KeyspaceName,
        commit: LogIndex,
        applied: LogIndex,
        term: Term,
        membership: Membership,
        state: S,
    ) -> Shared<S> {
        Shared {
            name,
            commit: Mark::new(commit.get()),
            applied: Mark::new(applied.get()),
            logged: Mark::default(),
            durable: Mark::default(),
            term: Mark::new(term.get()),
            lease: Lease::default(),
            proved_ns: Mark::default(),
            proof_wanted: AtomicBool::new(false),
            fresh_ns: Mark::default(),
            leader: AtomicU64::new(0),
            membership: ArcSwap::from_pointee(membership),
            sending: Mutex::default(),
            operations: AtomicU64::new(0),
            unflushed: AtomicBool::new(true),
            compaction_wanted: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            going: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            owner: Notify::new(),
            readers: Notify::new(),
            ended: Notify::new(),
            state: ArcSwap::from_pointee(state),
            state_version: AtomicU64::new(0),
        }
    }

    /// The published state.
    pub(crate) fn state(&self) -> Arc<S> {
        self.state.load_full()
    }

    /// The replica that leads, as far as is known here.
    pub(crate) fn known_leader(&self) -> Option<ReplicaId> {
        Some(self.leader.load(Ordering::SeqCst)).filter(|&leader| leader != 0).map(ReplicaId)
    }

    /// Changes the store and the published state so that [`Shared::read_together`] sees both or none.
    pub(crate) fn change_together(
        &self,
        state: S,
        change: impl FnOnce() -> storage::Result<()>,
    ) -> storage::Result<()> {
        self.state_version.fetch_add(1, Ordering::SeqCst);
        let result = change();
        if result.is_ok() {
            self.state.store(Arc::new(state));
        }
        self.state_version.fetch_add(1, Ordering::SeqCst);
        result
    }

    /// Whether the store and the published state are being changed together right now.
    pub(crate) fn is_changing(&self) -> bool {
        !self.state_version.load(Ordering::SeqCst).is_multiple_of(2)
    }

    /// What `view` makes, with the published state of the same moment; `None` when a change of both came in between.
    pub(crate) fn read_together<V>(
        &self,
        view: impl FnOnce() -> storage::Result<V>,
    ) -> storage::Result<Option<(V, Arc<S>)>> {
        let version = self.state_version.load(Ordering::SeqCst);
        let pair = (view()?, self.state.load_full());
        let same = version.is_multiple_of(2) && version == self.state_version.load(Ordering::SeqCst);
        Ok(same.then_some(pair))
    }

    /// Asks the owner loop to answer what it has proposed, and to end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.owner.notify_one();
    }

    /// Asks the owner loop to end without waiting for anybody.
    pub(crate) fn go(&self) {
        self.going.store(true, Ordering::SeqCst);
        self.stop();
    }

    /// Resolves when the owner loop has ended.
    pub(crate) async fn wait_stopped(&self) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            ended.await;
        }
    }

    /// The owner loop has ended, on whatever path.
    pub(crate) fn mark_stopped(&self) {
        self.lease.revoke();
        self.stopped.store(true, Ordering::SeqCst);
        self.ended.notify_waiters();
        self.readers.notify_waiters();
    }
}
