//! What all replicas ever logged, committed, applied and led, compared between them while the run goes on.
//!
//! Fed with every log write and every event of every replica. Always holds, or it says what does not: a term has one
//! leader, which begins to act once; of one index, all replicas commit the same entry; at one applied index, all replicas of a
//! group hold the same keys and values.

use std::collections::BTreeMap;

use base::{LogIndex, ReplicaId, ShardId, Term};
use bytes::Bytes;
use replica::trace::Event;
use storage::memory::{MemoryRaftLog, MemoryStore};
use storage::{Direction, KeyRange, KeyspaceName, LogBatch, LogEntry, RaftLog, Store, View};

use crate::world::fnv;

/// Applied states are compared where the index is a multiple of this.
const COMPARED_EVERY: u64 = 3;
/// The store's word on the membership: it says also what this replica alone knows.
const MEMBERSHIP_KEY: &[u8] = b"\x01membership";

/// See the module's comment.
#[derive(Default)]
pub(crate) struct Ledger {
    groups: BTreeMap<ShardId, GroupLedger>,
    replicas: BTreeMap<ReplicaId, ReplicaLedger>,
}

/// What a group agrees on.
#[derive(Default)]
struct GroupLedger {
    leaders: BTreeMap<Term, ReplicaId>,
    committed: BTreeMap<LogIndex, LogEntry>,
    applied: BTreeMap<LogIndex, (u64, ReplicaId)>,
}

/// What one replica has.
struct ReplicaLedger {
    shard: ShardId,
    entries: BTreeMap<LogIndex, LogEntry>,
    committed: LogIndex,
    /// Whether it has led since its process started.
    has_led: bool,
    /// Whether it led and then neither committed nor sent anything.
    is_silent: bool,
}

impl Ledger {
    /// From now on this replica is watched.
    pub(crate) fn register(&mut self, replica: ReplicaId, shard: ShardId) {
        let ledger = ReplicaLedger {
            shard,
            entries: BTreeMap::new(),
            committed: LogIndex(0),
            has_led: false,
            is_silent: false,
        };
        self.replicas.entry(replica).or_insert(ledger);
    }

    /// From now on the replicas that these keyspaces belong to are watched.
    pub(crate) fn register_all(&mut self, keyspaces: &[KeyspaceName]) {
        keyspaces.iter().for_each(|name| self.register(name.replica, name.shard));
    }

    /// The group that a watched replica belongs to.
    pub(crate) fn shard_of(&self, replica: ReplicaId) -> Option<ShardId> {
        self.replicas.get(&replica).map(|ledger| ledger.shard)
    }

    /// Takes what a disk holds as its process starts: a crash may have taken some of what was logged.
    pub(crate) fn read_disk(&mut self, log: &MemoryRaftLog) -> storage::Result<()> {
        for replica in log.replicas()? {
            let Some(ledger) = self.replicas.get_mut(&replica) else { continue };
            ledger.entries.clear();
            if let Some((first, last)) = log.bounds(replica)? {
                let entries = log.entries(replica, first, last.next(), usize::MAX)?;
                ledger.entries.extend(entries.into_iter().map(|entry| (entry.index, entry)));
            }
        }
        Ok(())
    }

    /// Takes what is being logged.
    pub(crate) fn note_logged(&mut self, batch: &LogBatch) {
        for (replica, writes) in &batch.replicas {
            let Some(ledger) = self.replicas.get_mut(replica) else { continue };
            if writes.clean {
                ledger.entries.clear();
            }
            if let Some(first) = writes.entries.first() {
                ledger.entries.split_off(&first.index);
            }
            ledger.entries.extend(writes.entries.iter().map(|entry| (entry.index, entry.clone())));
        }
    }

