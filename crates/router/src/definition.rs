//! Collections and indexes made and dropped, and their lists.
//!
//! Every definition is committed in the catalog before a shard hears of it; on return it is fsynced on a majority and
//! served. The catalog orders those of different nodes; what follows for replicas is for `reconcile` to do on each node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Code, CollectionId, Error, IndexId, Namespace, Result};
use bson::{Bson, Document};
use catalog::command::NewIndex;
use catalog::{
    Catalog, CollectionRecord, CollectionState, Command, IndexSpec, IndexState, KeyDirection, Reply,
    ShardPlacement,
};

use crate::command::{
    CollectionInfo, CreateCommand, CreateIndexesCommand, CreateIndexesReply, DatabaseInfo, IndexRequest,
    IndexSelector,
};
use crate::config_database::{self, CONFIG_DATABASE, check_not_config};
use crate::peer::Operation;
use crate::resolve::Place;
use crate::retry::Attempts;
use crate::{OperationContext, Router};

/// How often a wait for the catalog looks whether somebody still waits for it.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

impl Router {
    /// `create`. Fails with `NamespaceExists` (48) unless the collection exists with the same options.
    pub async fn create(&self, _cx: &OperationContext, command: CreateCommand) -> Result<()> {
        if let Some(existing) = self.collection(&command.namespace).await? {
            return is_as_wanted(&existing, &command);
        }
        match self.create_collection(&command.namespace, command.options.clone()).await {
            // Somebody else was faster, or this client was, through another node.
            Err(error) if error.code == Code::NAMESPACE_EXISTS => {
                is_as_wanted(self.existing_collection(&command.namespace).await?.as_ref(), &command)
            }
            created => created.map(drop),
        }
    }

    /// The collection, created when it is absent.
    pub(crate) async fn collection_or_create(&self, namespace: &Namespace) -> Result<Arc<CollectionRecord>> {
        if let Some(record) = self.collection(namespace).await? {
            return Ok(record);
        }
        match self.create_collection(namespace, Document::new()).await {
            Err(error) if error.code == Code::NAMESPACE_EXISTS => self.existing_collection(namespace).await,
            other => other,
        }
    }

    async fn create_collection(
        &self,
        namespace: &Namespace,
        options: Document,
    ) -> Result<Arc<CollectionRecord>> {
        check_not_config(&namespace.database)?;
        self.check_room()?;
        let uuid = self.random_uuid();
        let created = self.change_seen_catalog(|catalog| {
            let (namespace, options, drops_seen) = (namespace.clone(), options.clone(), catalog.drops());
            Ok(Command::CreateCollection { namespace, uuid, options, drops_seen })
        });
        let Reply::Collection(record) = created.await? else {
            unreachable!("the catalog answers a creation with its collection")
        };
        // Other nodes hear of it by replication; what this node has to do is done at once.
        self.catalog_now().await?;
        self.reconcile_one(record.id).await?;
        Ok(Arc::from(record))
    }

    /// Changes the catalog by a command that depends on what the catalog is as of now, and looks again when that has changed
    /// by the time the command arrives.
    pub(crate) async fn change_seen_catalog(
        &self,
        command: impl Fn(&Catalog) -> Result<Command> + Send,
    ) -> Result<Reply> {
        loop {
            let command = command(self.catalog_now().await?.as_ref())?;
            match self.change_catalog(command).await {
                Err(error) if error.code == Code::WRITE_CONFLICT => {}
                other => return other,
            }
        }
    }

    /// `drop`. Returns how many indexes it had. On return no replica that could answer is left. Fails with
    /// `NamespaceNotFound` (26).
    pub async fn drop_collection(&self, cx: &OperationContext, namespace: Namespace) -> Result<usize> {
        let catalog = self.catalog_now().await?;
        let Some(record) = catalog.find(&namespace).cloned() else {
            // Who hears that it is gone must find it gone, though somebody else is still dropping it.
            let dropping = catalog.collections().filter(|record| record.namespace == namespace);
            for record in dropping {
                self.await_removal(cx, record).await?;
            }
            return Err(Error::new(Code::NAMESPACE_NOT_FOUND, "ns not found"));
        };
        self.cursors.kill_namespace(&namespace.to_string());
        let dropped = self.change_catalog(Command::DropCollection { collection: record.id }).await?;
        // Its shards as of the drop; they may have been cut anew since this node looked.
        match dropped {
            Reply::Collection(dropped) => self.await_removal(cx, &dropped).await?,
            _ => self.await_removal(cx, &record).await?,
        }
        Ok(record.indexes.iter().filter(|(_, state)| state.is_live()).count())
    }

