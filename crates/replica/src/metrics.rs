//! Counters of a node's replicas: plain atomics, read by the metrics page, never by the replicas themselves.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the process started.
#[derive(Debug, Default)]
pub struct HostMetrics {
    /// Raft entries proposed.
    pub entries_proposed: AtomicU64,
    /// Commands evaluated.
    pub commands_evaluated: AtomicU64,
    /// Commands that went into proposed entries: divided by `entries_proposed` it is the batching factor.
    pub commands_proposed: AtomicU64,
    /// Bytes of proposed entries.
    pub bytes_proposed: AtomicU64,
    /// Raft entries applied to the store.
    pub entries_applied: AtomicU64,
    /// Atomic batches that these were applied in.
    pub batches_applied: AtomicU64,
    /// Batches handed to the log writer.
    pub log_batches: AtomicU64,
    /// Reads that had to wait for the store or for a leader.
    pub reads_delayed: AtomicU64,
    /// Times that an owner loop stopped draining because too many bytes were in flight.
    pub throttled: AtomicU64,
    /// Times that a replica's Raft log was compacted.
    pub compactions: AtomicU64,
    /// Flushes of the store.
    pub flushes: AtomicU64,
    /// Snapshots that came from other nodes and took the place of what a replica had.
    pub snapshots_installed: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::Relaxed);
}