    /// Takes an event, and says what contradicts what was seen before.
    pub(crate) fn observe(
        &mut self,
        replica: ReplicaId,
        event: &Event,
        store: &MemoryStore,
        log: &MemoryRaftLog,
    ) -> Result<(), String> {
        let Some(shard) = self.shard_of(replica) else { return Ok(()) };
        if matches!(event, Event::Sent { .. } | Event::Committed { .. }) {
            // What is committed before it leads again was logged in an earlier term.
            self.replicas.entry(replica).and_modify(|ledger| ledger.is_silent &= !ledger.has_led);
        }
        match event {
            Event::Leads { term, .. } => self.note_leader(shard, replica, *term),
            Event::Committed { index } => self.note_committed(shard, replica, *index),
            Event::Applied { last, .. } if last.get().is_multiple_of(COMPARED_EVERY) => {
                self.note_applied(shard, replica, *last, store, log)
            }
            Event::Opened { applied, .. } => {
                self.replicas.entry(replica).and_modify(|ledger| {
                    ledger.committed = *applied;
                    ledger.has_led = false;
                });
                self.note_applied(shard, replica, *applied, store, log)
            }
            _ => Ok(()),
        }
    }

    fn note_leader(&mut self, shard: ShardId, replica: ReplicaId, term: Term) -> Result<(), String> {
        let Some(own) = self.replicas.get_mut(&replica) else { return Ok(()) };
        let leaders = &mut self.groups.entry(shard).or_default().leaders;
        // A sole voter that crashed before its vote was durable, and before anybody heard of it, leads again.
        own.has_led = true;
        let was_silent = std::mem::replace(&mut own.is_silent, true);
        match leaders.insert(term, replica) {
            Some(other) if other == replica && was_silent => Ok(()),
            Some(other) => Err(format!("{replica} leads {term} of {shard}, and {other} did before")),
            None => Ok(()),
        }
    }

    fn note_committed(&mut self, shard: ShardId, replica: ReplicaId, index: LogIndex) -> Result<(), String> {
        let Some(own) = self.replicas.get_mut(&replica) else { return Ok(()) };
        let group = self.groups.entry(shard).or_default();
        let mut next = own.committed.next();
        own.committed = own.committed.max(index);
        while next <= index {
            let Some(entry) = own.entries.get(&next) else {
                return Err(format!("{replica} committed {next}, which it does not have"));
            };
            let agreed = group.committed.entry(next).or_insert_with(|| entry.clone());
            if agreed != entry {
                let (term, other) = (entry.term, agreed.term);
                return Err(format!("{replica} committed {next} of {term}, and others one of {other}"));
            }
            next = next.next();
        }
        Ok(())
    }

    fn note_applied(
        &mut self,
        shard: ShardId,
        replica: ReplicaId,
        applied: LogIndex,
        store: &MemoryStore,
        log: &MemoryRaftLog,
    ) -> Result<(), String> {
        // A process that is ending reads nothing any more.
        let Ok(Some(state)) = log.state(replica) else { return Ok(()) };
        let name = KeyspaceName { shard, replica, generation: state.generation };
        let Ok(view) = store.view(name) else { return Ok(()) };
        if view.applied_index() != Ok(applied) {
            return Ok(());
        }
        let Ok(hash) = hash_of(view.as_ref()) else { return Ok(()) };
        let group = self.groups.entry(shard).or_default();
        let (agreed, other) = *group.applied.entry(applied).or_insert((hash, replica));
        if agreed != hash {
            return Err(format!("{replica} and {other} hold different states at {applied}"));
        }
        Ok(())
    }

    /// The data of the entries that a group committed up to `last`. Membership changes are left out.
    pub(crate) fn committed(&self, shard: ShardId, last: LogIndex) -> Vec<(LogIndex, Bytes)> {
        let Some(group) = self.groups.get(&shard) else { return Vec::new() };
        let normal = group.committed.range(..=last).filter(|(_, entry)| entry.kind == 0);
        normal.map(|(index, entry)| (*index, entry.data.clone())).collect()
    }
}

/// A hash over all keys and values that users see.
fn hash_of(view: &dyn View) -> storage::Result<u64> {
    let mut hash = 0xCBF2_9CE4_8422_2325;
    for pair in view.scan(KeyRange::prefix(Bytes::new()), Direction::Forward) {
        let (key, value) = pair?;
        if key != MEMBERSHIP_KEY {
            hash = fnv(fnv(hash, &key), &value);
        }
    }
    Ok(hash)
}
