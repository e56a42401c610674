//! What governs evaluation in one shard: its hash range, epoch, seal and indexes.
//!
//! Part of the shard's own replicated state, stored under `encoding::STATE_KEY`, changed only by entries of its Raft
//! log. The catalog decides and orders the changes; a leader never evaluates by its copy of the catalog. Called by
//! the replica (which keeps the decoded form beside its owner loop) and by everything in this crate.

use base::{CollectionId, Epoch, IndexId, ReshardId, ShardId, Term, Timestamp};
use bytes::Bytes;
use catalog::IndexSpec;
use document::ShardKey;
use serde::{Deserialize, Serialize};
use storage::{Fault, KvBatch, Result};

use crate::encoding;
use crate::evaluate::Reader;

/// The replicated state of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardState {
    /// The collection that the shard is a part of.
    pub collection: CollectionId,
    /// The key hashes that it owns.
    #[serde(rename = "hashes")]
    pub hash_range: HashRange,
    /// The version of the shard map under which it serves; requests routed by another one are refused.
    pub epoch: Epoch,
    /// The fields whose hashes those are.
    #[serde(default = "ShardKey::on_id")]
    pub shard_key: ShardKey,
    /// Whether it serves no more, because others are about to take its place.
    pub sealed: bool,
    /// The reshard for which it notes what changes in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noting: Option<ReshardId>,
    /// The shards whose place it is about to take, while it does not have everything of theirs. It does not serve before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receiving: Vec<Source>,
    /// The shards whose retry records it has beside its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<Origin>,
    /// Its indexes but the one on `_id`, by id.
    pub indexes: Vec<ShardIndex>,
}

/// Key hashes from `first` to `last`, both inclusive. Stored as halves: BSON has no unsigned 64-bit integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[(u32, u32); 2]", into = "[(u32, u32); 2]")]
pub struct HashRange {
    /// First hash.
    pub first: u64,
    /// Last hash.
    pub last: u64,
}

impl HashRange {
    /// Every hash.
    pub const WHOLE: HashRange = HashRange { first: 0, last: u64::MAX };

    /// Whether it owns whatever `other` does.
    pub(crate) fn includes(self, other: HashRange) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether the range owns `hash`.
    pub fn contains(self, hash: u64) -> bool {
        (self.first..=self.last).contains(&hash)
    }
}

/// A shard that another one is copied from, as the other one knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Which.
    pub shard: ShardId,
    /// Who copies. An earlier one is refused.
    pub driver: Driver,
    /// The number of the last batch that was taken from that leader.
    pub number: u64,
    /// How far it has come.
    pub reached: Reached,
}

/// One run of copying a shard. Later ones are greater: a term has one leader, on one process, which counts its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Driver {
    /// The term of the shard's leader.
    pub term: Term,
    /// Which of its runs.
    pub run: u64,
}

impl Driver {
    /// Before any.
    pub const NONE: Driver = Driver { term: Term(0), run: 0 };
}

/// How far copying has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The last key of the source that was scanned; empty for none.
    #[serde(with = "serde_key")]
    pub scanned: Bytes,
    /// Whether the scan is over.
    pub all_scanned: bool,
    /// Up to which of the source's notes the changes were followed.
    pub followed: Timestamp,
    /// Whether nothing is left: the source is sealed.
    pub complete: bool,
}

/// A shard whose retry records another one has taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Which.
    pub shard: ShardId,
    /// The hashes that it owned.
    pub range: HashRange,
    /// The fields whose hashes those are.
    pub shard_key: ShardKey,
    /// Whether what its statements of many documents counted is counted here. Elsewhere it is known only to be done.
    pub counts: bool,
    /// The shards before it whose statements of many documents it counted: what it says of a statement contains what they say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counted: Vec<ShardId>,
}

impl Origin {
    /// Whether a document belonged to that shard.
    pub(crate) fn had(&self, document: document::DocRef<'_>) -> bool {
        self.shard_key.hash(document).is_ok_and(|hash| self.range.contains(hash))
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
        ShardState {
            collection,
            hash_range: HashRange::WHOLE,
            epoch,
            shard_key: ShardKey::on_id(),
            sealed: false,
            noting: None,
            receiving: Vec::new(),
            origins: Vec::new(),
            indexes: Vec::new(),
        }
    }

    /// Whether it answers clients.
    pub fn serves(&self) -> bool {
        !self.sealed && self.receiving.is_empty()
    }

    /// Whether every document is its own, whatever it has in it: nothing has to be checked.
    pub(crate) fn owns_everything(&self) -> bool {
        self.hash_range == HashRange::WHOLE && self.shard_key.is_id()
    }

    /// A shard that this one is being copied from, for changing how far that is.
    pub(crate) fn source_mut(&mut self, shard: ShardId) -> Option<&mut Source> {
        self.receiving.iter_mut().find(|source| source.shard == shard)
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
        let body = bson::serialize_to_vec(self).expect("a shard's state holds nothing that BSON cannot");
        encoding::encode_record(&body)
    }

    /// Reads the stored form. Faults when it is damaged.
    pub fn decode(value: &[u8]) -> Result<ShardState> {
        let body = encoding::decode_record(encoding::STATE_KEY, value)?;
        bson::deserialize_from_slice(body)
            .map_err(|error| Fault::corruption(format!("the shard's state does not decode: {error}")))
    }

    /// Reads the state from a shard's keyspace; `None` when nothing was applied to it yet.
    pub fn load(reader: &dyn Reader) -> Result<Option<ShardState>> {
        reader.get(encoding::STATE_KEY)?.map(|value| ShardState::decode(&value)).transpose()
    }
}

impl From<HashRange> for [(u32, u32); 2] {
    fn from(range: HashRange) -> [(u32, u32); 2] {
        [range.first, range.last].map(split)
    }
}

impl From<[(u32, u32); 2]> for HashRange {
    fn from(halves: [(u32, u32); 2]) -> HashRange {
        let [first, last] = halves.map(join);
        HashRange { first, last }
    }
}

fn split(hash: u64) -> (u32, u32) {
    ((hash >> 32) as u32, hash as u32)
}

fn join((high, low): (u32, u32)) -> u64 {
    (u64::from(high) << 32) | u64::from(low)
}

mod serde_key {
    //! A key as BSON binary.

    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(key: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        let subtype = bson::spec::BinarySubtype::Generic;
        bson::Binary { subtype, bytes: key.to_vec() }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        bson::Binary::deserialize(deserializer).map(|binary| binary.bytes.into())
    }
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
        state.shard_key = ShardKey::new(["customer", "place.zip"]);
        state.noting = Some(ReshardId(3));
        let scanned = Bytes::from_static(b"d\x01");
        let reached =
            Reached { scanned, all_scanned: true, followed: Timestamp::from_u64(u64::MAX), complete: false };
        state.receiving.push(Source {
            shard: ShardId(7),
            driver: Driver { term: Term(4), run: 8 },
            number: 9,
            reached,
        });
        let shard_key = ShardKey::on_id();
        state.origins.push(Origin {
            shard: ShardId(6),
            range: HashRange::WHOLE,
            shard_key,
            counts: true,
            counted: Vec::new(),
        });
        assert_eq!(ShardState::decode(&state.encode()).expect("intact"), state);
        assert!(ShardState::decode(&state.encode()[..10]).is_err());
    }
}
