//! The catalog in memory: built from its keys and values, changed only by applying batches of them.
//!
//! Keys: `n` + node id, `c` + collection id (both big-endian), `k` for the counters, `s` for the cluster's record. The same [`Catalog::apply`] runs on
//! the leader right after evaluation (speculatively) and on every node after commit.

pub(crate) mod nodes;

use std::collections::BTreeMap;
use std::sync::Arc;

use base::id::CATALOG_SHARD;
use base::limits::INDEXES_MAX;
use base::{Code, CollectionId, Epoch, Error, IndexId, Namespace, NodeId, ReplicaId, Result, ShardId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use storage::{KvBatch, KvOp};

use crate::command::NewIndex;
use crate::record::{decode, encode};
use crate::{
    ClusterRecord, CollectionRecord, CollectionState, Command, IndexFailure, IndexSpec, IndexState,
    NodeFacts, NodeRecord, ReplicaPlacement, Reply, ShardMap, ShardPlacement, placement,
};

const NODE_TAG: u8 = b'n';
const COLLECTION_TAG: u8 = b'c';
const COUNTERS_KEY: &[u8] = b"k";
const CLUSTER_KEY: &[u8] = b"s";
/// The first tag of the catalog's own keys; everything else in its keyspace belongs to `replica`.
const TAGS: [u8; 4] = [NODE_TAG, COLLECTION_TAG, b'k', b's'];

/// Ids that were handed out: each is the next free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    pub(crate) collection: CollectionId,
    pub(crate) shard: ShardId,
    pub(crate) replica: ReplicaId,
    #[serde(default = "second_node")]
    node: NodeId,
    /// Collections that were dropped.
    #[serde(default)]
    drops: u64,
}

/// What older catalogs, which have one node, do not say.
fn second_node() -> NodeId {
    NodeId(2)
}

impl Default for Counters {
    /// Shard 1 and replica 1 are the catalog's own; 2 to 99 are kept for further groups of the cluster itself.
    fn default() -> Counters {
        Counters {
            collection: CollectionId(1),
            shard: ShardId(100),
            replica: ReplicaId(100),
            node: second_node(),
            drops: 0,
        }
    }
}

/// The whole catalog. Cloning is cheap enough to publish one after every change: records are shared.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    cluster: Arc<ClusterRecord>,
    nodes: BTreeMap<NodeId, Arc<NodeRecord>>,
    collections: BTreeMap<CollectionId, Arc<CollectionRecord>>,
    names: BTreeMap<Namespace, CollectionId>,
    /// The collection of each shard, and how manieth of all its shards it is.
    shards: BTreeMap<ShardId, (CollectionId, usize)>,
    counters: Counters,
}

impl Catalog {
    /// Builds the catalog from what a store holds. Keys of other owners are skipped.
    pub fn load(pairs: impl Iterator<Item = storage::Result<(Bytes, Bytes)>>) -> storage::Result<Catalog> {
        let mut catalog = Catalog::default();
        for pair in pairs {
            let (key, value) = pair?;
            catalog.put(&key, &value)?;
        }
        Ok(catalog)
    }

    /// Applies changes that were evaluated by some catalog. Keys of other owners are skipped.
    pub fn apply(&mut self, batch: &KvBatch) -> storage::Result<()> {
        batch.ops.iter().try_for_each(|op| match op {
            KvOp::Put { key, value } => self.put(key, value),
            KvOp::Delete { key } => {
                self.remove(key);
                Ok(())
            }
        })
    }

