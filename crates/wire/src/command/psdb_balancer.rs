//! `psdbBalancer`: what the balancer goes by, and with `explain` what it would do, for `psdb balancer`.

use base::{Error, Result};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use crate::call::Call;
use crate::fields::{Accepts, Field, field};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    field("explain", Accepts::BoolOrNumber),
    field("movesPerNodeMax", Accepts::Integer),
    field("nodeDeadAfterSeconds", Accepts::Integer),
    field("splitBytes", Accepts::Integer),
    field("splitOperationsPerSecond", Accepts::Integer),
];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    admin_only: true,
    ..Spec::later("psdbBalancer", "The balancer's settings, and what it would do; PSDB's own.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let backend = &call.state.backend;
        let mut settings = backend.balancer_settings().await?;
        let known = settings;
        change(call, "splitBytes", &mut settings.split_bytes)?;
        change(call, "splitOperationsPerSecond", &mut settings.split_operations_per_s)?;
        change_small(call, "movesPerNodeMax", &mut settings.moves_per_node_max)?;
        change_small(call, "nodeDeadAfterSeconds", &mut settings.node_dead_after_s)?;
        if settings != known {
            backend.change_balancer_settings(settings).await?;
        }
        let mut reply = Reply::new();
        reply.bool("enabled", settings.enabled);
        reply.count("splitBytes", settings.split_bytes);
        reply.count("splitOperationsPerSecond", settings.split_operations_per_s);
        reply.count("movesPerNodeMax", u64::from(settings.moves_per_node_max));
        reply.count("nodeDeadAfterSeconds", u64::from(settings.node_dead_after_s));
        if call.fields.bool("explain") == Some(true) {
            reply.strings("proposals", backend.explain_balancer().await?.iter().map(String::as_str));
        }
        Ok(reply.ok())
    }
    .boxed()
}

fn change_small(call: &Call<'_>, name: &str, setting: &mut u32) -> Result<()> {
    let mut wanted = u64::from(*setting);
    change(call, name, &mut wanted)?;
    *setting = u32::try_from(wanted).map_err(|_| Error::bad_value(format!("{name} is too large")))?;
    Ok(())
}

fn change(call: &Call<'_>, name: &str, setting: &mut u64) -> Result<()> {
    if let Some(wanted) = call.fields.non_negative(name)? {
        *setting = wanted;
    }
    Ok(())
}
