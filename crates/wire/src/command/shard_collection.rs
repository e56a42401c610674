//! `shardCollection`: cuts a collection into shards by the hash of a key; creates it when it is absent.

use base::{Code, Error, Namespace, Result};
use bson::{Bson, Document};
use futures::FutureExt;
use futures::future::BoxFuture;
use router::ShardRequest;
use router::command::{CreateIndexesCommand, IndexRequest};

use super::Spec;
use super::full_namespace::full_namespace;
use crate::call::Call;
use crate::fields::{Accepts, Field, field, ignored, refused, required};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    refused("collation", Accepts::Object),
    ignored("enforceUniquenessCheck", Accepts::BoolOrNumber, "uniqueness is always checked"),
    ignored("implicitlyCreateIndex", Accepts::BoolOrNumber, "shards are chosen without an index"),
    required("key", Accepts::Object),
    field("numInitialChunks", Accepts::Integer),
    refused("presplitHashedZones", Accepts::BoolOrNumber),
    refused("timeseries", Accepts::Object),
    field("unique", Accepts::BoolOrNumber),
];

pub(crate) const SPEC: Spec = Spec {
    aliases: &["shardcollection"],
    fields: FIELDS,
    admin_only: true,
    writes: true,
    ..Spec::later("shardCollection", "Cuts a collection into shards by the hash of a key.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let request = parse(call)?;
        let namespace = request.namespace.clone();
        if call.fields.bool("unique") == Some(true) {
            make_unique(call, &namespace, &request.key).await?;
        }
        call.state.backend.shard_collection(&call.context, request).await?;
        let mut reply = Reply::new();
        reply.str("collectionsharded", &namespace.to_string());
        Ok(reply.ok())
    }
    .boxed()
}

/// What is asked for, by the fields that `reshardCollection` has too. Fails with `InvalidOptions` (72) on a number of shards that
/// cannot be.
pub(crate) fn parse(call: &Call<'_>) -> Result<ShardRequest> {
    let shards = call.fields.integer("numInitialChunks")?.map(|count| {
        u32::try_from(count).map_err(|_| {
            let message = format!("numInitialChunks cannot be {count}");
            Error::new(Code::INVALID_OPTIONS, message)
        })
    });
    Ok(ShardRequest {
        namespace: full_namespace(call)?,
        key: call.document("key").map(|key| key.to_document()).unwrap_or_default(),
        shards: shards.transpose()?,
    })
}

/// Gives the collection the unique index that keeps the key unique. The one on `_id` is always there.
async fn make_unique(call: &Call<'_>, namespace: &Namespace, key: &Document) -> Result<()> {
    if key.values().any(|order| matches!(order, Bson::String(_))) {
        let message = "a hashed shard key cannot be unique: write the key with 1 in the place of \"hashed\"";
        return Err(Error::new(Code::INVALID_OPTIONS, message));
    }
    if key.keys().eq(["_id"]) {
        return Ok(());
    }
    let names: Vec<String> = key.keys().map(|path| format!("{path}_1")).collect();
    let index = IndexRequest { key: key.clone(), name: names.join("_"), unique: true };
    let command = CreateIndexesCommand { namespace: namespace.clone(), indexes: vec![index] };
    call.state.backend.create_indexes(&call.context, command).await.map(drop)
}
