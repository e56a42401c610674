//! The records that the catalog consists of, and their form on disk.
//!
//! A record's value is `[format version u8][crc32 u32 LE][BSON]`; fields may be added with defaults, never reused.

use std::collections::BTreeMap;

use base::{Code, CollectionId, Epoch, Error, IndexId, Namespace, NodeId, ReplicaId, ShardId};
use bson::Document;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::BalancerSettings;
use crate::reshard::{Reshard, ReshardOutcome, first_epoch};

/// The format that this version writes.
const FORMAT_VERSION: u8 = 1;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its id, never used again.
    pub id: NodeId,
    /// What it says of itself.
    #[serde(flatten)]
    pub facts: NodeFacts,
    /// The token of the request by which it joined: a request that is sent again finds its node.
    #[serde(default)]
    pub token: String,
    /// The node that took its place: it came back at the same addresses without its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<NodeId>,
    /// What the operator wants of it.
    #[serde(default)]
    pub state: NodeState,
    /// How many replicas of shards it had when it was last to be drained.
    #[serde(default)]
    pub drain_total: u32,
    /// Whether the catalog's leader has found it gone for so long that its replicas are rebuilt elsewhere.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dead: bool,
}

/// What the operator wants of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// It holds replicas.
    #[default]
    InUse,
    /// Its replicas move to other nodes, and it gets no new ones.
    Draining,
    /// It belongs to the cluster no more. Its id is never used again.
    Removed,
}

impl NodeRecord {
    /// A node that is new to the cluster.
    pub fn new(id: NodeId, facts: NodeFacts, token: String) -> NodeRecord {
        NodeRecord {
            id,
            facts,
            token,
            replaced_by: None,
            state: NodeState::InUse,
            drain_total: 0,
            dead: false,
        }
    }

    /// Whether it belongs to the cluster.
    pub fn is_member(&self) -> bool {
        self.replaced_by.is_none() && self.state != NodeState::Removed
    }

    /// Whether its place among those that hold shards is meant to last, though it may be gone for now.
    pub fn is_in_use(&self) -> bool {
        self.facts.storage && self.replaced_by.is_none() && self.state == NodeState::InUse
    }

    /// Whether it may get replicas of shards.
    pub fn takes_replicas(&self) -> bool {
        self.is_in_use() && !self.dead
    }

    /// Whether its replica of the catalog may vote when there are others that could: it is to stay, and is there.
    pub fn may_vote(&self) -> bool {
        self.replaced_by.is_none() && self.state == NodeState::InUse && !self.dead
    }
}

/// What a node says of itself at every start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Its name, which no other node of the cluster has.
    pub name: String,
    /// Where clients reach it: `host:port`.
    pub listen: String,
    /// Where other nodes reach it: `host:port`.
    #[serde(default)]
    pub peer: String,
    /// Whether it holds replicas of shards; a node may be a router only.
    #[serde(default = "yes")]
    pub storage: bool,
    /// Where it stands (zone, rack), by the operator's names.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What holds for the cluster as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Its name.
    pub name: String,
    /// How many replicas a shard has where there are as many nodes.
    pub replication_factor: u32,
    /// The replicas of the catalog itself: one on each node.
    pub catalog: Vec<ReplicaPlacement>,
    /// Replicas of the catalog that are to leave its group, until they have left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<ReplicaPlacement>,
    /// How shards are kept even over the nodes.
    #[serde(default)]
    pub balancer: BalancerSettings,
}

impl Default for ClusterRecord {
    /// A cluster that has one node so far.
    fn default() -> ClusterRecord {
        let first =
            ReplicaPlacement { replica: ReplicaId(1), node: NodeId(1), founder: true, successor: None };
        ClusterRecord {
            name: "psdb".to_owned(),
            replication_factor: 3,
            catalog: vec![first],
            leaving: Vec::new(),
            balancer: BalancerSettings::default(),
        }
    }
}

