//! Sizes of a collection by shard and by node: `$collStats` and `collStats` of sharded collections, `$shardedDataDistribution`.
//!
//! Called by `aggregate` and by `wire`. Always holds: each shard is counted once, by its primary.

use std::collections::BTreeMap;

use base::{Namespace, NodeId, Result};
use bson::{Bson, Document, doc};

use crate::command::CollectionStats;
use crate::config_database::name_of;
use crate::gather::{Asked, unexpected};
use crate::peer::{Operation, OperationReply};
use crate::resolve::all_places;
use crate::retry::Attempts;
use crate::{OperationContext, Router};

impl Router {
    /// The part of a sharded collection that each node has primaries of, by the node's name. `None` for a collection that is
    /// not sharded, or not there.
    pub async fn statistics_by_node(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
    ) -> Result<Option<BTreeMap<String, CollectionStats>>> {
        let record = self.collection(namespace).await?;
        if !record.is_some_and(|record| record.is_sharded()) {
            return Ok(None);
        }
        let mut by_node: BTreeMap<String, CollectionStats> = BTreeMap::new();
        let catalog = self.catalog_copy();
        for (node, stats) in self.statistics_by_shard(cx, namespace).await? {
            by_node.entry(name_of(&catalog, node)).or_default().add(stats);
        }
        Ok(Some(by_node))
    }

    /// The rows of `$shardedDataDistribution`: one for each sharded collection.
    pub(crate) async fn data_distribution(&self, cx: &OperationContext) -> Result<Vec<Document>> {
        let catalog = self.catalog_now().await?;
        let mut rows = Vec::new();
        for record in catalog.active().filter(|record| record.is_sharded()) {
            // One that was dropped meanwhile has no row.
            let Some(by_node) = self.statistics_by_node(cx, &record.namespace).await? else { continue };
            let shard = |(name, stats): (&String, &CollectionStats)| {
                Bson::Document(doc! {
                    "shardName": name,
                    "numOrphanedDocs": 0,
                    "numOwnedDocuments": long(stats.documents),
                    "ownedSizeBytes": long(stats.data_bytes),
                    "orphanedSizeBytes": 0,
                })
            };
            let shards: Vec<Bson> = by_node.iter().map(shard).collect();
            rows.push(doc! { "ns": record.namespace.to_string(), "shards": shards });
        }
        Ok(rows)
    }

    /// What each shard's primary says, with its node; asked again until all have answered.
    async fn statistics_by_shard(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
    ) -> Result<Vec<(NodeId, CollectionStats)>> {
        let mut cx = cx.clone();
        cx.identity.get_or_insert_with(|| self.next_request());
        let mut attempts = Attempts::new(self);
        loop {
            let Some(record) = self.collection(namespace).await? else { return Ok(Vec::new()) };
            let ask = |place| {
                let operation = Operation::CollectionStats(namespace.clone());
                Asked { place, node: None, operation }
            };
            let asked = all_places(&record).into_iter().map(ask).collect();
            let answers = self.attempt_all(&cx, asked, &mut 0).await;
            match answers.into_iter().map(|answer| answer.and_then(stats_of)).collect() {
                Ok(stats) => return Ok(stats),
                Err(error) => {
                    self.note_unserved(&error).await?;
                    attempts.again(self, &cx, error).await?;
                }
            }
        }
    }
}

impl CollectionStats {
    /// Adds what another shard of the collection has.
    pub fn add(&mut self, part: CollectionStats) {
        self.documents += part.documents;
        self.data_bytes += part.data_bytes;
        self.storage_bytes += part.storage_bytes;
        self.shards += part.shards;
        for (name, bytes) in part.indexes {
            match self.indexes.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += bytes,
                None => self.indexes.push((name, bytes)),
            }
        }
    }
}

fn stats_of((node, reply): (NodeId, OperationReply)) -> Result<(NodeId, CollectionStats)> {
    match reply {
        OperationReply::CollectionStats(stats) => Ok((node, stats)),
        other => Err(unexpected(&other)),
    }
}

fn long(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