    /// Returns when a majority of each shard's replicas are gone, and leases of those that are left have ended.
    async fn await_removal(&self, cx: &OperationContext, record: &CollectionRecord) -> Result<()> {
        let is_left = |catalog: &Catalog, majority: bool| {
            let now = catalog.collection(record.id);
            now.is_some_and(|now| {
                // Those on their way out count too: one of them may lead.
                let left = |before: &ShardPlacement| {
                    let now = now.all_shards().find(|now| now.shard == before.shard);
                    now.map_or(0, |now| now.members().count())
                };
                record.all_shards().any(|before| match majority {
                    true => left(before) * 2 > before.replicas.len(),
                    false => left(before) > 0,
                })
            })
        };
        self.await_catalog(cx, |catalog| (!is_left(catalog, true)).then_some(())).await?;
        let lease_ends = self.clock.monotonic() + replica::LEASE_MAX;
        self.await_catalog(cx, |catalog| {
            let over = self.clock.monotonic() >= lease_ends;
            (over || !is_left(catalog, false)).then_some(())
        })
        .await
    }

    /// Waits until this node's copy of the catalog has what `find` looks for.
    pub(crate) async fn await_catalog<T>(
        &self,
        cx: &OperationContext,
        find: impl Fn(&Catalog) -> Option<T>,
    ) -> Result<T> {
        self.catalog_now().await?;
        self.unreconciled.notify_one();
        loop {
            let replica = self.catalog_replica();
            let applied = replica.applied_index();
            if let Some(found) = find(&self.catalog_copy()) {
                return Ok(found);
            }
            cx.check(self.clock.monotonic())?;
            // However the wait ends, the loop looks again; deadlines are checked by the way.
            let _ = tokio::time::timeout(CHECK_INTERVAL, replica.changed(applied, replica.leader())).await;
        }
    }

