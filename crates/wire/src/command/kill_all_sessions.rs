//! `killAllSessions`: interrupts what runs in any session and closes their cursors. Without users, every session is
//! everybody's.

use base::Result;
use document::{Kind, Value};

use super::Spec;
use super::end_sessions::end;
use crate::call::Call;
use crate::fields::{Accepts, wrong_type};
use crate::reply::Reply;

pub(crate) const SPEC: Spec = Spec::now("killAllSessions", "Interrupts what runs in any session.", run);

fn run(call: &Call<'_>) -> Result<Reply> {
    let Some(Value::Array(_)) = call.target.decode() else {
        let kind = call.target.decode().map_or(Kind(0), |value| value.kind());
        return Err(wrong_type(call.spec.name, call.spec.name, kind, Accepts::Array));
    };
    end(call, &|_| true);
    Ok(Reply::new().ok())
}