    /// What `command` would change, and its answer. The catalog itself does not change: [`Catalog::apply`] does that.
    pub fn evaluate(&self, command: &Command) -> Result<(KvBatch, Reply)> {
        let mut batch = KvBatch::default();
        let reply = match command {
            Command::Found { name, replication_factor, node } => {
                self.found(&mut batch, name, *replication_factor, node)
            }
            Command::JoinNode { token, facts } => self.join_node(&mut batch, token, facts)?,
            Command::RenewNode { node, facts } => self.renew_node(&mut batch, *node, facts),
            Command::CreateCollection { namespace, uuid, options, drops_seen } => {
                self.create_collection(&mut batch, namespace, *uuid, options, *drops_seen)?
            }
            Command::DropCollection { collection } => self.drop_collection(&mut batch, *collection),
            Command::ReplicaGone { collection, replica } => {
                self.replica_gone(&mut batch, *collection, *replica)
            }
            Command::PlaceReplica { .. }
            | Command::DrainNode { .. }
            | Command::CancelDrain { .. }
            | Command::RemoveNode { .. }
            | Command::MarkDead { .. }
            | Command::MarkAlive { .. }
            | Command::MoveReplica { .. }
            | Command::CancelMove { .. }
            | Command::RetireReplica { .. }
            | Command::ReplicaLeft { .. }
            | Command::SetBalancer { .. }
            | Command::ChangeBalancerSettings { .. } => self.evaluate_nodes(&mut batch, command)?,
            Command::AddIndexes { collection, indexes, drops_seen } => {
                self.add_indexes(&mut batch, *collection, indexes, *drops_seen)?
            }
            Command::IndexReady { collection, index, shard } => {
                self.index_ready(&mut batch, *collection, *index, *shard)?
            }
            Command::IndexFailed { collection, failure } => {
                self.index_failed(&mut batch, *collection, failure)
            }
            Command::DropIndexes { collection, indexes } => {
                self.drop_indexes(&mut batch, *collection, indexes)?
            }
            Command::ForgetIndexes { collection, indexes } => {
                self.forget_indexes(&mut batch, *collection, indexes)
            }
            Command::BeginReshard { collection, reshards_seen, plan } => {
                self.begin_reshard(&mut batch, *collection, *reshards_seen, plan)?
            }
            Command::StepReshard { collection, reshard, step } => {
                self.step_reshard(&mut batch, *collection, *reshard, step)
            }
        };
        Ok((batch, reply))
    }

    /// What holds for the cluster as a whole.
    pub fn cluster(&self) -> &ClusterRecord {
        &self.cluster
    }

    /// A node.
    pub fn node(&self, node: NodeId) -> Option<&Arc<NodeRecord>> {
        self.nodes.get(&node)
    }

    /// Whether a shard of this id was ever created, as far as this catalog goes.
    pub fn knew_shard(&self, shard: ShardId) -> bool {
        shard < self.counters.shard
    }

    /// How many collections were dropped so far.
    pub fn drops(&self) -> u64 {
        self.counters.drops
    }

    /// The ids that come next.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// Where a shard is that is in use, is to come into use, or is being removed.
    pub fn placement(&self, shard: ShardId) -> Option<(&Arc<CollectionRecord>, &ShardPlacement)> {
        let (collection, position) = self.shards.get(&shard)?;
        let record = self.collections.get(collection)?;
        let mapped = record.shard_map.shards.get(*position);
        Some((record, mapped.or_else(|| record.all_shards().nth(*position))?))
    }

    /// The replicas that a group shall have: that of a shard that is kept, or the catalog's own.
    pub fn placed(&self, shard: ShardId) -> Option<&[ReplicaPlacement]> {
        if shard == CATALOG_SHARD {
            return Some(&self.cluster.catalog);
        }
        self.kept(shard).map(|placed| placed.replicas.as_slice())
    }

    /// Where a shard is that is in use, or is to come into use.
    pub fn kept(&self, shard: ShardId) -> Option<&ShardPlacement> {
        let (record, _) = self.placement(shard)?;
        let mut kept = record.kept_shards().filter(|_| record.state == CollectionState::Active);
        kept.find(|placed| placed.shard == shard)
    }

    /// The collection in use under a name.
    pub fn find(&self, namespace: &Namespace) -> Option<&Arc<CollectionRecord>> {
        self.collections.get(self.names.get(namespace)?)
    }

    /// A collection by id, dropped ones included.
    pub fn collection(&self, id: CollectionId) -> Option<&Arc<CollectionRecord>> {
        self.collections.get(&id)
    }

    /// All collections, dropped ones that are not forgotten included, by id.
    pub fn collections(&self) -> impl Iterator<Item = &Arc<CollectionRecord>> {
        self.collections.values()
    }

