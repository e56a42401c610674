//! The Raft log on disk: one `raft-engine` for all replicas of a node. The server opens it; [`crate::GroupCommitWriter`]
//! writes it from its one thread, and replicas read entries from theirs.
//!
//! A region of `raft-engine` is a replica; region 0 holds keys of the node. `raft-engine` keeps a CRC-32 of every block
//! of entries and checks it on each read; it keeps keys and values in memory after it checked them at the start.
//!
//! A replica that comes back with fewer entries than its state says answers faults until it is cleaned.
//!
//! Always holds: what would make `raft-engine` panic (a hole in a replica's log, a failed fsync) ends as a [`Fault`],
//! after which every write answers the same fault.

mod tail;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{LogIndex, ReplicaId, Term};
use bytes::{Buf, BufMut, Bytes};
use parking_lot::Mutex;
use raft::eraftpb::{Entry, EntryType};
use raft_engine::env::{DefaultFileSystem, FileSystem};
use raft_engine::{Command, MessageExt, ReadableSize, RecoveryMode};

use crate::log::{LogShape, check_entries, check_range};
use crate::{Fault, LogBatch, LogEntry, RaftLog, ReplicaLogState, ReplicaWrites, Result, codec};

/// The region of the node's own keys. Replica ids are never zero.
const NODE_REGION: u64 = 0;

/// A region with one entry, read to make `raft-engine` forget the block that a thread read last.
const FENCE_REGION: u64 = u64::MAX;

/// Key of a replica's state.
const STATE_KEY: &[u8] = b"state";

/// Version of entries, in their context.
const ENTRY_VERSION: u8 = 1;

/// Settings of the Raft log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Bytes on disk from which old files are removed, and replicas that keep them alive are named by
    /// [`RaftLog::usage`].
    pub purge_threshold_bytes: u64,
    /// Size of one file.
    pub file_bytes: u64,
    /// Batches of at least this size are compressed with LZ4; 0 for never.
    pub compress_from_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions { purge_threshold_bytes: 512 << 20, file_bytes: 64 << 20, compress_from_bytes: 0 }
    }
}

/// The [`RaftLog`] on disk. `F` is where its files are; tests inject faults there.
pub struct EngineRaftLog<F: FileSystem = DefaultFileSystem> {
    engine: raft_engine::Engine<F>,
    /// Tells this log from others of the same process.
    id: u64,
    /// Held while a batch is checked and written; the fault that ended writing.
    writing: Mutex<Option<Fault>>,
    /// Replicas whose logs came back with less than their own state says.
    damaged: Mutex<BTreeMap<ReplicaId, Fault>>,
}

/// How `raft-engine` learns an entry's index.
struct EntryIndexed;

