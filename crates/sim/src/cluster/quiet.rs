//! A collection that nobody asks for: its replicas sleep, and must wake when the node of their leader dies, and when their shard
//! is to move.
//!
//! Called at the end of a run, once all is well. Always holds: the node comes back.

use std::sync::Arc;
use std::time::Duration;

use base::{Code, NodeId, ShardId};
use bson::doc;
use futures::future::BoxFuture;
use router::command::FindCommand;
use router::{OperationContext, Router, ShardSelector};

use super::check;
use super::client::{encode, namespace};
use crate::rpc::{NoAnswer, call_router};
use crate::world::World;
use crate::{faults, groups};

/// The collection.
pub(super) const QUIET: &str = "quiet";
/// How long nothing happens, in seconds: longer than a group stays awake without a reason.
const QUIET_SECONDS: u64 = 8;
/// How long the cluster may take to be well before that, in seconds; where it takes longer nothing is tried.
const SETTLING_SECONDS_MAX: u64 = 10;
/// How often, and how many times, a leader is looked for that is not there at once.
const LEADER_LOOK_INTERVAL: Duration = Duration::from_millis(100);
const LEADER_LOOKS_MAX: usize = 50;
/// Attempts to read, each as long as a router tries.
const ATTEMPTS_MAX: u64 = 3;
/// How long each is waited for, in milliseconds.
const PATIENCE_MS: u64 = 40_000;

/// While the group sleeps, moves its primary, or ends the node that has it and reads.
pub(super) async fn check(world: &Arc<World>) {
    if world.members().len() < 3 || !world.chance(30) {
        return;
    }
    if !check::is_replicated(world, SETTLING_SECONDS_MAX).await {
        return;
    }
    tokio::time::sleep(Duration::from_secs(QUIET_SECONDS)).await;
    let Some(leader) = await_leader(world).await else {
        return world.violation("the quiet collection has no leader");
    };
    if world.chance(30) {
        return move_primary(world, leader).await;
    }
    let place = world.node(leader);
    let _busy = place.busy.lock().await;
    world.schedule(&format!("{leader}: ends while its groups sleep"));
    place.kill();
    let others: Vec<NodeId> = world.members().into_iter().filter(|other| *other != leader).collect();
    let mut is_read = false;
    for _ in 0..ATTEMPTS_MAX {
        is_read = is_read || read(world, world.pick(&others)).await;
    }
    if !is_read {
        world.violation("the quiet collection does not wake when its leader is gone");
    }
    faults::start(world, leader).await;
}

/// Brings the primary to a node, which may have it already, through one that may have it too; now and then two ask for the same, or
/// for different nodes, at once. Nobody is told that something else moves.
async fn move_primary(world: &Arc<World>, leader: NodeId) {
    let (through, to) = (world.pick(&[leader, world.pick(&world.members())]), world.pick(&world.members()));
    let first = move_quietly(world, leader, through, to);
    if world.chance(50) {
        return first.await;
    }
    let (through, other) = (world.pick(&world.members()), world.pick(&world.members()));
    let second = move_quietly(world, leader, through, world.pick(&[to, other]));
    tokio::join!(first, second);
}

async fn move_quietly(world: &Arc<World>, leader: NodeId, through: NodeId, to: NodeId) {
    let Some(record) = check::catalog(world).and_then(|catalog| catalog.node(to).cloned()) else { return };
    let (shard, name) = (ShardSelector::Hash(0), record.facts.name.clone());
    let work = |router: Arc<Router>| -> BoxFuture<'static, base::Result<()>> {
        let cx = OperationContext::default();
        Box::pin(async move { router.move_shard(&cx, &namespace(QUIET), &shard, &name).await })
    };
    let answer = call_router(world, through, PATIENCE_MS, work).await;
    let what = format!("the quiet collection moves from {leader} to {to} through {through}: {answer:?}");
    world.trace(&what);
    match answer {
        Ok(()) => {}
        // Nothing may move there now.
        Err(NoAnswer::Refused(error))
            if error.code == Code::ILLEGAL_OPERATION && !record.takes_replicas() => {}
        Err(_) => world.violation(what),
    }
}

/// The node of the leader. Messages that overtake each other can wake replicas whose leader goes on sleeping; they elect another.
async fn await_leader(world: &World) -> Option<NodeId> {
    for _ in 0..LEADER_LOOKS_MAX {
        let found = shard(world).and_then(|shard| groups::leader_node(world, shard));
        if found.is_some() {
            return found;
        }
        tokio::time::sleep(LEADER_LOOK_INTERVAL).await;
    }
    None
}

fn shard(world: &World) -> Option<ShardId> {
    let catalog = check::catalog(world)?;
    let record = catalog.find(&namespace(QUIET))?;
    record.shard_map.shards.first().map(|placement| placement.shard)
}

/// Whether the collection answered.
async fn read(world: &Arc<World>, node: NodeId) -> bool {
    let command =
        FindCommand { filter: Some(encode(&doc! { "_id": "first" })), ..FindCommand::all(namespace(QUIET)) };
    let find = |router: Arc<Router>| -> BoxFuture<'static, _> {
        Box::pin(async move {
            let reply = router.find(&OperationContext::default(), command).await?;
            let missing = || base::Error::new(Code::NAMESPACE_NOT_FOUND, "the document is gone");
            reply.batch.first().map(drop).ok_or_else(missing)
        })
    };
    let answer = call_router(world, node, PATIENCE_MS, find).await;
    world.trace(&format!("the quiet collection through {node}: {answer:?}"));
    answer.is_ok()
}
