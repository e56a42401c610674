//! The Raft log in memory, and a [`LogWriter`] that writes at once. Used by the simulator and by tests; its records
//! lie on a [`super::MemoryDisk`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::{LogIndex, ReplicaId, Term};
use bytes::Bytes;

use super::disk::{Checked, DiskPart, Handle};
use crate::log::{LogShape, check_entries, check_range};
use crate::{
    Fault, LogBatch, LogEntry, LogWriter, RaftLog, ReplicaLogState, ReplicaWrites, Result, WriteDone, codec,
};

/// The records are rewritten at a sync once they take this much and more than twice what they describe.
const REWRITE_BYTES_MIN: u64 = 256 * 1024;

/// The [`RaftLog`] that one process opened on a [`super::MemoryDisk`].
#[derive(Clone)]
pub struct MemoryRaftLog {
    handle: Handle,
}

/// What the Raft log of the running process holds.
#[derive(Default)]
pub(super) struct LiveLog {
    replicas: BTreeMap<ReplicaId, LiveReplica>,
    node: BTreeMap<String, Checked>,
}

#[derive(Default)]
struct LiveReplica {
    state: Option<ReplicaLogState>,
    /// Entries without holes; the first one has index `first`.
    entries: VecDeque<LiveEntry>,
    first: u64,
}

struct LiveEntry {
    term: Term,
    kind: u8,
    data: Checked,
}

impl MemoryRaftLog {
    pub(super) fn new(handle: Handle) -> MemoryRaftLog {
        MemoryRaftLog { handle }
    }

    /// Writes a batch without an fsync: readers see it at once, a crash may lose or tear it. With [`Self::sync`] this
    /// is [`RaftLog::write`] in two steps, so that a simulator can let time pass and crash between them.
    pub fn append(&self, batch: &LogBatch) -> Result<()> {
        let mut disk = self.handle.lock()?;
        disk.live_log.check(batch)?;
        disk.append(DiskPart::RaftLog, None, &codec::encode_log_batch(batch))?;
        disk.live_log.apply(batch);
        Ok(())
    }

    /// Makes durable whatever was appended before.
    pub fn sync(&self) -> Result<()> {
        let mut disk = self.handle.lock()?;
        disk.sync(DiskPart::RaftLog)?;
        let disk = &mut *disk;
        if disk.log.bytes() > REWRITE_BYTES_MIN.max(2 * disk.live_log.live_bytes()) {
            let batch = disk.live_log.contents()?;
            disk.log.replace(vec![(None, codec::encode_log_batch(&batch))]);
        }
        Ok(())
    }
}

impl RaftLog for MemoryRaftLog {
    fn replicas(&self) -> Result<Vec<ReplicaId>> {
        let disk = self.handle.lock()?;
        let known = disk.live_log.replicas.iter().filter(|(_, replica)| replica.state.is_some());
        Ok(known.map(|(&id, _)| id).collect())
    }

    fn state(&self, replica: ReplicaId) -> Result<Option<ReplicaLogState>> {
        let disk = self.handle.lock()?;
        Ok(disk.live_log.replicas.get(&replica).and_then(|replica| replica.state.clone()))
    }