impl MessageExt for EntryIndexed {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

impl EngineRaftLog {
    /// Opens the Raft log in `path`, or creates it.
    pub fn open(path: &Path, options: &LogOptions) -> Result<EngineRaftLog> {
        EngineRaftLog::open_with_file_system(path, options, Arc::new(DefaultFileSystem))
    }
}

impl<F: FileSystem + 'static> EngineRaftLog<F> {
    /// Opens the Raft log in `path` of a file system of the caller's.
    pub fn open_with_file_system(
        path: &Path,
        options: &LogOptions,
        file_system: Arc<F>,
    ) -> Result<EngineRaftLog<F>> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let context = || format!("opening the Raft log in {}", path.display());
        let directory =
            path.to_str().ok_or_else(|| Fault::directory("the path is not UTF-8").context(context()))?;
        let config = raft_engine::Config {
            dir: directory.to_owned(),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            batch_compression_threshold: ReadableSize(options.compress_from_bytes),
            target_file_size: ReadableSize(options.file_bytes),
            purge_threshold: ReadableSize(options.purge_threshold_bytes.max(options.file_bytes)),
            enable_log_recycle: true,
            ..raft_engine::Config::default()
        };
        tail::check(path).map_err(|fault| fault.context(context()))?;
        let open = || raft_engine::Engine::open_with_file_system(config, file_system);
        let engine = caught("opening", open).map_err(|fault| fault.context(context()))?;
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let log = EngineRaftLog { engine, id, writing: Mutex::new(None), damaged: Mutex::default() };
        log.ensure_fence().and_then(|()| log.find_damage()).map_err(|fault| fault.context(context()))?;
        Ok(log)
    }

    fn shape(&self, replica: ReplicaId) -> Result<LogShape> {
        let bounds = self.bounds(replica)?;
        let truncated = match bounds {
            Some(_) => LogIndex(0),
            None => self.state(replica)?.map_or(LogIndex(0), |state| state.truncated_index),
        };
        Ok(LogShape { bounds, truncated })
    }

    fn check(&self, batch: &LogBatch) -> Result<()> {
        let mut shapes: BTreeMap<ReplicaId, LogShape> = BTreeMap::new();
        for (replica, writes) in &batch.replicas {
            if matches!(replica.get(), NODE_REGION | FENCE_REGION) {
                return Err(Fault::corruption(format!("{replica} is not a replica's id")));
            }
            let before = match shapes.get(replica) {
                Some(shape) => *shape,
                None if writes.clean => LogShape::EMPTY,
                None => self.shape(*replica)?,
            };
            shapes.insert(*replica, check_entries(*replica, before, writes)?);
        }
        Ok(())
    }

    /// Compares what came back of each replica's entries with its state, which was written with them or after them.
    fn find_damage(&self) -> Result<()> {
        let mut damaged = BTreeMap::new();
        for replica in self.replicas()? {
            let Some(state) = self.state(replica)? else { continue };
            let (first, last) =
                self.bounds(replica)?.unwrap_or((state.truncated_index.next(), state.truncated_index));
            if first > state.truncated_index.next() || last < state.commit {
                let fault = Fault::corruption(format!(
                    "the Raft log lost entries of replica {replica}: it has {first} to {last}, and should have {} to \
                     at least {}",
                    state.truncated_index.next(),
                    state.commit
                ));
                tracing::error!(%replica, %fault, "a replica's Raft log is damaged");
                damaged.insert(replica, fault);
            }
        }
        *self.damaged.lock() = damaged;
        Ok(())
    }

    fn check_undamaged(&self, replica: ReplicaId) -> Result<()> {
        self.damaged.lock().get(&replica).cloned().map_or(Ok(()), Err)
    }

    /// Writes the fence's entry into a new log.
    fn ensure_fence(&self) -> Result<()> {
        if self.engine.first_index(FENCE_REGION).is_some() {
            return Ok(());
        }
        let mut batch = raft_engine::LogBatch::default();
        let entry = Entry { index: 1, ..Entry::default() };
        caught("writing", || {
            batch.add_entries::<EntryIndexed>(FENCE_REGION, &[entry])?;
            self.engine.write(&mut batch, true)
        })
        .map(|_| ())
    }

    /// `raft-engine` keeps the last block that a thread read, under its place in the log's files, and forgets whose log
    /// it was. Where logs share a thread, reading another block first makes it read again.
    fn refresh_thread(&self) -> Result<()> {
        thread_local! {
            static LAST_READ: Cell<u64> = const { Cell::new(0) };
        }
        if LAST_READ.get() != self.id {
            caught("reading", || self.engine.get_entry::<EntryIndexed>(FENCE_REGION, 1))?;
            LAST_READ.set(self.id);
        }
        Ok(())
    }
}

impl<F: FileSystem + 'static> RaftLog for EngineRaftLog<F> {
    fn replicas(&self) -> Result<Vec<ReplicaId>> {
        let mut replicas = Vec::new();
        for region in self.engine.raft_groups() {
            let replica = ReplicaId(region);
            if !matches!(region, NODE_REGION | FENCE_REGION) && self.engine.get(region, STATE_KEY).is_some() {
                replicas.push(replica);
            }
        }
        replicas.sort_unstable();
        Ok(replicas)
    }

    fn state(&self, replica: ReplicaId) -> Result<Option<ReplicaLogState>> {
        self.check_undamaged(replica)?;
        let Some(record) = self.engine.get(replica.get(), STATE_KEY) else { return Ok(None) };
        let body = codec::unseal(record.into(), &format!("the state of replica {replica} in the Raft log"))?;
        codec::decode_state(body).map(Some)
    }

    fn bounds(&self, replica: ReplicaId) -> Result<Option<(LogIndex, LogIndex)>> {
        self.check_undamaged(replica)?;
        let first = self.engine.first_index(replica.get());
        let last = self.engine.last_index(replica.get());
        Ok(first.zip(last).map(|(first, last)| (LogIndex(first), LogIndex(last))))
    }

    fn entries(
        &self,
        replica: ReplicaId,
        low: LogIndex,
        high: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>> {
        if low >= high {
            return Ok(Vec::new());
        }
        check_range(replica, self.bounds(replica)?, low, high)?;
        self.refresh_thread()?;
        let mut found = Vec::new();
        let (low, high) = (low.get(), high.get());
        caught("reading", || {
            self.engine.fetch_entries_to::<EntryIndexed>(
                replica.get(),
                low,
                high,
                Some(bytes_max),
                &mut found,
            )
        })?;
        found
            .into_iter()
            .zip(low..)
            .map(|(entry, index)| from_engine(replica, LogIndex(index), entry))
            .collect()
    }

    fn node_value(&self, key: &str) -> Result<Option<Bytes>> {
        let Some(record) = self.engine.get(NODE_REGION, key.as_bytes()) else { return Ok(None) };
        codec::unseal(record.into(), &format!("the node's value {key} in the Raft log")).map(Some)
    }

    fn write(&self, batch: LogBatch) -> Result<()> {
        let mut writing = self.writing.lock();
        if let Some(fault) = writing.as_ref() {
            return Err(fault.clone());
        }
        self.check(&batch)?;
        let cleaned: Vec<ReplicaId> =
            batch.replicas.iter().filter(|(_, writes)| writes.clean).map(|(replica, _)| *replica).collect();
        let written = caught("writing", || self.engine.write(&mut to_engine(batch)?, true));
        written.map_err(|fault| writing.insert(fault).clone())?;
        if !cleaned.is_empty() {
            self.damaged.lock().retain(|replica, _| !cleaned.contains(replica));
        }
        Ok(())
    }

    /// Also removes old files, which may rewrite live entries of them: call it from a thread that may block, every few
    /// seconds.
    fn usage(&self) -> Result<(u64, Vec<ReplicaId>)> {
        let behind = caught("removing old files of", || self.engine.purge_expired_files())?;
        let replicas = behind.into_iter().filter(|region| !matches!(*region, NODE_REGION | FENCE_REGION));
        Ok((self.engine.get_used_size() as u64, replicas.map(ReplicaId).collect()))
    }
}

