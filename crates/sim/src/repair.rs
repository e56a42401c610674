//! Changes of membership: replicas that move, come and go, and those that take the place of one whose disk was lost.
//!
//! Called as faults, and to finish what faults began. Always holds: one change at a time; a disk is taken away only from
//! a group that has three voters and no change under way, and the next one only after the first is made up for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{LogIndex, NodeId, ReplicaId, ShardId};
use replica::{MemberChange, Membership};
use storage::RaftLog;

use crate::groups::{self, GROUPS, Member, SHARD};
use crate::world::World;
use crate::{client, faults};

/// Attempts after which a change of membership that faults keep from happening is given up.
const ATTEMPTS_MAX: u64 = 400;

/// Moves, adds or removes a replica of the shard.
pub(crate) async fn reshape(world: &Arc<World>) {
    let Ok(_administering) = world.administration.try_lock() else { return };
    if !is_founded(world) {
        return;
    }
    let Some(membership) = groups::settled_membership(world, SHARD).await else { return };
    let taken: Vec<NodeId> = membership.nodes.values().copied().collect();
    let free: Vec<NodeId> = world.nodes.keys().copied().filter(|node| !taken.contains(node)).collect();
    let old = world.pick(&membership.replicas());
    match world.choose(3) {
        0 if membership.voters.len() > 2 => remove(world, old).await,
        1 if !free.is_empty() => add(world, SHARD, world.pick(&free), None).await,
        _ if !free.is_empty() => add(world, SHARD, world.pick(&free), Some(old)).await,
        _ => {}
    }
}

/// Takes a node's disk away, either at once or since a flipped bit makes it useless. The node comes back empty, and its
/// groups get new replicas there.
pub(crate) async fn lose_a_disk(world: &Arc<World>, flips: bool) {
    let Ok(_administering) = world.administration.try_lock() else { return };
    let nodes: Vec<NodeId> = world.nodes.keys().copied().collect();
    let node = world.pick(&nodes);
    let mut lost = Vec::new();
    for shard in GROUPS {
        let membership = match is_founded(world) {
            true => groups::settled_membership(world, shard).await,
            false => None,
        };
        let Some(membership) = membership.filter(|membership| membership.voters.len() >= 3) else { return };
        let replica = membership.nodes.iter().find(|(_, place)| **place == node);
        lost.extend(replica.map(|(replica, _)| (shard, *replica)));
    }
    let is_lost = replace_disk(world, node, flips, &lost).await;
    // Perhaps the replicas are replaced although their disk is as good as ever.
    if !is_lost && world.chance(70) {
        return;
    }
    for (shard, old) in lost {
        make_up_for(world, shard, node, old).await;
    }
}

/// Whether every first replica was created.
pub(crate) fn is_founded(world: &World) -> bool {
    world.founders.iter().all(|node| world.node(*node).is_founded.load(Ordering::SeqCst))
}

/// Returns whether the disk had to go.
async fn replace_disk(world: &Arc<World>, node: NodeId, flips: bool, lost: &[(ShardId, ReplicaId)]) -> bool {
    let place = world.node(node);
    let _busy = place.busy.lock().await;
    if flips && !flip_a_bit(world, node).await {
        return false;
    }
    world.schedule(&format!("{node}: its disk is replaced by an empty one"));
    place.kill();
    place.wipe();
    if !keeps_ids(world) {
        // An empty node is another node to the others: nothing that is meant for what it was reaches it.
        lost.iter().for_each(|(_, replica)| world.network.forget(*replica));
    }
    world.pause(1_000).await;
    faults::start(world, node).await;
    true
}

/// Flips a bit of an entry that the node's Raft log holds, and restarts the process. Returns whether the damage was
/// there to be noticed; then the process must have said so.
async fn flip_a_bit(world: &Arc<World>, node: NodeId) -> bool {
    let place = world.node(node);
    let Some(process) = place.process() else { return false };
    let Some(member) = Member::on(&process.host, SHARD) else { return false };
    process.expect_fault();
    let (replica, applied) = (member.replica(), member.applied());
    drop(member);
    drop(process);
    let index = LogIndex(applied.get().saturating_sub(world.choose(5)));
    if !place.disk().flip_log_bit(replica, index, 40) {
        return false;
    }
    world.schedule(&format!("{node}: a bit of entry {index} of {replica} flips"));
    world.pause(500).await;
    place.kill();
    match place.disk().open() {
        Err(_) => true,
        Ok((_, log)) => {
            // The entry was compacted away, or overwritten, before anybody saw it.
            let is_readable = log.entries(replica, index, index.next(), usize::MAX).is_ok();
            world.trace(&format!(
                "the damage is gone, the entry is {}",
                if is_readable { "new" } else { "gone" }
            ));
            faults::start(world, node).await;
            false
        }
    }
}

