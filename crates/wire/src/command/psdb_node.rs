//! `psdbNode`: drains a node, takes it out of the cluster, or says how far that is, for `psdb node`.

use base::{Code, Error, Result};
use catalog::NodeState;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use crate::call::Call;
use crate::fields::{Accepts, Field, field};
use crate::reply::Reply;

/// What can be done, each to the node that the field names.
const FIELDS: &[Field] = &[
    field("cancelDrain", Accepts::String),
    field("drain", Accepts::String),
    field("progress", Accepts::String),
    field("remove", Accepts::String),
];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    admin_only: true,
    ..Spec::later("psdbNode", "Drains or removes a node, by its name; PSDB's own.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let wanted = FIELDS.iter().filter_map(|field| Some((field.name, call.fields.str(field.name)?)));
        let wanted: Vec<(&str, &str)> = wanted.collect();
        let [(action, node)] = wanted.as_slice() else {
            let message = "psdbNode needs exactly one of: drain, cancelDrain, remove, progress";
            return Err(Error::new(Code::INVALID_OPTIONS, message));
        };
        let backend = &call.state.backend;
        match *action {
            "drain" => backend.drain_node(node).await?,
            "cancelDrain" => backend.cancel_drain(node).await?,
            "remove" => {
                backend.remove_node(&call.context, node).await?;
                return Ok(Reply::new().ok());
            }
            _ => {}
        }
        progress(call, node).await
    }
    .boxed()
}

/// The reply to whatever leaves the node in the cluster: how far it is on its way out.
async fn progress(call: &Call<'_>, node: &str) -> Result<Reply> {
    let progress = call.state.backend.node_progress(node).await?;
    let mut reply = Reply::new();
    reply.str("node", node);
    reply.str(
        "state",
        match progress.state {
            NodeState::InUse => "inUse",
            NodeState::Draining => "draining",
            NodeState::Removed => "removed",
        },
    );
    reply.bool("dead", progress.is_dead);
    reply.count("replicas", progress.replicas as u64);
    reply.count("replicasTotal", progress.replicas_total as u64);
    reply.bool("votesInCatalog", progress.votes_in_catalog);
    Ok(reply.ok())
}
