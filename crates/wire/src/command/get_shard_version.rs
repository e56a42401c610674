//! `getShardVersion`: the version of a collection's shard map.

use base::Result;
use bson::Bson;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use super::balancer_collection_status::sharded;
use super::full_namespace::full_namespace;
use crate::call::Call;
use crate::fields::{Accepts, Field, ignored};
use crate::reply::Reply;

const FIELDS: &[Field] = &[ignored("fullMetadata", Accepts::BoolOrNumber, "config.chunks shows the shards")];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    admin_only: true,
    ..Spec::later("getShardVersion", "The version of a collection's shard map.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let collection = sharded(call, &full_namespace(call)?).await?;
        let mut reply = Reply::new();
        reply.value("version", collection.get("timestamp").unwrap_or(&Bson::Null));
        Ok(reply.ok())
    }
    .boxed()
}
