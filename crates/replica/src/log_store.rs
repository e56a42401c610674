//! The Raft log of one replica as the consensus library reads it: recent entries in memory, older ones on disk.
//!
//! Owned by the library, changed by [`crate::group::Group`]. Always holds: the cache reaches from some index to the last
//! one without a hole, and holds at least every entry that is not applied or not durable yet, so that the library never
//! waits for the disk to hand out a committed entry. A fault of the disk closes the latch; the library is told "not now".

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use base::{LogIndex, ReplicaId, Term};
use parking_lot::Mutex;
use protobuf::ProtobufEnum;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError};
use storage::{Fault, LogEntry, RaftLog};

#[cfg(feature = "bugs")]
use crate::bugs::Bug;
use crate::fault::FaultLatch;

/// Entries read from disk at a time while a replica is opened, in bytes.
const OPEN_CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// See the module's comment.
pub(crate) struct LogStore {
    replica: ReplicaId,
    raft_log: Arc<dyn RaftLog>,
    latch: Arc<FaultLatch>,
    initial: RaftState,
    truncated: (LogIndex, Term),
    cache: VecDeque<Entry>,
    /// The last entry that left the cache: when nothing newer is committed, the library asks for its term, and a failure
    /// to read it would make the library panic.
    evicted: (LogIndex, Term),
    last: (LogIndex, Term),
    /// Replicas that need entries which are compacted away.
    behind: Mutex<BTreeSet<ReplicaId>>,
    #[cfg(feature = "bugs")]
    pub(crate) bug: Option<Bug>,
}

/// What [`LogStore::open`] needs to know.
pub(crate) struct LogStoreOptions {
    pub(crate) replica: ReplicaId,
    pub(crate) raft_log: Arc<dyn RaftLog>,
    pub(crate) latch: Arc<FaultLatch>,
    pub(crate) hard_state: HardState,
    pub(crate) conf_state: ConfState,
    pub(crate) truncated: (LogIndex, Term),
    pub(crate) last: LogIndex,
    pub(crate) applied: LogIndex,
}

impl LogStore {
    /// Reads every entry after `applied` into memory, checking each. Faults when one is missing or damaged.
    pub(crate) fn open(options: LogStoreOptions) -> storage::Result<LogStore> {
        let LogStoreOptions { replica, raft_log, latch, hard_state, conf_state, truncated, last, applied } =
            options;
        let mut store = LogStore {
            replica,
            raft_log,
            latch,
            initial: RaftState { hard_state, conf_state },
            truncated,
            cache: VecDeque::new(),
            evicted: truncated,
            last: truncated,
            behind: Mutex::default(),
            #[cfg(feature = "bugs")]
            bug: None,
        };
        if applied > truncated.0 && applied <= last {
            store.evicted = (applied, store.read_one(applied)?.term);
            store.last = store.evicted;
        }
        let mut next = applied.next();
        while next <= last {
            for entry in store.raft_log.entries(replica, next, last.next(), OPEN_CHUNK_BYTES)? {
                if entry.index != next {
                    let message =
                        format!("the Raft log of {replica} has entry {} in place of {next}", entry.index);
                    return Err(Fault::corruption(message));
                }
                store.last = (entry.index, entry.term);
                store.cache.push_back(to_raft(entry)?);
                next = next.next();
            }
        }
        if store.last.0 < last {
            store.last = (last, store.read_one(last)?.term);
        }
        Ok(store)
    }

    /// Puts a bug back.
    #[cfg(feature = "bugs")]
    pub(crate) fn with_bug(self, bug: Option<Bug>) -> LogStore {
        LogStore { bug, ..self }
    }

    /// Index and term of the last entry that is compacted away.
    pub(crate) fn truncated(&self) -> (LogIndex, Term) {
        self.truncated
    }