fn yes() -> bool {
    true
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Whether a collection is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollectionState {
    /// Serves clients.
    Active,
    /// Was dropped; its replicas are being removed. Its name may already belong to another collection.
    Dropping,
}

/// A collection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CollectionRecord {
    /// Its id, never used again.
    pub id: CollectionId,
    /// The UUID that clients see.
    #[serde(with = "serde_uuid")]
    pub uuid: [u8; 16],
    /// Its current name.
    pub namespace: Namespace,
    /// Options as given to `create`.
    pub options: Document,
    /// Whether it is in use.
    pub state: CollectionState,
    /// Its indexes, the one on `_id` first, each with its state.
    pub indexes: Vec<(IndexSpec, IndexState)>,
    /// The id that the next index gets.
    pub next_index: IndexId,
    /// How often indexes were dropped.
    #[serde(default)]
    pub index_drops: u64,
    /// Why indexes that could not be built could not, until they are dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<IndexFailure>,
    /// The fields whose hash chooses the shard.
    pub shard_key: Vec<String>,
    /// How many shards the user asked for: shards are not merged below that.
    #[serde(default)]
    pub shards_min: u32,
    /// The same as a client wrote it; empty while nobody asked for shards.
    #[serde(default)]
    pub key_pattern: Document,
    /// Its shards.
    pub shard_map: ShardMap,
    /// Shards that have an index, of those that are being built.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub built: Vec<(IndexId, ShardId)>,
    /// What shards began with that came of a reshard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub births: Vec<Birth>,
    /// What is replacing some of its shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reshard: Option<Box<Reshard>>,
    /// How many reshards there were.
    #[serde(default)]
    pub reshards: u64,
    /// How the last one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reshard: Option<ReshardOutcome>,
    /// Shards that are in use no more, or never came into use, with the replicas that are not removed yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<ShardPlacement>,
}

impl CollectionRecord {
    /// The index called `name`.
    pub fn index(&self, name: &str) -> Option<&(IndexSpec, IndexState)> {
        self.indexes.iter().find(|(spec, _)| spec.name == name)
    }

    /// The shard key as clients are shown it.
    pub fn shown_key(&self) -> Document {
        match self.key_pattern.is_empty() {
            true => bson::doc! { "_id": "hashed" },
            false => self.key_pattern.clone(),
        }
    }

    /// Whether clients see the collection as sharded: somebody asked for it, or it was split.
    pub fn is_sharded(&self) -> bool {
        !self.key_pattern.is_empty() || self.shard_map.shards.len() > 1
    }

    /// What a shard begins with; `None` for the first one of the collection, which begins with nothing.
    pub fn birth(&self, placement: &ShardPlacement) -> Option<&Birth> {
        self.births.iter().find(|birth| birth.since == placement.since)
    }

    /// Its shards, and those that are to replace some of them.
    pub fn kept_shards(&self) -> impl Iterator<Item = &ShardPlacement> {
        let targets = self.reshard.iter().flat_map(|reshard| &reshard.targets);
        self.shard_map.shards.iter().chain(targets)
    }

    /// All shards that have replicas somewhere: those that are kept, then those that are being removed.
    pub fn all_shards(&self) -> impl Iterator<Item = &ShardPlacement> {
        self.kept_shards().chain(&self.retired)
    }

    /// The same, for changing where their replicas are.
    pub(crate) fn all_shards_mut(&mut self) -> impl Iterator<Item = &mut ShardPlacement> {
        let targets = self.reshard.iter_mut().flat_map(|reshard| &mut reshard.targets);
        self.shard_map.shards.iter_mut().chain(targets).chain(&mut self.retired)
    }
}

/// A collection's shards, in the order of their hash ranges, which cover every hash exactly once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardMap {
    /// Its version.
    pub epoch: Epoch,
    /// The shards.
    pub shards: Vec<ShardPlacement>,
}

impl ShardMap {
    /// The shard that owns `hash`.
    pub fn owner(&self, hash: u64) -> &ShardPlacement {
        self.shards.get(self.owner_position(hash)).expect("a partition point lies within its slice")
    }

    /// The position of the shard that owns `hash`.
    pub fn owner_position(&self, hash: u64) -> usize {
        let after = self.shards.partition_point(|shard| shard.first_hash() <= hash);
        after.checked_sub(1).expect("the first shard starts at hash zero")
    }

    /// Whether the shards are in order and each hash is in exactly one.
    pub(crate) fn covers_every_hash_once(&self) -> bool {
        let ends = self.shards.first().map(ShardPlacement::first_hash) == Some(0)
            && self.shards.last().map(ShardPlacement::last_hash) == Some(u64::MAX);
        ends && HashSpan::follow_each_other(self.shards.iter().map(ShardPlacement::span))
    }
}

/// What shards begin with that replace others: the same for each of their replicas, whenever it is created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Birth {
    /// Of the shards that came into use with this version of the shard map.
    pub since: Epoch,
    /// The shards that they replace.
    pub sources: Vec<ShardId>,
    /// The fields whose hash chose among them.
    pub shard_key: Vec<String>,
    /// The indexes that the collection had, but the one on `_id`.
    pub indexes: Vec<IndexSpec>,
}

/// Hashes from `first` to `last`, both inclusive, each as its two halves: BSON has no unsigned 64-bit integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashSpan {
    /// First hash.
    pub first: (u32, u32),
    /// Last hash.
    pub last: (u32, u32),
}

