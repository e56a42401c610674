//! The apply side: puts committed entries into the store, in order, off the owner loop.
//!
//! Called by the owner loop with committed entries; runs wherever the spawner runs blocking work, one job of a replica
//! after the other. Always holds: changes and applied index reach the store in one atomic batch; a state that the changes
//! carry is published in the same moment; nothing is applied any more once the node has a fault.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::LogIndex;
use bytes::Bytes;
use storage::{Fault, KvBatch};

#[cfg(feature = "bugs")]
use crate::bugs::Bug;
use crate::entry;
use crate::fault::FaultLatch;
use crate::machine::StateMachine;
use crate::metrics::count;
use crate::node::Node;
use crate::shared::Shared;
use crate::trace::Event;

/// Where a keyspace holds the membership as of its applied index. Tags of the keys of users are larger.
pub(crate) const MEMBERSHIP_KEY: &[u8] = b"\x01membership";

/// A committed entry.
pub(crate) struct Committed {
    pub(crate) index: LogIndex,
    pub(crate) change: Change,
}

/// What a committed entry does to the store.
pub(crate) enum Change {
    /// The entry's data; empty for the first one of a term.
    Data(Bytes),
    /// A new membership, in its stored form.
    Membership(Bytes),
}

impl Change {
    fn len(&self) -> usize {
        match self {
            Change::Data(data) | Change::Membership(data) => data.len(),
        }
    }
}

/// Stops the node when applying panics: nothing would be applied any more, and nobody would notice.
struct PanicGuard<'a>(&'a FaultLatch);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set(Fault::corruption("applying committed entries panicked"));
        }
    }
}

/// Applies the entries of one replica.
pub(crate) struct Applier<M: StateMachine> {
    node: Arc<Node>,
    shared: Arc<Shared<M::State>>,
    #[cfg(feature = "bugs")]
    delayed: parking_lot::Mutex<KvBatch>,
    machine: PhantomData<fn() -> M>,
}

impl<M: StateMachine> Applier<M> {
    pub(crate) fn new(node: Arc<Node>, shared: Arc<Shared<M::State>>) -> Applier<M> {
        Applier {
            node,
            shared,
            #[cfg(feature = "bugs")]
            delayed: parking_lot::Mutex::default(),
            machine: PhantomData,
        }
    }

    /// Queues entries. They follow those of the last call.
    pub(crate) fn submit(self: &Arc<Self>, entries: Vec<Committed>) {
        let applier = self.clone();
        let work = Box::new(move || {
            let _guard = PanicGuard(&applier.node.latch);
            if !applier.node.latch.is_set()
                && let Err(fault) = applier.apply(&entries)
            {
                let name = applier.shared.name;
                applier
                    .node
                    .latch
                    .set(fault.context(format!("applying to {} of {}", name.replica, name.shard)));
            }
        });
        self.node.options.spawner.apply(self.shared.name.replica, work);
    }

    /// Applies entries, many in one batch as long as it stays small.
    fn apply(&self, entries: &[Committed]) -> storage::Result<()> {
        let mut batch = KvBatch::default();
        let mut batch_bytes = 0;
        let mut first = None;
        for (position, Committed { index, change }) in entries.iter().enumerate() {
            first.get_or_insert(*index);
            match change {
                Change::Data(data) if data.is_empty() => {}
                Change::Data(data) => {
                    let entry =
                        entry::decode(data).map_err(|fault| fault.context(format!("entry {index}")))?;
                    batch.ops.extend(entry.batch.ops);
                }
                Change::Membership(stored) => batch.put(MEMBERSHIP_KEY, stored.clone()),
            }
            batch_bytes += change.len();
            let next_bytes = entries.get(position + 1).map(|next| next.change.len());
            if next_bytes.is_none_or(|next| batch_bytes + next > base::limits::ENTRY_BYTES_MAX) {
                self.apply_batch(
                    first.take().unwrap_or(*index),
                    *index,
                    std::mem::take(&mut batch),
                    batch_bytes,
                )?;
                batch_bytes = 0;
            }
        }
        Ok(())
    }

    fn apply_batch(
        &self,
        first: LogIndex,
        last: LogIndex,
        batch: KvBatch,
        bytes: usize,
    ) -> storage::Result<()> {
        let shared = &self.shared;
        let next_state = M::next_state(&shared.state(), &batch)?;
        let changes = batch.ops.len();
        #[cfg(feature = "bugs")]
        let batch = self.swap_delayed(batch);
        let change = || self.node.options.store.apply(shared.name, &batch, last);
        match next_state {
            Some(state) => shared.change_together(state, change)?,
            None => change()?,
        }
        shared.unflushed.store(true, Ordering::SeqCst);
        self.node.trace(shared.name.replica, || Event::Applied { first, last, changes });
        shared.applied.raise(last.get());
        shared.readers.notify_waiters();
        shared.owner.notify_one();
        self.count(first, last, bytes);
        Ok(())
    }

    fn count(&self, first: LogIndex, last: LogIndex, bytes: usize) {
        let metrics = &self.node.metrics;
        metrics.entries_applied.fetch_add(last.get() - first.get() + 1, Ordering::Relaxed);
        count(&metrics.batches_applied, 1);
        let before = self.node.unflushed_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
        if before + bytes as u64 >= self.node.options.compaction.unflushed_bytes_max {
            self.node.flush_wanted.notify_one();
        }
    }

    /// With the bug put back, what goes to the store is the batch before this one.
    #[cfg(feature = "bugs")]
    fn swap_delayed(&self, batch: KvBatch) -> KvBatch {
        if !self.node.has_bug(Bug::AppliedIndexBeforeBatch) {
            return batch;
        }
        std::mem::replace(&mut *self.delayed.lock(), batch)
    }
}
