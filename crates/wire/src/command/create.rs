//! `create`: makes a collection.

use base::Result;
use bson::Document;
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::CreateCommand;

use super::Spec;
use crate::call::Call;
use crate::fields::{Accepts, Field, ignored, refused};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    ignored("autoIndexId", Accepts::BoolOrNumber, "there always is an index on `_id`"),
    refused("capped", Accepts::BoolOrNumber),
    refused("changeStreamPreAndPostImages", Accepts::Object),
    refused("clusteredIndex", Accepts::Any),
    refused("collation", Accepts::Object),
    refused("encryptedFields", Accepts::Object),
    refused("expireAfterSeconds", Accepts::Any),
    ignored("flags", Accepts::Any, "legacy"),
    ignored("idIndex", Accepts::Object, "the index on `_id` is always the same"),
    ignored("indexOptionDefaults", Accepts::Object, "there is one storage engine"),
    ignored("max", Accepts::Integer, "means something for capped collections only"),
    refused("pipeline", Accepts::Array),
    ignored("size", Accepts::Integer, "means something for capped collections only"),
    ignored("storageEngine", Accepts::Object, "there is one storage engine"),
    refused("timeseries", Accepts::Object),
    ignored("validationAction", Accepts::String, "means something with a validator only"),
    ignored("validationLevel", Accepts::String, "means something with a validator only"),
    refused("validator", Accepts::Object),
    refused("viewOn", Accepts::String),
];

pub(crate) const SPEC: Spec =
    Spec { fields: FIELDS, writes: true, api_v1: true, ..Spec::later("create", "Makes a collection.", run) };

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let command = CreateCommand { namespace: call.namespace()?, options: Document::new() };
        call.state.backend.create(&call.context, command).await?;
        Ok(Reply::new().ok())
    }
    .boxed()
}
