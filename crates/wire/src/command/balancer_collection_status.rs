//! `balancerCollectionStatus`: whether there is anything that the balancer would do.

use base::{Code, Error, Namespace, Result};
use bson::Document;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use super::full_namespace::full_namespace;
use super::list_shards::config_documents;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec = Spec {
    admin_only: true,
    ..Spec::later("balancerCollectionStatus", "Whether the balancer has something to do.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        sharded(call, &full_namespace(call)?).await?;
        let settings = call.state.backend.balancer_settings().await?;
        let proposals = call.state.backend.explain_balancer().await?;
        let mut reply = Reply::new();
        reply.count("chunkSize", settings.split_bytes >> 20);
        // What is uneven is so for all collections together.
        reply.bool("balancerCompliant", proposals.is_empty());
        if let Some(first) = proposals.first() {
            reply.str("firstComplianceViolation", "chunksImbalance");
            reply.str("details", first);
        }
        Ok(reply.ok())
    }
    .boxed()
}

/// The document of `config.collections` on a collection. Fails with `NamespaceNotSharded` (118).
pub(crate) async fn sharded(call: &Call<'_>, namespace: &Namespace) -> Result<Document> {
    let name = namespace.to_string();
    let documents = config_documents(call, "collections").await?;
    let found =
        documents.into_iter().find(|document| document.get_str("_id").is_ok_and(|known| known == name));
    found.ok_or_else(|| Error::new(Code::NAMESPACE_NOT_SHARDED, format!("Collection {name} is not sharded")))
}
