//! `listDatabases`: the databases of the cluster.

use base::Result;
use bson::{Bson, doc};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use super::list_collections::{matches, parse_filter};
use crate::call::Call;
use crate::fields::{Accepts, Field, field, ignored};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    ignored("authorizedDatabases", Accepts::BoolOrNumber, "there are no users yet"),
    field("filter", Accepts::Object),
    field("nameOnly", Accepts::BoolOrNumber),
];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    admin_only: true,
    api_v1: true,
    ..Spec::later("listDatabases", "The databases of the cluster.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let filter = parse_filter(call)?;
        let name_only = call.fields.bool("nameOnly").unwrap_or(false);
        let databases = call.state.backend.list_databases(&call.context).await?;
        let mut listed = Vec::with_capacity(databases.len());
        let mut total_bytes = 0_i64;
        for database in &databases {
            let bytes = i64::try_from(database.size_on_disk_bytes).unwrap_or(i64::MAX);
            let described = doc! { "name": &database.name, "sizeOnDisk": bytes, "empty": false };
            if !matches(call, &filter, &described)? {
                continue;
            }
            total_bytes = total_bytes.saturating_add(bytes);
            let shown = if name_only {
                doc! { "name": &database.name }
            } else {
                described
            };
            listed.push(Bson::Document(shown));
        }
        let mut reply = Reply::new();
        reply.values("databases", &listed);
        if !name_only {
            reply.i64("totalSize", total_bytes);
            reply.i64("totalSizeMb", total_bytes / (1024 * 1024));
        }
        Ok(reply.ok())
    }
    .boxed()
}
