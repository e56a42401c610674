//! What the tests share: short names, batches, a seeded chooser, and a store or a Raft log of either kind.

use std::path::PathBuf;

use base::{Generation, LogIndex, ReplicaId, ShardId, Term};
use bytes::Bytes;
use storage::{
    EngineRaftLog, FjallStore, KeyspaceName, KvBatch, LogBatch, LogEntry, LogOptions, MemoryDisk, RaftLog,
    ReplicaLogState, ReplicaWrites, Store, StoreOptions,
};

/// The keyspace of replica `number`.
pub(crate) fn keyspace(number: u64) -> KeyspaceName {
    KeyspaceName { shard: ShardId(1), replica: ReplicaId(number), generation: Generation(1) }
}

/// A batch of one put.
pub(crate) fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> KvBatch {
    let mut batch = KvBatch::default();
    batch.put(key, value);
    batch
}

/// An entry whose data names it.
pub(crate) fn entry(index: u64, term: u64) -> LogEntry {
    let data = format!("entry {index} of term {term} ").repeat(4);
    LogEntry { index: LogIndex(index), term: Term(term), kind: 0, data: data.into() }
}

/// A batch that appends entries to one replica's log.
pub(crate) fn append(replica: u64, entries: Vec<LogEntry>) -> LogBatch {
    writes(replica, ReplicaWrites { entries, ..ReplicaWrites::default() })
}

/// A batch of one replica's writes.
pub(crate) fn writes(replica: u64, writes: ReplicaWrites) -> LogBatch {
    LogBatch { replicas: vec![(ReplicaId(replica), writes)], node: Vec::new() }
}

/// A replica's state with the given commit and truncated index.
pub(crate) fn state(commit: u64, truncated: u64) -> ReplicaLogState {
    ReplicaLogState {
        shard: ShardId(1),
        term: Term(1),
        vote: None,
        commit: LogIndex(commit),
        generation: Generation(1),
        truncated_index: LogIndex(truncated),
        truncated_term: Term(1),
        membership: Bytes::from_static(b"members"),
    }
}

/// Numbers below a bound, the same ones for the same seed.
pub(crate) fn chooser(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |bound| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    }
}

/// Store settings that make small tests meet what large stores meet.
pub(crate) fn small_store() -> StoreOptions {
    StoreOptions {
        cache_bytes: 1 << 20,
        memtable_bytes_max: 1 << 20,
        persist_interval_ms: 60_000,
        worker_threads: 1,
        ..StoreOptions::default()
    }
}

/// Log settings that make small tests meet what large logs meet.
pub(crate) fn small_log() -> LogOptions {
    LogOptions { purge_threshold_bytes: 256 << 10, file_bytes: 64 << 10, compress_from_bytes: 0 }
}

/// A store that can be closed and opened again.
pub(crate) enum AnyStore {
    Memory(MemoryDisk, Box<dyn Store>),
    Engine(tempfile::TempDir, Option<FjallStore>),
}

impl AnyStore {
    pub(crate) fn memory() -> AnyStore {
        let disk = MemoryDisk::new();
        let (store, _) = disk.open().expect("an empty disk");
        AnyStore::Memory(disk, Box::new(store))
    }

    pub(crate) fn engine() -> AnyStore {
        AnyStore::engine_with(small_store())
    }

    pub(crate) fn engine_with(options: StoreOptions) -> AnyStore {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = FjallStore::open(directory.path(), options).expect("an empty directory");
        AnyStore::Engine(directory, Some(store))
    }

    pub(crate) fn get(&self) -> &dyn Store {
        match self {
            AnyStore::Memory(_, store) => &**store,
            AnyStore::Engine(_, store) => store.as_ref().expect("open except while reopening"),
        }
    }

    /// Writes what is in memory to tables, where there are tables.
    pub(crate) fn write_tables(&self, name: KeyspaceName) -> storage::Result<()> {
        match self {
            AnyStore::Memory(..) => self.get().applied_index(name).map(|_| ()),
            AnyStore::Engine(_, store) => {
                store.as_ref().expect("open except while reopening").write_tables(name)
            }
        }
    }

    pub(crate) fn reopen(&mut self) -> storage::Result<()> {
        match self {
            AnyStore::Memory(disk, store) => *store = Box::new(disk.open()?.0),
            AnyStore::Engine(directory, store) => {
                *store = None;
                *store = Some(FjallStore::open(directory.path(), small_store())?);
            }
        }
        Ok(())
    }
}

/// A Raft log that can be closed and opened again.
pub(crate) enum AnyLog {
    Memory(MemoryDisk, Box<dyn RaftLog>),
    Engine(tempfile::TempDir, Option<Box<EngineRaftLog>>),
}

impl AnyLog {
    pub(crate) fn memory() -> AnyLog {
        let disk = MemoryDisk::new();
        let (_, log) = disk.open().expect("an empty disk");
        AnyLog::Memory(disk, Box::new(log))
    }

    pub(crate) fn engine() -> AnyLog {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log =
            EngineRaftLog::open(&directory.path().join("raft"), &small_log()).expect("an empty directory");
        AnyLog::Engine(directory, Some(Box::new(log)))
    }

    pub(crate) fn get(&self) -> &dyn RaftLog {
        match self {
            AnyLog::Memory(_, log) => &**log,
            AnyLog::Engine(_, log) => log.as_deref().expect("open except while reopening"),
        }
    }

    pub(crate) fn reopen(&mut self) -> storage::Result<()> {
        match self {
            AnyLog::Memory(disk, log) => *log = Box::new(disk.open()?.1),
            AnyLog::Engine(directory, log) => {
                *log = None;
                *log = Some(Box::new(EngineRaftLog::open(&directory.path().join("raft"), &small_log())?));
            }
        }
        Ok(())
    }
}

/// Copies a directory with everything in it.
pub(crate) fn copy_directory(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a directory of the test");
    for item in std::fs::read_dir(from).expect("a directory of the test") {
        let path = item.expect("readable").path();
        let target: PathBuf = to.join(path.file_name().expect("an item has a name"));
        if path.is_dir() {
            copy_directory(&path, &target);
        } else {
            let length = path.metadata().expect("readable").len();
            std::fs::write(&target, data_of(&path)).expect("a file of the test");
            let file = std::fs::File::options().write(true).open(&target).expect("just written");
            file.set_len(length).expect("a file of the test");
        }
    }
}

/// A file's contents up to the first hole: journals are created much larger than what is in them.
pub(crate) fn data_of(path: &std::path::Path) -> Vec<u8> {
    let file = std::fs::File::open(path).expect("a file of the test");
    let length = file.metadata().expect("readable").len();
    let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap_or(length);
    let mut bytes = vec![0; hole.min(length) as usize];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).expect("readable");
    bytes
}
