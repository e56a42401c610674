//! `abortReshardCollection`: gives up the cutting of shards that is under way; the shards stay as they were.

use base::Result;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use super::full_namespace::full_namespace;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec = Spec {
    admin_only: true,
    writes: true,
    ..Spec::later("abortReshardCollection", "Gives up a `reshardCollection` that is under way.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        call.state.backend.abort_reshard(&call.context, &full_namespace(call)?).await?;
        Ok(Reply::new().ok())
    }
    .boxed()
}