    /// The collections in use, by name.
    pub fn active(&self) -> impl Iterator<Item = &Arc<CollectionRecord>> {
        self.names.values().filter_map(|id| self.collections.get(id))
    }

    /// The nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.nodes.values()
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> storage::Result<()> {
        match key.split_first() {
            Some((&NODE_TAG, _)) => {
                let record: NodeRecord = decode(key, value)?;
                self.nodes.insert(record.id, Arc::new(record));
            }
            Some((&COLLECTION_TAG, _)) => self.put_collection(decode(key, value)?),
            _ if key == COUNTERS_KEY => self.counters = decode(key, value)?,
            _ if key == CLUSTER_KEY => self.cluster = Arc::new(decode(key, value)?),
            _ => assert!(
                key.first().is_none_or(|tag| !TAGS.contains(tag)),
                "every key of the catalog is known"
            ),
        }
        Ok(())
    }

    fn put_collection(&mut self, record: CollectionRecord) {
        if record.state == CollectionState::Active {
            self.names.insert(record.namespace.clone(), record.id);
        } else if self.names.get(&record.namespace) == Some(&record.id) {
            self.names.remove(&record.namespace);
        }
        self.forget_shards(record.id);
        for (position, placement) in record.all_shards().enumerate() {
            self.shards.insert(placement.shard, (record.id, position));
        }
        self.collections.insert(record.id, Arc::new(record));
    }

    fn forget_shards(&mut self, collection: CollectionId) {
        if let Some(record) = self.collections.get(&collection) {
            for placement in record.all_shards() {
                self.shards.remove(&placement.shard);
            }
        }
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some((&COLLECTION_TAG, id)) = key.split_first()
            && let Ok(id) = <[u8; 8]>::try_from(id)
        {
            let collection = CollectionId(u64::from_be_bytes(id));
            self.forget_shards(collection);
            self.collections.remove(&collection);
        }
    }

    fn found(&self, batch: &mut KvBatch, name: &str, replication_factor: u32, facts: &NodeFacts) -> Reply {
        if let Some(first) = self.nodes.values().next() {
            // A founder that restarts asks again before it has seen that it did.
            return Reply::Node(Box::new(first.as_ref().clone()));
        }
        let cluster = ClusterRecord { name: name.to_owned(), replication_factor, ..ClusterRecord::default() };
        batch.put(CLUSTER_KEY, encode(&cluster));
        let node = NodeRecord::new(NodeId(1), facts.clone(), String::new());
        put_node(batch, &node);
        Reply::Node(Box::new(node))
    }

    fn join_node(&self, batch: &mut KvBatch, token: &str, facts: &NodeFacts) -> Result<Reply> {
        if let Some(joined) = self.nodes.values().find(|node| node.token == token) {
            return Ok(Reply::Node(Box::new(joined.as_ref().clone())));
        }
        let named = self.nodes.values().find(|node| node.is_member() && node.facts.name == facts.name);
        if let Some(other) = named.filter(|other| other.facts.peer != facts.peer) {
            let message = format!(
                "the cluster has a node called '{}' already, at {}; give this one another name",
                facts.name, other.facts.peer
            );
            return Err(Error::new(Code::CONFLICTING_OPERATION_IN_PROGRESS, message));
        }
        let mut counters = self.counters;
        let node = NodeRecord::new(counters.node, facts.clone(), token.to_owned());
        counters.node = counters.node.next();
        let mut cluster = self.cluster.as_ref().clone();
        if let Some(gone) = named {
            cluster.catalog.retain(|placed| placed.node != gone.id);
            self.replace_node(batch, &mut counters, gone, node.id);
        }
        cluster.catalog.push(nodes::new_replica(&mut counters, node.id));
        batch.put(COUNTERS_KEY, encode(&counters));
        batch.put(CLUSTER_KEY, encode(&cluster));
        put_node(batch, &node);
        Ok(Reply::Node(Box::new(node)))
    }