    fn bounds(&self, replica: ReplicaId) -> Result<Option<(LogIndex, LogIndex)>> {
        let disk = self.handle.lock()?;
        Ok(disk.live_log.replicas.get(&replica).and_then(LiveReplica::bounds))
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
        let disk = self.handle.lock()?;
        check_range(replica, disk.live_log.shape(replica).bounds, low, high)?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in low.get()..high.get() {
            let entry = disk.live_log.read_entry(replica, LogIndex(index))?;
            bytes += entry.data.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn node_value(&self, key: &str) -> Result<Option<Bytes>> {
        let disk = self.handle.lock()?;
        disk.live_log.node.get(key).map(|value| value.read(|| format!("the node's value {key}"))).transpose()
    }

    fn write(&self, batch: LogBatch) -> Result<()> {
        self.append(&batch)?;
        self.sync()
    }

    fn usage(&self) -> Result<(u64, Vec<ReplicaId>)> {
        Ok((self.handle.lock()?.log.bytes(), Vec::new()))
    }
}

impl LiveLog {
    /// The state that a disk's records describe.
    pub(super) fn replay(bodies: Vec<Bytes>) -> Result<LiveLog> {
        let mut live = LiveLog::default();
        for body in bodies {
            live.apply(&codec::decode_log_batch(body)?);
        }
        Ok(live)
    }

    /// Whether a record's body holds the entry.
    pub(super) fn record_holds(body: Bytes, replica: ReplicaId, index: LogIndex) -> bool {
        let holds = |(id, writes): &(ReplicaId, ReplicaWrites)| {
            *id == replica && writes.entries.iter().any(|entry| entry.index == index)
        };
        codec::decode_log_batch(body).is_ok_and(|batch| batch.replicas.iter().any(holds))
    }

    pub(super) fn flip_bit(&mut self, replica: ReplicaId, index: LogIndex, bit: usize) -> bool {
        let Some(replica) = self.replicas.get_mut(&replica) else { return false };
        let position = index.get().checked_sub(replica.first);
        let entry = position.and_then(|position| replica.entries.get_mut(position as usize));
        entry.is_some_and(|entry| entry.data.flip_bit(bit))
    }

    fn check(&self, batch: &LogBatch) -> Result<()> {
        let mut shapes: BTreeMap<ReplicaId, LogShape> = BTreeMap::new();
        for (id, writes) in &batch.replicas {
            let before = shapes.get(id).copied().unwrap_or_else(|| self.shape(*id));
            shapes.insert(*id, check_entries(*id, before, writes)?);
        }
        Ok(())
    }

    fn shape(&self, id: ReplicaId) -> LogShape {
        let Some(replica) = self.replicas.get(&id) else { return LogShape::EMPTY };
        LogShape {
            bounds: replica.bounds(),
            truncated: replica.state.as_ref().map_or(LogIndex(0), |state| state.truncated_index),
        }
    }

    fn apply(&mut self, batch: &LogBatch) {
        for (id, writes) in &batch.replicas {
            if writes.clean {
                self.replicas.remove(id);
            }
            let empty = writes.entries.is_empty() && writes.state.is_none() && writes.compact_to.is_none();
            if !empty {
                self.replicas.entry(*id).or_default().apply(writes);
            }
        }
        for (key, value) in &batch.node {
            self.node.insert(key.clone(), Checked::new(value.clone()));
        }
    }

    fn read_entry(&self, replica: ReplicaId, index: LogIndex) -> Result<LogEntry> {
        let missing =
            || Fault::corruption(format!("entry {index} of replica {replica} is not in the Raft log"));
        let live = self.replicas.get(&replica).ok_or_else(missing)?;
        let position = index.get().checked_sub(live.first).ok_or_else(missing)?;
        let entry = live.entries.get(position as usize).ok_or_else(missing)?;
        let data = entry.data.read(|| format!("entry {index} of replica {replica}"))?;
        Ok(LogEntry { index, term: entry.term, kind: entry.kind, data })
    }

    fn live_bytes(&self) -> u64 {
        let entries = self.replicas.values().flat_map(|replica| &replica.entries);
        entries.map(|entry| entry.data.len() as u64 + 32).sum::<u64>() + self.replicas.len() as u64 * 128
    }

    /// One batch that describes the present state and nothing else.
    fn contents(&self) -> Result<LogBatch> {
        let mut batch = LogBatch::default();
        for (&id, replica) in &self.replicas {
            let mut writes = ReplicaWrites { state: replica.state.clone(), ..ReplicaWrites::default() };
            for position in 0..replica.entries.len() as u64 {
                writes.entries.push(self.read_entry(id, LogIndex(replica.first + position))?);
            }
            batch.replicas.push((id, writes));
        }
        for (key, value) in &self.node {
            batch.node.push((key.clone(), value.read(|| format!("the node's value {key}"))?));
        }
        Ok(batch)
    }
}

impl LiveReplica {
    fn bounds(&self) -> Option<(LogIndex, LogIndex)> {
        let last = (self.first + self.entries.len() as u64).checked_sub(1)?;
        (!self.entries.is_empty()).then_some((LogIndex(self.first), LogIndex(last)))
    }

    /// Applies writes that were checked for holes.
    fn apply(&mut self, writes: &ReplicaWrites) {
        if let Some(first) = writes.entries.first() {
            if self.entries.is_empty() {
                self.first = first.index.get();
            }
            self.entries.truncate((first.index.get() - self.first) as usize);
            self.entries.extend(writes.entries.iter().map(|entry| LiveEntry {
                term: entry.term,
                kind: entry.kind,
                data: Checked::new(entry.data.clone()),
            }));
        }
        if let Some(state) = &writes.state {
            self.state = Some(state.clone());
        }
        if let Some(to) = writes.compact_to {
            while self.first <= to.get() && self.entries.pop_front().is_some() {
                self.first += 1;
            }
        }
    }
}

/// A [`LogWriter`] that writes each batch at once and calls `done` before `submit` returns. For tests.
pub struct MemoryLogWriter {
    log: Arc<dyn RaftLog>,
}

impl MemoryLogWriter {
    /// Writes to `log`.
    pub fn new(log: Arc<dyn RaftLog>) -> MemoryLogWriter {
        MemoryLogWriter { log }
    }
}

impl LogWriter for MemoryLogWriter {
    fn submit(&self, batch: LogBatch, done: WriteDone) {
        done(self.log.write(batch));
    }
}
