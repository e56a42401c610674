//! `split`: cuts the shard that owns a document, or that has the given bounds, in two halves.

use base::Result;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use super::full_namespace::{full_namespace, selector};
use crate::call::Call;
use crate::fields::{Accepts, Field, field};
use crate::reply::Reply;

/// Shards that come of one.
const PARTS: u32 = 2;

const FIELDS: &[Field] =
    &[field("bounds", Accepts::Array), field("find", Accepts::Object), field("middle", Accepts::Object)];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    admin_only: true,
    writes: true,
    ..Spec::later("split", "Cuts one shard into two of the same size.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let (namespace, shard) = (full_namespace(call)?, selector(call, &["find", "middle"])?);
        call.state.backend.split_shard(&call.context, &namespace, &shard, PARTS).await?;
        Ok(Reply::new().ok())
    }
    .boxed()
}
