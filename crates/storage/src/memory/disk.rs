//! The simulated disk: records with a synced length, the faults it is told to have, and what a crash leaves of it.
//! Called by [`super::MemoryStore`] and [`super::MemoryRaftLog`] for every write, and by tests and the simulator.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{LogIndex, ReplicaId};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::raft_log::{LiveLog, MemoryRaftLog};
use super::store::{LiveStore, MemoryStore};
use crate::{Fault, KeyspaceName, Result, codec};

/// Which of the two things on the disk a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskPart {
    /// The state store.
    Store,
    /// The Raft log.
    RaftLog,
}

impl fmt::Display for DiskPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskPart::Store => "store",
            DiskPart::RaftLog => "Raft log",
        })
    }
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    pub(super) shared: Arc<Shared>,
}

/// What all handles of one disk share.
#[derive(Default)]
pub(super) struct Shared {
    /// Counts the processes that ran on this disk. A handle of an earlier one answers faults.
    incarnation: AtomicU64,
    disk: Mutex<Disk>,
}

/// The platters, and the live state of the process that runs on them.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) store: Image,
    pub(super) log: Image,
    pub(super) live_store: LiveStore,
    pub(super) live_log: LiveLog,
    capacity_bytes: Option<u64>,
}

/// The records of one part of the disk, and its faults.
#[derive(Default)]
pub(super) struct Image {
    records: Vec<Record>,
    /// How many records at the front are synced.
    synced: usize,
    bytes: u64,
    fail_next_write: bool,
    fail_next_fsync: bool,
    /// The fault that ended this part's service to the running process.
    poison: Option<Fault>,
}

/// One record. Records of one stream reach the disk in order; streams overtake each other, as tables and journals do.
struct Record {
    stream: Option<KeyspaceName>,
    bytes: Bytes,
}

impl MemoryDisk {
    /// An empty disk of unlimited size.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// Starts a process on the disk: reads everything back. Handles of an earlier process answer faults from now on.
    /// Without a [`MemoryDisk::crash`] before it, nothing is lost, as when only the process was killed.
    pub fn open(&self) -> Result<(MemoryStore, MemoryRaftLog)> {
        let incarnation = self.shared.end_incarnation();
        let mut disk = self.shared.lock();
        let disk = &mut *disk;
        disk.live_store = LiveStore::replay(disk.store.reopen(DiskPart::Store)?, disk.store.synced)?;
        disk.live_log = LiveLog::replay(disk.log.reopen(DiskPart::RaftLog)?)?;
        let handle = Handle { shared: self.shared.clone(), incarnation };
        Ok((MemoryStore::new(handle.clone()), MemoryRaftLog::new(handle)))
    }

    /// Cuts the power: all handles die; what was synced stays. `choose(bound)` returns a number below `bound` and
    /// decides how much of the rest stays, separately for each keyspace, and whether the next record is torn.
    pub fn crash(&self, choose: &mut dyn FnMut(u64) -> u64) {
        self.shared.end_incarnation();
        let mut disk = self.shared.lock();
        disk.store.crash(choose);
        disk.log.crash(choose);
    }

    /// Makes the next fsync of `part` fail. What it should have made durable may or may not survive a crash.
    pub fn fail_next_fsync(&self, part: DiskPart) {
        self.shared.lock().image(part).fail_next_fsync = true;
    }

    /// Makes the next write of `part` fail, after it has put a torn record on the disk.
    pub fn fail_next_write(&self, part: DiskPart) {
        self.shared.lock().image(part).fail_next_write = true;
    }

    /// Flips one bit of the value of `key`, so that reads of it fault, and the next open as well. Returns whether the
    /// key has a value with at least one byte.
    pub fn flip_store_bit(&self, name: KeyspaceName, key: &[u8], bit: usize) -> bool {
        let mut disk = self.shared.lock();
        let flipped = disk.live_store.flip_bit(name, key, bit);
        if flipped {
            disk.store.flip_bit(Some(name), |body| LiveStore::record_holds(body, key));
        }
        flipped
    }

