//! What goes wrong in a whole cluster. Processes, disks and the network fail as in a single group; besides, nodes join, are drained
//! and removed, stay away until they count as dead, and are lost for good: then they are replaced by empty ones or removed.

use std::sync::Arc;

use base::{NodeId, Result};
use catalog::BalancerSettings;
use futures::future::BoxFuture;
use router::Router;

use super::{check, drain, nodes};
use crate::faults::{Ending, cut_for};
use crate::faults::{
    end_and_start, end_and_start_several, end_for, isolation, jump, partition, pause, span_ms, stall, storm,
};
use crate::groups;
use crate::rpc::call_router;
use crate::world::World;

/// How long a cluster may take to settle before a node is lost, in seconds; where it takes longer the node stays.
const SETTLING_SECONDS_MAX: u64 = 5;
/// How long the loss of another node waits for this one to be made up for, in seconds.
const MAKING_UP_SECONDS_MAX: u64 = 60;
/// Machines from this number on were not there when the cluster formed.
const FIRST_NEW_MACHINE: u32 = 100;
/// Nodes that a cluster has at once, at most.
const NODES_MAX: usize = 5;
/// After how long a node counts as dead where that is soon, in seconds.
const DEAD_AFTER_S: u32 = 5;
/// How long a node stays away at most, in milliseconds.
const AWAY_MS_MAX: u64 = 10_000;
/// How long an answer is waited for, in milliseconds.
const PATIENCE_MS: u64 = 10_000;

/// One fault, from its beginning to its end.
pub(super) async fn inject(world: Arc<World>) {
    let world = &world;
    match world.choose(26) {
        0..=4 => end_and_start(world, target(world)).await,
        5 => end_and_start_several(world).await,
        6..=7 => pause(world, target(world)).await,
        8 => stall(world, target(world)).await,
        9..=12 => partition(world, target(world)).await,
        13 => storm(world).await,
        14 => jump(world, target(world)),
        15..=16 => hand_over(world).await,
        17 => behead(world).await,
        18..=19 => join(world).await,
        20..=22 => drain::drain(world).await,
        23 => stay_away(world, target(world)).await,
        _ => lose_a_node(world).await,
    }
}

/// A node for a fault: often one where a group's leader is.
fn target(world: &World) -> NodeId {
    let led = leaders(world);
    match !led.is_empty() && world.chance(60) {
        true => world.pick(&led).1,
        false => world.pick(&world.members()),
    }
}

/// The groups that a running process leads, and its node.
fn leaders(world: &World) -> Vec<(base::ShardId, NodeId)> {
    let of = |(node, process): (NodeId, Arc<crate::process::Process>)| {
        let led = process.host.replicas().into_iter().filter(|status| status.is_leader);
        led.map(move |status| (status.name.shard, node)).collect::<Vec<_>>()
    };
    world.processes().into_iter().flat_map(of).collect()
}

async fn hand_over(world: &World) {
    let led = leaders(world);
    if led.is_empty() {
        return;
    }
    let (shard, _) = world.pick(&led);
    let Some(leader) = groups::leader(world, shard) else { return };
    let voters = leader.membership().voters.clone();
    groups::transfer(world, shard, world.pick(&voters)).await;
}

/// A leader is cut off, and loses its power while it still believes to lead.
async fn behead(world: &Arc<World>) {
    let node = target(world);
    let cut_ms = 500 + span_ms(world);
    let wait_ms = world.choose(400);
    futures::join!(cut_for(world, isolation(world, node), cut_ms), async {
        crate::faults::sleep_ms(wait_ms).await;
        end_for(world, node, Ending::PowerOff, span_ms(world)).await;
    });
}

/// A node joins that was not there before.
async fn join(world: &Arc<World>) {
    let Ok(_administering) = world.administration.try_lock() else { return };
    let known = world.members();
    if known.len() < NODES_MAX && world.has_room() {
        nodes::join(world, FIRST_NEW_MACHINE + world.joined()).await;
    }
}

/// A node is away for about as long as it takes until it counts as dead, and comes back.
async fn stay_away(world: &Arc<World>, node: NodeId) {
    let dead_after_ms = u64::from(node_dead_after_s(world).unwrap_or_default()) * 1_000;
    let away_ms = (dead_after_ms + world.choose(5_000)).min(AWAY_MS_MAX);
    end_for(world, node, Ending::PowerOff, away_ms).await;
}

/// A node's disk is gone, and with it the node; an empty one takes its place, or it is taken out of the cluster once it counts as
/// dead. Only where all that was acknowledged is on others, too.
async fn lose_a_node(world: &Arc<World>) {
    let Ok(_administering) = world.administration.try_lock() else { return };
    let members = world.members();
    if members.len() < 3 || !world.has_room() || !check::is_replicated(world, SETTLING_SECONDS_MAX).await {
        return;
    }
    let node = world.pick(&members);
    let Some(machine) = lose(world, node).await else { return };
    world.pause(1_000).await;
    let counts_as_dead_soon = node_dead_after_s(world).is_some_and(|limit_s| limit_s <= DEAD_AFTER_S);
    if counts_as_dead_soon && world.chance(60) {
        let is_before = world.chance(50);
        if is_before {
            nodes::join(world, FIRST_NEW_MACHINE + world.joined()).await;
        }
        drain::remove_dead(world, node).await;
        if !is_before {
            nodes::join(world, FIRST_NEW_MACHINE + world.joined()).await;
        }
    } else {
        nodes::join(world, machine).await;
    }
    // The next one may be lost only once this one is made up for, which the checks at the end insist on.
    check::is_replicated(world, MAKING_UP_SECONDS_MAX).await;
}

/// Takes a node with its disk away. Returns the number of its machine; nothing when it may have something that others do not.
async fn lose(world: &World, node: NodeId) -> Option<u32> {
    let place = world.node(node);
    let _busy = place.busy.lock().await;
    // What was placed while a node counted as dead has fewer replicas at first.
    if !check::is_replicated_now(world) {
        return None;
    }
    world.schedule(&format!("{node} is lost"));
    place.kill();
    place.wipe();
    world.dismiss(node)
}

/// Has nodes count as dead soon.
pub(super) async fn hurry_death(world: &Arc<World>) {
    let set = |router: Arc<Router>| -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let settings = router.balancer_settings().await?;
            let settings = BalancerSettings { node_dead_after_s: DEAD_AFTER_S, ..settings };
            router.change_balancer_settings(settings).await
        })
    };
    while call_router(world, world.pick(&world.members()), PATIENCE_MS, set).await.is_err() {
        world.pause(200).await;
    }
}

fn node_dead_after_s(world: &World) -> Option<u32> {
    check::catalog(world).map(|catalog| catalog.cluster().balancer.node_dead_after_s)
}
