//! Snapshots: a replica's whole state, for one whose log cannot be continued, and for one that is new.
//!
//! The library never sees one. When a follower needs entries that the leader has compacted away, the leader's owner loop
//! makes an [`SnapshotOffer`] of a read view and hands it to the transport, which brings it to the other node; there it
//! fills a new generation of the replica's keyspace, and one synced write of the Raft log puts it in the place of
//! whatever the replica had. The replica is then opened afresh, and tells the leader how far it is. Always holds: until
//! that synced write the old state stands, after it the new one; a snapshot is taken at an applied index, with the
//! membership of that index in it.

use std::sync::Arc;

use base::{LogIndex, ReplicaId, ShardId, Term};
use bytes::Bytes;
use raft::eraftpb::{Message, MessageType};
use storage::{Direction, Fault, KeyRange, KvBatch, Scan, View};

/// Bytes of keys and values in one chunk, about.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The shard.
    pub shard: ShardId,
    /// The replica that sends it, and led when it did.
    pub from: ReplicaId,
    /// The replica that it is for.
    pub to: ReplicaId,
    /// The sender's term.
    pub term: Term,
    /// The last entry that the snapshot covers.
    pub index: LogIndex,
    /// That entry's term.
    pub index_term: Term,
    /// Who belongs to the group as of that entry, and a commit timestamp that no covered entry exceeds, in their stored
    /// form.
    pub membership: Bytes,
}

/// A snapshot to be sent.
pub struct SnapshotOffer {
    /// What it is of.
    pub header: SnapshotHeader,
    view: Arc<dyn View>,
    /// Tells the sender's owner loop that the attempt is over.
    _done: DoneGuard,
}

/// Keys and values, in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The pairs.
    pub pairs: Vec<(Bytes, Bytes)>,
    /// CRC-32 over all keys and values, each preceded by its length.
    pub checksum: u32,
}

/// Runs when an offer is dropped.
pub(crate) struct DoneGuard(Option<Box<dyn FnOnce() + Send + Sync>>);

impl DoneGuard {
    pub(crate) fn new(done: impl FnOnce() + Send + Sync + 'static) -> DoneGuard {
        DoneGuard(Some(Box::new(done)))
    }
}

impl Drop for DoneGuard {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done();
        }
    }
}

impl SnapshotOffer {
    pub(crate) fn new(header: SnapshotHeader, view: Arc<dyn View>, done: DoneGuard) -> SnapshotOffer {
        SnapshotOffer { header, view, _done: done }
    }

    /// The snapshot's chunks after the key `after`, or all of them: an attempt that was cut short goes on where it was.
    pub fn chunks(&self, after: Option<&Bytes>) -> Chunks {
        // Keys that start with a zero byte are the store's own.
        let start = after.map_or(Bytes::from_static(&[1]), |key| [key, &[0][..]].concat().into());
        Chunks { scan: self.view.scan(KeyRange { start, end: None }, Direction::Forward) }
    }
}

/// Iterates over a snapshot's chunks. Faults when the store does.
pub struct Chunks {
    scan: Scan,
}

impl Iterator for Chunks {
    type Item = storage::Result<Chunk>;

    fn next(&mut self) -> Option<storage::Result<Chunk>> {
        let (mut pairs, mut bytes) = (Vec::new(), 0);
        while bytes < CHUNK_BYTES
            && let Some(pair) = self.scan.next()
        {
            match pair {
                Ok((key, value)) => {
                    bytes += key.len() + value.len();
                    pairs.push((key, value));
                }
                Err(fault) => return Some(Err(fault)),
            }
        }
        (!pairs.is_empty()).then(|| Ok(Chunk::new(pairs)))
    }
}

impl Chunk {
    /// A chunk with its checksum.
    pub fn new(pairs: Vec<(Bytes, Bytes)>) -> Chunk {
        let checksum = checksum(&pairs);
        Chunk { pairs, checksum }
    }

    /// The chunk as a batch. `None` when its checksum is wrong: it was damaged on its way.
    pub fn into_batch(self) -> Option<KvBatch> {
        if checksum(&self.pairs) != self.checksum {
            return None;
        }
        let mut batch = KvBatch::default();
        self.pairs.into_iter().for_each(|(key, value)| batch.put(key, value));
        Some(batch)
    }
}

fn checksum(pairs: &[(Bytes, Bytes)]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for slice in pairs.iter().flat_map(|(key, value)| [key, value]) {
        hasher.update(&(slice.len() as u64).to_le_bytes());
        hasher.update(slice);
    }
    hasher.finalize()
}

impl SnapshotHeader {
    /// What the receiver tells the sender once it has the snapshot: that its log matches up to the covered entry.
    pub(crate) fn acknowledgement(&self) -> Message {
        Message {
            msg_type: MessageType::MsgAppendResponse,
            from: self.to.get(),
            to: self.from.get(),
            term: self.term.get(),
            index: self.index.get(),
            commit: self.index.get(),
            ..Message::default()
        }
    }
}

/// Why a snapshot was not taken over.
#[derive(Clone, Debug, PartialEq)]
pub enum NotInstalled {
    /// The replica has what the snapshot covers already. The message says so to the sender's replica.
    NotNeeded(Box<Message>),
    /// It was damaged or cut short on its way; it may be sent again.
    Damaged,
    /// The node stops.
    Fault(Fault),
}
