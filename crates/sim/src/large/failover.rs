//! Every shard of a large cluster gets its primary; then the node with the most of them is lost, and others take over.
//!
//! Always holds: a shard counts as taken over when a replica elsewhere has a lease, and as serving when it has taken a client's
//! write that was sent as the node was lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Namespace, NodeId, ShardId};
use bson::doc;
use document::DocBuf;
use futures::future::BoxFuture;
use replica::ShardHandle;
use router::command::InsertCommand;
use router::{OperationContext, Router};
use tokio::time::Instant;

use super::layout::Layout;
use super::{LOOK_INTERVAL, wait};
use crate::rpc::call_router;
use crate::world::World;

/// Simulated seconds within which every shard must have been created and have its first primary.
const CREATED_SECONDS_MAX: u64 = 300;
/// The same for the primaries that are to be on one node.
const HANDED_SECONDS_MAX: u64 = 120;
/// How often roles are handed over again that have not gone where they should.
const HAND_OVER_INTERVAL: Duration = Duration::from_millis(500);
/// How long a client waits for its write, in milliseconds.
const PATIENCE_MS: u64 = 35_000;
/// Simulated time within which every shard has another primary that serves.
const FAILOVER_MAX: Duration = Duration::from_secs(3);
/// How long it is waited for.
const FAILOVER_SECONDS_MAX: u64 = 30;

/// Waits until every shard has a primary, those that shall be led by one node that one. Whether it came to that.
pub(super) async fn elect_all(world: &Arc<World>, layout: &Layout) -> bool {
    let all: Vec<(ShardId, Vec<NodeId>)> =
        layout.catalog.active().flat_map(|record| &record.shard_map.shards).map(place).collect();
    let lacks = || {
        let without = all.iter().filter(|(shard, nodes)| primary(world, *shard, nodes).is_none()).count();
        (without > 0).then(|| format!("{without} of {} shards have no primary", all.len()))
    };
    let Some(elected) = wait(world, CREATED_SECONDS_MAX, LOOK_INTERVAL * 10, lacks).await else {
        return false;
    };
    world.figure(format!(
        "{} nodes, {} shards of three replicas, created and led after {:.1} s",
        world.nodes.len(),
        all.len(),
        elected.as_secs_f64()
    ));
    gather(world, layout).await
}

/// Hands roles over to the node that will be lost.
async fn gather(world: &Arc<World>, layout: &Layout) -> bool {
    let led = led(layout);
    let began = Instant::now();
    loop {
        let elsewhere: Vec<_> =
            led.iter().filter(|(shard, _)| primary(world, *shard, &[layout.lost]).is_none()).collect();
        if elsewhere.is_empty() {
            return true;
        }
        if began.elapsed().as_secs() >= HANDED_SECONDS_MAX {
            world.violation(format!("{} primaries did not go where they should", elsewhere.len()));
            return false;
        }
        for (shard, nodes) in elsewhere {
            hand_over(world, *shard, nodes, layout.lost).await;
        }
        tokio::time::sleep(HAND_OVER_INTERVAL).await;
    }
}

async fn hand_over(world: &Arc<World>, shard: ShardId, nodes: &[NodeId], to: NodeId) {
    let Some(node) = primary(world, shard, nodes) else { return };
    let Some(replica) = replica(world, shard, node) else { return };
    let membership = replica.membership();
    let successor = membership.nodes.iter().find(|(_, node)| **node == to).map(|(replica, _)| *replica);
    if let Some(successor) = successor {
        replica.transfer_to(successor).await;
    }
}

