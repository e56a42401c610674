//! What goes wrong on purpose while clients run: processes, disks, clocks, the network, and combinations of them.
//!
//! Each fault is drawn at random, runs beside the clients and other faults, and ends by itself: what was cut is mended,
//! what was stopped is started. Called by the run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::NodeId;
use storage::memory::DiskPart;

use crate::groups::{self, SHARD};
use crate::network::Weather;
use crate::process::Process;
use crate::world::World;
use crate::{aimed, repair};

/// How a process may end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    PowerOff,
    Kill,
    FailedFsync,
    FullDisk,
    Shutdown,
}

const ENDINGS: [Ending; 7] = [
    Ending::PowerOff,
    Ending::PowerOff,
    Ending::Kill,
    Ending::Kill,
    Ending::FailedFsync,
    Ending::FullDisk,
    Ending::Shutdown,
];

/// One fault, from its beginning to its end.
pub(crate) async fn inject(world: Arc<World>) {
    match world.choose(30) {
        0..=3 => end_and_start(&world, target(&world)).await,
        4 => end_and_start_several(&world).await,
        5..=6 => pause(&world, target(&world)).await,
        7 => stall(&world, target(&world)).await,
        8..=11 => partition(&world, target(&world)).await,
        12 => storm(&world).await,
        13 => jump(&world, target(&world)),
        14..=15 => aimed::ambush(&world).await,
        16..=17 => aimed::quiet_failover(&world).await,
        18 => hand_over(&world).await,
        19..=20 => repair::reshape(&world).await,
        21 => repair::lose_a_disk(&world, false).await,
        22 => repair::lose_a_disk(&world, true).await,
        23 => aimed::late_answers(&world).await,
        24 => aimed::see_saw(&world).await,
        25 => aimed::relapse(&world).await,
        26 => aimed::hasty_removals(&world).await,
        _ => aimed::sudden_silence(&world).await,
    }
}

/// The usual weather of a run.
pub(crate) fn usual_weather(world: &World) -> Weather {
    Weather {
        delay_ms: world.pick(&[0, 2, 10]),
        slow_percent: world.pick(&[0, 0, 5]),
        slow_ms: world.pick(&[50, 400]),
        loss_percent: world.pick(&[0, 0, 1]),
        double_percent: world.pick(&[0, 2, 20]),
        keeps_order: false,
    }
}

/// A node for a fault: often the one that leads.
fn target(world: &World) -> NodeId {
    let nodes = world.members();
    let leader = groups::leader_node(world, SHARD).filter(|_| world.chance(50));
    leader.unwrap_or_else(|| world.pick(&nodes))
}

pub(crate) async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// How long something lasts: mostly short, sometimes longer than any timeout.
pub(crate) fn span_ms(world: &World) -> u64 {
    let max_ms = world.pick(&[50, 300, 1_000, 1_000, 5_000]);
    world.choose(max_ms) + 1
}

pub(crate) async fn end_and_start(world: &Arc<World>, node: NodeId) {
    let ending = world.pick(&ENDINGS);
    let down_ms = span_ms(world);
    end_for(world, node, ending, down_ms).await;
}

pub(crate) async fn end_and_start_several(world: &Arc<World>) {
    let ending = world.pick(&ENDINGS);
    let nodes: Vec<NodeId> = world.members().into_iter().filter(|_| world.chance(70)).collect();
    let downs: Vec<_> = nodes.into_iter().map(|node| (node, span_ms(world))).collect();
    let ending_all = downs.into_iter().map(|(node, down_ms)| end_for(world, node, ending, down_ms));
    futures::future::join_all(ending_all).await;
}

/// Ends a node's process, and starts another one on its disk.
pub(crate) async fn end_for(world: &Arc<World>, node: NodeId, ending: Ending, down_ms: u64) {
    let Ok(_busy) = world.node(node).busy.try_lock() else { return };
    let Some(process) = world.node(node).process() else { return };
    world.schedule(&format!("{node}: {ending:?}, down for {down_ms} ms"));
    end(world, node, &process, ending).await;
    drop(process);
    sleep_ms(down_ms).await;
    start(world, node).await;
}

/// Starts a node's process. One that does not start is a violation.
pub(crate) async fn start(world: &Arc<World>, node: NodeId) {
    if let Err(what) = world.node(node).start(world).await {
        world.violation(what);
    }
}

