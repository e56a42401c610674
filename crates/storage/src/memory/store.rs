//! The state store in memory: keyspaces with all versions that open views still need. Used by the simulator and by
//! tests through the [`Store`] trait; its records lie on a [`super::MemoryDisk`].

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use base::LogIndex;
use bytes::{BufMut, Bytes};
use parking_lot::Mutex;

use super::disk::{Checked, DiskPart, Handle};
use crate::store::check_keys;
use crate::{Direction, KeyRange, KeyspaceName, KvBatch, Result, Scan, Store, View, codec};

/// The records are rewritten at a flush once they take this much and more than twice what they describe.
const REWRITE_BYTES_MIN: u64 = 256 * 1024;

const RECORD_CREATE: u8 = 1;
const RECORD_DROP: u8 = 2;
const RECORD_APPLY: u8 = 3;

/// The [`Store`] that one process opened on a [`super::MemoryDisk`].
pub struct MemoryStore {
    handle: Handle,
}

/// What the store of the running process holds.
#[derive(Default)]
pub(super) struct LiveStore {
    keyspaces: BTreeMap<KeyspaceName, Arc<Mutex<Keyspace>>>,
}

struct Keyspace {
    /// Versions of each key, oldest first.
    versions: BTreeMap<Bytes, Vec<Version>>,
    /// Counts batches; a view sees the versions up to its own number.
    sequence: u64,
    applied: LogIndex,
    durable: LogIndex,
    /// How many views there are at each sequence number.
    views: BTreeMap<u64, usize>,
    /// Keys that may hold versions no view needs.
    stale: Vec<Bytes>,
}

struct Version {
    sequence: u64,
    value: Option<Checked>,
}

impl MemoryStore {
    pub(super) fn new(handle: Handle) -> MemoryStore {
        MemoryStore { handle }
    }

    fn keyspace(&self, name: KeyspaceName) -> Result<Arc<Mutex<Keyspace>>> {
        self.handle.lock()?.live_store.get(name)
    }
}

impl Store for MemoryStore {
    fn create_keyspace(&self, name: KeyspaceName) -> Result<()> {
        let mut disk = self.handle.lock()?;
        if !disk.live_store.keyspaces.contains_key(&name) {
            disk.append(DiskPart::Store, Some(name), &keyspace_record(RECORD_CREATE, name))?;
            disk.live_store.keyspaces.insert(name, Keyspace::empty());
        }
        Ok(())
    }

    fn drop_keyspace(&self, name: KeyspaceName) -> Result<()> {
        let mut disk = self.handle.lock()?;
        if disk.live_store.keyspaces.contains_key(&name) {
            disk.append(DiskPart::Store, Some(name), &keyspace_record(RECORD_DROP, name))?;
            disk.live_store.keyspaces.remove(&name);
        }
        Ok(())
    }

    fn keyspaces(&self) -> Result<Vec<KeyspaceName>> {
        Ok(self.handle.lock()?.live_store.keyspaces.keys().copied().collect())
    }

    fn apply(&self, name: KeyspaceName, batch: &KvBatch, applied: LogIndex) -> Result<()> {
        check_keys(name, batch)?;
        let mut disk = self.handle.lock()?;
        let keyspace = disk.live_store.get(name)?;
        let mut keyspace = keyspace.lock();
        if applied <= keyspace.applied {
            return Err(crate::store::not_ascending(name, keyspace.applied, applied));
        }
        disk.append(DiskPart::Store, Some(name), &apply_record(name, applied, batch))?;
        keyspace.apply(batch, applied);
        Ok(())
    }

    fn fill(&self, name: KeyspaceName, batch: &KvBatch) -> Result<()> {
        check_keys(name, batch)?;
        let mut disk = self.handle.lock()?;
        let keyspace = disk.live_store.get(name)?;
        let mut keyspace = keyspace.lock();
        if keyspace.applied > LogIndex(0) {
            return Err(crate::store::not_empty(name, keyspace.applied));
        }
        disk.append(DiskPart::Store, Some(name), &apply_record(name, LogIndex(0), batch))?;
        keyspace.apply(batch, LogIndex(0));
        Ok(())
    }

    fn applied_index(&self, name: KeyspaceName) -> Result<LogIndex> {
        Ok(self.keyspace(name)?.lock().applied)
    }

    fn durable_index(&self, name: KeyspaceName) -> Result<LogIndex> {
        Ok(self.keyspace(name)?.lock().durable)
    }

    fn flush(&self) -> Result<()> {
        let mut disk = self.handle.lock()?;
        disk.sync(DiskPart::Store)?;
        disk.live_store.mark_durable();
        let disk = &mut *disk;
        let live = disk.live_store.live_bytes();
        if disk.store.bytes() > REWRITE_BYTES_MIN.max(2 * live) {
            disk.store.replace(disk.live_store.records());
        }
        Ok(())
    }

