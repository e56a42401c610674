//! `listShards`: the nodes that hold data. What MongoDB calls a shard is a place for data; that is a node here.

use base::{Namespace, Result};
use bson::{Bson, Document};
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::FindCommand;
use router::config_database::CONFIG_DATABASE;

use super::Spec;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec = Spec {
    aliases: &["listshards"],
    admin_only: true,
    ..Spec::later("listShards", "The nodes that hold data.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let shards: Vec<Bson> =
            config_documents(call, "shards").await?.into_iter().map(Bson::Document).collect();
        let mut reply = Reply::new();
        reply.values("shards", &shards);
        Ok(reply.ok())
    }
    .boxed()
}

/// The documents of a collection of the catalog's database, in one batch.
pub(crate) async fn config_documents(call: &Call<'_>, collection: &str) -> Result<Vec<Document>> {
    let namespace = Namespace::new(CONFIG_DATABASE, collection)?;
    let command =
        FindCommand { batch_size: Some(u64::MAX), single_batch: true, ..FindCommand::all(namespace) };
    let found = call.state.backend.find(&call.context, command).await?;
    Ok(found.batch.iter().map(|document| document.to_document()).collect())
}
