//! `balancerStatus`: whether the balancer is on.

use base::Result;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec =
    Spec { admin_only: true, ..Spec::later("balancerStatus", "Whether the balancer is on.", run) };

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let settings = call.state.backend.balancer_settings().await?;
        let mut reply = Reply::new();
        reply.str("mode", if settings.enabled { "full" } else { "off" });
        // There are no rounds: what is to be done is done as soon as that shows.
        reply.bool("inBalancerRound", false);
        reply.count("numBalancerRounds", 0);
        Ok(reply.ok())
    }
    .boxed()
}
