//! `listCommands`: the command table.

use base::Result;

use super::{Spec, TABLE};
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec = Spec::now("listCommands", "Every command with what it does.", run);

fn run(call: &Call<'_>) -> Result<Reply> {
    let mut reply = Reply::new();
    reply.begin_document("commands");
    for spec in TABLE.iter().filter(|spec| !spec.test_only || call.state.settings.test_commands) {
        reply.begin_document(spec.name);
        reply.str("help", spec.summary);
        reply.bool("requiresAuth", false);
        reply.bool("secondaryOk", false);
        reply.bool("adminOnly", spec.admin_only);
        reply.strings("apiVersions", spec.api_v1.then_some("1"));
        reply.strings("aliases", spec.aliases.iter().copied());
        reply.end();
    }
    reply.end();
    Ok(reply.ok())
}
