//! When a whole cluster is what its catalog says, and what a run of one ends with: everything restarts once more, the
//! cluster becomes what its catalog says, and what all replicas and disks hold is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::id::CATALOG_SHARD;
use base::{LogIndex, NodeId, ReplicaId, ShardId};
use bson::Document;
use bytes::Bytes;
use catalog::{Catalog, CollectionRecord, CollectionState, IndexState, ReplicaPlacement, ShardPlacement};
use document::ShardKey;
use futures::future::BoxFuture;
use query::state::{HashRange, ShardState};
use replica::Host;
use router::Router;
use storage::{Direction, KeyRange};

use super::client::THINGS;
use super::shards;
use crate::groups::{self, Member};
use crate::rpc::call_router;
use crate::world::World;
use crate::{check, faults};

/// Simulated time within which a healed cluster must be what its catalog says, in seconds.
pub(super) const RECOVERY_SECONDS_MAX: u64 = 120;
/// Replicas of a shard where there are as many nodes.
const REPLICATION_FACTOR: usize = 3;
/// How many entries a replica may lack that has caught up while clients write.
const LAG_ENTRIES_MAX: u64 = 5;
/// How long an answer is waited for, in milliseconds.
const PATIENCE_MS: u64 = 10_000;
/// Simulated time within which a replica that is dropped is gone, in seconds: it may wait for a successor first.
const DROP_SECONDS_MAX: u64 = 4;

/// See the module's comment.
pub(super) async fn check(world: &Arc<World>) {
    check::check_answers(&mut world.history.lock());
    for node in world.members() {
        let _busy = world.node(node).busy.lock().await;
        world.node(node).power_off(world);
        faults::start(world, node).await;
    }
    while !shards::pause(world, false).await {}
    // It would go on moving what is to be looked at.
    while call_router(world, world.pick(&world.members()), PATIENCE_MS, stop_balancer).await.is_err() {
        world.pause(200).await;
    }
    if let Err(what) = await_none(RECOVERY_SECONDS_MAX, || unsettled(world)).await {
        return world.violation(format!("the cluster does not become what its catalog says: {what}"));
    }
    // What is being dropped, or was on its way, is gone by then.
    tokio::time::sleep(Duration::from_secs(DROP_SECONDS_MAX)).await;
    let Some(catalog) = catalog(world) else { return world.violation("the catalog has no leader") };
    check_catalogs(world);
    for record in catalog.collections() {
        check_collection(world, record).await;
    }
    world.members().into_iter().for_each(|node| world.node(node).kill());
    check_disks(world, &catalog);
}

fn stop_balancer(router: Arc<Router>) -> BoxFuture<'static, base::Result<()>> {
    Box::pin(async move { router.set_balancer(false).await })
}

/// Waits, while clients work, until everything that is acknowledged by now is on as many nodes as it should be. Whether it
/// came to that.
pub(super) async fn is_replicated(world: &Arc<World>, seconds: u64) -> bool {
    let Some(before) = catalog(world) else { return false };
    await_none(seconds, || unreplicated(world, &before)).await.is_ok()
}

/// Whether everything that the catalog has now is on as many nodes as it should be.
pub(super) fn is_replicated_now(world: &World) -> bool {
    catalog(world).is_some_and(|now| unreplicated(world, &now).is_none())
}

