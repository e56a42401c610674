//! `psdbStatus`: the cluster's nodes and shards, for `psdb status`.

use base::Result;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec = Spec {
    admin_only: true,
    ..Spec::later("psdbStatus", "The cluster's nodes, shards and replicas; PSDB's own.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move { Ok(Reply::from_document(&call.state.backend.cluster_status().await).ok()) }.boxed()
}
