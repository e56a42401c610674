//! The state store on disk: one `fjall` keyspace for each replica and generation. The server opens it; the replica
//! host applies entries to it and reads views of it through [`Store`].
//!
//! Applying never waits for an fsync: the Raft log is the journal that counts. `fjall` keeps a journal of its own, which
//! is fsynced once in a while (see `maintenance`), and what it then holds of each keyspace is noted in a file of ours
//! (see `durable_note`), because `fjall` drops what follows a damaged spot of its journal without a word.
//!
//! Always holds: after one failed write or fsync every later write answers the same fault; a keyspace that came back
//! with less than the note says answers a fault to everything except being dropped.

mod durable_note;
mod journals;
mod maintenance;
mod view;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::{Generation, LogIndex, ReplicaId, ShardId};
use fjall::config::{
    BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry,
};
use fjall::{AbstractTree, CompressionType, KvSeparationOptions, PersistMode, Readable};
use parking_lot::{Mutex, RwLock};

use self::durable_note::DurableNote;
use self::journals::JournalFiles;
use self::maintenance::Maintenance;
use self::view::EngineView;
use crate::fault::FaultKind;
use crate::store::{check_keys, no_keyspace, not_ascending, not_empty};
use crate::{Fault, KeyspaceName, KvBatch, KvOp, Result, Store, View, codec};

/// Key of the applied index in every keyspace. Keys of users never start with a zero byte.
const APPLIED_KEY: &[u8] = b"\0applied";

/// Settings of the store on disk.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Blocks of tables kept in memory, over all keyspaces.
    pub cache_bytes: u64,
    /// Changes kept in memory before they go to tables, over all keyspaces; the largest goes first.
    pub memtable_bytes_max: u64,
    /// Size of a table's blocks: what one cache miss reads. Set when a keyspace is created.
    pub block_bytes: u32,
    /// Compress blocks of the lower levels with LZ4. Set when a keyspace is created.
    pub compress: bool,
    /// Values of at least this size are kept in files of their own, so that compaction does not move them; `None` for
    /// never. Set when a keyspace is created.
    pub separate_values_from_bytes: Option<u32>,
    /// How long changes may stay without an fsync of the store's journal. It bounds how much of the Raft log a restart
    /// replays, not what survives.
    pub persist_interval_ms: u64,
    /// Journals kept before the keyspaces that pin them are written to tables.
    pub journals_max: usize,
    /// Threads that write and compact tables. The first of them never compacts: while all others are busy it takes a
    /// waiting compaction out of the queue and puts it back without a pause. So have more than compactions keep busy.
    pub worker_threads: usize,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            cache_bytes: 256 << 20,
            memtable_bytes_max: 48 << 20,
            block_bytes: 16 << 10,
            compress: true,
            separate_values_from_bytes: None,
            persist_interval_ms: 1000,
            journals_max: 3,
            worker_threads: 4,
        }
    }
}

/// The [`Store`] on disk. Dropping it ends its background work; views may outlive it.
pub struct FjallStore {
    shared: Arc<Shared>,
    maintenance: Option<Maintenance>,
}

/// What the store holds and has done. Read with [`FjallStore::statistics`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStatistics {
    /// Bytes of blocks in the cache.
    pub cache_bytes: u64,
    /// Bytes that the cache may hold.
    pub cache_bytes_max: u64,
    /// Bytes of changes in memory that are in no table yet.
    pub memtable_bytes: u64,
    /// Bytes of tables on disk, over all keyspaces.
    pub table_bytes: u64,
    /// Files of the store's journal.
    pub journals: u64,
    /// Compactions that run.
    pub compactions_active: u64,
    /// Compactions that have ended since the start.
    pub compactions: u64,
}

/// What the store and its background thread share.
struct Shared {
    db: fjall::Database,
    options: StoreOptions,
    keyspaces: RwLock<BTreeMap<KeyspaceName, Arc<Keyspace>>>,
    /// Held by whoever makes the journal durable.
    persisting: Mutex<Persisting>,
    /// Whether anything was applied since the journal was last made durable.
    dirty: AtomicBool,
    /// Bytes applied since the memtables were last measured.
    unmeasured_bytes: AtomicU64,
    /// Journals below this number may keep the files of dropped keyspaces on the disk.
    release_journals_below: AtomicU64,
    poison: Mutex<Option<Fault>>,
    wake: maintenance::Wake,
}