/// Looks until there is nothing to find any more, or fails with what is found after so many seconds.
async fn await_none(seconds: u64, find: impl Fn() -> Option<String>) -> Result<(), String> {
    for _ in 0..seconds * 10 {
        if find().is_none() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    find().map_or(Ok(()), Err)
}

/// What is not on as many nodes as it should be, of what there was before and is still there.
fn unreplicated(world: &World, before: &Catalog) -> Option<String> {
    let Some(now) = catalog(world) else { return Some("the catalog has no leader".to_owned()) };
    let (nodes, wanted) = (world.members().len(), now.replicas_wanted());
    let placed_catalog = &now.cluster().catalog;
    if placed_catalog.len() != nodes {
        return Some(format!("the catalog is on {placed_catalog:?}, and there are {nodes} nodes"));
    }
    if let Some(what) = unsettled_group(world, CATALOG_SHARD, placed_catalog, LAG_ENTRIES_MAX) {
        return Some(what);
    }
    let kept = now.active().filter(|record| before.collection(record.id).is_some());
    kept.flat_map(|record| record.kept_shards()).find_map(|placement| {
        let lacks = placement.replicas.len() != wanted;
        let lacking = lacks.then(|| format!("{} lacks replicas: {:?}", placement.shard, placement.replicas));
        lacking.or_else(|| unsettled_group(world, placement.shard, &placement.replicas, LAG_ENTRIES_MAX))
    })
}

/// What is not, or not yet, as it should be.
fn unsettled(world: &World) -> Option<String> {
    let members = world.members();
    let is_serving =
        |node: &NodeId| world.node(*node).process().and_then(|process| process.router()).is_some();
    if let Some(node) = members.iter().find(|node| !is_serving(node)) {
        return Some(format!("{node} does not serve"));
    }
    let catalog = match catalog(world) {
        Some(catalog) => catalog,
        None => return Some("the catalog has no leader".to_owned()),
    };
    let placed_catalog = &catalog.cluster().catalog;
    if placed_catalog.len() != members.len() {
        return Some(format!("the catalog is on {placed_catalog:?}, and the nodes are {members:?}"));
    }
    let mut placed = BTreeMap::from([(CATALOG_SHARD, placed_catalog.clone())]);
    for record in catalog.collections() {
        if record.state == CollectionState::Dropping {
            return Some(format!("{} is not gone yet", record.namespace));
        }
        if let Some(reshard) = &record.reshard {
            return Some(format!("shards of {} are still being cut: {reshard:?}", record.namespace));
        }
        if !record.retired.is_empty() {
            return Some(format!("shards of {} are not gone yet: {:?}", record.namespace, record.retired));
        }
        if record.indexes.iter().any(|(_, state)| *state != IndexState::Ready) {
            return Some(format!("indexes of {} are on their way: {:?}", record.namespace, record.indexes));
        }
        for placement in &record.shard_map.shards {
            if placement.replicas.len() != catalog.replicas_wanted() || !placement.leaving.is_empty() {
                return Some(format!("{} lacks replicas: {placement:?}", placement.shard));
            }
            placed.insert(placement.shard, placement.replicas.clone());
        }
    }
    let of_group = |(shard, replicas): (&ShardId, &Vec<_>)| unsettled_group(world, *shard, replicas, 0);
    let groups = placed.iter().find_map(of_group);
    groups.or_else(|| members.iter().find_map(|node| strangers(world, *node, &placed)))
}

fn unsettled_group(
    world: &World,
    shard: ShardId,
    placed: &[ReplicaPlacement],
    lag_entries_max: u64,
) -> Option<String> {
    let Some(leader) = groups::leader(world, shard) else { return Some(format!("{shard} has no leader")) };
    let membership = leader.membership();
    let wanted: BTreeMap<ReplicaId, NodeId> =
        placed.iter().map(|placed| (placed.replica, placed.node)).collect();
    let voters = match placed.len().min(REPLICATION_FACTOR) {
        2 => 1,
        other => other,
    };
    if membership.is_joint() || membership.nodes != wanted || membership.voters.len() != voters {
        return Some(format!("{shard} has {membership:?}, and placed are {placed:?}"));
    }
    let behind = wanted.iter().find(|(replica, node)| {
        let process = world.node(**node).process();
        let member = process.and_then(|process| Member::on(&process.host, shard));
        // One that does not know yet that a change is committed may still need the vote of whoever has left.
        let is_close = |member: Member| {
            member.replica() == **replica
                && member.applied().get() + lag_entries_max >= leader.commit().get()
                && member.membership().voters == membership.voters
                && !member.membership().is_joint()
        };
        !member.is_some_and(is_close)
    });
    behind.map(|(replica, node)| format!("{replica} of {shard} on {node} is behind"))
}

/// Replicas on a node that nobody placed there.
fn strangers(
    world: &World,
    node: NodeId,
    placed: &BTreeMap<ShardId, Vec<ReplicaPlacement>>,
) -> Option<String> {
    let process = world.node(node).process()?;
    let is_placed = |shard: &ShardId| {
        placed.get(shard).is_some_and(|replicas| replicas.iter().any(|replica| replica.node == node))
    };
    let stranger =
        process.host.replicas().into_iter().map(|status| status.name.shard).find(|shard| !is_placed(shard));
    stranger.map(|shard| format!("{node} has a replica of {shard} that nobody placed there"))
}

/// The catalog as its leader has it.
pub(crate) fn catalog(world: &World) -> Option<Arc<Catalog>> {
    match groups::leader(world, CATALOG_SHARD)? {
        Member::Catalog(handle) => Some(handle.state()),
        Member::Shard(_) => None,
    }
}

/// Every copy of the catalog against the answers.
fn check_catalogs(world: &World) {
    for node in world.members() {
        let Some(catalog) = world.node(node).process().and_then(|process| process.host.catalog_state())
        else {
            continue;
        };
        let found: BTreeSet<String> =
            catalog.active().map(|record| record.namespace.collection.clone()).collect();
        check::check_collections(&mut world.history.lock(), &found);
    }
}

/// Every replica of a collection's shards against the answers, itself and the shard map, and those of a shard against each
/// other.
async fn check_collection(world: &Arc<World>, record: &CollectionRecord) {
    // The documents as the first replicas of all shards have them, as the second ones have them, and so on.
    let mut copies: Vec<Vec<Document>> = Vec::new();
    for placement in &record.shard_map.shards {
        let mut seen: BTreeMap<LogIndex, (ReplicaId, Vec<(Bytes, Bytes)>)> = BTreeMap::new();
        for (at, ReplicaPlacement { replica, node, .. }) in placement.replicas.iter().enumerate() {
            let Some(process) = world.node(*node).process() else { continue };
            let contents = match read_all(world, &process.host, record, placement).await {
                Ok(contents) => contents,
                Err(error) => {
                    world.violation(format!("reading {replica} of {}: {error}", placement.shard));
                    continue;
                }
            };
            let Contents { applied, pairs, mut documents } = contents;
            let (other, first) = seen.entry(applied).or_insert_with(|| (*replica, pairs.clone()));
            if *first != pairs {
                world.violation(format!("{replica} and {other} of {} differ at {applied}", placement.shard));
            }
            copies.resize_with(copies.len().max(at + 1), Vec::new);
            copies[at].append(&mut documents);
        }
    }
    for documents in copies.iter().filter(|_| record.namespace.collection == THINGS) {
        check::check_documents(&mut world.history.lock(), documents);
    }
}

/// What a replica holds.
struct Contents {
    applied: LogIndex,
    pairs: Vec<(Bytes, Bytes)>,
    documents: Vec<Document>,
}

async fn read_all(
    world: &World,
    host: &Host,
    record: &CollectionRecord,
    placement: &ShardPlacement,
) -> base::Result<Contents> {
    let gone = || base::Error::new(base::Code::STALE_CONFIG, "the replica is gone");
    let handle = host.shard(placement.shard).ok_or_else(gone)?;
    let (view, state) = handle.read_behind().await?;
    let documents = check::read_documents(view.as_ref()).map_err(|fault| handle.report(fault))?;
    check_owned(world, record, placement, &state, &documents);
    check::check_indexes(&mut world.history.lock(), &state, view.as_ref());
    let users = KeyRange { start: Bytes::from_static(&[2]), end: None };
    let pairs = view.scan(users, Direction::Forward).collect::<storage::Result<_>>();
    let applied = view.applied_index().map_err(|fault| handle.report(fault))?;
    Ok(Contents { applied, pairs: pairs.map_err(|fault| handle.report(fault))?, documents })
}

/// A shard's state and documents against the shard map.
fn check_owned(
    world: &World,
    record: &CollectionRecord,
    placement: &ShardPlacement,
    state: &ShardState,
    documents: &[Document],
) {
    let shard = placement.shard;
    let range = HashRange { first: placement.first_hash(), last: placement.last_hash() };
    let key = ShardKey::from(record.shard_key.clone());
    if !state.serves() || state.noting.is_some() || state.hash_range != range || state.shard_key != key {
        world.violation(format!("{shard} is {state:?}, and the shard map has {placement:?} by {key:?}"));
    }
    for document in documents {
        let hash = key.hash(document::DocRef::Tree(document));
        if !hash.as_ref().is_ok_and(|hash| range.contains(*hash)) {
            world.violation(format!("{document} is in {shard}, which does not own {hash:?}"));
        }
    }
}

/// Every disk against what the catalog placed there.
fn check_disks(world: &World, catalog: &Catalog) {
    let shards = catalog.collections().flat_map(|record| &record.shard_map.shards);
    let all = shards.flat_map(|placement| &placement.replicas).chain(&catalog.cluster().catalog);
    let placed: Vec<ReplicaPlacement> = all.cloned().collect();
    for node in world.members() {
        let here = placed.iter().filter(|placed| placed.node == node);
        check::check_disk(world, node, &here.map(|placed| placed.replica).collect());
    }
}
