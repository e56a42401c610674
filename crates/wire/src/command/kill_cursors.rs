//! `killCursors`: closes cursors.

use base::{Error, Result};
use bson::Bson;
use document::Value;
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::CursorId;

use super::Spec;
use crate::call::Call;
use crate::fields::{Accepts, Field, required};
use crate::reply::Reply;

const FIELDS: &[Field] = &[required("cursors", Accepts::Array)];

pub(crate) const SPEC: Spec =
    Spec { fields: FIELDS, api_v1: true, ..Spec::later("killCursors", "Closes cursors.", run) };

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let Some(Value::String(collection)) = call.target.decode() else {
            return Err(Error::type_mismatch("killCursors takes the name of a collection"));
        };
        let namespace = format!("{}.{collection}", call.database);
        let cursors = cursors(call)?;
        let killed = call.state.backend.kill_cursors(&call.context, &namespace, &cursors).await?;
        let list = |was_killed: bool| -> Vec<Bson> {
            let chosen = cursors.iter().filter(|cursor| killed.contains(cursor) == was_killed);
            chosen.map(|cursor| Bson::Int64(cursor.0)).collect()
        };
        let mut reply = Reply::new();
        reply.values("cursorsKilled", &list(true));
        reply.values("cursorsNotFound", &list(false));
        reply.values("cursorsAlive", &[]);
        reply.values("cursorsUnknown", &[]);
        Ok(reply.ok())
    }
    .boxed()
}

fn cursors(call: &Call<'_>) -> Result<Vec<CursorId>> {
    let ids = call.values("cursors");
    if ids.is_empty() {
        return Err(Error::bad_value("killCursors must specify at least one cursor"));
    }
    let read = |(position, id): (usize, &Bson)| match id {
        Bson::Int64(id) => Ok(CursorId(*id)),
        other => {
            let kind = Value::from(other).kind().name();
            Err(Error::type_mismatch(format!(
                "BSON field 'killCursors.cursors.{position}' is the wrong type '{kind}', expected type 'long'"
            )))
        }
    };
    ids.iter().enumerate().map(read).collect()
}
