//! What all replicas of a node share: its engines, its sources of time and randomness, and where work runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::{Clock, Code, Entropy, Error, NodeId, ReplicaId, ShardId};
use parking_lot::Mutex;
use storage::{KeyspaceName, LogBatch, LogWriter, RaftLog, Store};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

#[cfg(feature = "bugs")]
use crate::bugs::Bug;
use crate::fault::FaultLatch;
use crate::metrics::HostMetrics;
use crate::spawn::Spawner;
use crate::trace::{Event, TraceSink};
use crate::transport::Transport;

/// What a host is made of.
pub struct HostOptions {
    /// This node.
    pub node: NodeId,
    /// Documents and index entries.
    pub store: Arc<dyn Store>,
    /// The node's Raft log, for reading.
    pub raft_log: Arc<dyn RaftLog>,
    /// The node's Raft log, for writing.
    pub log_writer: Arc<dyn LogWriter>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Where tasks and blocking work run.
    pub spawner: Arc<dyn Spawner>,
    /// Where messages to other nodes go.
    pub transport: Arc<dyn Transport>,
    /// Who wants to see every step; `None` in production.
    pub trace: Option<Arc<dyn TraceSink>>,
    /// When and how far Raft logs are compacted.
    pub compaction: CompactionPolicy,
    /// The bug to put back.
    #[cfg(feature = "bugs")]
    pub bug: Option<Bug>,
}

/// When a replica's Raft log is compacted: when the store durably has more than this of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// Entries kept at most.
    pub entries_max: u64,
    /// Bytes of entries kept at most.
    pub bytes_max: usize,
    /// How often the store is flushed when something was applied, in milliseconds.
    pub flush_interval_ms: u64,
    /// Bytes applied after which the store is flushed earlier.
    pub unflushed_bytes_max: u64,
}

impl Default for CompactionPolicy {
    fn default() -> CompactionPolicy {
        CompactionPolicy {
            entries_max: base::limits::RAFT_LOG_ENTRIES_MAX,
            bytes_max: base::limits::RAFT_LOG_BYTES_MAX,
            flush_interval_ms: 5_000,
            unflushed_bytes_max: base::limits::STORE_UNFLUSHED_BYTES_MAX,
        }
    }
}

/// See the module's comment.
pub(crate) struct Node {
    pub(crate) options: HostOptions,
    pub(crate) metrics: Arc<HostMetrics>,
    pub(crate) latch: Arc<FaultLatch>,
    /// From where the ticks of all its groups count.
    pub(crate) origin: Instant,
    /// Whether the whole host is being stopped, not one replica.
    pub(crate) stopping: AtomicBool,
    /// Bytes applied since the last flush.
    pub(crate) unflushed_bytes: AtomicU64,
    /// Rings when they exceed the policy.
    pub(crate) flush_wanted: Notify,
    /// Snapshots on their way to this node, with the bytes that have come.
    pub(crate) receiving: Mutex<BTreeMap<KeyspaceName, u64>>,
}

impl Node {
    pub(crate) fn new(options: HostOptions) -> Node {
        Node {
            options,
            metrics: Arc::default(),
            latch: Arc::default(),
            origin: Instant::now(),
            stopping: AtomicBool::new(false),
            unflushed_bytes: AtomicU64::new(0),
            flush_wanted: Notify::new(),
            receiving: Mutex::default(),
        }
    }

    /// Why a replica takes no requests any more: the node stops, or only this replica was removed, which sends the
    /// caller to look where its shard is now.
    pub(crate) fn refusal(&self, shard: ShardId) -> Error {
        if let Some(fault) = self.latch.get() {
            return Error::new(Code::SHUTDOWN_IN_PROGRESS, format!("this node is stopping: {fault}"));
        }
        if self.stopping.load(Ordering::SeqCst) {
            return Error::new(Code::SHUTDOWN_IN_PROGRESS, "this node is shutting down");
        }
        Error::new(Code::STALE_CONFIG, format!("shard {shard} is not served by this node any more"))
    }

    /// Whether the bug is put back. Always false without the feature `bugs`.
    #[cfg(feature = "bugs")]
    pub(crate) fn has_bug(&self, bug: Bug) -> bool {
        self.options.bug == Some(bug)
    }

    pub(crate) fn trace(&self, replica: ReplicaId, event: impl FnOnce() -> Event) {
        if let Some(sink) = &self.options.trace {
            sink.event(replica, &event());
        }
    }

    /// Writes to the Raft log. On return: fsynced.
    pub(crate) async fn write_log(&self, batch: LogBatch) -> storage::Result<()> {
        let (tell, told) = oneshot::channel();
        let done = Box::new(move |result| {
            // Nobody listens any more when the host is being dropped.
            let _ = tell.send(result);
        });
        self.options.log_writer.submit(batch, done);
        told.await.unwrap_or_else(|_| Err(storage::Fault::io("the log writer has stopped")))
    }

    /// Runs work that may block on the disk, and waits for its result.
    pub(crate) async fn blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> storage::Result<R> + Send + 'static,
    ) -> storage::Result<R> {
        let (tell, told) = oneshot::channel();
        let store = self.options.store.clone();
        self.options.spawner.blocking(Box::new(move || {
            // As above.
            let _ = tell.send(work(store.as_ref()));
        }));
        told.await.unwrap_or_else(|_| Err(storage::Fault::io("work on the store was abandoned")))
    }
}
