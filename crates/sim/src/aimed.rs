//! Faults that are aimed: at a leader that has just won, at one that others are about to replace, and at what such a leader
//! leaves behind. Chance alone would rarely do to a cluster what is done here.
//!
//! Called by [`crate::faults`], as the faults there are. Always holds: what is cut here is mended here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::{NodeId, ReplicaId};
use replica::MemberChange;

use crate::faults::{Ending, cut_for, end_for, hand_over, isolation, others, sleep_ms, span_ms};
use crate::groups::{self, Member, SHARD};
use crate::world::World;
use crate::{client, repair};

/// How long somebody waits for an election or for an entry to be committed, in milliseconds.
const WAIT_MS: u64 = 3_000;

/// Waits for the next election, provoked if need be, and hits the winner at once: it is cut off before what it does as a
/// leader can spread, or it loses its power, and so may those that voted for it.
pub(crate) async fn ambush(world: &Arc<World>) {
    let elected = world.elections.notified();
    if world.chance(70) {
        hand_over(world).await;
    }
    if tokio::time::timeout(Duration::from_secs(3), elected).await.is_err() {
        return;
    }
    world.pause(world.pick(&[0, 3, 30])).await;
    let Some(winner) = groups::leader_node(world, SHARD) else { return };
    let cut_ms = 300 + span_ms(world);
    let hit_winner = world.chance(30);
    let voters: Vec<NodeId> = others(world, winner).into_iter().filter(|_| world.chance(40)).collect();
    let crash = |node| end_for(world, node, Ending::PowerOff, 1);
    futures::join!(
        cut_for(world, isolation(world, winner), cut_ms),
        async {
            if hit_winner {
                crash(winner).await;
            }
        },
        futures::future::join_all(voters.into_iter().map(crash)),
    );
}

/// Clients only read while a leader loses a follower, and, a little later, the others: what it still believes of itself
/// then shows in what it answers. Perhaps those others restart just before.
pub(crate) async fn quiet_failover(world: &Arc<World>) {
    let Some((leader, voters)) = leader_and_voters(world) else { return };
    let first = world.pick(&voters);
    let mut others = others(world, leader);
    others.retain(|other| *other != first);
    world.is_lull.store(true, Ordering::SeqCst);
    world.schedule(&format!("clients only read, to fail {leader} over to {first}"));
    sleep_ms(200 + world.choose(200)).await;
    let both = |other: NodeId| [(leader, other), (other, leader)];
    let total_ms = 1_500 + world.choose(1_500);
    let early = BTreeSet::from(both(first));
    let late: BTreeSet<_> = others.iter().flat_map(|other| both(*other)).collect();
    let wait_ms = world.choose(1_200);
    let restarts = world.chance(60);
    futures::join!(cut_for(world, early, total_ms), async {
        sleep_ms(wait_ms).await;
        let restart = others.iter().filter(|_| restarts).map(|other| end_for(world, *other, Ending::Kill, 1));
        futures::join!(cut_for(world, late, total_ms.saturating_sub(wait_ms)), async {
            futures::join!(futures::future::join_all(restart), look_back(world, leader));
            world.is_lull.store(false, Ordering::SeqCst);
        });
    });
}

/// Clients only read while a leader is cut off from everybody at once: the first of its followers whose patience ends, which
/// may be before the leader's clock says so, looks at what the leader still answers.
pub(crate) async fn sudden_silence(world: &Arc<World>) {
    let Some((leader, _)) = leader_and_voters(world) else { return };
    world.is_lull.store(true, Ordering::SeqCst);
    world.schedule(&format!("clients only read, and {leader} falls silent"));
    sleep_ms(200 + world.choose(200)).await;
    futures::join!(cut_for(world, isolation(world, leader), 1_500), async {
        look_back(world, leader).await;
        world.is_lull.store(false, Ordering::SeqCst);
    });
}

/// Clients only read while what a leader's followers answer takes longer and longer, until nothing that it sends arrives
/// any more: its followers replace it while answers to what it sent before still come in.
pub(crate) async fn late_answers(world: &Arc<World>) {
    let Some((leader, _)) = leader_and_voters(world) else { return };
    let answers: BTreeSet<_> = others(world, leader).into_iter().map(|other| (other, leader)).collect();
    let questions: BTreeSet<_> = answers.iter().map(|(from, to)| (*to, *from)).collect();
    let late_ms = 300 + world.choose(300);
    world.schedule(&format!("answers to {leader} take {late_ms} ms longer"));
    world.is_lull.store(true, Ordering::SeqCst);
    world.network.delay_by(&answers, late_ms);
    sleep_ms(60 + world.choose(150)).await;
    let cutting = async {
        cut_for(world, questions, 1_500).await;
        // Before whoever looks back is done: with answers as late as this nobody wins an election.
        world.network.hasten(&answers);
    };
    futures::join!(cutting, async {
        look_back(world, leader).await;
        world.is_lull.store(false, Ordering::SeqCst);
    });
}

