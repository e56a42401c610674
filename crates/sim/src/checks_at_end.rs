//! What a run ends with: everything restarts once more, the groups become available, all replicas meet, and what they
//! hold is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::id::CATALOG_SHARD;
use base::limits::SESSION_IDLE_MS_MAX;
use base::{LogIndex, NodeId, ReplicaId, ShardId};
use bytes::Bytes;
use query::encoding::retry_range;
use replica::{Membership, ReplicaStatus};
use storage::{Direction, KeyRange, View};

use crate::check;
use crate::groups::{self, GROUPS, Member, SHARD};
use crate::world::World;
use crate::{faults, repair};

/// Simulated time within which a healed cluster must serve again and its replicas must meet, in seconds.
const RECOVERY_SECONDS_MAX: u64 = 60;
/// Simulated time within which a replica that is dropped is gone: it may wait for a successor first.
const DROP_MS_MAX: u64 = 2_000;

/// See the module's comment.
pub(crate) async fn check(world: &Arc<World>) {
    check::check_answers(&mut world.history.lock());
    let nodes: Vec<NodeId> = world.nodes.keys().copied().collect();
    for node in &nodes {
        let _busy = world.node(*node).busy.lock().await;
        world.node(*node).power_off(world);
        faults::start(world, *node).await;
    }
    let mut memberships = BTreeMap::new();
    if !recover(world, &mut memberships).await {
        return;
    }
    if let Some(membership) = memberships.get(&SHARD) {
        repair::drop_all_but(world, membership);
    }
    if !recover(world, &mut memberships).await {
        return;
    }
    for (shard, membership) in &memberships {
        check_group(world, *shard, membership).await;
    }
    if world.chance(2) {
        check_expiry(world).await;
    }
    tokio::time::sleep(Duration::from_millis(DROP_MS_MAX)).await;
    nodes.iter().for_each(|node| world.node(*node).kill());
    check_disks(world, &memberships);
}

/// Waits for both groups, and collects who belongs to them.
async fn recover(world: &Arc<World>, memberships: &mut BTreeMap<ShardId, Membership>) -> bool {
    for shard in GROUPS {
        match recover_group(world, shard).await {
            Some(membership) => memberships.insert(shard, membership),
            None => {
                world.violation(format!("{shard} does not come back; {}", statuses(world)));
                return false;
            }
        };
    }
    true
}

/// Waits until a group answers, and until all its replicas have what it had then.
async fn recover_group(world: &Arc<World>, shard: ShardId) -> Option<Membership> {
    let recovered = async {
        loop {
            if let Some(membership) = groups::settled_membership(world, shard).await
                && let Some(target) = groups::leader(world, shard).map(|leader| leader.applied())
            {
                while !have_applied(world, shard, &membership, target) {
                    world.pause(50).await;
                }
                return membership;
            }
            world.pause(50).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(RECOVERY_SECONDS_MAX), recovered).await.ok()
}

fn have_applied(world: &World, shard: ShardId, membership: &Membership, target: LogIndex) -> bool {
    membership.nodes.iter().all(|(replica, node)| {
        let process = world.node(*node).process();
        let member = process.and_then(|process| Member::on(&process.host, shard));
        member.is_some_and(|member| member.replica() == *replica && member.applied() >= target)
    })
}

fn statuses(world: &World) -> String {
    let of = |(node, process): &(NodeId, Arc<crate::process::Process>)| {
        let replicas: Vec<ReplicaStatus> = process.host.replicas();
        format!("{node}: {replicas:?}")
    };
    world.processes().iter().map(of).collect::<Vec<_>>().join("; ")
}

/// Every replica against the answers, the log and itself, and all of them against each other.
async fn check_group(world: &Arc<World>, shard: ShardId, membership: &Membership) {
    let mut seen: BTreeMap<LogIndex, (ReplicaId, BTreeMap<Bytes, Bytes>)> = BTreeMap::new();
    for (replica, node) in &membership.nodes {
        let Some(process) = world.node(*node).process() else { continue };
        let Ok(view) = check_member(world, &process.host, shard, *replica).await else { continue };
        let applied = view.applied_index().unwrap_or(LogIndex(0));
        let users: storage::Result<BTreeMap<Bytes, Bytes>> =
            view.scan(KeyRange { start: Bytes::from_static(&[2]), end: None }, Direction::Forward).collect();
        match users {
            Ok(users) => {
                let (other, first) = seen.entry(applied).or_insert_with(|| (*replica, users.clone()));
                if *first != users {
                    world.violation(format!("{replica} and {other} of {shard} differ at {applied}"));
                }
            }
            Err(fault) => world.violation(format!("reading the store of {replica}: {fault}")),
        }
    }
    let Some((applied, (replica, stored))) = seen.into_iter().next_back() else { return };
    let committed = world.ledger.lock().committed(shard, applied);
    check::check_replay(&mut world.history.lock(), shard, replica, &committed, &stored);
}

async fn check_member(
    world: &Arc<World>,
    host: &replica::Host,
    shard: ShardId,
    replica: ReplicaId,
) -> base::Result<Arc<dyn View>> {
    let Some(status) = host.replicas().into_iter().find(|status| status.name.replica == replica) else {
        world.violation(format!("{replica} is gone"));
        return Err(base::Error::new(base::Code::STALE_CONFIG, "the replica is gone"));
    };
    if status.applied > status.commit {
        world.violation(format!("something was applied before it was committed: {status:?}"));
    }
    if shard == CATALOG_SHARD {
        let catalog = host.catalog().ok_or_else(|| base::Error::new(base::Code::STALE_CONFIG, "gone"))?;
        let (view, state) = catalog.read_behind().await?;
        let found: BTreeSet<String> =
            state.active().map(|record| record.namespace.collection.clone()).collect();
        check::check_collections(&mut world.history.lock(), &found);
        return Ok(view);
    }
    let handle = host.shard(shard).ok_or_else(|| base::Error::new(base::Code::STALE_CONFIG, "gone"))?;
    let (view, state) = handle.read_behind().await?;
    let documents = check::read_documents(view.as_ref()).map_err(|fault| handle.report(fault))?;
    let mut history = world.history.lock();
    check::check_documents(&mut history, &documents);
    check::check_indexes(&mut history, &state, view.as_ref());
    Ok(view)
}

/// Every disk against who belongs to the groups.
fn check_disks(world: &World, memberships: &BTreeMap<ShardId, Membership>) {
    for node in world.nodes.keys() {
        let of = |membership: &Membership| {
            let here = membership.nodes.iter().filter(|(_, other)| *other == node);
            here.map(|(replica, _)| *replica).collect::<Vec<_>>()
        };
        check::check_disk(world, *node, &memberships.values().flat_map(of).collect());
    }
}

/// Sessions end when nobody uses them, and so do their retry records.
async fn check_expiry(world: &Arc<World>) {
    tokio::time::sleep(Duration::from_millis(SESSION_IDLE_MS_MAX * 12 / 10 + 150_000)).await;
    let Some(node) = groups::leader_node(world, SHARD) else { return };
    let Some(handle) = world.node(node).process().and_then(|process| process.host.shard(SHARD)) else {
        return;
    };
    let records = handle.read().await.map(|(view, _)| view.scan(retry_range(), Direction::Forward).count());
    if records != Ok(0) {
        world.violation(format!("retry records of idle sessions: {records:?}"));
    }
}
