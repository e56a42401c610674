//! `dbStats`: sizes of a database.

use base::{Code, Namespace, Result};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use super::coll_stats::scale;
use crate::call::Call;
use crate::fields::{Accepts, Field, field, ignored};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    ignored("freeStorage", Accepts::Integer, "the store reports no free space of its own"),
    field("scale", Accepts::Integer),
];

pub(crate) const SPEC: Spec =
    Spec { aliases: &["dbstats"], fields: FIELDS, ..Spec::later("dbStats", "Sizes of a database.", run) };

#[derive(Default)]
struct Totals {
    collections: u64,
    documents: u64,
    data_bytes: u64,
    storage_bytes: u64,
    indexes: u64,
    index_bytes: u64,
}

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let scale = scale(call)?;
        let totals = totals(call).await?;
        let mut reply = Reply::new();
        reply.str("db", call.database);
        reply.count("collections", totals.collections);
        reply.count("views", 0);
        reply.count("objects", totals.documents);
        reply.f64("avgObjSize", totals.data_bytes as f64 / totals.documents.max(1) as f64);
        reply.f64("dataSize", (totals.data_bytes / scale) as f64);
        reply.f64("storageSize", (totals.storage_bytes / scale) as f64);
        reply.count("indexes", totals.indexes);
        reply.f64("indexSize", (totals.index_bytes / scale) as f64);
        reply.f64("totalSize", (totals.storage_bytes / scale) as f64);
        reply.count("scaleFactor", scale);
        Ok(reply.ok())
    }
    .boxed()
}

async fn totals(call: &Call<'_>) -> Result<Totals> {
    let mut totals = Totals::default();
    for collection in call.state.backend.list_collections(&call.context, call.database).await? {
        let namespace = Namespace::new(call.database, &collection.name)?;
        let stats = match call.state.backend.collection_stats(&call.context, namespace).await {
            Ok(stats) => stats,
            // Dropped since it was listed.
            Err(error) if error.code == Code::NAMESPACE_NOT_FOUND => continue,
            Err(error) => return Err(error),
        };
        totals.collections += 1;
        totals.documents += stats.documents;
        totals.data_bytes += stats.data_bytes;
        totals.storage_bytes += stats.storage_bytes;
        totals.indexes += stats.indexes.len() as u64;
        totals.index_bytes += stats.indexes.iter().map(|(_, bytes)| *bytes).sum::<u64>();
    }
    Ok(totals)
}
