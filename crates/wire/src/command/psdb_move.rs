//! `psdbMove`: calls off the move of a shard's replica, whoever began it, for `psdb shard move --cancel`.

use base::{Code, Error, Result};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use super::full_namespace::{full_namespace, selector};
use crate::call::Call;
use crate::fields::{Accepts, Field, field};
use crate::reply::Reply;

const FIELDS: &[Field] =
    &[field("bounds", Accepts::Array), field("cancel", Accepts::Bool), field("find", Accepts::Object)];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    admin_only: true,
    ..Spec::later("psdbMove", "Calls off the move of a shard's replica to another node; PSDB's own.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        if call.fields.bool("cancel") != Some(true) {
            let message = "psdbMove calls moves off: it needs cancel: true";
            return Err(Error::new(Code::INVALID_OPTIONS, message));
        }
        let (namespace, shard) = (full_namespace(call)?, selector(call, &["find"])?);
        let node = call.state.backend.cancel_move(&namespace, &shard).await?;
        let mut reply = Reply::new();
        reply.str("staysOn", &node);
        Ok(reply.ok())
    }
    .boxed()
}
