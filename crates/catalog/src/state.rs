//! The catalog in memory: built from its keys and values, changed only by applying batches of them.
//!
//! Keys: `n` + node id, `c` + collection id (both big-endian), `k` for the counters. The same [`Catalog::apply`] runs on
//! the leader right after evaluation (speculatively) and on every node after commit.

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
    CollectionRecord, CollectionState, Command, IndexSpec, IndexState, NodeRecord, ReplicaPlacement, Reply,
    ShardMap, ShardPlacement,
};

const NODE_TAG: u8 = b'n';
const COLLECTION_TAG: u8 = b'c';
const COUNTERS_KEY: &[u8] = b"k";
/// The first tag of the catalog's own keys; everything else in its keyspace belongs to `replica`.
const TAGS: [u8; 3] = [NODE_TAG, COLLECTION_TAG, b'k'];

/// Ids that were handed out: each is the next free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Counters {
    collection: CollectionId,
    shard: ShardId,
    replica: ReplicaId,
}

impl Default for Counters {
    /// Shard 1 and replica 1 are the catalog's own; 2 to 99 are kept for further groups of the cluster itself.
    fn default() -> Counters {
        Counters { collection: CollectionId(1), shard: ShardId(100), replica: ReplicaId(100) }
    }
}

/// The whole catalog. Cloning is cheap enough to publish one after every change: records are shared.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
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
            Command::PutNode(record) => put_node(&mut batch, record),
            Command::CreateCollection { namespace, uuid, options, nodes } => {
                self.create_collection(&mut batch, namespace, *uuid, options, nodes)?
            }
            Command::DropCollection { namespace } => self.drop_collection(&mut batch, namespace)?,
            Command::ForgetCollection { collection } => self.forget_collection(&mut batch, *collection),
            Command::AddIndexes { collection, indexes } => {
                self.add_indexes(&mut batch, *collection, indexes)?
            }
            Command::IndexReady { collection, index } => self.index_ready(&mut batch, *collection, *index)?,
            Command::DropIndexes { collection, indexes } => {
                self.drop_indexes(&mut batch, *collection, indexes)?
            }
            Command::ForgetIndexes { collection, indexes } => {
                self.forget_indexes(&mut batch, *collection, indexes)
            }
        };
        Ok((batch, reply))
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

    fn create_collection(
        &self,
        batch: &mut KvBatch,
        namespace: &Namespace,
        uuid: [u8; 16],
        options: &bson::Document,
        nodes: &[NodeId],
    ) -> Result<Reply> {
        if self.names.contains_key(namespace) {
            let message = format!("Collection {namespace} already exists.");
            return Err(Error::new(Code::NAMESPACE_EXISTS, message));
        }
        assert!(!nodes.is_empty(), "a shard has at least one replica");
        let mut counters = self.counters;
        let replicas = nodes.iter().map(|&node| {
            let replica = counters.replica;
            counters.replica = replica.next();
            ReplicaPlacement { replica, node }
        });
        let shard = ShardPlacement::whole(self.counters.shard, replicas.collect());
        let record = CollectionRecord {
            id: self.counters.collection,
            uuid,
            namespace: namespace.clone(),
            options: options.clone(),
            state: CollectionState::Active,
            indexes: vec![(IndexSpec::id_index(), IndexState::Ready)],
            next_index: IndexId(1),
            shard_key: vec!["_id".to_owned()],
            shard_map: ShardMap { epoch: Epoch(1), shards: vec![shard] },
        };
        counters.collection = record.id.next();
        counters.shard = self.counters.shard.next();
        batch.put(COUNTERS_KEY, encode(&counters));
        put_collection(batch, &record);
        Ok(Reply::Collection(Box::new(record)))
    }

    fn drop_collection(&self, batch: &mut KvBatch, namespace: &Namespace) -> Result<Reply> {
        let record =
            self.find(namespace).ok_or_else(|| Error::new(Code::NAMESPACE_NOT_FOUND, "ns not found"))?;
        let record = CollectionRecord { state: CollectionState::Dropping, ..record.as_ref().clone() };
        put_collection(batch, &record);
        Ok(Reply::Collection(Box::new(record)))
    }

    fn forget_collection(&self, batch: &mut KvBatch, collection: CollectionId) -> Reply {
        if let Some(record) = self.collections.get(&collection) {
            assert_eq!(record.state, CollectionState::Dropping, "only a dropped collection is forgotten");
            batch.delete(collection_key(collection));
        }
        Reply::Done
    }

    fn add_indexes(
        &self,
        batch: &mut KvBatch,
        collection: CollectionId,
        indexes: &[NewIndex],
    ) -> Result<Reply> {
        let mut record = self.active_collection(collection)?;
        let mut added = Vec::new();
        for index in indexes {
            if exists_already(&record, index)? {
                continue;
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
        let live = record.indexes.iter().filter(|(_, state)| *state != IndexState::Dropping).count();
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

/// Whether an index with this key and these options is there already; an error when it is there with others.
fn exists_already(record: &CollectionRecord, index: &NewIndex) -> Result<bool> {
    for (spec, _) in record.indexes.iter().filter(|(_, state)| *state != IndexState::Dropping) {
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

fn put_node(batch: &mut KvBatch, record: &NodeRecord) -> Reply {
    let mut key = vec![NODE_TAG];
    key.extend_from_slice(&record.id.get().to_be_bytes());
    batch.put(key, encode(record));
    Reply::Done
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
    use crate::KeyDirection;

    fn namespace() -> Namespace {
        Namespace::new("shop", "orders").expect("valid")
    }

    fn create() -> Command {
        Command::CreateCollection {
            namespace: namespace(),
            uuid: [1; 16],
            options: bson::doc! {},
            nodes: vec![NodeId(1)],
        }
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
        let mut catalog = Catalog::default();
        run(&mut catalog, &create()).expect("created");
        let record = catalog.find(&namespace()).expect("found");
        for hash in [0, 1, u64::MAX / 2, u64::MAX] {
            assert_eq!(record.shard_map.owner(hash).shard, ShardId(100));
        }
        assert_eq!(run(&mut catalog, &create()).expect_err("exists").code, Code::NAMESPACE_EXISTS);
    }

    #[test]
    fn a_dropped_name_is_free_at_once_and_its_ids_are_never_used_again() {
        let mut catalog = Catalog::default();
        run(&mut catalog, &create()).expect("created");
        run(&mut catalog, &Command::DropCollection { namespace: namespace() }).expect("dropped");
        assert!(catalog.find(&namespace()).is_none());
        run(&mut catalog, &create()).expect("created again");
        let second = catalog.find(&namespace()).expect("found").clone();
        assert_eq!((second.id, second.shard_map.shards[0].shard), (CollectionId(2), ShardId(101)));
        run(&mut catalog, &Command::ForgetCollection { collection: CollectionId(1) }).expect("forgotten");
        assert_eq!(catalog.collections().count(), 1);
        assert!(catalog.find(&namespace()).is_some());
    }

    #[test]
    fn an_index_that_exists_is_left_alone_and_one_that_differs_is_refused() {
        let mut catalog = Catalog::default();
        run(&mut catalog, &create()).expect("created");
        let add = |index| Command::AddIndexes { collection: CollectionId(1), indexes: vec![index] };
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
            create(),
            Command::AddIndexes { collection: CollectionId(1), indexes: vec![index("a_1", "a", true)] },
            Command::IndexReady { collection: CollectionId(1), index: IndexId(1) },
            Command::PutNode(NodeRecord {
                id: NodeId(1),
                name: "n1".into(),
                listen: "127.0.0.1:27017".into(),
            }),
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
        let (batch, _) = Catalog::default().evaluate(&create()).expect("valid");
        let op = batch.ops.last().expect("the collection");
        let mut value = op.value().expect("a put").to_vec();
        *value.last_mut().expect("not empty") ^= 1;
        let fault = Catalog::load([Ok((op.key().clone(), value.into()))].into_iter()).expect_err("corrupt");
        assert_eq!(fault.kind, storage::fault::FaultKind::Corruption);
    }
}