/// The files that say what is durable.
struct Persisting {
    note: DurableNote,
    journals: JournalFiles,
}

struct Keyspace {
    tree: fjall::Keyspace,
    /// Held while a batch is applied.
    applying: Mutex<()>,
    applied: AtomicU64,
    durable: AtomicU64,
    /// Why the keyspace cannot be used: it lost data that was durable.
    damage: Option<Fault>,
}

impl FjallStore {
    /// Opens the store in `path`, or creates it.
    pub fn open(path: &Path, options: StoreOptions) -> Result<FjallStore> {
        let in_context = |fault: Fault| fault.context(format!("opening the store in {}", path.display()));
        let shared = Shared::open(path, options).map_err(in_context)?;
        let maintenance = Maintenance::start(shared.clone()).map_err(in_context)?;
        Ok(FjallStore { shared, maintenance: Some(maintenance) })
    }

    /// Files of `fjall`'s journal: 1 when nothing pins old ones.
    pub fn journal_count(&self) -> usize {
        self.shared.db.journal_count()
    }

    /// What the store holds and has done. Costs a look at each keyspace; reads nothing from the disk.
    pub fn statistics(&self) -> StoreStatistics {
        let db = &self.shared.db;
        StoreStatistics {
            cache_bytes: db.cache_size(),
            cache_bytes_max: db.cache_capacity(),
            memtable_bytes: db.write_buffer_size(),
            table_bytes: self.shared.keyspaces.read().values().map(|found| found.tree.disk_space()).sum(),
            journals: db.journal_count() as u64,
            compactions_active: db.active_compactions() as u64,
            compactions: db.compactions_completed() as u64,
        }
    }

    /// Writes what is in memory of one keyspace to tables, and waits for it. For tests and after bulk loads.
    pub fn write_tables(&self, name: KeyspaceName) -> Result<()> {
        let keyspace = self.shared.get(name)?;
        self.shared.checked(|| keyspace.tree.rotate_memtable_and_wait())
    }
}

impl Drop for FjallStore {
    fn drop(&mut self) {
        if let Some(maintenance) = self.maintenance.take() {
            maintenance.stop();
        }
    }
}

impl Store for FjallStore {
    fn create_keyspace(&self, name: KeyspaceName) -> Result<()> {
        let mut persisting = self.shared.persisting.lock();
        if self.shared.keyspaces.read().contains_key(&name) {
            return Ok(());
        }
        self.shared.poisoning(persisting.note.reserve(self.shared.db.seqno()))?;
        let options = || self.shared.options.keyspace();
        let tree = self.shared.checked(|| self.shared.db.keyspace(&keyspace_to_text(name), options))?;
        let keyspace = Arc::new(Keyspace::new(tree, LogIndex(0), None));
        self.shared.keyspaces.write().insert(name, keyspace);
        Ok(())
    }

    fn drop_keyspace(&self, name: KeyspaceName) -> Result<()> {
        let mut persisting = self.shared.persisting.lock();
        let Some(keyspace) = self.shared.keyspaces.write().remove(&name) else { return Ok(()) };
        self.shared.poisoning(persisting.note.reserve(self.shared.db.seqno()))?;
        // The note goes first: a keyspace without a note is fine, a note without its data is damage.
        self.shared.poisoning(persisting.note.forget(name))?;
        self.shared.checked(|| self.shared.db.delete_keyspace(keyspace.tree.clone()))?;
        let newest = self.shared.poisoning(persisting.journals.newest())?;
        self.shared.release_journals_below.fetch_max(newest, Ordering::AcqRel);
        self.shared.wake.wake();
        Ok(())
    }

    fn keyspaces(&self) -> Result<Vec<KeyspaceName>> {
        Ok(self.shared.keyspaces.read().keys().copied().collect())
    }