impl HashSpan {
    /// Hashes from `first` to `last`.
    pub fn new(first: u64, last: u64) -> HashSpan {
        HashSpan { first: halves(first), last: halves(last) }
    }

    /// First hash.
    pub fn first_hash(self) -> u64 {
        join(self.first)
    }

    /// Last hash.
    pub fn last_hash(self) -> u64 {
        join(self.last)
    }

    /// The span cut into `count` parts of the same size, give or take one; fewer when it has fewer hashes.
    pub fn cut(self, count: usize) -> Vec<HashSpan> {
        let hashes = u128::from(self.last_hash()) - u128::from(self.first_hash()) + 1;
        let count = (count as u128).clamp(1, hashes);
        let start = |part: u128| u128::from(self.first_hash()) + hashes * part / count;
        let hash = |hash: u128| u64::try_from(hash).expect("a part lies within the span");
        (0..count).map(|part| HashSpan::new(hash(start(part)), hash(start(part + 1) - 1))).collect()
    }

    /// Whether each span begins where the one before it ended.
    pub(crate) fn follow_each_other(spans: impl Iterator<Item = HashSpan> + Clone) -> bool {
        let is_valid = spans.clone().all(|span| span.first_hash() <= span.last_hash());
        let nexts = spans.clone().skip(1);
        is_valid
            && spans.zip(nexts).all(|(span, next)| span.last_hash().checked_add(1) == Some(next.first_hash()))
    }
}

/// One shard and where its replicas are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardPlacement {
    /// The shard.
    pub shard: ShardId,
    /// First hash it owns, as its two halves: BSON has no unsigned 64-bit integer.
    pub first: (u32, u32),
    /// Last hash it owns (inclusive), as its two halves.
    pub last: (u32, u32),
    /// Its replicas, as they shall be.
    pub replicas: Vec<ReplicaPlacement>,
    /// Replicas that are to leave its group, until they have left: each keeps what it has until others have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<ReplicaPlacement>,
    /// How many moves of its replicas were called off.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cancels: u32,
    /// The version of the shard map with which it came, or will come, into use.
    #[serde(default = "first_epoch")]
    pub since: Epoch,
}

impl ShardPlacement {
    /// A shard that owns every hash, from the beginning.
    pub fn whole(shard: ShardId, replicas: Vec<ReplicaPlacement>) -> ShardPlacement {
        let since = first_epoch();
        let (first, last) = ((0, 0), (u32::MAX, u32::MAX));
        ShardPlacement { shard, first, last, replicas, leaving: Vec::new(), cancels: 0, since }
    }

    /// The replicas that belong to its group or are about to: those placed, and those that have not left yet.
    pub fn members(&self) -> impl Iterator<Item = &ReplicaPlacement> + Clone {
        self.replicas.iter().chain(&self.leaving)
    }

    /// The replica that is placed for one on its way out, if any is: the one that was to take over from it, or whichever was placed
    /// for that one since.
    pub fn taker_of(&self, leaving: &ReplicaPlacement) -> Option<ReplicaId> {
        let next = |replica: &ReplicaId| {
            self.leaving.iter().find(|leaving| leaving.replica == *replica).and_then(|gone| gone.successor)
        };
        let is_placed = |replica: &ReplicaId| self.replicas.iter().any(|placed| placed.replica == *replica);
        std::iter::successors(leaving.successor, next).find(is_placed)
    }

    /// What it owns.
    pub fn span(&self) -> HashSpan {
        HashSpan { first: self.first, last: self.last }
    }

    /// First hash it owns.
    pub fn first_hash(&self) -> u64 {
        join(self.first)
    }

    /// Last hash it owns.
    pub fn last_hash(&self) -> u64 {
        join(self.last)
    }
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn halves(hash: u64) -> (u32, u32) {
    ((hash >> 32) as u32, hash as u32)
}

fn join((high, low): (u32, u32)) -> u64 {
    (u64::from(high) << 32) | u64::from(low)
}

/// One replica and its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaPlacement {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// Whether it votes from the shard's beginning. Others come to life from a snapshot, as learners.
    #[serde(default = "yes")]
    pub founder: bool,
    /// Of one on its way out: the replica that was placed for it, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<ReplicaId>,
}

/// The order of one field in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyDirection {
    /// 1
    Ascending,
    /// -1
    Descending,
}

/// What an index is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexSpec {
    /// Its id within the collection; 0 is the index on `_id`.
    pub id: IndexId,
    /// Its name.
    pub name: String,
    /// Dotted paths with their order, at least one.
    pub key: Vec<(String, KeyDirection)>,
    /// Whether two documents may share a key.
    pub unique: bool,
}

