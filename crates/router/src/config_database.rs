//! The database `config`: the catalog in the form of the collections in which MongoDB's routers keep theirs.
//!
//! Called by `front` and `definition` for whatever names that database. Always holds: the documents are made of the catalog as
//! of now for each read; nothing is stored under this name, and nothing can be written to it.

use base::{Code, Error, Namespace, Result};
use bson::oid::ObjectId;
use bson::{Binary, Bson, DateTime, Document, Timestamp, doc, spec::BinarySubtype};
use catalog::{Catalog, CollectionRecord, NodeRecord, NodeState, ShardPlacement};
use document::filter::Filter;
use document::path::Path;
use document::pipeline::{Pipeline, Stage};
use document::projection::Projection;
use document::sort::SortSpec;
use document::{DocRef, EvalContext, Variables};
use query::execute::Distinct;

use crate::command::{
    AggregateCommand, CollectionInfo, CountCommand, CursorReply, DistinctCommand, FindCommand,
};
use crate::{OperationContext, Router, parse};

/// The name of the database.
pub const CONFIG_DATABASE: &str = "config";

/// Its collections. Those that are always empty are there because tools look into them.
const COLLECTIONS: [&str; 11] = [
    "actionlog",
    "changelog",
    "chunks",
    "collections",
    "databases",
    "locks",
    "mongos",
    "settings",
    "shards",
    "tags",
    "version",
];

/// What turns a hash into the signed number that stands for it in bounds: hashes and numbers are in the same order.
const SIGN: u64 = 1 << 63;

/// Whether a collection is one of the catalog's.
pub(crate) fn is_config(namespace: &Namespace) -> bool {
    namespace.database == CONFIG_DATABASE
}

/// Fails with `CommandNotSupported` (115) for a collection that cannot be made, dropped or written, being the catalog's.
pub(crate) fn check_not_config(database: &str) -> Result<()> {
    if database != CONFIG_DATABASE {
        return Ok(());
    }
    let message = "the database config shows the catalog and cannot be written: use the commands that change the cluster";
    Err(Error::new(Code::COMMAND_NOT_SUPPORTED, message))
}

/// A hash as bounds show it.
pub fn number_of_hash(hash: u64) -> i64 {
    i64::from_ne_bytes((hash ^ SIGN).to_ne_bytes())
}

/// The hash that a number in bounds stands for.
pub fn hash_of_number(number: i64) -> u64 {
    u64::from_ne_bytes(number.to_ne_bytes()) ^ SIGN
}

impl Router {
    /// `find`.
    pub(crate) async fn find_config(
        &self,
        cx: &OperationContext,
        command: FindCommand,
    ) -> Result<CursorReply> {
        let variables = parse::variables(command.variables.as_ref());
        let stages = find_stages(&command, &variables)?;
        let rows = self.config_documents(&command.namespace.collection).await?;
        let context = self.eval_context(variables);
        let single_batch = command.single_batch;
        let over = AggregateCommand {
            namespace: command.namespace,
            pipeline: Vec::new(),
            batch_size: command.batch_size,
            hint: None,
            variables: None,
        };
        let mut reply = self.aggregate_rows(cx, &over, rows, stages, context).await?;
        if single_batch && let Some(cursor) = reply.cursor.take() {
            self.kill_cursor(cursor, &reply.namespace);
        }
        Ok(reply)
    }

    /// `aggregate`.
    pub(crate) async fn aggregate_config(
        &self,
        cx: &OperationContext,
        command: &AggregateCommand,
    ) -> Result<CursorReply> {
        let variables = parse::variables(command.variables.as_ref());
        let stages = Pipeline::parse(&command.pipeline, &variables)?.stages;
        let rows = self.config_documents(&command.namespace.collection).await?;
        self.aggregate_rows(cx, command, rows, stages, self.eval_context(variables)).await
    }

    /// `count`.
    pub(crate) async fn count_config(&self, command: &CountCommand) -> Result<u64> {
        let found = self.config_matches(&command.namespace, command.filter.as_ref()).await?;
        let rest = (found.len() as u64).saturating_sub(command.skip);
        Ok(command.limit.map_or(rest, |limit| rest.min(limit)))
    }

    /// `distinct`.
    pub(crate) async fn distinct_config(&self, command: &DistinctCommand) -> Result<Vec<Bson>> {
        let mut distinct = Distinct::new(Path::parse_bounded(&command.key)?);
        let found = self.config_matches(&command.namespace, command.filter.as_ref()).await?;
        found.iter().try_for_each(|document| distinct.add(DocRef::Tree(document)))?;
        Ok(distinct.into_values())
    }

    async fn config_matches(
        &self,
        namespace: &Namespace,
        filter: Option<&document::DocBuf>,
    ) -> Result<Vec<Document>> {
        let filter = parse::filter(filter, &Variables::default())?;
        let mut documents = self.config_documents(&namespace.collection).await?;
        let context = self.eval_context(Variables::default());
        keep_matches(&filter, &mut documents, &context)?;
        Ok(documents)
    }