    /// Flips one bit of a log entry's data, so that reads of it fault, and the next open as well. Returns whether the
    /// entry exists and has at least one byte of data.
    pub fn flip_log_bit(&self, replica: ReplicaId, index: LogIndex, bit: usize) -> bool {
        let mut disk = self.shared.lock();
        let flipped = disk.live_log.flip_bit(replica, index, bit);
        if flipped {
            disk.log.flip_bit(None, |body| LiveLog::record_holds(body, replica, index));
        }
        flipped
    }

    /// Sets the size of the disk; `None` for unlimited. A write that does not fit fails, as on a full disk.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.shared.lock().capacity_bytes = capacity_bytes;
    }

    /// Bytes that records take now.
    pub fn used_bytes(&self) -> u64 {
        self.shared.lock().used_bytes()
    }

    /// Bytes that are free; `u64::MAX` on a disk of unlimited size.
    pub fn free_bytes(&self) -> u64 {
        let disk = self.shared.lock();
        disk.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(disk.used_bytes()))
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock()
    }

    /// Ends the running process, and returns the number of the next one.
    fn end_incarnation(&self) -> u64 {
        self.incarnation.fetch_add(1, Ordering::AcqRel) + 1
    }
}

/// A running process's access to the disk.
#[derive(Clone)]
pub(super) struct Handle {
    shared: Arc<Shared>,
    incarnation: u64,
}

impl Handle {
    /// The disk, unless the process that this handle belongs to has ended.
    pub(super) fn lock(&self) -> Result<MutexGuard<'_, Disk>> {
        let disk = self.shared.lock();
        self.check_alive()?;
        Ok(disk)
    }

    pub(super) fn check_alive(&self) -> Result<()> {
        if self.shared.incarnation.load(Ordering::Acquire) == self.incarnation {
            return Ok(());
        }
        Err(Fault::io("the process that opened this simulated disk has ended"))
    }
}

impl Disk {
    /// Appends a record, not synced.
    pub(super) fn append(&mut self, part: DiskPart, stream: Option<KeyspaceName>, body: &[u8]) -> Result<()> {
        let record = Bytes::from(codec::seal(body));
        let needed = self.used_bytes() + record.len() as u64;
        let full = self.capacity_bytes.is_some_and(|capacity| needed > capacity);
        let image = self.image(part);
        image.check_poison()?;
        if full {
            return Err(
                image.fail(Fault::io(format!("writing the {part} failed: no space left on the disk")))
            );
        }
        if std::mem::take(&mut image.fail_next_write) {
            let torn = record.slice(..record.len() / 2);
            image.push(Record { stream, bytes: torn });
            return Err(image.fail(Fault::io(format!("writing the {part} failed: simulated I/O error"))));
        }
        image.push(Record { stream, bytes: record });
        Ok(())
    }

    /// Makes all records of `part` durable.
    pub(super) fn sync(&mut self, part: DiskPart) -> Result<()> {
        let image = self.image(part);
        image.check_poison()?;
        if std::mem::take(&mut image.fail_next_fsync) {
            return Err(image.fail(Fault::io(format!("fsync of the {part} failed: simulated I/O error"))));
        }
        image.synced = image.records.len();
        Ok(())
    }

    pub(super) fn image(&mut self, part: DiskPart) -> &mut Image {
        match part {
            DiskPart::Store => &mut self.store,
            DiskPart::RaftLog => &mut self.log,
        }
    }

    fn used_bytes(&self) -> u64 {
        self.store.bytes + self.log.bytes
    }
}

impl Image {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The fault that every later write answers with.
    pub(super) fn check_poison(&self) -> Result<()> {
        self.poison.clone().map_or(Ok(()), Err)
    }

    /// Replaces all records by `bodies`, durably and at once, as a rename does.
    pub(super) fn replace(&mut self, bodies: Vec<(Option<KeyspaceName>, Vec<u8>)>) {
        self.records.clear();
        self.bytes = 0;
        for (stream, body) in bodies {
            self.push(Record { stream, bytes: codec::seal(&body).into() });
        }
        self.synced = self.records.len();
    }

    fn push(&mut self, record: Record) {
        self.bytes += record.bytes.len() as u64;
        self.records.push(record);
    }

    fn fail(&mut self, fault: Fault) -> Fault {
        self.poison = Some(fault.clone());
        fault
    }