    /// Takes entries that the library produced; from the first one's index on they replace what was there.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index <= self.last.0.get() + 1, "a Raft log has no holes");
        #[cfg(feature = "bugs")]
        let keeps = self.bug == Some(Bug::CacheKeepsTruncated);
        #[cfg(not(feature = "bugs"))]
        let keeps = false;
        while !keeps && self.cache.pop_back_if(|cached| cached.index >= first.index).is_some() {}
        let cached = self.cache.back().map_or(0, |cached| cached.index);
        self.cache.extend(entries.iter().filter(|entry| entry.index > cached).cloned());
        if let Some(last) = entries.last() {
            self.last = (LogIndex(last.index), Term(last.term));
        }
    }

    /// Forgets the cached copies of entries up to `index`, which are durable and applied. Followers that still need them
    /// are served from disk.
    pub(crate) fn evict(&mut self, index: LogIndex) {
        while let Some(entry) = self.cache.pop_front_if(|cached| cached.index <= index.get()) {
            self.evicted = (LogIndex(entry.index), Term(entry.term));
        }
        if self.cache.is_empty() {
            self.cache.shrink_to(64);
        }
    }

    /// Records that entries up to `index` are compacted away.
    pub(crate) fn compact(&mut self, index: LogIndex, term: Term) {
        assert!(index > self.truncated.0, "compaction goes forward");
        self.truncated = (index, term);
        self.evict(index);
    }

    /// Replicas that asked for entries which are compacted away, since the last call.
    pub(crate) fn take_behind(&mut self) -> BTreeSet<ReplicaId> {
        std::mem::take(self.behind.get_mut())
    }

    /// The term of an entry that is kept, or of the last one that is not.
    pub(crate) fn term_of(&self, index: LogIndex) -> storage::Result<Option<Term>> {
        if index < self.truncated.0 || index > self.last.0 {
            return Ok(None);
        }
        if index == self.truncated.0 {
            return Ok(Some(self.truncated.1));
        }
        if let Some((_, term)) = [self.last, self.evicted].into_iter().find(|known| known.0 == index) {
            return Ok(Some(term));
        }
        match self.cached(index.get()) {
            Some(entry) => Ok(Some(Term(entry.term))),
            None => self.read_one(index).map(|entry| Some(entry.term)),
        }
    }

    fn cached(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.cache.front()?.index)?;
        self.cache.get(usize::try_from(offset).ok()?)
    }

    fn read_one(&self, index: LogIndex) -> storage::Result<LogEntry> {
        let found = self.raft_log.entries(self.replica, index, index.next(), usize::MAX)?;
        found.into_iter().next().ok_or_else(|| {
            Fault::corruption(format!("entry {index} of the Raft log of {} is missing", self.replica))
        })
    }

    fn read_range(&self, low: u64, high: u64, bytes_max: usize) -> storage::Result<Vec<Entry>> {
        let first_cached = self.cache.front().map_or(u64::MAX, |entry| entry.index);
        let disk_high = high.min(first_cached);
        let read = self.raft_log.entries(self.replica, LogIndex(low), LogIndex(disk_high), bytes_max)?;
        let mut entries = read.into_iter().map(to_raft).collect::<storage::Result<Vec<_>>>()?;
        if entries.len() as u64 == disk_high - low {
            entries.extend((disk_high..high).map_while(|index| self.cached(index).cloned()));
        }
        Ok(entries)
    }

    /// Closes the latch: the node will not live to see what the library makes of `answer`.
    fn give_up(&self, fault: Fault, answer: StorageError) -> raft::Error {
        self.latch.set(fault.context(format!("Raft log of {}", self.replica)));
        raft::Error::Store(answer)
    }
}

impl raft::Storage for LogStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        assert!(high <= self.last.0.get() + 1, "the library asks only for entries that it appended");
        if low <= self.truncated.0.get() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let max_size = max_size.into();
        let mut entries = if self.cached(low).is_some() {
            (low..high).map_while(|index| self.cached(index).cloned()).collect()
        } else {
            let bytes_max = max_size.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
            self.read_range(low, high, bytes_max)
                .map_err(|fault| self.give_up(fault, StorageError::LogTemporarilyUnavailable))?
        };
        raft::util::limit_size(&mut entries, max_size);
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let index = LogIndex(index);
        // Any other error than "unavailable" makes the library panic here, as this one does where it wants entries.
        match self.term_of(index).map_err(|fault| self.give_up(fault, StorageError::Unavailable))? {
            Some(term) => Ok(term.get()),
            None if index < self.truncated.0 => Err(raft::Error::Store(StorageError::Compacted)),
            None => Err(raft::Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.0.get() + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last.0.get())
    }

    /// Snapshots do not pass through the library: notes who needs one.
    fn snapshot(&self, _request_index: u64, to: u64) -> raft::Result<Snapshot> {
        self.behind.lock().insert(ReplicaId(to));
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

/// The library's entry as the log writer takes it. Shares the data.
pub(crate) fn to_log(entry: &Entry) -> LogEntry {
    LogEntry {
        index: LogIndex(entry.index),
        term: Term(entry.term),
        kind: u8::try_from(entry.entry_type.value()).expect("three kinds"),
        data: entry.data.clone(),
    }
}

fn to_raft(entry: LogEntry) -> storage::Result<Entry> {
    let entry_type = EntryType::from_i32(i32::from(entry.kind)).ok_or_else(|| {
        Fault::corruption(format!("Raft entry {} is of unknown kind {}", entry.index, entry.kind))
    })?;
    Ok(Entry {
        entry_type,
        term: entry.term.get(),
        index: entry.index.get(),
        data: entry.data,
        ..Entry::default()
    })
}