    /// The documents of one of the database's collections, those with an order in it. None for any other name.
    async fn config_documents(&self, collection: &str) -> Result<Vec<Document>> {
        let catalog = self.catalog_now().await?;
        Ok(match collection {
            "chunks" => self.chunks(&catalog),
            "collections" => catalog
                .active()
                .filter(|record| record.is_sharded())
                .map(|record| described(record))
                .collect(),
            "databases" => self.databases(&catalog),
            "mongos" => self.routers().await,
            "settings" => settings(&catalog),
            "shards" => data_nodes(&catalog).map(shard_of_node).collect(),
            "version" => vec![doc! { "_id": 1, "clusterName": &catalog.cluster().name }],
            _ => Vec::new(),
        })
    }

    /// One document for each shard of a sharded collection, in the order of hashes.
    fn chunks(&self, catalog: &Catalog) -> Vec<Document> {
        let sharded = catalog.active().filter(|record| record.is_sharded());
        let chunks = sharded.flat_map(|record| {
            let shards = record.shard_map.shards.iter().enumerate();
            shards.map(|(position, placement)| self.chunk(catalog, record, placement, position))
        });
        chunks.collect()
    }

    fn chunk(
        &self,
        catalog: &Catalog,
        record: &CollectionRecord,
        placement: &ShardPlacement,
        position: usize,
    ) -> Document {
        let (min, max) = bounds(record, placement);
        let major = u32::try_from(placement.since.get()).unwrap_or(u32::MAX);
        let minor = u32::try_from(position).unwrap_or(u32::MAX);
        let names: Vec<String> =
            placement.replicas.iter().map(|replica| name_of(catalog, replica.node)).collect();
        doc! {
            "_id": object_id(placement.shard.get()),
            "uuid": uuid(record),
            "min": min,
            "max": max,
            "shard": self.likely_primary(catalog, placement),
            "lastmod": Timestamp { time: major, increment: minor },
            "psdbShard": i64::try_from(placement.shard.get()).unwrap_or(i64::MAX),
            "psdbNodes": names,
        }
    }

    /// The name of the node of a shard's primary, as far as this node knows; else of the node that asks for votes first.
    pub(crate) fn likely_primary(&self, catalog: &Catalog, placement: &ShardPlacement) -> String {
        let here = self.host.shard(placement.shard).and_then(|replica| replica.leader_node());
        let heard = || self.primaries.lock().get(&placement.shard).copied();
        let first = || placement.replicas.first().map(|replica| replica.node);
        here.or_else(heard).or_else(first).map_or_else(String::new, |node| name_of(catalog, node))
    }

    /// One document for each database that has a collection; its primary is where its first collection begins.
    fn databases(&self, catalog: &Catalog) -> Vec<Document> {
        let mut databases: Vec<Document> = Vec::new();
        for record in catalog.active() {
            let name = &record.namespace.database;
            let is_known =
                databases.last().is_some_and(|last| last.get_str("_id").is_ok_and(|known| known == name));
            let Some(first) = record.shard_map.shards.first().filter(|_| !is_known) else { continue };
            databases.push(doc! {
                "_id": name,
                "primary": self.likely_primary(catalog, first),
                "version": { "uuid": uuid(record), "lastMod": 1 },
            });
        }
        databases
    }

    /// One document for each node: all of them are routers. The time is that of its answer, where it has answered.
    async fn routers(&self) -> Vec<Document> {
        let status = self.cluster_status().await;
        let nodes = status.get_array("nodes").into_iter().flatten().filter_map(Bson::as_document);
        let now_ms = self.clock.wall_ms();
        let router = |node: &Document| {
            let mut router = doc! { "_id": node.get_str("listen").unwrap_or_default() };
            if node.get_str("health").is_ok_and(|health| health == "up") {
                router.extend(doc! {
                    "ping": DateTime::from_millis(now_ms),
                    "up": node.get("uptimeSeconds").cloned().unwrap_or(Bson::Int64(0)),
                    "mongoVersion": node.get_str("version").unwrap_or_default(),
                });
            }
            router.extend(doc! { "waiting": true, "psdbNode": node.get_str("name").unwrap_or_default() });
            router
        };
        nodes.map(router).collect()
    }
}

/// `listCollections` of the database.
pub(crate) fn collections() -> Vec<CollectionInfo> {
    let info = |(position, name): (u8, &&str)| {
        let mut uuid = [0; 16];
        uuid[15] = position;
        CollectionInfo { name: (*name).to_owned(), uuid, options: Document::new() }
    };
    (1..).zip(COLLECTIONS.iter()).map(info).collect()
}