    /// Plans new replicas on a node that came back without its data, in the place of those that it had.
    fn replace_node(&self, batch: &mut KvBatch, counters: &mut Counters, gone: &NodeRecord, node: NodeId) {
        put_node(batch, &NodeRecord { replaced_by: Some(node), ..gone.clone() });
        for record in self.collections.values() {
            let mut record = record.as_ref().clone();
            if record.state == CollectionState::Dropping {
                nodes::forget_replicas(batch, &mut record, |placed| placed.node == gone.id);
                continue;
            }
            // What it had of shards that are in use no more is gone with its data.
            let mut changed = nodes::forget_retired(&mut record, |placed| placed.node == gone.id);
            for shard in record.all_shards_mut() {
                for placed in shard.replicas.iter_mut().filter(|placed| placed.node == gone.id) {
                    let replica = counters.replica;
                    let lost = std::mem::replace(placed, nodes::new_replica(counters, node)).replica;
                    let taken = shard.leaving.iter_mut().filter(|leaving| leaving.successor == Some(lost));
                    taken.for_each(|leaving| leaving.successor = Some(replica));
                    changed = true;
                }
            }
            if changed {
                put_collection(batch, &record);
            }
        }
    }

    fn renew_node(&self, batch: &mut KvBatch, node: NodeId, facts: &NodeFacts) -> Reply {
        if let Some(known) = self.nodes.get(&node)
            && known.is_member()
            && known.facts != *facts
        {
            put_node(batch, &NodeRecord { facts: facts.clone(), ..known.as_ref().clone() });
        }
        Reply::Done
    }

    fn create_collection(
        &self,
        batch: &mut KvBatch,
        namespace: &Namespace,
        uuid: [u8; 16],
        options: &bson::Document,
        drops_seen: u64,
    ) -> Result<Reply> {
        if let Some(existing) = self.find(namespace) {
            if existing.uuid == uuid {
                return Ok(Reply::Collection(Box::new(existing.as_ref().clone())));
            }
            let message = format!("Collection {namespace} already exists.");
            return Err(Error::new(Code::NAMESPACE_EXISTS, message));
        }
        if drops_seen != self.counters.drops {
            return Err(moved_on("collections were dropped"));
        }
        let mut counters = self.counters;
        let replicas = placement::for_new_shard(self).into_iter().map(|node| {
            let replica = counters.replica;
            counters.replica = replica.next();
            ReplicaPlacement { replica, node, founder: true, successor: None }
        });
        let replicas: Vec<_> = replicas.collect();
        if replicas.is_empty() {
            let message = "no node of this cluster holds data: each has the role of a router only";
            return Err(Error::new(Code::OPERATION_FAILED, message));
        }
        let shard = ShardPlacement::whole(self.counters.shard, replicas);
        let record = CollectionRecord {
            id: self.counters.collection,
            uuid,
            namespace: namespace.clone(),
            options: options.clone(),
            state: CollectionState::Active,
            indexes: vec![(IndexSpec::id_index(), IndexState::Ready)],
            next_index: IndexId(1),
            index_drops: 0,
            failures: Vec::new(),
            shard_key: vec!["_id".to_owned()],
            shards_min: 1,
            key_pattern: bson::Document::new(),
            shard_map: ShardMap { epoch: Epoch(1), shards: vec![shard] },
            built: Vec::new(),
            births: Vec::new(),
            reshard: None,
            reshards: 0,
            last_reshard: None,
            retired: Vec::new(),
        };
        counters.collection = record.id.next();
        counters.shard = self.counters.shard.next();
        batch.put(COUNTERS_KEY, encode(&counters));
        put_collection(batch, &record);
        Ok(Reply::Collection(Box::new(record)))
    }

    fn drop_collection(&self, batch: &mut KvBatch, collection: CollectionId) -> Reply {
        if let Some(record) = self.collections.get(&collection)
            && record.state == CollectionState::Active
        {
            let counters = Counters { drops: self.counters.drops + 1, ..self.counters };
            batch.put(COUNTERS_KEY, encode(&counters));
            let mut record = record.as_ref().clone();
            record.state = CollectionState::Dropping;
            nodes::forget_replicas(batch, &mut record, |placed| self.is_on_former_node(placed));
            return Reply::Collection(Box::new(record));
        }
        Reply::Done
    }

