//! `collStats`: sizes of a collection.

use std::collections::BTreeMap;

use base::{Error, Result};
use bson::{Bson, Document};
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::CollectionStats;

use super::Spec;
use crate::call::Call;
use crate::fields::{Accepts, Field, field};
use crate::reply::Reply;

const FIELDS: &[Field] = &[field("scale", Accepts::Integer)];

pub(crate) const SPEC: Spec = Spec {
    aliases: &["collstats"],
    fields: FIELDS,
    ..Spec::later("collStats", "Sizes of a collection.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let namespace = call.namespace()?;
        let name = namespace.to_string();
        let scale = scale(call)?;
        let Some(nodes) = call.state.backend.statistics_by_node(&call.context, &namespace).await? else {
            let stats = call.state.backend.collection_stats(&call.context, namespace).await?;
            return Ok(reply(&name, &stats, scale, None));
        };
        let mut total = CollectionStats::default();
        nodes.values().for_each(|part| total.add(part.clone()));
        Ok(reply(&name, &total, scale, Some(&nodes)))
    }
    .boxed()
}

/// The unit that sizes are given in, in bytes.
pub(crate) fn scale(call: &Call<'_>) -> Result<u64> {
    match call.fields.integer("scale")? {
        None => Ok(1),
        Some(scale) => u64::try_from(scale).ok().filter(|scale| *scale > 0).ok_or_else(|| {
            Error::bad_value(format!("BSON field 'scale' value must be >= 1, actual value '{scale}'"))
        }),
    }
}

/// Each node's part of a sharded collection.
type ByNode = BTreeMap<String, CollectionStats>;

fn reply(namespace: &str, stats: &CollectionStats, scale: u64, nodes: Option<&ByNode>) -> Reply {
    let mut reply = Reply::new();
    reply.bool("sharded", nodes.is_some());
    sizes(&mut reply, namespace, stats, scale);
    if let Some(nodes) = nodes {
        reply.begin_document("shards");
        for (name, part) in nodes {
            reply.begin_document(name);
            sizes(&mut reply, namespace, part, scale);
            reply.end();
        }
        reply.end();
    }
    reply.ok()
}

fn sizes(reply: &mut Reply, namespace: &str, stats: &CollectionStats, scale: u64) {
    let index_bytes: u64 = stats.indexes.iter().map(|(_, bytes)| *bytes).sum();
    reply.str("ns", namespace);
    reply.bool("capped", false);
    reply.count("size", stats.data_bytes / scale);
    reply.count("count", stats.documents);
    reply.count("numOrphanDocs", 0);
    if let Some(average) = stats.data_bytes.checked_div(stats.documents) {
        reply.count("avgObjSize", average);
    }
    reply.count("storageSize", stats.storage_bytes / scale);
    reply.count("nindexes", stats.indexes.len() as u64);
    let sizes: Document = stats
        .indexes
        .iter()
        .map(|(name, bytes)| (name.clone(), Bson::Int64(i64::try_from(bytes / scale).unwrap_or(i64::MAX))))
        .collect();
    reply.value("indexSizes", &Bson::Document(sizes));
    reply.count("totalIndexSize", index_bytes / scale);
    reply.count("totalSize", stats.storage_bytes / scale);
    reply.count("nchunks", stats.shards as u64);
    reply.count("scaleFactor", scale);
}
