//! `listIndexes`: the indexes of a collection, as a cursor.

use base::Result;
use bson::doc;
use document::DocBuf;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use crate::call::Call;
use crate::fields::{Accepts, Field, ignored};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    ignored("cursor", Accepts::Object, "the first batch holds everything"),
    ignored("includeBuildUUIDs", Accepts::Bool, "meant for other servers"),
    ignored("includeIndexBuildInfo", Accepts::Bool, "meant for other servers"),
];

pub(crate) const SPEC: Spec =
    Spec { fields: FIELDS, api_v1: true, ..Spec::later("listIndexes", "The indexes of a collection.", run) };

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let namespace = call.namespace()?;
        let name = namespace.to_string();
        let indexes = call.state.backend.list_indexes(&call.context, namespace).await?;
        let mut batch = Vec::with_capacity(indexes.len());
        for index in &indexes {
            let mut described = doc! { "v": 2, "key": index.key_document(), "name": &index.name };
            // The index on `_id` is unique without saying so.
            if index.unique && index.id.get() != 0 {
                described.insert("unique", true);
            }
            batch.push(DocBuf::encode(&described)?);
        }
        let mut reply = Reply::new();
        reply.cursor(0, &name, "firstBatch", &batch);
        Ok(reply.ok())
    }
    .boxed()
}
