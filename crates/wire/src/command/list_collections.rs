//! `listCollections`: the collections of a database, as a cursor.

use base::Result;
use bson::{Binary, Document, doc, spec::BinarySubtype};
use document::filter::Filter;
use document::{DocBuf, DocRef, EvalContext, Variables};
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::CollectionInfo;

use super::Spec;
use crate::call::Call;
use crate::fields::{Accepts, Field, field, ignored};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    ignored("authorizedCollections", Accepts::BoolOrNumber, "there are no users yet"),
    ignored("cursor", Accepts::Object, "the first batch holds everything"),
    field("filter", Accepts::Object),
    field("nameOnly", Accepts::BoolOrNumber),
];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    api_v1: true,
    ..Spec::later("listCollections", "The collections of a database.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let filter = parse_filter(call)?;
        let name_only = call.fields.bool("nameOnly").unwrap_or(false);
        let collections = call.state.backend.list_collections(&call.context, call.database).await?;
        let mut batch = Vec::with_capacity(collections.len());
        for collection in &collections {
            let described = describe(collection);
            if matches(call, &filter, &described)? {
                let shown = if name_only { names(collection) } else { described };
                batch.push(DocBuf::encode(&shown)?);
            }
        }
        let mut reply = Reply::new();
        let namespace = format!("{}.$cmd.listCollections", call.database);
        reply.cursor(0, &namespace, "firstBatch", &batch);
        Ok(reply.ok())
    }
    .boxed()
}

/// The command's `filter`.
pub(crate) fn parse_filter(call: &Call<'_>) -> Result<Option<Filter>> {
    let filter = call.document("filter");
    filter.map(|filter| Filter::parse(filter.as_doc(), &Variables::default())).transpose()
}

/// Whether a described item passes the filter.
pub(crate) fn matches(call: &Call<'_>, filter: &Option<Filter>, item: &Document) -> Result<bool> {
    let Some(filter) = filter else { return Ok(true) };
    let now = bson::DateTime::from_millis(call.state.clock.wall_ms());
    filter.matches(DocRef::Tree(item), &EvalContext::new(now, base::Timestamp::default()))
}

fn names(collection: &CollectionInfo) -> Document {
    doc! { "name": &collection.name, "type": "collection" }
}

fn describe(collection: &CollectionInfo) -> Document {
    let uuid = Binary { subtype: BinarySubtype::Uuid, bytes: collection.uuid.to_vec() };
    doc! {
        "name": &collection.name,
        "type": "collection",
        "options": collection.options.clone(),
        "info": { "readOnly": false, "uuid": uuid },
        "idIndex": { "v": 2, "key": { "_id": 1 }, "name": "_id_" },
    }
}
