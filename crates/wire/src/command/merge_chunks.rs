//! `mergeChunks`: neighbouring shards become one.

use base::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use router::ShardSelector;

use super::Spec;
use super::full_namespace::{bounds, full_namespace};
use crate::call::Call;
use crate::fields::{Accepts, Field, required};
use crate::reply::Reply;

const FIELDS: &[Field] = &[required("bounds", Accepts::Array)];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    admin_only: true,
    writes: true,
    ..Spec::later("mergeChunks", "Makes one shard of neighbours.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let namespace = full_namespace(call)?;
        let (first, last) = bounds(call)?;
        let (first, last) = (ShardSelector::Begin(first), ShardSelector::End(last));
        call.state.backend.merge_shards(&call.context, &namespace, &first, &last).await?;
        Ok(Reply::new().ok())
    }
    .boxed()
}