    fn apply(&self, name: KeyspaceName, batch: &KvBatch, applied: LogIndex) -> Result<()> {
        check_keys(name, batch)?;
        let shared = &self.shared;
        let keyspace = shared.get(name)?;
        let applying = keyspace.applying.lock();
        let before = keyspace.applied();
        if applied <= before {
            return Err(not_ascending(name, before, applied));
        }
        let mut writes = shared.writes(&keyspace, batch);
        writes.insert(&keyspace.tree, APPLIED_KEY, codec::seal(&applied.get().to_le_bytes()));
        shared.checked(|| writes.commit())?;
        keyspace.applied.store(applied.get(), Ordering::Release);
        drop(applying);
        shared.note_applied(batch.size_bytes() as u64);
        Ok(())
    }

    fn fill(&self, name: KeyspaceName, batch: &KvBatch) -> Result<()> {
        check_keys(name, batch)?;
        let shared = &self.shared;
        let keyspace = shared.get(name)?;
        let applying = keyspace.applying.lock();
        if keyspace.applied() > LogIndex(0) {
            return Err(not_empty(name, keyspace.applied()));
        }
        let writes = shared.writes(&keyspace, batch);
        shared.checked(|| writes.commit())?;
        drop(applying);
        shared.note_applied(batch.size_bytes() as u64);
        Ok(())
    }

    fn applied_index(&self, name: KeyspaceName) -> Result<LogIndex> {
        Ok(self.shared.get(name)?.applied())
    }

    fn durable_index(&self, name: KeyspaceName) -> Result<LogIndex> {
        Ok(LogIndex(self.shared.get(name)?.durable.load(Ordering::Acquire)))
    }

    fn flush(&self) -> Result<()> {
        self.shared.persist()
    }

    fn view(&self, name: KeyspaceName) -> Result<Arc<dyn View>> {
        let keyspace = self.shared.get(name)?;
        Ok(Arc::new(EngineView::new(name, keyspace.tree.clone(), self.shared.db.snapshot())))
    }

    fn size_bytes(&self, name: KeyspaceName) -> Result<u64> {
        let keyspace = self.shared.get(name)?;
        Ok(keyspace.tree.disk_space() + keyspace.tree.tree.active_memtable().size())
    }
}

impl Shared {
    fn open(path: &Path, options: StoreOptions) -> Result<Arc<Shared>> {
        create_directory(path)?;
        let note = DurableNote::open(path)?;
        let tables = path.join("fjall");
        let journals = JournalFiles::before_open(&tables)?;
        let db = open_database(&tables, &options, &note, &journals)?;
        journals.check_after_open(&note)?;
        db.supervisor.seqno.fetch_max(note.unused_sequence());
        let shared = Arc::new(Shared {
            keyspaces: RwLock::new(open_keyspaces(&db, &options, &note)?),
            db,
            options,
            persisting: Mutex::new(Persisting { note, journals }),
            dirty: AtomicBool::new(false),
            unmeasured_bytes: AtomicU64::new(0),
            release_journals_below: AtomicU64::new(0),
            poison: Mutex::new(None),
            wake: maintenance::Wake::default(),
        });
        Ok(shared)
    }

    fn get(&self, name: KeyspaceName) -> Result<Arc<Keyspace>> {
        let keyspaces = self.keyspaces.read();
        let keyspace = keyspaces.get(&name).ok_or_else(|| no_keyspace(name))?;
        keyspace.damage.clone().map_or_else(|| Ok(keyspace.clone()), Err)
    }

    /// A batch in the engine's form, with room for one more change.
    fn writes(&self, keyspace: &Keyspace, batch: &KvBatch) -> fjall::OwnedWriteBatch {
        let mut writes = fjall::OwnedWriteBatch::with_capacity(self.db.clone(), batch.ops.len() + 1);
        for op in &batch.ops {
            match op {
                KvOp::Put { key, value } => writes.insert(&keyspace.tree, key.clone(), value.clone()),
                KvOp::Delete { key } => writes.remove(&keyspace.tree, key.clone()),
            }
        }
        writes
    }

