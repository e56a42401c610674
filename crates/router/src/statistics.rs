//! Sizes of collections, and `validate`.

use std::sync::Arc;

use base::{Code, Error, IndexId, Namespace, Result};
use bson::{Bson, Document, doc};
use catalog::{CollectionRecord, IndexSpec};
use query::execute::{ValidationReport, collection_count};
use query::state::ShardState;
use storage::{Direction, View};
use tokio::sync::oneshot;

use crate::command::CollectionStats;
use crate::definition::live_indexes;
use crate::resolve::Place;
use crate::{OperationContext, Router};

/// Entries of an index that are looked at to estimate its size.
const SAMPLED_ENTRIES: usize = 200;

impl Router {
    /// `collStats` of this node's replica of a shard.
    pub(crate) async fn collection_stats_here(&self, place: Option<&Place>) -> Result<CollectionStats> {
        let Some(place) = place else { return Ok(CollectionStats::default()) };
        let Some((view, _)) = self.view(&OperationContext::default(), place).await? else {
            return Ok(CollectionStats::default());
        };
        let count = self.step(collection_count(view.as_ref()))?;
        let indexes = live_indexes(&place.record).map(|spec| {
            let bytes =
                self.step(sampled_index_bytes(view.as_ref(), spec, count.documents).map_err(Into::into))?;
            Ok((spec.name.clone(), bytes))
        });
        Ok(CollectionStats {
            documents: count.documents,
            data_bytes: count.bytes,
            storage_bytes: self.shard_of(place)?.size_bytes()?,
            indexes: indexes.collect::<Result<_>>()?,
            shards: 1,
        })
    }

    /// The rows of `$collStats`: one, or for a sharded collection one for each node that has primaries of it. `storageStats` and
    /// `count`, when asked for. Fails with `NamespaceNotFound` (26), or with 40415 for a part that is not known.
    pub(crate) async fn statistics_rows(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        argument: &Document,
    ) -> Result<Vec<Document>> {
        if self.collection(namespace).await?.is_none() {
            let message = format!("Collection [{namespace}] not found.");
            return Err(Error::new(Code::NAMESPACE_NOT_FOUND, message));
        }
        let parts = match self.statistics_by_node(cx, namespace).await? {
            Some(by_node) => by_node.into_iter().map(|(name, stats)| (Some(name), stats)).collect(),
            None => vec![(None, self.collection_stats(cx, namespace.clone()).await?)],
        };
        let row = |(node, stats): (Option<String>, CollectionStats)| {
            self.statistics_row(namespace, node, &stats, argument)
        };
        parts.into_iter().map(row).collect()
    }

    fn statistics_row(
        &self,
        namespace: &Namespace,
        node: Option<String>,
        stats: &CollectionStats,
        argument: &Document,
    ) -> Result<Document> {
        let mut row = doc! { "ns": namespace.to_string() };
        if let Some(node) = node {
            row.insert("shard", node);
        }
        row.insert("localTime", bson::DateTime::from_millis(self.clock.wall_ms()));
        for (part, options) in argument {
            match part.as_str() {
                "storageStats" => row.insert(part, storage_stats(stats, scale(options)?)),
                "count" => row.insert(part, number(stats.documents)),
                _ => {
                    let message = format!("BSON field '$collStats.{part}' is an unknown field.");
                    return Err(Error::new(Code::UNKNOWN_FIELD, message));
                }
            };
        }
        Ok(row)
    }

    /// `validate` of this node's replica of a shard.
    pub(crate) async fn validate_here(
        &self,
        place: Option<&Place>,
        namespace: &Namespace,
    ) -> Result<Document> {
        let missing = || {
            let message = format!("Collection '{namespace}' does not exist to validate.");
            Error::new(Code::NAMESPACE_NOT_FOUND, message)
        };
        let place = place.ok_or_else(missing)?;
        let (view, state) = self.view(&OperationContext::default(), place).await?.ok_or_else(missing)?;
        let (tell, told) = oneshot::channel();
        self.spawner.blocking(Box::new(move || {
            // A client that is gone does not listen.
            let _ = tell.send(check(&state, &view));
        }));
        let ended = || Error::new(Code::INTERRUPTED_AT_SHUTDOWN, "the node stops before it has validated");
        let report = told.await.map_err(|_| ended())?;
        let report = self.step(report.map_err(Into::into))?;
        Ok(validation_reply(&place.record, &report))
    }