/// Cuts the power of the node that leads so many, while clients write to each of its shards. Whether all were served again.
pub(super) async fn lose(world: &Arc<World>, layout: &Layout) -> bool {
    let led = led(layout);
    let others: Vec<NodeId> = world.members().into_iter().filter(|node| *node != layout.lost).collect();
    world.schedule(&format!("{} loses its power, with {} primaries", layout.lost, led.len()));
    world.node(layout.lost).power_off(world);
    world.dismiss(layout.lost);
    let before = super::Counts::now(world);
    let began = Instant::now();
    let writes = layout.led.iter().map(|namespace| write(world, world.pick(&others), namespace, began));
    let leased = leased_after(world, &led);
    let (written, leased) = futures::join!(futures::future::join_all(writes), leased);
    report(world, "another primary has a lease", &leased);
    let served: Vec<Duration> = written.into_iter().flatten().collect();
    if !report(world, "a client's write is answered", &served) || served.len() < led.len() {
        world.violation(format!("{} of {} writes were answered", served.len(), led.len()));
        return false;
    }
    world.figure(format!("failover: {}", before.until(&super::Counts::now(world))));
    true
}

/// Writes one document through a router; after how long that was answered, if it was.
async fn write(world: &Arc<World>, node: NodeId, namespace: &Namespace, began: Instant) -> Option<Duration> {
    let document = DocBuf::encode(&doc! { "_id": 1 }).expect("small");
    let command = InsertCommand {
        namespace: namespace.clone(),
        documents: vec![document],
        ordered: true,
        statement_ids: Vec::new(),
    };
    let insert = |router: Arc<Router>| -> BoxFuture<'static, _> {
        Box::pin(async move { router.insert(&OperationContext::default(), command).await })
    };
    match call_router(world, node, PATIENCE_MS, insert).await {
        Ok(_) => Some(began.elapsed()),
        Err(failure) => {
            world.trace(&format!("writing to {namespace} through {node}: {failure:?}"));
            None
        }
    }
}

/// After how long each shard had another primary with a lease.
async fn leased_after(world: &Arc<World>, led: &[(ShardId, Vec<NodeId>)]) -> Vec<Duration> {
    let began = Instant::now();
    let mut leased: BTreeMap<ShardId, Duration> = BTreeMap::new();
    let look = || {
        for (shard, nodes) in led {
            if !leased.contains_key(shard) && nodes.iter().any(|node| has_lease(world, *shard, *node)) {
                leased.insert(*shard, began.elapsed());
            }
        }
        let missing = led.len() - leased.len();
        (missing > 0).then(|| format!("{missing} of {} shards have no other primary", led.len()))
    };
    // What it took too long for is a violation by then.
    let _ = wait(world, FAILOVER_SECONDS_MAX, LOOK_INTERVAL, look).await;
    leased.into_values().collect()
}

/// Keeps how long things took. Whether all of them were quick enough.
fn report(world: &World, what: &str, took: &[Duration]) -> bool {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let (Some(longest), Some(median)) = (sorted.last(), sorted.get(sorted.len() / 2)) else { return false };
    world.figure(format!(
        "{what}: {} of them, half after {} ms, all after {} ms",
        sorted.len(),
        median.as_millis(),
        longest.as_millis()
    ));
    if *longest > FAILOVER_MAX {
        world.violation(format!("{what} only after {} ms", longest.as_millis()));
    }
    true
}

/// The shards that one node leads, with the nodes that have a replica.
fn led(layout: &Layout) -> Vec<(ShardId, Vec<NodeId>)> {
    let records = layout.led.iter().filter_map(|namespace| layout.catalog.find(namespace));
    records.flat_map(|record| &record.shard_map.shards).map(place).collect()
}

fn place(placement: &catalog::ShardPlacement) -> (ShardId, Vec<NodeId>) {
    (placement.shard, placement.replicas.iter().map(|placed| placed.node).collect())
}

/// The one of these nodes whose replica leads, awake or not.
pub(super) fn primary(world: &World, shard: ShardId, nodes: &[NodeId]) -> Option<NodeId> {
    let leads = |node: &NodeId| {
        replica(world, shard, *node).is_some_and(|replica| replica.leader() == Some(replica.replica()))
    };
    nodes.iter().copied().find(leads)
}

fn has_lease(world: &World, shard: ShardId, node: NodeId) -> bool {
    replica(world, shard, node).is_some_and(|replica| replica.is_leader())
}

fn replica(world: &World, shard: ShardId, node: NodeId) -> Option<ShardHandle> {
    world.node(node).process()?.host.shard(shard)
}
