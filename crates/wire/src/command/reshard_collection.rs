//! `reshardCollection`: another key, or another number of shards, for a sharded collection.

use base::Result;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Spec, shard_collection};
use crate::call::Call;
use crate::fields::{Accepts, Field, field, ignored, refused, required};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    refused("collation", Accepts::Object),
    ignored("forceRedistribution", Accepts::BoolOrNumber, "the balancer keeps shards even at any time"),
    ignored("implicitlyCreateIndex", Accepts::BoolOrNumber, "shards are chosen without an index"),
    required("key", Accepts::Object),
    field("numInitialChunks", Accepts::Integer),
    ignored("reshardingUUID", Accepts::Any, "asking again while it is under way is refused"),
    refused("shardDistribution", Accepts::Array),
    refused("unique", Accepts::BoolOrNumber),
    refused("zones", Accepts::Array),
];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    admin_only: true,
    writes: true,
    ..Spec::later(
        "reshardCollection",
        "Cuts a sharded collection anew, by another key or into more shards.",
        run,
    )
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let request = shard_collection::parse(call)?;
        call.state.backend.reshard_collection(&call.context, request).await?;
        Ok(Reply::new().ok())
    }
    .boxed()
}
