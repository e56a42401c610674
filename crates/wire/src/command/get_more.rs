//! `getMore`: the next batch of a cursor.

use base::{Error, Result};
use document::{Kind, Value};
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::{CursorId, GetMoreCommand};

use super::{Counts, Spec, Timed};
use crate::call::Call;
use crate::fields::{Accepts, Field, field, refused, required};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    field("batchSize", Accepts::Integer),
    required("collection", Accepts::String),
    refused("lastKnownCommittedOpTime", Accepts::Any),
    refused("term", Accepts::Any),
];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    api_v1: true,
    counts: Counts::GetMore,
    timed: Timed::Read,
    ..Spec::later("getMore", "The next batch of a cursor.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let outcome = call.state.backend.get_more(&call.context, parse(call)?).await?;
        let mut reply = Reply::new();
        let id = outcome.cursor.map_or(0, |cursor| cursor.0);
        reply.cursor(id, &outcome.namespace, "nextBatch", &outcome.batch);
        reply.streams = outcome.cursor.is_some();
        Ok(reply.ok())
    }
    .boxed()
}

fn parse(call: &Call<'_>) -> Result<GetMoreCommand> {
    let cursor = match call.target.decode() {
        Some(Value::Int64(id)) => CursorId(id),
        other => {
            let kind = other.map_or(Kind(0), |value| value.kind()).name();
            return Err(Error::type_mismatch(format!(
                "BSON field 'getMore.getMore' is the wrong type '{kind}', expected type 'long'"
            )));
        }
    };
    let collection = call.fields.str("collection").unwrap_or_default();
    if collection.is_empty() {
        let message = format!("Invalid namespace specified '{}.'", call.database);
        return Err(Error::new(base::Code::INVALID_NAMESPACE, message));
    }
    Ok(GetMoreCommand {
        cursor,
        // Cursors of commands on a database live under names that are no collection's, `$cmd.aggregate`.
        namespace: format!("{}.{collection}", call.database),
        // Zero means no limit of its own, as does a missing size.
        batch_size: call.fields.non_negative("batchSize")?.filter(|size| *size > 0),
    })
}