/// What a find does to documents, as the stages that do the same.
fn find_stages(command: &FindCommand, variables: &Variables) -> Result<Vec<Stage>> {
    let mut stages = Vec::new();
    if command.filter.is_some() {
        stages.push(Stage::Match(parse::filter(command.filter.as_ref(), variables)?));
    }
    if let Some(sort) = command.sort.as_ref().filter(|sort| !sort.as_doc().is_empty()) {
        stages.push(Stage::Sort { spec: SortSpec::parse(sort.as_doc())?, limit: None });
    }
    if command.skip > 0 {
        stages.push(Stage::Skip(command.skip));
    }
    stages.extend(command.limit.map(Stage::Limit));
    if let Some(projection) = command.projection.as_ref().filter(|given| !given.as_doc().is_empty()) {
        stages.push(Stage::Project(Projection::parse(projection.as_doc(), variables)?));
    }
    Ok(stages)
}

fn keep_matches(filter: &Filter, documents: &mut Vec<Document>, context: &EvalContext) -> Result<()> {
    let mut failure = Ok(());
    documents.retain(|document| match filter.matches(DocRef::Tree(document), context) {
        Ok(matches) => matches,
        Err(error) => {
            failure = Err(error);
            false
        }
    });
    failure
}

fn described(record: &CollectionRecord) -> Document {
    let epoch = record.shard_map.epoch.get();
    let version = Timestamp {
        time: u32::try_from(record.id.get()).unwrap_or(u32::MAX),
        increment: u32::try_from(epoch).unwrap_or(u32::MAX),
    };
    doc! {
        "_id": record.namespace.to_string(),
        "lastmod": DateTime::from_millis(i64::try_from(epoch).unwrap_or(i64::MAX)),
        "timestamp": version,
        "uuid": uuid(record),
        "key": record.shown_key(),
        "unique": false,
        "noBalance": false,
    }
}

/// What a shard owns, by the fields of the shard key. One hash stands for all of them: it is shown at the first.
fn bounds(record: &CollectionRecord, placement: &ShardPlacement) -> (Document, Document) {
    let (first, last) = (placement.first_hash(), placement.last_hash());
    let bound = |end: Option<Bson>, others: Bson| -> Document {
        let keys = record.shown_key();
        let value = |position: usize| match (position, &end) {
            (0, Some(hash)) => hash.clone(),
            _ => others.clone(),
        };
        keys.keys().enumerate().map(|(position, name)| (name.clone(), value(position))).collect()
    };
    let at = |hash: u64| Some(Bson::Int64(number_of_hash(hash)));
    let min = bound(if first == 0 { None } else { at(first) }, Bson::MinKey);
    let max = match last.checked_add(1) {
        None => bound(None, Bson::MaxKey),
        Some(next) => bound(at(next), Bson::MinKey),
    };
    (min, max)
}

fn settings(catalog: &Catalog) -> Vec<Document> {
    let balancer = catalog.cluster().balancer;
    let mode = if balancer.enabled { "full" } else { "off" };
    let megabytes = i64::try_from(balancer.split_bytes >> 20).unwrap_or(i64::MAX);
    vec![
        doc! { "_id": "balancer", "mode": mode, "stopped": !balancer.enabled },
        doc! { "_id": "chunksize", "value": megabytes },
    ]
}

fn data_nodes(catalog: &Catalog) -> impl Iterator<Item = &NodeRecord> {
    catalog.nodes().map(AsRef::as_ref).filter(|node: &&NodeRecord| node.is_member() && node.facts.storage)
}

/// A node that holds data, as a shard of MongoDB: there, a shard is a place.
fn shard_of_node(node: &NodeRecord) -> Document {
    let tags: Vec<String> = node.facts.labels.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    let mut shard = doc! {
        "_id": &node.facts.name,
        "host": format!("psdb/{}", node.facts.listen),
        "state": 1,
        "tags": tags,
    };
    if node.state == NodeState::Draining {
        shard.insert("draining", true);
    }
    shard
}

pub(crate) fn name_of(catalog: &Catalog, node: base::NodeId) -> String {
    catalog.node(node).map_or_else(|| node.to_string(), |node| node.facts.name.clone())
}

fn uuid(record: &CollectionRecord) -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: record.uuid.to_vec() }
}

/// An ObjectId that is always the same for a number.
fn object_id(number: u64) -> ObjectId {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_bounds_are_in_the_order_of_their_hashes_and_lead_back_to_them() {
        let hashes = [0, 1, SIGN - 1, SIGN, SIGN + 1, u64::MAX];
        let numbers = hashes.map(number_of_hash);
        assert!(numbers.is_sorted(), "{numbers:?}");
        assert_eq!((numbers[0], numbers[3], numbers[5]), (i64::MIN, 0, i64::MAX));
        assert_eq!(numbers.map(hash_of_number), hashes);
    }
}