    fn replica_gone(&self, batch: &mut KvBatch, collection: CollectionId, replica: ReplicaId) -> Reply {
        let Some(record) = self.collections.get(&collection) else { return Reply::Done };
        if record.state != CollectionState::Dropping {
            self.retired_replica_gone(batch, record, replica);
            return Reply::Done;
        }
        let mut record = record.as_ref().clone();
        nodes::forget_replicas(batch, &mut record, |placed| placed.replica == replica);
        Reply::Done
    }

    fn add_indexes(
        &self,
        batch: &mut KvBatch,
        collection: CollectionId,
        indexes: &[NewIndex],
        drops_seen: u64,
    ) -> Result<Reply> {
        let mut record = self.active_collection(collection)?;
        let mut added = Vec::new();
        for index in indexes {
            if exists_already(&record, index)? {
                continue;
            }
            if drops_seen != record.index_drops {
                return Err(moved_on("indexes were dropped"));
            }
            check_may_add(&record, index)?;
            let spec = index.spec(record.next_index);
            added.push(spec.id);
            record.next_index = spec.id.next();
            record.indexes.push((spec, IndexState::Building));
        }
        let live = record.indexes.iter().filter(|(_, state)| state.is_live()).count();
        if live > INDEXES_MAX {
            let message = format!("add index fails, too many indexes for {}: {live}", record.namespace);
            return Err(Error::new(Code::CANNOT_CREATE_INDEX, message));
        }
        if !added.is_empty() {
            put_collection(batch, &record);
        }
        Ok(Reply::Indexes(added))
    }

    fn index_ready(
        &self,
        batch: &mut KvBatch,
        collection: CollectionId,
        index: IndexId,
        shard: ShardId,
    ) -> Result<Reply> {
        let mut record = self.active_collection(collection)?;
        let building =
            |(spec, state): &(IndexSpec, IndexState)| spec.id == index && *state == IndexState::Building;
        let Some(position) = record.indexes.iter().position(building) else { return Ok(Reply::Done) };
        if !record.built.contains(&(index, shard)) {
            record.built.push((index, shard));
        }
        let has_it = |placement: &ShardPlacement| record.built.contains(&(index, placement.shard));
        if record.shard_map.shards.iter().all(has_it) {
            record.built.retain(|(built, _)| *built != index);
            if let Some((_, state)) = record.indexes.get_mut(position) {
                *state = IndexState::Ready;
            }
        }
        put_collection(batch, &record);
        Ok(Reply::Done)
    }

    fn index_failed(&self, batch: &mut KvBatch, collection: CollectionId, failure: &IndexFailure) -> Reply {
        let Ok(mut record) = self.active_collection(collection) else { return Reply::Done };
        for (spec, state) in &mut record.indexes {
            if spec.id == failure.index && *state == IndexState::Building {
                *state = IndexState::Failed;
                record.failures.push(failure.clone());
                put_collection(batch, &record);
                break;
            }
        }
        Reply::Done
    }

    fn drop_indexes(
        &self,
        batch: &mut KvBatch,
        collection: CollectionId,
        indexes: &[IndexId],
    ) -> Result<Reply> {
        let mut record = self.active_collection(collection)?;
        for (spec, state) in &mut record.indexes {
            if indexes.contains(&spec.id) {
                assert!(spec.id != IndexId(0), "the index on _id is the documents themselves");
                *state = IndexState::Dropping;
            }
        }
        record.index_drops += 1;
        record.failures.retain(|failure| !indexes.contains(&failure.index));
        record.built.retain(|(index, _)| !indexes.contains(index));
        put_collection(batch, &record);
        Ok(Reply::Done)
    }

    fn forget_indexes(&self, batch: &mut KvBatch, collection: CollectionId, indexes: &[IndexId]) -> Reply {
        if let Some(record) = self.collections.get(&collection) {
            let mut record = record.as_ref().clone();
            let gone = |(spec, state): &(IndexSpec, IndexState)| {
                *state == IndexState::Dropping && indexes.contains(&spec.id)
            };
            record.indexes.retain(|index| !gone(index));
            put_collection(batch, &record);
        }
        Reply::Done
    }