fn to_engine(batch: LogBatch) -> raft_engine::Result<raft_engine::LogBatch> {
    let mut out = raft_engine::LogBatch::default();
    for (replica, writes) in batch.replicas {
        add_writes(replica, writes, &mut out)?;
    }
    for (key, value) in batch.node {
        out.put(NODE_REGION, key.into_bytes(), codec::seal(&value))?;
    }
    Ok(out)
}

fn add_writes(
    replica: ReplicaId,
    writes: ReplicaWrites,
    out: &mut raft_engine::LogBatch,
) -> raft_engine::Result<()> {
    let region = replica.get();
    if writes.clean {
        out.add_command(region, Command::Clean);
    }
    if !writes.entries.is_empty() {
        let context = entry_context(replica);
        let entries: Vec<Entry> =
            writes.entries.into_iter().map(|entry| entry_to_engine(entry, context.clone())).collect();
        out.add_entries::<EntryIndexed>(region, &entries)?;
    }
    if let Some(state) = &writes.state {
        let mut body = Vec::new();
        codec::encode_state(state, &mut body);
        out.put(region, STATE_KEY.to_vec(), codec::seal(&body))?;
    }
    if let Some(to) = writes.compact_to {
        out.add_command(region, Command::Compact { index: to.get() + 1 });
    }
    Ok(())
}

/// What every entry of a replica carries besides its data: the format version, and whose entry it is.
fn entry_context(replica: ReplicaId) -> Bytes {
    let mut context = Vec::with_capacity(9);
    context.put_u8(ENTRY_VERSION);
    context.put_u64_le(replica.get());
    context.into()
}

fn entry_to_engine(entry: LogEntry, context: Bytes) -> Entry {
    let entry_type = match entry.kind {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        _ => EntryType::EntryConfChangeV2,
    };
    Entry {
        entry_type,
        term: entry.term.get(),
        index: entry.index.get(),
        data: entry.data,
        context,
        ..Entry::default()
    }
}

fn from_engine(replica: ReplicaId, index: LogIndex, entry: Entry) -> Result<LogEntry> {
    let mut context = entry.context;
    let version = if context.is_empty() { 0 } else { context.get_u8() };
    if version != ENTRY_VERSION {
        return Err(Fault::directory(format!(
            "entry {index} of replica {replica} has format version {version}, and this program reads version \
             {ENTRY_VERSION}"
        )));
    }
    let owner = if context.len() == 8 { context.get_u64_le() } else { 0 };
    if owner != replica.get() || entry.index != index.get() {
        return Err(Fault::corruption(format!(
            "the Raft log holds entry {} of replica {owner} where entry {index} of replica {replica} should be",
            entry.index
        )));
    }
    let kind = match entry.entry_type {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    };
    Ok(LogEntry { index, term: Term(entry.term), kind, data: entry.data })
}

/// Calls the engine, with its errors and panics as faults.
fn caught<T>(doing: &str, call: impl FnOnce() -> raft_engine::Result<T>) -> Result<T> {
    match std::panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            let message = format!("{doing} the Raft log failed: {error}");
            Err(match error {
                raft_engine::Error::Io(_) | raft_engine::Error::TryAgain(_) | raft_engine::Error::Full => {
                    Fault::io(message)
                }
                _ => Fault::corruption(message),
            })
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
            Err(Fault::io(format!("{doing} the Raft log failed: {text}")))
        }
    }
}