    /// The bodies of all records after a restart. A damaged record in the unsynced tail is what a torn write leaves
    /// and is dropped with everything behind it in its stream; in the synced part it is a fault.
    fn reopen(&mut self, part: DiskPart) -> Result<Vec<Bytes>> {
        self.poison = None;
        self.fail_next_write = false;
        self.fail_next_fsync = false;
        let mut bodies = Vec::with_capacity(self.records.len());
        let mut kept = Vec::with_capacity(self.records.len());
        let mut torn: BTreeMap<Option<KeyspaceName>, ()> = BTreeMap::new();
        for (position, record) in std::mem::take(&mut self.records).into_iter().enumerate() {
            let what = format!("record {position} of the {part}");
            match codec::unseal(record.bytes.clone(), &what) {
                Ok(_) if torn.contains_key(&record.stream) => {}
                Ok(body) => {
                    bodies.push(body);
                    kept.push(record);
                }
                Err(_) if position >= self.synced => {
                    torn.insert(record.stream, ());
                }
                Err(fault) => {
                    kept.push(record);
                    self.records = kept;
                    return Err(fault);
                }
            }
        }
        self.bytes = kept.iter().map(|record| record.bytes.len() as u64).sum();
        self.records = kept;
        Ok(bodies)
    }

    fn crash(&mut self, choose: &mut dyn FnMut(u64) -> u64) {
        let tail = self.records.split_off(self.synced.min(self.records.len()));
        let mut written: BTreeMap<Option<KeyspaceName>, u64> = BTreeMap::new();
        for record in &tail {
            *written.entry(record.stream).or_default() += 1;
        }
        let mut surviving: BTreeMap<Option<KeyspaceName>, u64> = BTreeMap::new();
        for (stream, count) in written {
            surviving.insert(stream, choose(count + 1));
        }
        let mut torn = None;
        for record in tail {
            let left = surviving.entry(record.stream).or_default();
            if *left > 0 && codec::unseal(record.bytes.clone(), "a record").is_err() {
                // A write that failed half-way: whatever follows it in its stream cannot be read either.
                *left = 0;
                torn.get_or_insert(record);
            } else if *left > 0 {
                *left -= 1;
                self.records.push(record);
            } else if torn.is_none() && choose(2) == 0 {
                let length = choose(record.bytes.len() as u64) as usize;
                torn = Some(Record { stream: record.stream, bytes: record.bytes.slice(..length) });
            }
        }
        self.synced = self.records.len();
        self.records.extend(torn);
        self.bytes = self.records.iter().map(|record| record.bytes.len() as u64).sum();
    }

    /// Flips a bit of the newest record of `stream` whose body `holds`.
    fn flip_bit(&mut self, stream: Option<KeyspaceName>, holds: impl Fn(Bytes) -> bool) {
        let found = self
            .records
            .iter_mut()
            .rev()
            .filter(|record| record.stream == stream)
            .find(|record| codec::unseal(record.bytes.clone(), "a record").is_ok_and(&holds));
        if let Some(record) = found {
            record.bytes = flipped(&record.bytes, record.bytes.len() * 8 - 1);
        }
    }
}

/// A copy of `bytes` with one bit changed; `bit` counts from the front and wraps around. `bytes` must not be empty.
pub(super) fn flipped(bytes: &Bytes, bit: usize) -> Bytes {
    let mut damaged = bytes.to_vec();
    let bit = bit % (damaged.len() * 8);
    if let Some(byte) = damaged.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
    damaged.into()
}

/// Bytes with the checksum taken when they were written.
#[derive(Clone)]
pub(super) struct Checked {
    bytes: Bytes,
    crc: u32,
}

impl Checked {
    pub(super) fn new(bytes: Bytes) -> Checked {
        Checked { crc: crc32fast::hash(&bytes), bytes }
    }

    /// The bytes, if they are still what was written. `what` says what they are.
    pub(super) fn read(&self, what: impl FnOnce() -> String) -> Result<Bytes> {
        if crc32fast::hash(&self.bytes) == self.crc {
            return Ok(self.bytes.clone());
        }
        Err(Fault::corruption(format!("{} fails its checksum", what())))
    }

    pub(super) fn flip_bit(&mut self, bit: usize) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        self.bytes = flipped(&self.bytes, bit);
        true
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn as_ref(&self) -> &Bytes {
        &self.bytes
    }
}