/// A replica is gone for good; its node gets another one.
async fn make_up_for(world: &Arc<World>, shard: ShardId, node: NodeId, old: ReplicaId) {
    #[cfg(feature = "bugs")]
    if keeps_ids(world) {
        return bring_back(world, shard, node, old).await;
    }
    add(world, shard, node, Some(old)).await;
}

/// Whether the bug is put back with which a wiped replica goes on under its old id.
#[cfg(feature = "bugs")]
fn keeps_ids(world: &World) -> bool {
    world.options.bug == Some(replica::bugs::Bug::WipedReplicaKeepsItsId)
}

#[cfg(not(feature = "bugs"))]
fn keeps_ids(_world: &World) -> bool {
    false
}

/// With the bug put back, the wiped replica comes back with nothing but its old id.
#[cfg(feature = "bugs")]
async fn bring_back(world: &Arc<World>, shard: ShardId, node: NodeId, old: ReplicaId) {
    let Some(process) = world.node(node).process() else { return };
    let membership = groups::first_members(world, shard);
    let batch = groups::initial_batch(shard);
    // A process that ends meanwhile brings nothing back.
    let _ = match shard == SHARD {
        true => process.host.create_replica(shard, old, &membership, batch).await.is_ok(),
        false => process.host.create_catalog(old, &membership, batch).await.is_ok(),
    };
}

/// Adds a replica on a node, and makes it a voter, perhaps in the place of another one.
async fn add(world: &Arc<World>, shard: ShardId, node: NodeId, instead_of: Option<ReplicaId>) {
    let new = world.new_replica(shard);
    let waits = world.chance(80);
    for _ in 0..ATTEMPTS_MAX {
        world.pause(200).await;
        let Some(membership) = groups::settled_membership(world, shard).await else { continue };
        let old = instead_of.filter(|old| membership.nodes.contains_key(old));
        if membership.voters.contains(&new) && old.is_none() {
            return drop_strangers(world).await;
        }
        if !membership.nodes.contains_key(&new) {
            groups::change(world, shard, vec![MemberChange::AddLearner(new, node)]).await;
        } else if !waits || groups::has_caught_up(world, shard, node, new) {
            let may_go = step_aside(world, shard, &membership, old).await;
            let promotion = (!membership.voters.contains(&new)).then_some(MemberChange::Promote(new));
            let removal = old.filter(|_| may_go).map(MemberChange::Remove);
            let changes: Vec<_> = promotion.into_iter().chain(removal).collect();
            if !changes.is_empty() {
                groups::change(world, shard, changes).await;
            }
        }
    }
    world.violation(format!("{shard} never got {new} on {node}"));
}

async fn remove(world: &Arc<World>, old: ReplicaId) {
    for _ in 0..ATTEMPTS_MAX {
        world.pause(200).await;
        let Some(membership) = groups::settled_membership(world, SHARD).await else { continue };
        if !membership.nodes.contains_key(&old) {
            return drop_strangers(world).await;
        }
        step_aside(world, SHARD, &membership, Some(old)).await;
        groups::change(world, SHARD, vec![MemberChange::Remove(old)]).await;
    }
    world.violation(format!("{SHARD} never got rid of {old}"));
}

/// A leader that is to go hands over first. Returns whether the old replica does not lead.
async fn step_aside(world: &World, shard: ShardId, membership: &Membership, old: Option<ReplicaId>) -> bool {
    let leads = || groups::leader(world, shard).is_some_and(|leader| Some(leader.replica()) == old);
    let others: Vec<_> = membership.voters.iter().copied().filter(|voter| Some(*voter) != old).collect();
    if leads() && !others.is_empty() {
        groups::transfer(world, shard, world.pick(&others)).await;
        world.pause(100).await;
    }
    !leads()
}

/// Drops replicas of the shard that belong to its group no more, where their nodes can be reached and once it is known who
/// does.
pub(crate) async fn drop_strangers(world: &Arc<World>) {
    if let Some(membership) = groups::settled_membership(world, SHARD).await {
        // Whoever acknowledges this durably knows that the membership is committed, and will not need those who went.
        client::barrier(world, SHARD).await;
        drop_all_but(world, &membership);
    }
}

/// Drops replicas of the shard that are not among its members, where their nodes can be reached.
pub(crate) fn drop_all_but(world: &Arc<World>, membership: &Membership) {
    for (node, process) in world.processes() {
        let Some(handle) = process.host.shard(SHARD) else { continue };
        let replica = handle.replica();
        if membership.nodes.contains_key(&replica) || process.is_paused() {
            continue;
        }
        world.schedule(&format!("{node}: drops {replica}"));
        let host = process.host.clone();
        process.spawn(Box::pin(async move {
            // A process that stops meanwhile drops it after its next start.
            let _ = host.drop_replica(SHARD).await;
        }));
    }
}
