//! `find`: documents by filter, as a cursor.

use base::{Error, Result};
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::{CursorReply, FindCommand};

use super::{Counts, Spec, Timed};
use crate::call::Call;
use crate::fields::{Accepts, Field, field, ignored, refused};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    ignored("allowDiskUse", Accepts::BoolOrNumber, "sorts stay in memory, within their limit"),
    ignored("allowPartialResults", Accepts::BoolOrNumber, "an unreachable shard is an error"),
    refused("awaitData", Accepts::BoolOrNumber),
    field("batchSize", Accepts::Integer),
    refused("collation", Accepts::Object),
    field("filter", Accepts::Object),
    field("hint", Accepts::StringOrObject),
    field("let", Accepts::Object),
    field("limit", Accepts::Integer),
    refused("max", Accepts::Object),
    refused("min", Accepts::Object),
    ignored("noCursorTimeout", Accepts::BoolOrNumber, "idle cursors always expire"),
    ignored("oplogReplay", Accepts::BoolOrNumber, "deprecated"),
    field("projection", Accepts::Object),
    ignored("readOnce", Accepts::BoolOrNumber, "internal"),
    refused("returnKey", Accepts::BoolOrNumber),
    refused("showRecordId", Accepts::BoolOrNumber),
    field("singleBatch", Accepts::BoolOrNumber),
    field("skip", Accepts::Integer),
    field("sort", Accepts::Object),
    refused("tailable", Accepts::BoolOrNumber),
    refused("term", Accepts::Any),
];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    api_v1: true,
    counts: Counts::Query,
    timed: Timed::Read,
    ..Spec::later("find", "Documents by filter, as a cursor.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let outcome = call.state.backend.find(&call.context, parse(call)?).await?;
        Ok(first_batch(&outcome))
    }
    .boxed()
}

/// The typed command.
pub(crate) fn parse(call: &Call<'_>) -> Result<FindCommand> {
    Ok(FindCommand {
        namespace: call.namespace()?,
        filter: call.document("filter"),
        sort: call.document("sort"),
        projection: call.document("projection"),
        skip: call.fields.non_negative("skip")?.unwrap_or(0),
        limit: call.fields.non_negative("limit")?.filter(|limit| *limit > 0),
        batch_size: call.fields.non_negative("batchSize")?,
        single_batch: call.fields.bool("singleBatch").unwrap_or(false),
        hint: call.hint(),
        variables: call.variables()?,
    })
}

/// The reply that opens a cursor.
pub(crate) fn first_batch(outcome: &CursorReply) -> Reply {
    let mut reply = Reply::new();
    reply.cursor(
        outcome.cursor.map_or(0, |cursor| cursor.0),
        &outcome.namespace,
        "firstBatch",
        &outcome.batch,
    );
    reply.ok()
}

/// `BadValue` for an enumeration's value that is not one.
pub(crate) fn not_an_enumerator(value: &str, field: &str) -> Error {
    Error::bad_value(format!("Enumeration value '{value}' for field '{field}' is not a valid value."))
}
