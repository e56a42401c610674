//! `refreshSessions`: keeps sessions from expiring. A session's records are kept by the time of its last write.

use base::Result;

use super::Spec;
use super::end_sessions::listed_sessions;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec =
    Spec { api_v1: true, ..Spec::now("refreshSessions", "Keeps sessions from expiring.", run) };

fn run(call: &Call<'_>) -> Result<Reply> {
    listed_sessions(call)?;
    Ok(Reply::new().ok())
}