    fn view(&self, name: KeyspaceName) -> Result<Arc<dyn View>> {
        let keyspace = self.keyspace(name)?;
        Ok(Arc::new(MemoryView(Arc::new(Pin::new(self.handle.clone(), name, keyspace)))))
    }

    fn size_bytes(&self, name: KeyspaceName) -> Result<u64> {
        Ok(self.keyspace(name)?.lock().live_bytes())
    }
}

impl LiveStore {
    /// The state that a disk's records describe. `synced` of them were durable before this process started.
    pub(super) fn replay(bodies: Vec<Bytes>, synced: usize) -> Result<LiveStore> {
        let mut live = LiveStore::default();
        for (position, body) in bodies.into_iter().enumerate() {
            live.replay_record(body)?;
            if position + 1 == synced {
                live.mark_durable();
            }
        }
        Ok(live)
    }

    fn replay_record(&mut self, body: Bytes) -> Result<()> {
        let mut reader = codec::Reader::new(body, "a record of the store");
        let tag = reader.u8()?;
        let name = codec::keyspace(&mut reader)?;
        match tag {
            RECORD_CREATE => {
                self.keyspaces.insert(name, Keyspace::empty());
            }
            RECORD_DROP => {
                self.keyspaces.remove(&name);
            }
            _ => {
                let applied = LogIndex(reader.u64()?);
                let batch = codec::decode_kv_batch(reader)?;
                self.get(name)?.lock().apply(&batch, applied);
            }
        }
        Ok(())
    }

    /// Whether a record's body sets `key`.
    pub(super) fn record_holds(body: Bytes, key: &[u8]) -> bool {
        let mut reader = codec::Reader::new(body, "a record of the store");
        let header = (|| {
            let tag = reader.u8()?;
            codec::keyspace(&mut reader)?;
            if tag == RECORD_APPLY { reader.u64().map(|_| true) } else { Ok(false) }
        })();
        header.unwrap_or(false)
            && codec::decode_kv_batch(reader)
                .is_ok_and(|batch| batch.ops.iter().any(|op| op.key() == key && op.value().is_some()))
    }

    pub(super) fn flip_bit(&mut self, name: KeyspaceName, key: &[u8], bit: usize) -> bool {
        let Some(keyspace) = self.keyspaces.get(&name) else { return false };
        let mut keyspace = keyspace.lock();
        let newest = keyspace.versions.get_mut(key).and_then(|versions| versions.last_mut());
        newest.and_then(|version| version.value.as_mut()).is_some_and(|value| value.flip_bit(bit))
    }

    fn get(&self, name: KeyspaceName) -> Result<Arc<Mutex<Keyspace>>> {
        self.keyspaces.get(&name).cloned().ok_or_else(|| crate::store::no_keyspace(name))
    }

    fn mark_durable(&mut self) {
        for keyspace in self.keyspaces.values() {
            let mut keyspace = keyspace.lock();
            keyspace.durable = keyspace.applied;
        }
    }

    fn live_bytes(&self) -> u64 {
        self.keyspaces.values().map(|keyspace| keyspace.lock().live_bytes()).sum()
    }

    /// Records that describe the present state and nothing else.
    fn records(&self) -> Vec<(Option<KeyspaceName>, Vec<u8>)> {
        let mut records = Vec::new();
        for (&name, keyspace) in &self.keyspaces {
            let keyspace = keyspace.lock();
            records.push((Some(name), keyspace_record(RECORD_CREATE, name)));
            records.push((Some(name), apply_record(name, keyspace.applied, &keyspace.contents())));
        }
        records
    }
}

impl Keyspace {
    fn empty() -> Arc<Mutex<Keyspace>> {
        Arc::new(Mutex::new(Keyspace {
            versions: BTreeMap::new(),
            sequence: 0,
            applied: LogIndex(0),
            durable: LogIndex(0),
            views: BTreeMap::new(),
            stale: Vec::new(),
        }))
    }

    fn apply(&mut self, batch: &KvBatch, applied: LogIndex) {
        self.sequence += 1;
        self.applied = applied;
        for op in &batch.ops {
            let value = op.value().cloned().map(Checked::new);
            let versions = self.versions.entry(op.key().clone()).or_default();
            versions.push(Version { sequence: self.sequence, value });
            if versions.len() > 1 || op.value().is_none() {
                self.stale.push(op.key().clone());
            }
        }
        if self.views.is_empty() {
            self.prune();
        }
    }

    /// Drops the versions that nobody can read any more; only called without open views.
    fn prune(&mut self) {
        for key in std::mem::take(&mut self.stale) {
            let Some(versions) = self.versions.get_mut(&key) else { continue };
            versions.drain(..versions.len().saturating_sub(1));
            if versions.last().is_none_or(|version| version.value.is_none()) {
                self.versions.remove(&key);
            }
        }
    }

