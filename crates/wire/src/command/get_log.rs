//! `getLog`: the newest lines of the log.

use base::{Error, Result};
use document::Value;

use super::Spec;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec =
    Spec { admin_only: true, ..Spec::now("getLog", "The newest lines of the log.", run) };

fn run(call: &Call<'_>) -> Result<Reply> {
    let Some(Value::String(which)) = call.target.decode() else {
        return Err(Error::type_mismatch("Argument to getLog must be of type String"));
    };
    let mut reply = Reply::new();
    match which {
        "*" => reply.strings("names", ["global", "startupWarnings"]),
        "global" => {
            let lines = call.state.facts.recent_log();
            reply.count("totalLinesWritten", lines.len() as u64);
            reply.strings("log", lines.iter().map(String::as_str));
        }
        "startupWarnings" => {
            reply.i32("totalLinesWritten", 0);
            reply.values("log", &[]);
        }
        other => return Err(Error::new(base::Code::OPERATION_FAILED, format!("No log named '{other}'"))),
    }
    Ok(reply.ok())
}
