//! The state store's contract: keyspaces of ordered keys, one for each replica and generation.

use std::fmt;
use std::sync::Arc;

use base::{Generation, LogIndex, ReplicaId, ShardId};
use bytes::Bytes;

use crate::{Direction, Fault, KeyRange, KvBatch, Result};

/// The name of one replica's keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceName {
    /// The shard.
    pub shard: ShardId,
    /// The replica.
    pub replica: ReplicaId,
    /// Which of the replica's keyspaces: a snapshot fills the next one.
    pub generation: Generation,
}

impl fmt::Display for KeyspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.shard, self.replica, self.generation)
    }
}

/// What a scan yields: keys and values in order. Owns its read view, so it may outlive the [`View`] it came from.
pub type Scan = Box<dyn Iterator<Item = Result<(Bytes, Bytes)>> + Send>;

/// Documents and index entries of all replicas of a node.
///
/// Contract, in order: a batch is applied only after its entry is committed; `apply` is atomic, includes the applied
/// index and is visible to views made after it returns; it survives a crash only once `flush` has returned, and what
/// survives of a keyspace is always the state right after one applied index (a prefix of what was applied). The Raft log is
/// therefore kept from the durable applied index on. The same holds for creating and dropping: until `flush` returns,
/// a crash may leave a keyspace as it was before. Keys have at most [`KEY_BYTES_MAX`] bytes and start with one other than
/// zero; the store keeps the others.
pub trait Store: Send + Sync + 'static {
    /// Creates a keyspace, or opens it when it exists.
    fn create_keyspace(&self, name: KeyspaceName) -> Result<()>;

    /// Removes a keyspace and all its data; no error when it is absent. Views that are open keep reading.
    fn drop_keyspace(&self, name: KeyspaceName) -> Result<()>;

    /// The keyspaces that exist, sorted.
    fn keyspaces(&self) -> Result<Vec<KeyspaceName>>;

    /// Applies a batch and moves the keyspace's applied index to `applied`, atomically. Not fsynced. Faults when the
    /// keyspace does not exist or `applied` does not exceed its applied index.
    fn apply(&self, name: KeyspaceName, batch: &KvBatch, applied: LogIndex) -> Result<()>;

    /// Puts a batch into a keyspace that nothing was applied to yet, and leaves its applied index at 0: a snapshot on its
    /// way. Not fsynced. Faults when the keyspace does not exist or has an applied index.
    fn fill(&self, name: KeyspaceName, batch: &KvBatch) -> Result<()>;

    /// The applied index as views see it; index 0 for a keyspace nothing was applied to.
    fn applied_index(&self, name: KeyspaceName) -> Result<LogIndex>;

    /// The applied index that a crash right now would leave, at least.
    fn durable_index(&self, name: KeyspaceName) -> Result<LogIndex>;

    /// Makes durable whatever was applied before the call. Blocks on disk.
    fn flush(&self) -> Result<()>;

    /// A consistent view of one keyspace as of now.
    fn view(&self, name: KeyspaceName) -> Result<Arc<dyn View>>;

    /// Bytes on disk of one keyspace, roughly.
    fn size_bytes(&self, name: KeyspaceName) -> Result<u64>;
}

/// A consistent read view of one keyspace. Cheap to make and to drop; pins old versions while it lives.
pub trait View: Send + Sync {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;

    /// The keys of `range` with their values.
    fn scan(&self, range: KeyRange, direction: Direction) -> Scan;

    /// The keyspace's applied index as of this view: what a snapshot made from it covers.
    fn applied_index(&self) -> Result<LogIndex>;
}

/// Longest key, in bytes: `fjall` keeps lengths of keys in 16 bits.
pub const KEY_BYTES_MAX: usize = 65_535;

/// Keys from this byte on belong to the store's users; smaller ones to the store itself.
pub(crate) const USER_KEYS_START: u8 = 1;

/// Faults when a batch has a key that is too long, or one that the store keeps for itself: an empty one, or one that
/// starts with a zero byte.
pub(crate) fn check_keys(name: KeyspaceName, batch: &KvBatch) -> Result<()> {
    let usable =
        |key: &[u8]| key.len() <= KEY_BYTES_MAX && key.first().is_some_and(|&byte| byte >= USER_KEYS_START);
    match batch.ops.iter().find(|op| !usable(op.key())) {
        None => Ok(()),
        Some(op) => Err(Fault::corruption(format!(
            "a batch for keyspace {name} has a key of {} bytes that is reserved or too long: \"{}\"",
            op.key().len(),
            op.key().get(..op.key().len().min(40)).unwrap_or_default().escape_ascii()
        ))),
    }
}

pub(crate) fn no_keyspace(name: KeyspaceName) -> Fault {
    Fault::corruption(format!("the store has no keyspace {name}"))
}

pub(crate) fn not_empty(name: KeyspaceName, applied: LogIndex) -> Fault {
    Fault::corruption(format!("keyspace {name} is at applied index {applied} and was to take a snapshot"))
}

pub(crate) fn not_ascending(name: KeyspaceName, before: LogIndex, applied: LogIndex) -> Fault {
    Fault::corruption(format!("keyspace {name} is at applied index {before} and was told to apply {applied}"))
}