    /// Bytes on disk of a collection's shards on this node.
    pub(crate) fn size_on_disk_bytes(&self, record: &CollectionRecord) -> Result<u64> {
        let sizes = record.shard_map.shards.iter().filter_map(|placement| self.host.shard(placement.shard));
        sizes.map(|shard| shard.size_bytes()).sum()
    }
}

/// `scale` of `storageStats`: what sizes are divided by.
fn scale(options: &Bson) -> Result<u64> {
    let scale = options.as_document().and_then(|options| options.get("scale"));
    let value = match scale {
        None => Some(1),
        Some(Bson::Int32(value)) => u64::try_from(*value).ok(),
        Some(Bson::Int64(value)) => u64::try_from(*value).ok(),
        Some(Bson::Double(value)) => Some(*value as u64),
        Some(_) => None,
    };
    value
        .filter(|value| *value > 0)
        .ok_or_else(|| Error::bad_value("$collStats.storageStats.scale must be a number above 0"))
}

fn storage_stats(stats: &CollectionStats, scale: u64) -> Document {
    let sizes: Document =
        stats.indexes.iter().map(|(name, bytes)| (name.clone(), number(bytes / scale))).collect();
    let index_bytes: u64 = stats.indexes.iter().map(|(_, bytes)| bytes).sum();
    let mut document = doc! { "size": number(stats.data_bytes / scale), "count": number(stats.documents) };
    if let Some(average) = stats.data_bytes.checked_div(stats.documents) {
        document.insert("avgObjSize", number(average));
    }
    document.extend(doc! {
        "storageSize": number(stats.storage_bytes / scale),
        "capped": false,
        "nindexes": number(stats.indexes.len() as u64),
        "indexBuilds": [],
        "totalIndexSize": number(index_bytes / scale),
        "totalSize": number(stats.storage_bytes / scale),
        "indexSizes": sizes,
        "scaleFactor": number(scale),
    });
    document
}

fn check(state: &Arc<ShardState>, view: &Arc<dyn View>) -> storage::Result<ValidationReport> {
    query::execute::validate(state, view.as_ref())
}

fn validation_reply(record: &CollectionRecord, report: &ValidationReport) -> Document {
    let keys: Document =
        report.keys_per_index.iter().map(|(name, keys)| (name.clone(), number(*keys))).collect();
    let details: Document = report
        .keys_per_index
        .iter()
        .map(|(name, _)| (name.clone(), doc! { "valid": report.is_valid() }.into()))
        .collect();
    doc! {
        "ns": record.namespace.to_string(),
        "uuid": bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: record.uuid.to_vec() },
        "nInvalidDocuments": number(report.invalid_documents),
        "nNonCompliantDocuments": number(0),
        "nrecords": number(report.documents),
        "nIndexes": number(report.keys_per_index.len() as u64),
        "keysPerIndex": keys,
        "indexDetails": details,
        "valid": report.is_valid(),
        "repaired": false,
        "warnings": [],
        "errors": &report.errors,
        "extraIndexEntries": [],
        "missingIndexEntries": [],
        "corruptRecords": [],
    }
}

/// As MongoDB writes counts: 32 bits when they fit.
fn number(value: u64) -> Bson {
    i32::try_from(value).map_or_else(|_| (value as i64).into(), Into::into)
}

/// The size of an index: the mean of its first entries, for as many entries as there are documents.
fn sampled_index_bytes(view: &dyn View, spec: &IndexSpec, documents: u64) -> storage::Result<u64> {
    let range = match spec.id {
        IndexId(0) => query::encoding::document_range(),
        id => query::encoding::index_range(id),
    };
    let (mut entries, mut bytes) = (0_u64, 0_u64);
    for pair in view.scan(range, Direction::Forward).take(SAMPLED_ENTRIES) {
        let (key, value) = pair?;
        entries += 1;
        // The index on _id is the document keys: their values are the documents, counted as data.
        bytes += key.len() as u64 + if spec.id == IndexId(0) { 0 } else { value.len() as u64 };
    }
    Ok(if entries < SAMPLED_ENTRIES as u64 { bytes } else { bytes / entries * documents.max(entries) })
}