    /// Makes durable what was applied before the call, and writes the note that says so.
    fn persist(&self) -> Result<()> {
        let mut persisting = self.persisting.lock();
        self.check_poison()?;
        self.dirty.store(false, Ordering::Release);
        let keyspaces = self.keyspaces.read().clone();
        let usable = keyspaces.into_iter().filter(|(_, keyspace)| keyspace.damage.is_none());
        let applied: Vec<_> = usable.map(|(name, keyspace)| (name, keyspace.applied(), keyspace)).collect();
        self.checked(|| self.db.persist(PersistMode::Buffer))?;
        // fjall would hold back every writer during its fsync; an fsync of the same file from here does not.
        let journal = self.poisoning(persisting.journals.sync())?;
        let indexes = applied.iter().map(|&(name, applied, _)| (name, applied)).collect();
        self.poisoning(persisting.note.write(indexes, journal))?;
        for (_, applied, keyspace) in applied {
            keyspace.durable.fetch_max(applied.get(), Ordering::AcqRel);
        }
        Ok(())
    }

    fn note_applied(&self, bytes: u64) {
        self.dirty.store(true, Ordering::Release);
        let before = self.unmeasured_bytes.fetch_add(bytes, Ordering::Relaxed);
        let measure_after = self.options.memtable_bytes_max / 16;
        if before < measure_after && before + bytes >= measure_after {
            self.wake.wake();
        }
    }

    fn check_poison(&self) -> Result<()> {
        self.poison.lock().clone().map_or(Ok(()), Err)
    }

    /// Runs a write of the engine, unless an earlier one failed.
    fn checked<T>(&self, write: impl FnOnce() -> fjall::Result<T>) -> Result<T> {
        self.check_poison()?;
        self.poisoning(write().map_err(|error| fault("writing the store failed", &error)))
    }

    /// Remembers a fault: no write succeeds after it.
    fn poisoning<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|fault| self.poison.lock().get_or_insert(fault).clone())
    }
}

impl Keyspace {
    fn new(tree: fjall::Keyspace, applied: LogIndex, damage: Option<Fault>) -> Keyspace {
        // Opening syncs the journal, so that whatever is read at the start is durable.
        let (applied, durable) = (AtomicU64::new(applied.get()), AtomicU64::new(applied.get()));
        Keyspace { tree, applying: Mutex::new(()), applied, durable, damage }
    }

    fn applied(&self) -> LogIndex {
        LogIndex(self.applied.load(Ordering::Acquire))
    }
}

impl StoreOptions {
    fn keyspace(&self) -> fjall::KeyspaceCreateOptions {
        let compression = if self.compress { CompressionType::Lz4 } else { CompressionType::None };
        let separation = self
            .separate_values_from_bytes
            .map(|bytes| KvSeparationOptions::default().separation_threshold(bytes).compression(compression));
        let bloom = |construction| FilterPolicyEntry::Bloom(construction);
        fjall::KeyspaceCreateOptions::default()
            .manual_journal_persist(true)
            .max_memtable_size(self.memtable_bytes_max / 2)
            .data_block_size_policy(BlockSizePolicy::all(self.block_bytes))
            // The newest levels are rewritten soon: compressing them costs more than it saves.
            .data_block_compression_policy(CompressionPolicy::new([
                CompressionType::None,
                CompressionType::None,
                compression,
            ]))
            .filter_policy(FilterPolicy::new([
                bloom(BloomConstructionPolicy::FalsePositiveRate(0.0001)),
                bloom(BloomConstructionPolicy::BitsPerKey(10.0)),
            ]))
            .with_kv_separation(separation)
    }
}

fn open_database(
    tables: &Path,
    options: &StoreOptions,
    note: &DurableNote,
    journals: &JournalFiles,
) -> Result<fjall::Database> {
    match try_open(tables, options) {
        // What lies behind the synced part of the journal may be anything after a power failure, and nobody was
        // promised it. What lies before must be intact.
        Err(fault) if fault.kind == FaultKind::Corruption && journals.cut_back_to(note)? => {
            try_open(tables, options)
        }
        result => result,
    }
}

