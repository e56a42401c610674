//! Counters of the wire protocol, for `serverStatus` and the metrics page.
//!
//! Written by connection tasks without locks; read at any time. A reading is not a consistent cut, and need not be.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use base::DurationHistogram;

/// A counter that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`.
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often one command ran.
#[derive(Debug, Default)]
pub struct CommandCounts {
    /// Times it was called.
    pub total: Counter,
    /// Times it answered an error.
    pub failed: Counter,
}

/// What `opcounters` shows.
#[derive(Debug, Default)]
pub struct OperationCounts {
    /// Documents inserted.
    pub insert: Counter,
    /// Finds, and what reads like one.
    pub query: Counter,
    /// Update statements.
    pub update: Counter,
    /// Delete statements.
    pub delete: Counter,
    /// getMores.
    pub get_more: Counter,
    /// All other commands.
    pub command: Counter,
}

/// How long commands took, from a parsed message to a reply that is ready to be sent.
#[derive(Debug, Default)]
pub struct CommandDurations {
    /// Commands that read documents.
    pub read: DurationHistogram,
    /// Commands that write documents.
    pub write: DurationHistogram,
    /// All other commands but those that wait on purpose.
    pub command: DurationHistogram,
}

/// All counters.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By kind of operation.
    pub operations: OperationCounts,
    /// By command, in the order of the command table.
    pub commands: Vec<CommandCounts>,
    /// How long commands took, by what they do.
    pub durations: CommandDurations,
    /// Connections that are open.
    pub connections: AtomicI64,
    /// Connections accepted since the start.
    pub connections_created: Counter,
    /// Connections refused by the limit.
    pub connections_rejected: Counter,
    /// Bytes received.
    pub bytes_in: Counter,
    /// Bytes sent.
    pub bytes_out: Counter,
    /// Messages received.
    pub requests: Counter,
}
