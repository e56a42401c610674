//! What the catalog's leader and the balancer make of the loss of a node: its replicas rebuilt elsewhere, then primaries and
//! replicas even over the nodes that remain.
//!
//! Always holds: the lost node stays lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::NodeId;
use catalog::{Catalog, ShardPlacement};
use futures::future::BoxFuture;
use router::Router;

use super::counts::Counts;
use super::failover::primary;
use super::layout::Layout;
use super::wait;
use crate::cluster::catalog_of_leader;
use crate::rpc::call_router;
use crate::world::World;

/// Simulated seconds within which all is rebuilt.
const REBUILT_SECONDS_MAX: u64 = 1_200;
/// Simulated seconds within which all is even.
const EVEN_SECONDS_MAX: u64 = 1_200;
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long an answer is waited for, in milliseconds.
const PATIENCE_MS: u64 = 40_000;

/// Waits until the lost node is taken for dead, and all that it held is elsewhere. Whether it came to that.
pub(super) async fn rebuild(world: &Arc<World>, layout: &Layout) -> bool {
    let Some(before) = catalog_of_leader(world) else {
        world.violation("the catalog has no leader");
        return false;
    };
    let (held, first) = (before.replicas_on(layout.lost).count(), newest_replica(&before));
    let mut counts = Counts::now(world);
    let mut at_once = 0;
    let lacks = || {
        let catalog = catalog_of_leader(world)?;
        if !catalog.node(layout.lost).is_some_and(|node| node.dead) {
            counts = Counts::now(world);
        }
        at_once = at_once.max(arriving(&catalog).into_values().max().unwrap_or_default());
        unsettled(world, &catalog, layout.lost)
    };
    let Some(_) = wait(world, REBUILT_SECONDS_MAX, LOOK_INTERVAL, lacks).await else { return false };
    let Some(after) = catalog_of_leader(world) else { return false };
    world.figure(format!(
        "{held} replicas of the lost node rebuilt by {} new ones, at most {at_once} on a node at a time; {}",
        newest_replica(&after) - first,
        counts.until(&Counts::now(world))
    ));
    describe(world, &after, layout.lost);
    true
}

/// Turns the balancer on, and waits until replicas and primaries are even.
pub(super) async fn even(world: &Arc<World>, layout: &Layout) {
    let others: Vec<NodeId> = world.members();
    let enable = |router: Arc<Router>| -> BoxFuture<'static, _> {
        Box::pin(async move { router.set_balancer(true).await })
    };
    let (Some(before), counts) = (catalog_of_leader(world), Counts::now(world)) else { return };
    if let Err(failure) = call_router(world, world.pick(&others), PATIENCE_MS, enable).await {
        return world.violation(format!("the balancer cannot be turned on: {failure:?}"));
    }
    let lacks = || {
        let catalog = catalog_of_leader(world)?;
        let (replicas, primaries) = spreads(world, &catalog, layout.lost);
        let uneven = replicas > 1 || primaries > 1;
        let what = || format!("replicas differ by {replicas} and primaries by {primaries}");
        uneven.then(what).or_else(|| unsettled(world, &catalog, layout.lost))
    };
    if wait(world, EVEN_SECONDS_MAX, LOOK_INTERVAL, lacks).await.is_none() {
        return;
    }
    let Some(after) = catalog_of_leader(world) else { return };
    world.figure(format!(
        "even after {} more moves of replicas; {}",
        newest_replica(&after) - newest_replica(&before),
        counts.until(&Counts::now(world))
    ));
    describe(world, &after, layout.lost);
}

fn describe(world: &World, catalog: &Catalog, lost: NodeId) {
    let range = |counts: BTreeMap<NodeId, usize>| {
        let (least, most) = (counts.values().min().copied(), counts.values().max().copied());
        format!("{} to {}", least.unwrap_or_default(), most.unwrap_or_default())
    };
    world.figure(format!(
        "a node has {} replicas and {} primaries",
        range(replicas_by_node(catalog, lost)),
        range(primaries_by_node(world, catalog, lost))
    ));
}

/// What is not yet, as the catalog says it shall be, or has no primary.
fn unsettled(world: &World, catalog: &Catalog, lost: NodeId) -> Option<String> {
    let left = catalog.replicas_on(lost).count();
    let leaving = placements(catalog).filter(|placed| !placed.leaving.is_empty()).count();
    if left + leaving > 0 {
        return Some(format!(
            "the lost node has {left} replicas, and {leaving} shards have one on its way out"
        ));
    }
    let without = placements(catalog).filter(|placed| primary_of(world, placed).is_none()).count();
    (without > 0).then(|| format!("{without} shards have no primary"))
}

/// How many replicas each node is getting.
fn arriving(catalog: &Catalog) -> BTreeMap<NodeId, usize> {
    let mut counts = BTreeMap::new();
    for placed in placements(catalog).filter(|placed| !placed.leaving.is_empty()) {
        if let Some(newest) = placed.replicas.iter().max_by_key(|placed| placed.replica) {
            *counts.entry(newest.node).or_default() += 1;
        }
    }
    counts
}

/// By how much the nodes' numbers of replicas differ, and those of primaries.
fn spreads(world: &World, catalog: &Catalog, lost: NodeId) -> (usize, usize) {
    let spread = |counts: BTreeMap<NodeId, usize>| {
        let most = counts.values().max().copied().unwrap_or_default();
        most - counts.values().min().copied().unwrap_or_default()
    };
    (spread(replicas_by_node(catalog, lost)), spread(primaries_by_node(world, catalog, lost)))
}

fn replicas_by_node(catalog: &Catalog, lost: NodeId) -> BTreeMap<NodeId, usize> {
    count(
        catalog,
        lost,
        placements(catalog).flat_map(|placed| placed.replicas.iter().map(|placed| placed.node)),
    )
}

fn primaries_by_node(world: &World, catalog: &Catalog, lost: NodeId) -> BTreeMap<NodeId, usize> {
    count(catalog, lost, placements(catalog).filter_map(|placed| primary_of(world, placed)))
}

/// How often each node is named, of those that are not lost.
fn count(catalog: &Catalog, lost: NodeId, named: impl Iterator<Item = NodeId>) -> BTreeMap<NodeId, usize> {
    let nodes = catalog.nodes().map(|node| node.id).filter(|node| *node != lost);
    let mut counts: BTreeMap<NodeId, usize> = nodes.map(|node| (node, 0)).collect();
    for node in named {
        counts.entry(node).and_modify(|count| *count += 1);
    }
    counts
}

fn primary_of(world: &World, placed: &ShardPlacement) -> Option<NodeId> {
    let nodes: Vec<NodeId> = placed.replicas.iter().map(|placed| placed.node).collect();
    primary(world, placed.shard, &nodes)
}

fn placements(catalog: &Catalog) -> impl Iterator<Item = &ShardPlacement> {
    catalog.active().flat_map(|record| &record.shard_map.shards)
}

/// The number of the replica that was placed last: ids are never used again.
fn newest_replica(catalog: &Catalog) -> u64 {
    let replicas = placements(catalog).flat_map(|placed| &placed.replicas);
    replicas.map(|placed| placed.replica.get()).max().unwrap_or_default()
}