/// A leader is cut off with entries that nobody else has, and so is the next one. The first one leads again, until it
/// commits something; then the next one comes back.
pub(crate) async fn see_saw(world: &Arc<World>) {
    let Some((first, _)) = leader_and_voters(world) else { return };
    world.schedule(&format!("{first} loses its role and gets it back"));
    let around_first = isolation(world, first);
    world.network.cut(&around_first);
    let playing = async {
        let second = successor(world, first).await;
        let around_second = second.map(|second| isolation(world, second)).unwrap_or_default();
        world.network.cut(&around_second);
        // It logs its first entry.
        sleep_ms(30).await;
        world.network.mend(&around_first);
        if let Some(second) = second
            && let Some(third) = successor(world, second).await
        {
            await_commit(world, third).await;
            let around_third = isolation(world, third);
            world.network.cut(&around_third);
            world.network.mend(&around_second);
            sleep_ms(1_500).await;
            world.network.mend(&around_third);
        } else {
            world.network.mend(&around_second);
        }
    };
    futures::join!(playing, client::crowd(world, first));
}

/// A leader is cut off while many write to it, and replaced; the next one hands the role back at once.
pub(crate) async fn relapse(world: &Arc<World>) {
    let Some((first, _)) = leader_and_voters(world) else { return };
    let Some(leader) = groups::leader(world, SHARD) else { return };
    let replica = leader.replica();
    drop(leader);
    world.schedule(&format!("{first} is replaced for a moment"));
    let around = isolation(world, first);
    world.network.cut(&around);
    futures::join!(client::crowd(world, first), async {
        let second = successor(world, first).await;
        world.network.mend(&around);
        if second.is_some() {
            groups::transfer(world, SHARD, replica).await;
        }
    });
}

/// A voter is removed by a leader that does not hear from anybody that it is, and another one by the next leader, as soon
/// as that has won. Had both happened at once, one that remained could not reach those who still count on all.
pub(crate) async fn hasty_removals(world: &Arc<World>) {
    let Ok(_administering) = world.administration.try_lock() else { return };
    if !repair::is_founded(world) {
        return;
    }
    let Some(membership) = groups::settled_membership(world, SHARD).await else { return };
    let Some(leader) = groups::leader_node(world, SHARD) else { return };
    let on = |node: NodeId| {
        membership.voters.iter().copied().find(|voter| membership.nodes.get(voter) == Some(&node))
    };
    let Some(own) = on(leader).filter(|_| membership.voters.len() == 3) else { return };
    let rest: Vec<ReplicaId> = membership.voters.iter().copied().filter(|voter| *voter != own).collect();
    let gone = world.pick(&rest);
    let deaf: BTreeSet<_> = others(world, leader).into_iter().map(|other| (other, leader)).collect();
    world.schedule(&format!("{leader} hears nothing, and removes {gone}"));
    world.network.cut(&deaf);
    let removing = groups::change(world, SHARD, vec![MemberChange::Remove(gone)]);
    futures::join!(removing, async {
        let next = successor(world, leader).await;
        world.network.mend(&deaf);
        if let Some(next) = next
            && groups::change(world, SHARD, vec![MemberChange::Remove(own)]).await
        {
            cut_for(world, isolation(world, next), 2_000).await;
        }
    });
    repair::drop_strangers(world).await;
}

/// The node of the shard's leader, and the nodes of the other voters, at least two.
fn leader_and_voters(world: &World) -> Option<(NodeId, Vec<NodeId>)> {
    let leader = groups::leader_node(world, SHARD)?;
    let process = world.node(leader).process()?;
    let membership = Member::on(&process.host, SHARD)?.membership();
    let nodes = membership.voters.iter().filter_map(|voter| membership.nodes.get(voter).copied());
    let voters: Vec<NodeId> = nodes.filter(|node| *node != leader).collect();
    (voters.len() >= 2).then_some((leader, voters))
}

/// Waits until the shard has a newer leader than the one on this node.
async fn successor(world: &World, old: NodeId) -> Option<NodeId> {
    let elected = async {
        loop {
            let mut rung = std::pin::pin!(world.elections.notified());
            rung.as_mut().enable();
            match groups::leader_node(world, SHARD) {
                Some(node) if node != old => return node,
                _ => rung.await,
            }
        }
    };
    tokio::time::timeout(Duration::from_millis(WAIT_MS), elected).await.ok()
}

/// Waits until the shard's replica on a node commits something.
async fn await_commit(world: &World, node: NodeId) {
    let commit = || {
        let process = world.node(node).process()?;
        Some(Member::on(&process.host, SHARD)?.commit())
    };
    let before = commit();
    let committed = async {
        loop {
            let mut rung = std::pin::pin!(world.commits.notified());
            rung.as_mut().enable();
            match commit() == before {
                true => rung.await,
                false => return,
            }
        }
    };
    // One that is cut off or ends commits nothing.
    let _ = tokio::time::timeout(Duration::from_millis(WAIT_MS), committed).await;
}

/// As soon as a leader has a successor, writes through that one and looks at what the old one answers.
async fn look_back(world: &Arc<World>, old: NodeId) {
    if let Some(new) = successor(world, old).await {
        client::write_here_read_there(world, new, old).await;
    }
}
