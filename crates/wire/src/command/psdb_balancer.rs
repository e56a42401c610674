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
        let mut moves = u64::from(settings.moves_per_node_max);
        change(call, "movesPerNodeMax", &mut moves)?;
        settings.moves_per_node_max =
            u32::try_from(moves).map_err(|_| Error::bad_value("movesPerNodeMax is too large"))?;
        if settings != known {
            backend.change_balancer_settings(settings).await?;
        }
        let mut reply = Reply::new();
        reply.bool("enabled", settings.enabled);
        reply.count("splitBytes", settings.split_bytes);
        reply.count("splitOperationsPerSecond", settings.split_operations_per_s);
        reply.count("movesPerNodeMax", u64::from(settings.moves_per_node_max));
        if call.fields.bool("explain") == Some(true) {
            reply.strings("proposals", backend.explain_balancer().await?.iter().map(String::as_str));
        }
        Ok(reply.ok())
    }
    .boxed()
}

fn change(call: &Call<'_>, name: &str, setting: &mut u64) -> Result<()> {
    if let Some(wanted) = call.fields.non_negative(name)? {
        *setting = wanted;
    }
    Ok(())
}
