//! `killSessions`: interrupts what runs in these sessions and closes their cursors; an empty list means all of them.

use base::Result;

use super::Spec;
use super::end_sessions::{end, listed_sessions};
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec =
    Spec { api_v1: true, ..Spec::now("killSessions", "Interrupts what runs in the given sessions.", run) };

fn run(call: &Call<'_>) -> Result<Reply> {
    let sessions = listed_sessions(call)?;
    end(call, &|session| sessions.is_empty() || sessions.contains(&session));
    Ok(Reply::new().ok())
}