    /// The first (or last) key between the bounds that a view at `sequence` sees a value of.
    fn next<'a>(
        &'a self,
        bounds: (Bound<&Bytes>, Bound<&Bytes>),
        direction: Direction,
        sequence: u64,
    ) -> Option<(&'a Bytes, &'a Checked)> {
        let seen = |(key, versions): (_, &'a Vec<Version>)| Some((key, visible(versions, sequence)?));
        let mut range = self.versions.range::<Bytes, _>(bounds);
        match direction {
            Direction::Forward => range.find_map(seen),
            Direction::Reverse => range.rev().find_map(seen),
        }
    }

    fn contents(&self) -> KvBatch {
        let mut batch = KvBatch::default();
        for (key, versions) in &self.versions {
            if let Some(value) = versions.last().and_then(|version| version.value.as_ref()) {
                batch.put(key.clone(), value.as_ref().clone());
            }
        }
        batch
    }

    fn live_bytes(&self) -> u64 {
        let value = |versions: &Vec<Version>| {
            versions.last().and_then(|version| version.value.as_ref()).map_or(0, Checked::len)
        };
        self.versions.iter().map(|(key, versions)| (key.len() + value(versions)) as u64).sum()
    }
}

fn visible(versions: &[Version], sequence: u64) -> Option<&Checked> {
    versions.iter().rev().find(|version| version.sequence <= sequence)?.value.as_ref()
}

/// A view's hold on a keyspace: while it lives, the versions it sees stay.
struct Pin {
    handle: Handle,
    name: KeyspaceName,
    keyspace: Arc<Mutex<Keyspace>>,
    sequence: u64,
    applied: LogIndex,
}

impl Pin {
    fn new(handle: Handle, name: KeyspaceName, keyspace: Arc<Mutex<Keyspace>>) -> Pin {
        let mut locked = keyspace.lock();
        let (sequence, applied) = (locked.sequence, locked.applied);
        *locked.views.entry(sequence).or_default() += 1;
        drop(locked);
        Pin { handle, name, keyspace, sequence, applied }
    }

    fn read(&self, key: &[u8], value: &Checked) -> Result<Bytes> {
        value.read(|| format!("the value of key {} in keyspace {}", key.escape_ascii(), self.name))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut keyspace = self.keyspace.lock();
        if let Some(count) = keyspace.views.get_mut(&self.sequence) {
            *count -= 1;
            if *count == 0 {
                keyspace.views.remove(&self.sequence);
            }
        }
        if keyspace.views.is_empty() {
            keyspace.prune();
        }
    }
}

struct MemoryView(Arc<Pin>);

impl View for MemoryView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let pin = &self.0;
        pin.handle.check_alive()?;
        let keyspace = pin.keyspace.lock();
        let found = keyspace.versions.get(key).and_then(|versions| visible(versions, pin.sequence));
        found.map(|value| pin.read(key, value)).transpose()
    }

    fn scan(&self, range: KeyRange, direction: Direction) -> Scan {
        let lower = Bound::Included(range.start.clone());
        let upper = range.end.clone().map_or(Bound::Unbounded, Bound::Excluded);
        Box::new(MemoryScan { pin: self.0.clone(), lower, upper, direction, done: range.is_empty() })
    }

    fn applied_index(&self) -> Result<LogIndex> {
        self.0.handle.check_alive()?;
        Ok(self.0.applied)
    }
}

struct MemoryScan {
    pin: Arc<Pin>,
    lower: Bound<Bytes>,
    upper: Bound<Bytes>,
    direction: Direction,
    done: bool,
}

impl Iterator for MemoryScan {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.step();
        match &item {
            Some(Ok((key, _))) => {
                // An excluded bound on both sides at the same key is one that BTreeMap refuses.
                let crossed = match self.direction {
                    Direction::Forward => matches!(&self.upper, Bound::Excluded(end) if end <= key),
                    Direction::Reverse => matches!(&self.lower, Bound::Included(start) if start >= key),
                };
                match self.direction {
                    Direction::Forward => self.lower = Bound::Excluded(key.clone()),
                    Direction::Reverse => self.upper = Bound::Excluded(key.clone()),
                }
                self.done = crossed;
            }
            Some(Err(_)) | None => self.done = true,
        }
        item
    }
}

impl MemoryScan {
    fn step(&self) -> Option<Result<(Bytes, Bytes)>> {
        if let Err(fault) = self.pin.handle.check_alive() {
            return Some(Err(fault));
        }
        let keyspace = self.pin.keyspace.lock();
        let bounds = (self.lower.as_ref(), self.upper.as_ref());
        let (key, value) = keyspace.next(bounds, self.direction, self.pin.sequence)?;
        Some(self.pin.read(key, value).map(|value| (key.clone(), value)))
    }
}

fn keyspace_record(tag: u8, name: KeyspaceName) -> Vec<u8> {
    let mut body = vec![tag];
    codec::put_keyspace(&mut body, name);
    body
}

fn apply_record(name: KeyspaceName, applied: LogIndex, batch: &KvBatch) -> Vec<u8> {
    let mut body = keyspace_record(RECORD_APPLY, name);
    body.put_u64_le(applied.get());
    codec::encode_kv_batch(batch, &mut body);
    body
}
