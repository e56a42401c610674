//! `getCmdLineOpts`: how the process was started.

use base::Result;

use super::Spec;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec = Spec {
    admin_only: true,
    ..Spec::now("getCmdLineOpts", "The command line and the options in force.", run)
};

fn run(call: &Call<'_>) -> Result<Reply> {
    let mut reply = Reply::new();
    reply.strings("argv", call.state.facts.arguments().iter().map(String::as_str));
    reply.value("parsed", &bson::Bson::Document(call.state.facts.parsed_options()));
    Ok(reply.ok())
}
