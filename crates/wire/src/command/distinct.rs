//! `distinct`: the different values of a field.

use base::{Error, Result};
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::DistinctCommand;

use super::{Spec, Timed};
use crate::call::Call;
use crate::fields::{Accepts, Field, field, refused, required};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    refused("collation", Accepts::Object),
    refused("collectionUUID", Accepts::Any),
    field("hint", Accepts::StringOrObject),
    required("key", Accepts::String),
    field("query", Accepts::Object),
];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    api_v1: true,
    timed: Timed::Read,
    ..Spec::later("distinct", "The different values of a field.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let values = call.state.backend.distinct(&call.context, parse(call)?).await?;
        let mut reply = Reply::new();
        reply.values("values", &values);
        Ok(reply.ok())
    }
    .boxed()
}

/// The typed command.
pub(crate) fn parse(call: &Call<'_>) -> Result<DistinctCommand> {
    let key = call.fields.str("key").unwrap_or_default();
    if key.contains('\0') {
        return Err(Error::new(base::Code(31_032), "Key field cannot contain an embedded null byte"));
    }
    Ok(DistinctCommand {
        namespace: call.namespace()?,
        key: key.to_owned(),
        filter: call.document("query"),
        hint: call.hint(),
    })
}