async fn end(world: &World, node: NodeId, process: &Process, ending: Ending) {
    let place = world.node(node);
    match ending {
        Ending::PowerOff => place.power_off(world),
        Ending::Kill => place.kill(),
        Ending::FailedFsync => {
            let part = if world.chance(70) { DiskPart::RaftLog } else { DiskPart::Store };
            process.expect_fault();
            match world.chance(70) {
                true => place.disk().fail_next_fsync(part),
                false => place.disk().fail_next_write(part),
            }
            await_fault(process).await;
            place.power_off(world);
        }
        Ending::FullDisk => {
            process.expect_fault();
            let disk = place.disk();
            disk.set_capacity_bytes(Some(disk.used_bytes() + world.choose(2_000)));
            await_fault(process).await;
            place.kill();
            disk.set_capacity_bytes(None);
        }
        Ending::Shutdown => {
            let ended = tokio::time::timeout(Duration::from_secs(60), process.host.shutdown()).await;
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => world.violation(format!("shutting down {node}: {fault}")),
                Err(_) => world.violation(format!("shutting down {node} takes forever")),
            }
            place.kill();
        }
    }
}

/// Waits until the process meets the fault that was ordered; it may never touch that part of the disk.
async fn await_fault(process: &Process) {
    let _ = tokio::time::timeout(Duration::from_secs(2), process.host.faulted()).await;
}

pub(crate) async fn pause(world: &Arc<World>, node: NodeId) {
    let Ok(_busy) = world.node(node).busy.try_lock() else { return };
    let Some(process) = world.node(node).process() else { return };
    let pause_ms = span_ms(world);
    world.schedule(&format!("{node}: stands still for {pause_ms} ms"));
    process.pause();
    sleep_ms(pause_ms).await;
    world.trace(&format!("{node} goes on"));
    process.resume();
}

pub(crate) async fn stall(world: &World, node: NodeId) {
    let stall_ms = span_ms(world);
    world.schedule(&format!("{node}: an fsync hangs for {stall_ms} ms"));
    if let Some(process) = world.node(node).process() {
        process.stall_fsync(stall_ms);
    }
}

pub(crate) fn jump(world: &World, node: NodeId) {
    let jump_ms = world.node(node).clock.jump(world);
    world.schedule(&format!("{node}: the wall clock jumps by {jump_ms} ms"));
}

pub(crate) async fn storm(world: &World) {
    let weather = Weather {
        delay_ms: world.pick(&[5, 40]),
        slow_percent: 20,
        slow_ms: world.pick(&[200, 1_000]),
        loss_percent: world.pick(&[0, 10, 30]),
        double_percent: world.pick(&[0, 30]),
        keeps_order: false,
    };
    let storm_ms = 500 + span_ms(world);
    world.schedule(&format!("{weather:?} for {storm_ms} ms"));
    world.network.set_weather(weather);
    sleep_ms(storm_ms).await;
    world.network.set_weather(usual_weather(world));
}

/// Cuts directions for a while.
pub(crate) async fn cut_for(world: &World, directions: BTreeSet<(NodeId, NodeId)>, cut_ms: u64) {
    world.schedule(&format!("cut for {cut_ms} ms: {directions:?}"));
    world.network.cut(&directions);
    sleep_ms(cut_ms).await;
    world.trace(&format!("mended: {directions:?}"));
    world.network.mend(&directions);
}

pub(crate) fn others(world: &World, node: NodeId) -> Vec<NodeId> {
    world.members().into_iter().filter(|other| *other != node).collect()
}

/// All directions between a node and the rest.
pub(crate) fn isolation(world: &World, node: NodeId) -> BTreeSet<(NodeId, NodeId)> {
    others(world, node).into_iter().flat_map(|other| [(node, other), (other, node)]).collect()
}

pub(crate) async fn partition(world: &World, node: NodeId) {
    let others = others(world, node);
    if others.is_empty() {
        return;
    }
    let other = world.pick(&others);
    let directions = match world.choose(6) {
        0 | 1 => isolation(world, node),
        2 => others.iter().map(|other| (node, *other)).collect(),
        3 => others.iter().map(|other| (*other, node)).collect(),
        4 => [(node, other), (other, node)].into(),
        _ => [world.pick(&[(node, other), (other, node)])].into(),
    };
    let cut_ms = 200 + span_ms(world);
    cut_for(world, directions, cut_ms).await;
}

pub(crate) async fn hand_over(world: &World) {
    let shard = world.pick(&groups::GROUPS);
    let Some(leader) = groups::leader(world, shard) else { return };
    let voters = leader.membership().voters.clone();
    groups::transfer(world, shard, world.pick(&voters)).await;
}
