//! The Raft log's contract: entries, votes and local state of all replicas of a node, durable before acknowledged.

use base::{Generation, LogIndex, ReplicaId, ShardId, Term};
use bytes::Bytes;

use crate::{Fault, Result};

/// One entry of one replica's Raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its position; positions have no holes.
    pub index: LogIndex,
    /// The term of the leader that proposed it.
    pub term: Term,
    /// What kind of entry it is, in the consensus library's numbering (0 normal, 1 and 2 membership).
    pub kind: u8,
    /// What it carries, opaque here.
    pub data: Bytes,
}

/// What one replica's Raft log knows besides entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaLogState {
    /// The shard that the replica belongs to.
    pub shard: ShardId,
    /// Current term.
    pub term: Term,
    /// The replica voted for in this term.
    pub vote: Option<ReplicaId>,
    /// Highest index known committed when this was written; 0 for none.
    pub commit: LogIndex,
    /// The keyspace that holds the replica's state.
    pub generation: Generation,
    /// Index of the last entry that was compacted away or is covered by a snapshot; 0 for none.
    pub truncated_index: LogIndex,
    /// Term of the entry at `truncated_index`.
    pub truncated_term: Term,
    /// Membership as of `truncated_index` or later, encoded by `replica`.
    pub membership: Bytes,
}

/// Changes of one replica's log, in the order of the fields.
#[derive(Clone, Debug, Default)]
pub struct ReplicaWrites {
    /// Forget everything about the replica first (it was removed, or a snapshot replaces its entries).
    pub clean: bool,
    /// Entries to append. The first one's index may be at or below the last index: entries from there on are replaced.
    pub entries: Vec<LogEntry>,
    /// The new state.
    pub state: Option<ReplicaLogState>,
    /// Entries up to and including this index may be dropped. Goes with a `state` that says so.
    pub compact_to: Option<LogIndex>,
}

/// Changes of any number of replicas' logs, durable together.
#[derive(Clone, Debug, Default)]
pub struct LogBatch {
    /// Each replica's changes. A replica may appear more than once; later ones come after earlier ones.
    pub replicas: Vec<(ReplicaId, ReplicaWrites)>,
    /// Keys of the node itself (identity, format version) to set.
    pub node: Vec<(String, Bytes)>,
}

/// The Raft log of a node.
pub trait RaftLog: Send + Sync + 'static {
    /// The replicas that have state here, sorted.
    fn replicas(&self) -> Result<Vec<ReplicaId>>;

    /// A replica's state; `None` when it has none.
    fn state(&self, replica: ReplicaId) -> Result<Option<ReplicaLogState>>;

    /// Index of the first and the last entry kept; `None` when there is none.
    fn bounds(&self, replica: ReplicaId) -> Result<Option<(LogIndex, LogIndex)>>;

    /// Entries from `low` to before `high`, until they exceed about `bytes_max` (at least one). Faults when one of
    /// them is missing or fails its checksum.
    fn entries(
        &self,
        replica: ReplicaId,
        low: LogIndex,
        high: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>>;

    /// A key of the node itself.
    fn node_value(&self, key: &str) -> Result<Option<Bytes>>;

    /// Writes a batch. On return: fsynced. A fault means that nothing about the batch is known, and the node stops.
    fn write(&self, batch: LogBatch) -> Result<()>;

    /// Bytes on disk, and the replicas whose old entries keep the log from shrinking.
    fn usage(&self) -> Result<(u64, Vec<ReplicaId>)>;
}

/// Called once when a submitted batch is durable, or when it failed.
pub type WriteDone = Box<dyn FnOnce(std::result::Result<(), Fault>) + Send>;

/// Group commit: takes batches from all owner loops and makes them durable, many with one fsync.
pub trait LogWriter: Send + Sync + 'static {
    /// Queues a batch. `done` runs after it is fsynced; batches become durable in the order of submission. After a
    /// fault every later batch fails with the same fault.
    fn submit(&self, batch: LogBatch, done: WriteDone);
}

/// What matters about a replica's log when entries are appended to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogShape {
    /// First and last entry kept.
    pub(crate) bounds: Option<(LogIndex, LogIndex)>,
    /// Where the log starts when no entry is kept; 0 for an empty log.
    pub(crate) truncated: LogIndex,
}

impl LogShape {
    /// The shape of a log that nothing was written to.
    pub(crate) const EMPTY: LogShape = LogShape { bounds: None, truncated: LogIndex(0) };
}

/// Faults when `writes` would leave a hole in a replica's log or bring back what was compacted away. Returns the shape
/// afterwards.
pub(crate) fn check_entries(
    replica: ReplicaId,
    before: LogShape,
    writes: &ReplicaWrites,
) -> Result<LogShape> {
    let mut shape = if writes.clean { LogShape::EMPTY } else { before };
    if let Some(state) = &writes.state {
        shape.truncated = state.truncated_index;
    }
    if let (Some(first), Some(last)) = (writes.entries.first(), writes.entries.last()) {
        let lowest = shape.bounds.map_or(shape.truncated.next(), |(first, _)| first);
        let highest = shape.bounds.map_or(lowest, |(_, last)| last.next());
        let gapless =
            writes.entries.windows(2).all(|pair| matches!(pair, [one, two] if one.index.next() == two.index));
        if first.index < lowest || first.index > highest || !gapless {
            return Err(Fault::corruption(format!(
                "entries {} to {} of replica {replica} do not fit its Raft log, which continues between {lowest} \
                 and {highest}",
                first.index, last.index
            )));
        }
        shape.bounds = Some((lowest.min(first.index), last.index));
    }
    if let (Some(to), Some((first, last))) = (writes.compact_to, shape.bounds) {
        shape.bounds = (to < last).then_some((first.max(to.next()), last));
    }
    Ok(shape)
}

/// Faults unless all entries from `low` to before `high` lie within a log's bounds.
pub(crate) fn check_range(
    replica: ReplicaId,
    bounds: Option<(LogIndex, LogIndex)>,
    low: LogIndex,
    high: LogIndex,
) -> Result<()> {
    if bounds.is_some_and(|(first, last)| first <= low && high <= last.next()) {
        return Ok(());
    }
    let kept = bounds.map_or("none".to_owned(), |(first, last)| format!("{first} to {last}"));
    Err(Fault::corruption(format!(
        "the Raft log was asked for entries {low} to before {high} of replica {replica} and has {kept}"
    )))
}
