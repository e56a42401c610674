//! `killSessions`: interrupts what runs in these sessions; an empty list means all of them.

use base::Result;

use super::Spec;
use super::end_sessions::listed_sessions;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec =
    Spec { api_v1: true, ..Spec::now("killSessions", "Interrupts what runs in the given sessions.", run) };

fn run(call: &Call<'_>) -> Result<Reply> {
    let sessions = listed_sessions(call)?;
    let concerned = |session| sessions.is_empty() || sessions.contains(&session);
    call.state.clients.interrupt_sessions(call.client.id, concerned);
    sessions.iter().for_each(|session| call.state.backend.end_session(*session));
    Ok(Reply::new().ok())
}
