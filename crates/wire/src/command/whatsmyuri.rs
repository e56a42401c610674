//! `whatsmyuri`: the client's address as the server sees it.

use base::Result;

use super::Spec;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec = Spec::now("whatsmyuri", "The client's address as the server sees it.", run);

fn run(call: &Call<'_>) -> Result<Reply> {
    let mut reply = Reply::new();
    reply.str("you", &call.client.peer.to_string());
    Ok(reply.ok())
}
