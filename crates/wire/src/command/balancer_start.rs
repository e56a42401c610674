//! `balancerStart`: has shards be kept even over the nodes.

use base::Result;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec =
    Spec { admin_only: true, ..Spec::later("balancerStart", "Switches the balancer on.", run) };

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        call.state.backend.set_balancer(true).await?;
        Ok(Reply::new().ok())
    }
    .boxed()
}
