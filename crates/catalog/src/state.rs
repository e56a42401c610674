//! The catalog in memory: built from its keys and values, changed only by applying batches of them.
//!
//! Keys: `n` + node id, `c` + collection id (both big-endian), `k` for the counters, `s` for the cluster's record. The same [`Catalog::apply`] runs on
//! the leader right after evaluation (speculatively) and on every node after commit.

mod nodes;

use std::collections::BTreeMap;
use std::sync::Arc;

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
struct Counters {
    collection: CollectionId,
    shard: ShardId,
    replica: ReplicaId,
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
            | Command::RetireReplica { .. }
            | Command::ReplicaLeft { .. }
            | Command::SetBalancer { .. }
            | Command::ChangeBalancerSettings { .. } => self.evaluate_nodes(&mut batch, command)?,
            Command::AddIndexes { collection, indexes, drops_seen } => {
                self.add_indexes(&mut batch, *collection, indexes, *drops_seen)?
            }
            Command::IndexReady { collection, index } => self.index_ready(&mut batch, *collection, *index)?,
            Command::IndexFailed { collection, failure } => {
                self.index_failed(&mut batch, *collection, failure)
            }
            Command::DropIndexes { collection, indexes } => {
                self.drop_indexes(&mut batch, *collection, indexes)?
            }
            Command::ForgetIndexes { collection, indexes } => {
                self.forget_indexes(&mut batch, *collection, indexes)
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

    /// The placement of a shard in use.
    pub fn placement(&self, shard: ShardId) -> Option<(&Arc<CollectionRecord>, &ShardPlacement)> {
        let find = |record: &'_ Arc<CollectionRecord>| {
            record.shard_map.shards.iter().position(|placed| placed.shard == shard)
        };
        self.collections.values().find_map(|record| {
            let position = find(record)?;
            Some((record, record.shard_map.shards.get(position)?))
        })
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
        self.collections.insert(record.id, Arc::new(record));
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some((&COLLECTION_TAG, id)) = key.split_first()
            && let Ok(id) = <[u8; 8]>::try_from(id)
        {
            self.collections.remove(&CollectionId(u64::from_be_bytes(id)));
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
        let replica = counters.replica;
        counters.replica = replica.next();
        cluster.catalog.push(ReplicaPlacement { replica, node: node.id, founder: false });
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
            let mut changed = false;
            for placed in record.shard_map.shards.iter_mut().flat_map(|shard| &mut shard.replicas) {
                if placed.node == gone.id {
                    *placed = ReplicaPlacement { replica: counters.replica, node, founder: false };
                    counters.replica = counters.replica.next();
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
            ReplicaPlacement { replica, node, founder: true }
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
            shard_map: ShardMap { epoch: Epoch(1), shards: vec![shard] },
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
            put_collection(
                batch,
                &CollectionRecord { state: CollectionState::Dropping, ..record.as_ref().clone() },
            );
        }
        Reply::Done
    }

    fn replica_gone(&self, batch: &mut KvBatch, collection: CollectionId, replica: ReplicaId) -> Reply {
        let record = self.collections.get(&collection);
        let Some(record) = record.filter(|record| record.state == CollectionState::Dropping) else {
            return Reply::Done;
        };
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
            let spec = IndexSpec {
                id: record.next_index,
                name: index.name.clone(),
                key: index.key.clone(),
                unique: index.unique,
            };
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

    fn index_ready(&self, batch: &mut KvBatch, collection: CollectionId, index: IndexId) -> Result<Reply> {
        let mut record = self.active_collection(collection)?;
        for (spec, state) in &mut record.indexes {
            if spec.id == index && *state == IndexState::Building {
                *state = IndexState::Ready;
                put_collection(batch, &record);
                break;
            }
        }
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

    fn active_collection(&self, id: CollectionId) -> Result<CollectionRecord> {
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

fn put_collection(batch: &mut KvBatch, record: &CollectionRecord) {
    batch.put(collection_key(record.id), encode(record));
}

fn collection_key(id: CollectionId) -> Vec<u8> {
    let mut key = vec![COLLECTION_TAG];
    key.extend_from_slice(&id.get().to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyDirection, balance};

    fn namespace() -> Namespace {
        Namespace::new("shop", "orders").expect("valid")
    }

    /// Another creation than those with another number, by somebody who has seen so many drops.
    fn create_after(drops_seen: u64, number: u8) -> Command {
        let (namespace, options) = (namespace(), bson::doc! {});
        Command::CreateCollection { namespace, uuid: [number; 16], options, drops_seen }
    }

    fn create() -> Command {
        create_after(0, 1)
    }

    fn facts(name: &str) -> NodeFacts {
        NodeFacts {
            name: name.into(),
            listen: "127.0.0.1:27017".into(),
            peer: "127.0.0.1:27117".into(),
            storage: true,
            labels: BTreeMap::new(),
        }
    }

    /// A catalog with one node.
    fn founded() -> Catalog {
        let mut catalog = Catalog::default();
        let found = Command::Found { name: "shop".into(), replication_factor: 3, node: facts("n1") };
        run(&mut catalog, &found).expect("founded");
        catalog
    }

    fn run(catalog: &mut Catalog, command: &Command) -> Result<Reply> {
        let (batch, reply) = catalog.evaluate(command)?;
        catalog.apply(&batch).expect("what was evaluated applies");
        Ok(reply)
    }

    fn index(name: &str, path: &str, unique: bool) -> NewIndex {
        NewIndex { name: name.to_owned(), key: vec![(path.to_owned(), KeyDirection::Ascending)], unique }
    }

    #[test]
    fn a_new_collection_has_one_shard_that_owns_every_hash() {
        let mut catalog = founded();
        run(&mut catalog, &create()).expect("created");
        let record = catalog.find(&namespace()).expect("found");
        for hash in [0, 1, u64::MAX / 2, u64::MAX] {
            assert_eq!(record.shard_map.owner(hash).shard, ShardId(100));
        }
        assert_eq!(run(&mut catalog, &create_after(0, 2)).expect_err("exists").code, Code::NAMESPACE_EXISTS);
    }

    #[test]
    fn a_dropped_name_is_free_at_once_and_its_ids_are_never_used_again() {
        let mut catalog = founded();
        run(&mut catalog, &create()).expect("created");
        run(&mut catalog, &Command::DropCollection { collection: CollectionId(1) }).expect("dropped");
        assert!(catalog.find(&namespace()).is_none());
        run(&mut catalog, &create_after(1, 2)).expect("created again");
        let second = catalog.find(&namespace()).expect("found").clone();
        assert_eq!((second.id, second.shard_map.shards[0].shard), (CollectionId(2), ShardId(101)));
        let gone = Command::ReplicaGone { collection: CollectionId(1), replica: ReplicaId(100) };
        run(&mut catalog, &gone).expect("forgotten");
        assert_eq!(catalog.collections().count(), 1);
        assert!(catalog.find(&namespace()).is_some());
    }

    #[test]
    fn a_node_that_asks_twice_joins_once_and_gets_a_replica_of_the_catalog() {
        let mut catalog = founded();
        let join = Command::JoinNode { token: "t".into(), facts: facts("n2") };
        let first = run(&mut catalog, &join).expect("joined");
        assert_eq!(run(&mut catalog, &join).expect("joined"), first);
        assert_eq!((catalog.nodes().count(), catalog.cluster().catalog.len()), (2, 2));
    }

    #[test]
    fn a_node_that_comes_back_empty_gets_new_replicas_for_those_it_had() {
        let mut catalog = founded();
        for name in ["n2", "n3"] {
            let facts = NodeFacts { peer: name.into(), ..facts(name) };
            run(&mut catalog, &Command::JoinNode { token: name.into(), facts }).expect("joined");
        }
        run(&mut catalog, &create()).expect("created");
        let again = NodeFacts { peer: "n2".into(), ..facts("n2") };
        run(&mut catalog, &Command::JoinNode { token: "again".into(), facts: again }).expect("joined");
        let placed = &catalog.find(&namespace()).expect("there").shard_map.shards[0].replicas;
        let placed: Vec<_> = placed.iter().map(|placed| (placed.node.get(), placed.founder)).collect();
        assert_eq!(placed, [(1, true), (4, false), (3, true)]);
        let nodes: Vec<_> = catalog.cluster().catalog.iter().map(|placed| placed.node.get()).collect();
        assert_eq!(nodes, [1, 3, 4]);
        assert_eq!(catalog.node(NodeId(2)).expect("remembered").replaced_by, Some(NodeId(4)));
        let moved = NodeFacts { peer: "elsewhere".into(), ..facts("n3") };
        let refused = run(&mut catalog, &Command::JoinNode { token: "other".into(), facts: moved });
        assert_eq!(refused.expect_err("refused").code, Code::CONFLICTING_OPERATION_IN_PROGRESS);
    }

    #[test]
    fn shards_get_the_replicas_that_their_cluster_has_nodes_for() {
        let mut catalog = founded();
        run(&mut catalog, &create()).expect("created");
        assert_eq!(balance::repairs(&catalog), []);
        for name in ["n2", "n3", "n4"] {
            run(&mut catalog, &Command::JoinNode { token: name.into(), facts: facts(name) }).expect("joined");
            while let Some(repair) = balance::repairs(&catalog).first() {
                let place = repair.action.command().expect("the catalog places it");
                run(&mut catalog, &place).expect("placed");
            }
        }
        let record = catalog.find(&namespace()).expect("there").clone();
        let nodes: Vec<_> =
            record.shard_map.shards[0].replicas.iter().map(|replica| replica.node.get()).collect();
        assert_eq!(nodes, [1, 2, 3]);
        assert_eq!(placement::for_new_shard(&catalog), [NodeId(4), NodeId(1), NodeId(2)]);
    }

    #[test]
    fn a_cluster_is_founded_once() {
        let mut catalog = founded();
        run(&mut catalog, &create()).expect("created");
        let before = format!("{catalog:?}");
        let again = Command::Found { name: "other".into(), replication_factor: 1, node: facts("n9") };
        assert!(matches!(run(&mut catalog, &again), Ok(Reply::Node(node)) if node.facts.name == "n1"));
        assert_eq!(format!("{catalog:?}"), before);
    }

    #[test]
    fn a_repeat_that_comes_late_does_not_bring_back_what_was_dropped_meanwhile() {
        let mut catalog = founded();
        run(&mut catalog, &create()).expect("created");
        let add = Command::AddIndexes {
            collection: CollectionId(1),
            drops_seen: 0,
            indexes: vec![index("a_1", "a", false)],
        };
        run(&mut catalog, &add).expect("added");
        let drop = Command::DropIndexes { collection: CollectionId(1), indexes: vec![IndexId(1)] };
        run(&mut catalog, &drop).expect("dropped");
        assert_eq!(run(&mut catalog, &add).expect_err("late").code, Code::WRITE_CONFLICT);
        run(&mut catalog, &Command::DropCollection { collection: CollectionId(1) }).expect("dropped");
        assert_eq!(run(&mut catalog, &create()).expect_err("late").code, Code::WRITE_CONFLICT);
        run(&mut catalog, &create_after(1, 3)).expect("created by somebody who has seen the drop");
    }

    #[test]
    fn an_index_that_exists_is_left_alone_and_one_that_differs_is_refused() {
        let mut catalog = founded();
        run(&mut catalog, &create()).expect("created");
        let add =
            |index| Command::AddIndexes { collection: CollectionId(1), drops_seen: 0, indexes: vec![index] };
        let reply = run(&mut catalog, &add(index("a_1", "a", false))).expect("added");
        assert_eq!(reply, Reply::Indexes(vec![IndexId(1)]));
        assert_eq!(run(&mut catalog, &add(index("a_1", "a", false))), Ok(Reply::Indexes(vec![])));
        assert_eq!(run(&mut catalog, &add(index("_id_", "_id", false))), Ok(Reply::Indexes(vec![])));
        let code = |catalog: &mut Catalog, index| run(catalog, &add(index)).expect_err("refused").code;
        assert_eq!(code(&mut catalog, index("other", "a", false)), Code::INDEX_OPTIONS_CONFLICT);
        assert_eq!(code(&mut catalog, index("a_1", "a", true)), Code::INDEX_OPTIONS_CONFLICT);
        assert_eq!(code(&mut catalog, index("a_1", "b", false)), Code::INDEX_KEY_SPECS_CONFLICT);
    }

    #[test]
    fn a_catalog_loaded_from_its_keys_equals_the_one_that_wrote_them() {
        let mut catalog = Catalog::default();
        let mut stored = BTreeMap::new();
        let commands = [
            Command::Found { name: "shop".into(), replication_factor: 3, node: facts("n1") },
            create(),
            Command::AddIndexes {
                collection: CollectionId(1),
                drops_seen: 0,
                indexes: vec![index("a_1", "a", true)],
            },
            Command::IndexReady { collection: CollectionId(1), index: IndexId(1) },
            Command::JoinNode { token: "t".into(), facts: facts("n2") },
            Command::RenewNode { node: NodeId(2), facts: facts("n3") },
            Command::DropIndexes { collection: CollectionId(1), indexes: vec![IndexId(1)] },
            Command::ForgetIndexes { collection: CollectionId(1), indexes: vec![IndexId(1)] },
        ];
        for command in &commands {
            let (batch, _) = catalog.evaluate(command).expect("valid");
            catalog.apply(&batch).expect("applies");
            stored.extend(batch.ops.iter().filter_map(|op| Some((op.key().clone(), op.value()?.clone()))));
        }
        let loaded = Catalog::load(stored.into_iter().map(Ok)).expect("loads");
        assert_eq!(format!("{loaded:?}"), format!("{catalog:?}"));
    }

    #[test]
    fn a_record_with_a_flipped_bit_is_a_fault() {
        let (batch, _) = founded().evaluate(&create()).expect("valid");
        let op = batch.ops.last().expect("the collection");
        let mut value = op.value().expect("a put").to_vec();
        *value.last_mut().expect("not empty") ^= 1;
        let fault = Catalog::load([Ok((op.key().clone(), value.into()))].into_iter()).expect_err("corrupt");
        assert_eq!(fault.kind, storage::fault::FaultKind::Corruption);
    }
}