    /// `dropDatabase`. No error when there is none.
    pub async fn drop_database(&self, cx: &OperationContext, database: &str) -> Result<()> {
        let catalog = self.catalog_now().await?;
        let names = catalog.active().map(|record| &record.namespace).filter(|name| name.database == database);
        for namespace in names.cloned().collect::<Vec<_>>() {
            match self.drop_collection(cx, namespace).await {
                Err(error) if error.code != Code::NAMESPACE_NOT_FOUND => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// `listCollections`, by name.
    pub async fn list_collections(
        &self,
        _cx: &OperationContext,
        database: &str,
    ) -> Result<Vec<CollectionInfo>> {
        if database == CONFIG_DATABASE {
            return Ok(config_database::collections());
        }
        let catalog = self.catalog_now().await?;
        let records = catalog.active().filter(|record| record.namespace.database == database);
        let info = |record: &Arc<CollectionRecord>| CollectionInfo {
            name: record.namespace.collection.clone(),
            uuid: record.uuid,
            options: record.options.clone(),
        };
        Ok(records.map(info).collect())
    }

    /// `listDatabases`, by name: those that have a collection.
    pub async fn list_databases(&self, _cx: &OperationContext) -> Result<Vec<DatabaseInfo>> {
        let catalog = self.catalog_now().await?;
        let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
        for record in catalog.active() {
            *sizes.entry(record.namespace.database.clone()).or_default() +=
                self.size_on_disk_bytes(record)?;
        }
        Ok(sizes
            .into_iter()
            .map(|(name, size_on_disk_bytes)| DatabaseInfo { name, size_on_disk_bytes })
            .collect())
    }

    /// `createIndexes`: on return the indexes are complete. A failed build (a duplicate key) leaves none of the
    /// command's new indexes.
    pub async fn create_indexes(
        &self,
        cx: &OperationContext,
        command: CreateIndexesCommand,
    ) -> Result<CreateIndexesReply> {
        self.check_room()?;
        let indexes = command.indexes.iter().map(new_index).collect::<Result<Vec<_>>>()?;
        let created_collection = self.collection(&command.namespace).await?.is_none();
        self.collection_or_create(&command.namespace).await?;
        let before = self.existing_collection(&command.namespace).await?;
        let added = self.add_indexes(cx, before.id, &indexes).await?;
        let wanted: Vec<&str> = command.indexes.iter().map(|index| index.name.as_str()).collect();
        let built = self.await_catalog(cx, |catalog| built(catalog.collection(before.id)?, &wanted)).await?;
        if let Err(error) = built {
            let record = self.existing_collection(&command.namespace).await?;
            self.drop_index_ids(cx, &record, added).await?;
            return Err(error.context(format!("Index build failed: Collection {}", command.namespace)));
        }
        let after = self.existing_collection(&command.namespace).await?;
        Ok(CreateIndexesReply {
            num_indexes_before: live_indexes(&before).count(),
            num_indexes_after: live_indexes(&after).count(),
            created_collection,
        })
    }

    /// Adds indexes to the catalog, once no shards of the collection are being cut anew.
    async fn add_indexes(
        &self,
        cx: &OperationContext,
        collection: CollectionId,
        indexes: &[NewIndex],
    ) -> Result<Vec<IndexId>> {
        loop {
            let added = self.change_seen_catalog(|catalog| {
                let record = catalog.collection(collection);
                let record = record.ok_or_else(|| Error::new(Code::NAMESPACE_NOT_FOUND, "ns not found"))?;
                let (drops_seen, indexes) = (record.index_drops, indexes.to_vec());
                Ok(Command::AddIndexes { collection, drops_seen, indexes })
            });
            match added.await {
                Ok(Reply::Indexes(added)) => return Ok(added),
                Ok(other) => unreachable!("the catalog answers added indexes with {other:?}"),
                Err(error) if error.code == Code::CONFLICTING_OPERATION_IN_PROGRESS => {
                    let is_free = |catalog: &Catalog| {
                        let record = catalog.collection(collection);
                        record.is_none_or(|record| record.reshard.is_none()).then_some(())
                    };
                    self.await_catalog(cx, is_free).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// `listIndexes`. Fails with `NamespaceNotFound` (26).
    pub async fn list_indexes(&self, _cx: &OperationContext, namespace: Namespace) -> Result<Vec<IndexSpec>> {
        let catalog = self.catalog_now().await?;
        let record = catalog.find(&namespace).ok_or_else(|| {
            Error::new(Code::NAMESPACE_NOT_FOUND, format!("ns does not exist: {namespace}"))
        })?;
        Ok(live_indexes(record).cloned().collect())
    }

    /// `dropIndexes`. Returns how many indexes there were. Fails with `IndexNotFound` (27), or with `InvalidOptions`
    /// (72) for the index on `_id`.
    pub async fn drop_indexes(
        &self,
        cx: &OperationContext,
        namespace: Namespace,
        selector: IndexSelector,
    ) -> Result<usize> {
        let catalog = self.catalog_now().await?;
        let record = catalog.find(&namespace);
        let record = record
            .ok_or_else(|| Error::new(Code::NAMESPACE_NOT_FOUND, format!("ns not found {namespace}")))?;
        match select(record, &selector) {
            Ok(ids) => self.drop_index_ids(cx, record, ids).await?,
            Err(error) => {
                // Who hears that it is gone must find it gone, though somebody else is still dropping it.
                if record.indexes.iter().any(|(_, state)| *state == IndexState::Dropping) {
                    self.await_index_drops(cx, record).await?;
                }
                return Err(error);
            }
        }
        Ok(live_indexes(record).count())
    }

    /// On return no query reads the indexes and no write is refused by them.
    async fn drop_index_ids(
        &self,
        cx: &OperationContext,
        record: &Arc<CollectionRecord>,
        indexes: Vec<IndexId>,
    ) -> Result<()> {
        if indexes.is_empty() {
            return Ok(());
        }
        self.change_catalog(Command::DropIndexes { collection: record.id, indexes }).await?;
        self.await_index_drops(cx, record).await
    }

    /// On return no shard uses an index any more that was dropped by now, nor does one that is about to come into use.
    async fn await_index_drops(&self, cx: &OperationContext, record: &Arc<CollectionRecord>) -> Result<()> {
        let mut attempts = Attempts::new(self);
        loop {
            let catalog = self.catalog_now().await?;
            let now = catalog.collection(record.id).filter(|now| now.state == CollectionState::Active);
            let Some(now) = now else { return Ok(()) };
            let places = now.kept_shards().map(|placement| Place::of_placement(now, placement)).collect();
            match self.ask_all(cx, places, &Operation::Reconcile).await {
                Ok(_) => return Ok(()),
                Err(error) => attempts.again(self, cx, error).await?,
            }
        }
    }

    /// Sixteen random bytes marked as a version 4 UUID (RFC 9562, section 5.4).
    fn random_uuid(&self) -> [u8; 16] {
        let random = (u128::from(self.entropy.next_u64()) << 64) | u128::from(self.entropy.next_u64());
        uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid().into_bytes()
    }
}

/// The indexes that clients see: all but those being removed.
pub(crate) fn live_indexes(record: &CollectionRecord) -> impl Iterator<Item = &IndexSpec> {
    record.indexes.iter().filter(|(_, state)| state.is_live()).map(|(spec, _)| spec)
}

/// Fails with `NamespaceExists` when a collection is there with other options than are asked for.
fn is_as_wanted(existing: &CollectionRecord, command: &CreateCommand) -> Result<()> {
    if existing.options == command.options {
        return Ok(());
    }
    let message = format!(
        "namespace {} already exists, but with different options: {}",
        command.namespace, existing.options
    );
    Err(Error::new(Code::NAMESPACE_EXISTS, message))
}

fn new_index(request: &IndexRequest) -> Result<NewIndex> {
    let key = request.key.iter().map(|(path, order)| Ok((path.clone(), direction(path, order)?)));
    Ok(NewIndex { name: request.name.clone(), key: key.collect::<Result<_>>()?, unique: request.unique })
}

fn direction(path: &str, order: &Bson) -> Result<KeyDirection> {
    let number = match order {
        Bson::Int32(number) => f64::from(*number),
        Bson::Int64(number) => *number as f64,
        Bson::Double(number) => *number,
        other => return Err(cannot_create(path, other)),
    };
    match number {
        number if number > 0.0 => Ok(KeyDirection::Ascending),
        number if number < 0.0 => Ok(KeyDirection::Descending),
        _ => Err(cannot_create(path, order)),
    }
}

fn cannot_create(path: &str, order: &Bson) -> Error {
    let message =
        format!("Values in the index key pattern must be numbers above or below 0; {path} has {order}");
    Error::new(Code::CANNOT_CREATE_INDEX, message)
}

fn select(record: &CollectionRecord, selector: &IndexSelector) -> Result<Vec<IndexId>> {
    let not_found = |what: String| Error::new(Code::INDEX_NOT_FOUND, what);
    let chosen: Vec<&IndexSpec> = match selector {
        IndexSelector::All => {
            return Ok(live_indexes(record).map(|spec| spec.id).filter(|id| id.get() != 0).collect());
        }
        IndexSelector::Names(names) => {
            let find = |name: &String| {
                let found = live_indexes(record).find(|spec| spec.name == *name);
                found.ok_or_else(|| not_found(format!("index not found with name [{name}]")))
            };
            names.iter().map(find).collect::<Result<_>>()?
        }
        IndexSelector::Key(key) => {
            let request = IndexRequest { key: key.clone(), name: String::new(), unique: false };
            let wanted = new_index(&request)?.key;
            let found = live_indexes(record).find(|spec| spec.key == wanted);
            vec![found.ok_or_else(|| not_found(format!("can't find index with key: {key}")))?]
        }
    };
    if chosen.iter().any(|spec| spec.id == IndexId(0)) {
        return Err(Error::new(Code::INVALID_OPTIONS, "cannot drop _id index"));
    }
    Ok(chosen.into_iter().map(|spec| spec.id).collect())
}

/// Whether the indexes called `wanted` are complete, or why they will not be; `None` while that is not known.
fn built(record: &CollectionRecord, wanted: &[&str]) -> Option<Result<()>> {
    let mut indexes = record.indexes.iter().filter(|(spec, _)| wanted.contains(&spec.name.as_str()));
    if let Some((failed, _)) = indexes.clone().find(|(_, state)| *state == IndexState::Failed) {
        let failure = record.failures.iter().find(|failure| failure.index == failed.id);
        let unknown = || Error::new(Code::INDEX_BUILD_ABORTED, "the index could not be built");
        return Some(Err(failure.map_or_else(unknown, |failure| failure.error())));
    }
    indexes.all(|(_, state)| *state != IndexState::Building).then_some(Ok(()))
}
