//! `flushRouterConfig`: a router looks at the catalog again by itself whenever a shard has moved on.

use base::Result;

use super::Spec;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec = Spec {
    aliases: &["flushrouterconfig"],
    admin_only: true,
    ..Spec::now("flushRouterConfig", "Does nothing: routers follow the catalog by themselves.", run)
};

fn run(_: &Call<'_>) -> Result<Reply> {
    let mut reply = Reply::new();
    reply.bool("flushed", true);
    Ok(reply.ok())
}
