//! `count`: how many documents match.

use base::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::CountCommand;

use super::{Spec, Timed};
use crate::call::Call;
use crate::fields::{Accepts, Field, field, ignored, refused};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    refused("collation", Accepts::Object),
    refused("collectionUUID", Accepts::Any),
    refused("encryptionInformation", Accepts::Object),
    ignored("fields", Accepts::Any, "legacy"),
    field("hint", Accepts::StringOrObject),
    field("limit", Accepts::Integer),
    field("query", Accepts::Object),
    field("skip", Accepts::Integer),
];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    api_v1: true,
    timed: Timed::Read,
    ..Spec::later("count", "How many documents match.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let matches = call.state.backend.count(&call.context, parse(call)?).await?;
        let mut reply = Reply::new();
        reply.count("n", matches);
        Ok(reply.ok())
    }
    .boxed()
}

/// The typed command. A negative limit means the same as a positive one.
pub(crate) fn parse(call: &Call<'_>) -> Result<CountCommand> {
    Ok(CountCommand {
        namespace: call.namespace()?,
        filter: call.document("query"),
        skip: call.fields.non_negative("skip")?.unwrap_or(0),
        limit: call.fields.integer("limit")?.map(i64::unsigned_abs).filter(|limit| *limit > 0),
        hint: call.hint(),
    })
}