impl IndexSpec {
    /// The index that every collection has: document keys themselves are its entries.
    pub fn id_index() -> IndexSpec {
        IndexSpec {
            id: IndexId(0),
            name: "_id_".to_owned(),
            key: vec![("_id".to_owned(), KeyDirection::Ascending)],
            unique: true,
        }
    }

    /// Whether shards that know their own documents only keep it as unique as it has to be: a unique index that has every
    /// field of the shard key. The one on `_id` is unique by shard.
    pub fn is_unique_by_shard(&self, shard_key: &[String]) -> bool {
        let has = |field: &String| self.key.iter().any(|(path, _)| path == field);
        !self.unique || self.id == IndexId(0) || shard_key.iter().all(has)
    }

    /// The key pattern as clients write it.
    pub fn key_document(&self) -> Document {
        let direction = |direction: &KeyDirection| match direction {
            KeyDirection::Ascending => 1,
            KeyDirection::Descending => -1,
        };
        self.key.iter().map(|(path, order)| (path.clone(), bson::Bson::Int32(direction(order)))).collect()
    }
}

/// How far an index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexState {
    /// Being filled from the documents; maintained by writes, not read.
    Building,
    /// Complete.
    Ready,
    /// Could not be built; whoever asked for it drops it.
    Failed,
    /// Dropped or failed; its entries are being removed.
    Dropping,
}

/// An error that the catalog keeps for whoever asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// MongoDB's code.
    pub code: i32,
    /// A sentence.
    pub message: String,
    /// The bytes of the BSON document with what else the reply carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<bson::Binary>,
}

impl Failure {
    /// An error, to be kept.
    pub fn new(error: &Error) -> Failure {
        let binary = |bytes: &[u8]| bson::Binary {
            subtype: bson::spec::BinarySubtype::Generic,
            bytes: bytes.to_vec(),
        };
        let details = error.details.as_deref().map(binary);
        Failure { code: error.code.0, message: error.message.clone(), details }
    }

    /// The error that it was.
    pub fn error(&self) -> Error {
        let error = Error::new(Code(self.code), self.message.clone());
        match &self.details {
            Some(details) => error.with_details(details.bytes.clone()),
            None => error,
        }
    }
}

/// Why an index could not be built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexFailure {
    /// The index.
    pub index: IndexId,
    /// The error for whoever asked for it.
    #[serde(flatten)]
    pub failure: Failure,
}

impl IndexFailure {
    /// The failure of an index.
    pub fn new(index: IndexId, error: &Error) -> IndexFailure {
        IndexFailure { index, failure: Failure::new(error) }
    }

    /// The error that it was.
    pub fn error(&self) -> Error {
        self.failure.error()
    }
}

impl IndexState {
    /// Whether clients see the index: it is complete, or may become so.
    pub fn is_live(self) -> bool {
        matches!(self, IndexState::Building | IndexState::Ready)
    }
}

/// Encodes a record as a stored value.
pub(crate) fn encode<T: Serialize>(record: &T) -> Bytes {
    let body = bson::serialize_to_vec(record).expect("catalog records hold nothing that BSON cannot");
    let mut value = Vec::with_capacity(body.len() + 5);
    value.push(FORMAT_VERSION);
    value.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    value.extend_from_slice(&body);
    value.into()
}

/// Decodes a stored value. Faults on a wrong checksum or a newer format.
pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> storage::Result<T> {
    let corrupt =
        |what: &str| storage::Fault::corruption(format!("Catalog record {}: {what}", key.escape_ascii()));
    let (version, rest) = value.split_first().ok_or_else(|| corrupt("is empty"))?;
    if *version != FORMAT_VERSION {
        return Err(corrupt(&format!("has format version {version}, this program knows {FORMAT_VERSION}")));
    }
    let (checksum, body) = rest.split_first_chunk::<4>().ok_or_else(|| corrupt("is too short"))?;
    if u32::from_le_bytes(*checksum) != crc32fast::hash(body) {
        return Err(corrupt("has a wrong checksum"));
    }
    bson::deserialize_from_slice(body).map_err(|error| corrupt(&format!("does not decode: {error}")))
}

mod serde_uuid {
    //! A UUID as BSON binary, subtype 4.

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(uuid: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
        bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: uuid.to_vec() }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
        let binary = bson::Binary::deserialize(deserializer)?;
        binary.bytes.try_into().map_err(|_| serde::de::Error::custom("a UUID has 16 bytes"))
    }
}
