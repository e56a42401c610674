//! `startSession`: a new session's id. Sessions need no start: any id that a driver makes up will do.

use base::Result;
use bson::{Binary, Bson, doc, spec::BinarySubtype};

use super::Spec;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec = Spec::now("startSession", "A new session's id.", run);

fn run(call: &Call<'_>) -> Result<Reply> {
    let id = Binary { subtype: BinarySubtype::Uuid, bytes: call.state.new_session_id().0.to_vec() };
    let mut reply = Reply::new();
    reply.value("id", &Bson::Document(doc! { "id": id }));
    let minutes = i32::try_from(base::limits::SESSION_IDLE_MS_MAX / 60_000).unwrap_or(30);
    reply.i32("timeoutMinutes", minutes);
    Ok(reply.ok())
}
