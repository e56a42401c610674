//! `endSessions`: the client is done with these sessions. What still runs in them is interrupted, their
//! cursors are closed.

use base::{Error, Result, SessionId};
use document::{DocRef, Kind, Value};

use super::Spec;
use crate::call::{Call, read_session_id};
use crate::fields::{Accepts, wrong_type};
use crate::reply::Reply;

pub(crate) const SPEC: Spec =
    Spec { api_v1: true, ..Spec::now("endSessions", "Ends sessions before they expire.", run) };

fn run(call: &Call<'_>) -> Result<Reply> {
    let sessions = listed_sessions(call)?;
    end(call, &|session| sessions.contains(&session));
    Ok(Reply::new().ok())
}

/// Interrupts what others run in the sessions that `ended` selects, and closes their cursors.
pub(super) fn end(call: &Call<'_>, ended: &dyn Fn(SessionId) -> bool) {
    call.state.clients.interrupt_sessions(call.client.id, ended);
    call.state.backend.end_sessions(ended);
}

/// The session ids in the array that is the command's value.
pub(crate) fn listed_sessions(call: &Call<'_>) -> Result<Vec<SessionId>> {
    let name = call.spec.name;
    let Some(Value::Array(array)) = call.target.decode() else {
        let kind = call.target.decode().map_or(Kind(0), |value| value.kind());
        return Err(wrong_type(name, name, kind, Accepts::Array));
    };
    let read = |value: Value<'_>| match value {
        Value::Document(DocRef::Raw(session)) => read_session_id(name, session),
        _ => Err(Error::type_mismatch(format!("{name} takes an array of session ids"))),
    };
    array.iter().map(read).collect()
}
