//! What governs evaluation in one shard: its hash range, epoch, seal and indexes.
//!
//! Part of the shard's own replicated state, stored under `encoding::STATE_KEY`, changed only by entries of its Raft
//! log. The catalog decides and orders the changes; a leader never evaluates by its copy of the catalog. Called by
//! the replica (which keeps the decoded form beside its owner loop) and by everything in this crate.

use base::{CollectionId, Epoch, IndexId};
use catalog::IndexSpec;
use serde::{Deserialize, Serialize};
use storage::{Fault, KvBatch, Result};

use crate::encoding;
use crate::evaluate::Reader;

/// The replicated state of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardState {
    /// The collection that the shard is a part of.
    pub collection: CollectionId,
    /// The key hashes that it owns.
    pub hash_range: HashRange,
    /// The version of the shard map under which it serves; requests routed by another one are refused.
    pub epoch: Epoch,
    /// Whether it refuses writes for good, because it is being dropped or replaced.
    pub sealed: bool,
    /// Its indexes but the one on `_id`, by id.
    pub indexes: Vec<ShardIndex>,
}

/// Key hashes from `first` to `last`, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashRange {
    /// First hash.
    pub first: u64,
    /// Last hash.
    pub last: u64,
}

impl HashRange {
    /// Every hash.
    pub const WHOLE: HashRange = HashRange { first: 0, last: u64::MAX };

    /// Whether the range owns `hash`.
    pub fn contains(self, hash: u64) -> bool {
        (self.first..=self.last).contains(&hash)
    }
}

/// How far an index of this shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexStatus {
    /// Writes keep it up; older documents may be missing from it; not read.
    Maintained,
    /// Complete: may be read.
    Ready,
    /// Neither kept up nor read; its entries are being removed.
    Dropping,
}

/// One index of the shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardIndex {
    /// What it is.
    pub spec: IndexSpec,
    /// How far it is.
    pub status: IndexStatus,
    /// For each field of the key, which components of its path have met an array (sorted). Only ever grows: the
    /// planner may combine bounds only where no array can stand.
    pub multikey: Vec<Vec<u16>>,
}

impl ShardIndex {
    /// An index that has met no array yet.
    pub fn new(spec: IndexSpec, status: IndexStatus) -> ShardIndex {
        let multikey = vec![Vec::new(); spec.key.len()];
        ShardIndex { spec, status, multikey }
    }

    /// Whether writes keep it up.
    pub fn is_maintained(&self) -> bool {
        self.status != IndexStatus::Dropping
    }

    /// Whether one document may have several entries.
    pub fn is_multikey(&self) -> bool {
        self.multikey.iter().any(|components| !components.is_empty())
    }
}

impl ShardState {
    /// The state of a new shard that owns every hash.
    pub fn new(collection: CollectionId, epoch: Epoch) -> ShardState {
        ShardState { collection, hash_range: HashRange::WHOLE, epoch, sealed: false, indexes: Vec::new() }
    }

    /// The index with this id.
    pub fn index(&self, id: IndexId) -> Option<&ShardIndex> {
        self.indexes.iter().find(|index| index.spec.id == id)
    }

    /// The index with this id, for changing it.
    pub(crate) fn index_mut(&mut self, id: IndexId) -> Option<&mut ShardIndex> {
        self.indexes.iter_mut().find(|index| index.spec.id == id)
    }

    /// The first batch of a new shard: its state and nothing else.
    pub fn initial_batch(&self) -> KvBatch {
        let mut batch = KvBatch::default();
        batch.put(encoding::STATE_KEY, self.encode());
        batch
    }

    /// The stored form.
    pub fn encode(&self) -> bytes::Bytes {
        let stored = Stored {
            collection: self.collection,
            hashes: [self.hash_range.first, self.hash_range.last].map(split),
            epoch: self.epoch,
            sealed: self.sealed,
            indexes: self.indexes.clone(),
        };
        let body = bson::serialize_to_vec(&stored).expect("a shard's state holds nothing that BSON cannot");
        encoding::encode_record(&body)
    }

    /// Reads the stored form. Faults when it is damaged.
    pub fn decode(value: &[u8]) -> Result<ShardState> {
        let body = encoding::decode_record(encoding::STATE_KEY, value)?;
        let stored: Stored = bson::deserialize_from_slice(body)
            .map_err(|error| Fault::corruption(format!("the shard's state does not decode: {error}")))?;
        let [first, last] = stored.hashes.map(join);
        Ok(ShardState {
            collection: stored.collection,
            hash_range: HashRange { first, last },
            epoch: stored.epoch,
            sealed: stored.sealed,
            indexes: stored.indexes,
        })
    }

    /// Reads the state from a shard's keyspace; `None` when nothing was applied to it yet.
    pub fn load(reader: &dyn Reader) -> Result<Option<ShardState>> {
        reader.get(encoding::STATE_KEY)?.map(|value| ShardState::decode(&value)).transpose()
    }
}

/// The stored form's fields. BSON has no unsigned 64-bit integer, so hashes are kept as halves.
#[derive(Serialize, Deserialize)]
struct Stored {
    collection: CollectionId,
    hashes: [(u32, u32); 2],
    epoch: Epoch,
    sealed: bool,
    indexes: Vec<ShardIndex>,
}

fn split(hash: u64) -> (u32, u32) {
    ((hash >> 32) as u32, hash as u32)
}

fn join((high, low): (u32, u32)) -> u64 {
    (u64::from(high) << 32) | u64::from(low)
}

#[cfg(test)]
mod tests {
    use catalog::KeyDirection;

    use super::*;

    #[test]
    fn a_state_reads_back_as_it_was_stored() {
        let spec = IndexSpec {
            id: IndexId(3),
            name: "a_-1".to_owned(),
            key: vec![("a.b".to_owned(), KeyDirection::Descending)],
            unique: true,
        };
        let mut state = ShardState::new(CollectionId(9), Epoch(4));
        state.indexes.push(ShardIndex::new(spec, IndexStatus::Maintained));
        state.indexes[0].multikey[0] = vec![0, 1];
        state.hash_range = HashRange { first: 5, last: u64::MAX - 1 };
        assert_eq!(ShardState::decode(&state.encode()).expect("intact"), state);
        assert!(ShardState::decode(&state.encode()[..10]).is_err());
    }
}
