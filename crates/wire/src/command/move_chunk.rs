//! `moveChunk`: brings the primary of a shard to the node that `to` names.

use base::Result;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use super::full_namespace::{full_namespace, selector};
use crate::call::Call;
use crate::fields::{Accepts, Field, field, ignored, required};
use crate::reply::Reply;

const ALWAYS: &str = "a move is over when the old replica has left its group";

const FIELDS: &[Field] = &[
    ignored("_secondaryThrottle", Accepts::Any, ALWAYS),
    ignored("_waitForDelete", Accepts::BoolOrNumber, ALWAYS),
    field("bounds", Accepts::Array),
    field("find", Accepts::Object),
    ignored("forceJumbo", Accepts::BoolOrNumber, "no shard is too large to be moved"),
    ignored("maxChunkSizeBytes", Accepts::Integer, "no shard is too large to be moved"),
    ignored("secondaryThrottle", Accepts::Any, ALWAYS),
    required("to", Accepts::String),
    ignored("waitForDelete", Accepts::BoolOrNumber, ALWAYS),
];

pub(crate) const SPEC: Spec = Spec {
    aliases: &["movechunk"],
    fields: FIELDS,
    admin_only: true,
    writes: true,
    ..Spec::later("moveChunk", "Brings the primary of a shard to another node.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let began = call.state.clock.monotonic();
        let (namespace, shard) = (full_namespace(call)?, selector(call, &["find"])?);
        let to = call.fields.str("to").unwrap_or_default();
        call.state.backend.move_shard(&call.context, &namespace, &shard, to).await?;
        let mut reply = Reply::new();
        let took = call.state.clock.monotonic().since(began);
        reply.count("millis", u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        Ok(reply.ok())
    }
    .boxed()
}
