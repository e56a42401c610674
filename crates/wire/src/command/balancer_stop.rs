//! `balancerStop`: leaves shards where they are; replicas are rebuilt and nodes are drained all the same.

use base::Result;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec =
    Spec { admin_only: true, ..Spec::later("balancerStop", "Switches the balancer off.", run) };

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        call.state.backend.set_balancer(false).await?;
        Ok(Reply::new().ok())
    }
    .boxed()
}
