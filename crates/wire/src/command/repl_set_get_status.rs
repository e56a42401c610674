//! `replSetGetStatus`: the cluster's nodes in the form of a replica set's members.
//!
//! A node is PRIMARY here when it leads the catalog; each shard has a primary of its own, which `psdbStatus` tells.

use base::Result;
use base::id::CATALOG_SHARD;
use bson::{Bson, Document, doc};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use crate::call::Call;
use crate::fields::{Accepts, Field, ignored};
use crate::reply::Reply;

const FIELDS: &[Field] = &[ignored(
    "initialSync",
    Accepts::BoolOrNumber,
    "replicas are started by the catalog, not by a sync of their own",
)];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    admin_only: true,
    ..Spec::later("replSetGetStatus", "The nodes of the cluster as members of a replica set.", run)
};

/// MongoDB's numbers of the states of a member.
const PRIMARY: i32 = 1;
const SECONDARY: i32 = 2;
const DOWN: i32 = 8;

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let status = call.state.backend.cluster_status().await;
        let own = status.get_i64("answeredBy").unwrap_or_default();
        let nodes = status.get_array("nodes").map(Vec::as_slice).unwrap_or_default();
        let members: Vec<Document> =
            nodes.iter().filter_map(Bson::as_document).map(|node| member(node, own)).collect();
        let state = |member: &Document| member.get_i32("state").unwrap_or(DOWN);
        let mine = members.iter().find(|member| member.contains_key("self")).map_or(DOWN, state);
        let voters = i32::try_from(members.len()).unwrap_or(i32::MAX);
        let document = doc! {
            "set": status.get_str("cluster").unwrap_or_default(),
            "date": bson::DateTime::from_millis(call.state.clock.wall_ms()),
            "myState": mine,
            "majorityVoteCount": voters / 2 + 1,
            "votingMembersCount": voters,
            "members": members.into_iter().map(Bson::Document).collect::<Vec<_>>(),
        };
        Ok(Reply::from_document(&document).ok())
    }
    .boxed()
}

fn member(node: &Document, own: i64) -> Document {
    let id = node.get_i64("node").unwrap_or_default();
    let up = node.get_str("health").is_ok_and(|health| health == "up");
    let replicas = node.get_array("replicas").map(Vec::as_slice).unwrap_or_default();
    let is_catalog = |replica: &&Document| {
        replica.get_i64("shard").ok().and_then(|shard| u64::try_from(shard).ok()) == Some(CATALOG_SHARD.get())
    };
    let catalog = replicas.iter().filter_map(Bson::as_document).find(is_catalog);
    let leads = catalog.is_some_and(|replica| replica.get_str("role").is_ok_and(|role| role == "primary"));
    let (state, words) = match (up, leads) {
        (false, _) => (DOWN, "(not reachable/healthy)"),
        (true, true) => (PRIMARY, "PRIMARY"),
        (true, false) => (SECONDARY, "SECONDARY"),
    };
    let mut member = doc! {
        "_id": id,
        "name": node.get_str("listen").unwrap_or_default(),
        "health": if up { 1.0 } else { 0.0 },
        "state": state,
        "stateStr": words,
        "uptime": node.get_i64("uptimeSeconds").unwrap_or_default(),
    };
    if let Ok(reason) = node.get_str("reason") {
        member.insert("lastHeartbeatMessage", reason);
    }
    if id == own {
        member.insert("self", true);
    }
    member
}
