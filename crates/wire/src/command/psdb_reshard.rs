//! `psdbReshard`: pauses the cutting of shards, or lets it go on, for `psdb reshard`.

use base::{Code, Error, Result};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use super::full_namespace::full_namespace;
use crate::call::Call;
use crate::fields::{Accepts, Field, field};
use crate::reply::Reply;

const FIELDS: &[Field] = &[field("pause", Accepts::Bool), field("resume", Accepts::Bool)];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    admin_only: true,
    ..Spec::later("psdbReshard", "Pauses a `reshardCollection`, or lets it go on; PSDB's own.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let wanted = |name| call.fields.bool(name) == Some(true);
        let paused = match (wanted("pause"), wanted("resume")) {
            (true, false) => true,
            (false, true) => false,
            _ => {
                let message = "psdbReshard needs exactly one of: pause, resume";
                return Err(Error::new(Code::INVALID_OPTIONS, message));
            }
        };
        call.state.backend.pause_reshard(&call.context, &full_namespace(call)?, paused).await?;
        Ok(Reply::new().ok())
    }
    .boxed()
}
