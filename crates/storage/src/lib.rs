//! The node's data directory: the store of documents and index entries, and the Raft log of all its replicas.
//!
//! fsync and group commit live here and nowhere else. Above this crate everything sees four things: [`Store`] (state,
//! applied without an fsync of its own), [`View`] (a consistent read view of it), [`RaftLog`] (durable before it is
//! acknowledged) and [`LogWriter`] (which puts what many replicas wait for under one fsync). Each has a real
//! implementation (`fjall`, `raft-engine`) and one in memory that loses its unsynced tail, tears writes and fails
//! fsyncs on demand.
//!
//! Always holds: an error from here is a [`Fault`]; the node that meets one stops and never carries on.

mod codec;
pub mod directory;
pub mod engine_log;
pub mod engine_store;
pub mod fault;
pub mod group_commit;
pub mod kv;
pub mod log;
pub mod memory;
pub mod store;

pub use directory::{DataDirectory, Identity};
pub use engine_log::{EngineRaftLog, LogOptions};
pub use engine_store::{FjallStore, StoreOptions, StoreStatistics};
pub use fault::{Fault, Result};
pub use group_commit::{GroupCommitOptions, GroupCommitStatistics, GroupCommitWriter};
pub use kv::{Direction, KeyRange, KvBatch, KvOp};
pub use log::{LogBatch, LogEntry, LogWriter, RaftLog, ReplicaLogState, ReplicaWrites, WriteDone};
pub use memory::{DiskPart, MemoryDisk, MemoryLogWriter, MemoryRaftLog, MemoryStore};
pub use store::{KEY_BYTES_MAX, KeyspaceName, Scan, Store, View};