/// Opens the database, with a panic of its replay (there are some for damaged journals) as a fault.
fn try_open(tables: &Path, options: &StoreOptions) -> Result<fjall::Database> {
    let open = || {
        fjall::Database::builder(tables)
            .cache_size(options.cache_bytes)
            .manual_journal_persist(true)
            // The journal lives for seconds: compressing it costs more than it saves.
            .journal_compression(CompressionType::None)
            .worker_threads(options.worker_threads)
            .open()
    };
    match std::panic::catch_unwind(AssertUnwindSafe(open)) {
        Ok(result) => result.map_err(|error| fault("opening the tables failed", &error)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
            Err(Fault::corruption(format!("opening the tables failed, their files are damaged: {text}")))
        }
    }
}

fn open_keyspaces(
    db: &fjall::Database,
    options: &StoreOptions,
    note: &DurableNote,
) -> Result<BTreeMap<KeyspaceName, Arc<Keyspace>>> {
    let mut keyspaces = BTreeMap::new();
    for text in db.list_keyspace_names() {
        let name = keyspace_from_text(&text)
            .ok_or_else(|| Fault::corruption(format!("the store has a keyspace of unknown name {text}")))?;
        let tree = db
            .keyspace(&text, || options.keyspace())
            .map_err(|error| fault(&format!("opening keyspace {name} failed"), &error))?;
        let applied = read_applied(name, &db.snapshot(), &tree)?;
        let damage = note.damage(name, applied);
        if let Some(fault) = &damage {
            tracing::error!(%name, %fault, "a keyspace lost data");
        }
        keyspaces.insert(name, Arc::new(Keyspace::new(tree, applied, damage)));
    }
    Ok(keyspaces)
}

/// The applied index that a keyspace itself holds.
fn read_applied(name: KeyspaceName, snapshot: &fjall::Snapshot, tree: &fjall::Keyspace) -> Result<LogIndex> {
    let what = format!("the applied index of keyspace {name}");
    match snapshot.get(tree, APPLIED_KEY).map_err(|error| fault(&format!("reading {what} failed"), &error))? {
        None => Ok(LogIndex(0)),
        Some(record) => {
            let body = codec::unseal(record.into(), &what)?;
            Ok(LogIndex(codec::Reader::new(body, &what).u64()?))
        }
    }
}

/// A keyspace's name for `fjall`: shard, replica, generation.
fn keyspace_to_text(name: KeyspaceName) -> String {
    format!("{}-{}-{}", name.shard, name.replica, name.generation)
}

fn keyspace_from_text(text: &str) -> Option<KeyspaceName> {
    let mut parts = text.split('-');
    let mut next = |prefix| parts.next()?.strip_prefix(prefix)?.parse::<u64>().ok();
    let (shard, replica, generation) = (next('s')?, next('r')?, next('g')?);
    let generation = Generation(u32::try_from(generation).ok()?);
    Some(KeyspaceName { shard: ShardId(shard), replica: ReplicaId(replica), generation })
}

/// Turns an error of the engine into a fault, telling I/O from damage.
fn fault(context: &str, error: &fjall::Error) -> Fault {
    let message = match error {
        fjall::Error::Poisoned => format!("{context}: writing its tables or its journal failed earlier"),
        error => format!("{context}: {error}"),
    };
    match error {
        fjall::Error::Io(_) | fjall::Error::Poisoned | fjall::Error::Storage(fjall::LsmError::Io(_)) => {
            Fault::io(message)
        }
        fjall::Error::Locked | fjall::Error::InvalidVersion(_) => Fault::directory(message),
        _ => Fault::corruption(message),
    }
}

fn create_directory(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path)
        .map_err(|error| Fault::io(format!("creating the directory {} failed: {error}", path.display())))
}

/// A path for messages and a file operation's result as a fault.
fn io<T>(what: &str, path: &Path, result: std::io::Result<T>) -> Result<T> {
    result.map_err(|error| Fault::io(format!("{what} {} failed: {error}", path.display())))
}