    pub(crate) fn active_collection(&self, id: CollectionId) -> Result<CollectionRecord> {
        let record = self.collections.get(&id).filter(|record| record.state == CollectionState::Active);
        let record = record.ok_or_else(|| Error::new(Code::NAMESPACE_NOT_FOUND, "ns not found"))?;
        Ok(record.as_ref().clone())
    }
}

/// Somebody changed what the proposer saw.
fn moved_on(what: &str) -> Error {
    Error::new(Code::WRITE_CONFLICT, format!("{what} since the proposer looked at the catalog"))
}

/// Whether an index with this key and these options is there already; an error when it is there with others.
fn exists_already(record: &CollectionRecord, index: &NewIndex) -> Result<bool> {
    for (spec, _) in record.indexes.iter().filter(|(_, state)| state.is_live()) {
        let (same_name, same_key) = (spec.name == index.name, spec.key == index.key);
        // The index on _id is unique whether or not that is said.
        let same_options = spec.unique == index.unique || spec.id == IndexId(0);
        if same_key && same_options && (same_name || spec.id == IndexId(0)) {
            return Ok(true);
        }
        if same_key && same_options {
            let message = format!("Index already exists with a different name: {}", spec.name);
            return Err(Error::new(Code::INDEX_OPTIONS_CONFLICT, message));
        }
        if same_name || same_key {
            let message = format!(
                "An equivalent index already exists with the same name or key but different options. Requested index: \
                 {{ key: {}, name: \"{}\", unique: {} }}, existing index: {{ key: {}, name: \"{}\", unique: {} }}",
                key_text(&index.key),
                index.name,
                index.unique,
                key_text(&spec.key),
                spec.name,
                spec.unique
            );
            let code = if same_name && !same_key {
                Code::INDEX_KEY_SPECS_CONFLICT
            } else {
                Code::INDEX_OPTIONS_CONFLICT
            };
            return Err(Error::new(code, message));
        }
    }
    Ok(false)
}

/// Fails when the collection's shards cannot keep the index, or are being cut anew.
fn check_may_add(record: &CollectionRecord, index: &NewIndex) -> Result<()> {
    if record.reshard.is_some() {
        let message =
            format!("shards of {} are being cut anew; indexes can be made after that", record.namespace);
        return Err(Error::new(Code::CONFLICTING_OPERATION_IN_PROGRESS, message));
    }
    let spec = index.spec(record.next_index);
    if !record.is_sharded() || spec.is_unique_by_shard(&record.shard_key) {
        return Ok(());
    }
    let message = format!(
        "cannot create unique index over {} with shard key pattern {}: documents of different shards could have equal \
         values; a unique index of a sharded collection has every field of the shard key",
        spec.key_document(),
        record.shown_key()
    );
    Err(Error::new(Code::CANNOT_CREATE_INDEX, message))
}

fn key_text(key: &[(String, crate::KeyDirection)]) -> String {
    let field = |(path, direction): &(String, crate::KeyDirection)| {
        let order = if *direction == crate::KeyDirection::Ascending { 1 } else { -1 };
        format!("{path}: {order}")
    };
    format!("{{ {} }}", key.iter().map(field).collect::<Vec<_>>().join(", "))
}

fn put_node(batch: &mut KvBatch, record: &NodeRecord) {
    let mut key = vec![NODE_TAG];
    key.extend_from_slice(&record.id.get().to_be_bytes());
    batch.put(key, encode(record));
}

pub(crate) fn put_counters(batch: &mut KvBatch, counters: &Counters) {
    batch.put(COUNTERS_KEY, encode(counters));
}

pub(crate) fn put_collection(batch: &mut KvBatch, record: &CollectionRecord) {
    batch.put(collection_key(record.id), encode(record));
}

fn collection_key(id: CollectionId) -> Vec<u8> {
    let mut key = vec![COLLECTION_TAG];
    key.extend_from_slice(&id.get().to_be_bytes());
    key
}

#[cfg(test)]
mod tests;
