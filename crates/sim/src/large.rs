//! A model of a large cluster: many nodes and shards, of which one node leads many, and is lost.
//!
//! The code of `replica`, `catalog` and `router` runs as it is, without other faults and on a good network, so that what is counted
//! is the work that size makes: what an idle cluster sends, how long the shards of the lost node have no primary, and what the
//! balancer does to rebuild what that node held and to even things out. Called by the run. Always holds: each phase ends, or the
//! run says that it does not; the ledger watches as it does in every run.

mod counts;
mod failover;
mod layout;
mod nodes;
mod rebuild;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::counts::Counts;
use self::layout::Layout;
use crate::network::Weather;
use crate::world::World;

/// How large the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Nodes, at least four.
    pub nodes: u32,
    /// Shards, each with three replicas, at least `led`.
    pub shards: u32,
    /// Shards whose primary is on the node that will be lost.
    pub led: u32,
    /// Whether the run goes on until all is rebuilt and even.
    pub rebuilds: bool,
}

/// A good network between machines that stand close together: one stream for each pair, in which nothing overtakes.
const WEATHER: Weather = Weather {
    delay_ms: 1,
    slow_percent: 0,
    slow_ms: 0,
    loss_percent: 0,
    double_percent: 0,
    keeps_order: true,
};
/// How long nothing happens before idle traffic is counted: longer than a group stays awake without a reason.
const QUIET: Duration = Duration::from_secs(8);
/// For how long idle traffic is counted.
const COUNTED: Duration = Duration::from_secs(20);
/// How often whoever waits looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Forms the cluster, lets it rest, loses a node, and lets the others make up for it.
pub(crate) async fn run(world: &Arc<World>, size: Size) {
    world.network.set_weather(WEATHER);
    let layout = Layout::new(size);
    nodes::start_all(world, &layout).await;
    if !failover::elect_all(world, &layout).await {
        return;
    }
    tokio::time::sleep(QUIET).await;
    let before = Counts::now(world);
    tokio::time::sleep(COUNTED).await;
    world.figure(format!("idle: {}", before.until(&Counts::now(world))));
    if failover::lose(world, &layout).await && size.rebuilds && rebuild::rebuild(world, &layout).await {
        rebuild::even(world, &layout).await;
    }
}

/// Looks until all is as it should be, or for so many seconds, which is a violation. Returns how long it took.
async fn wait(
    world: &World,
    seconds_max: u64,
    every: Duration,
    mut find: impl FnMut() -> Option<String>,
) -> Option<Duration> {
    let began = Instant::now();
    loop {
        let Some(lacks) = find() else { return Some(began.elapsed()) };
        if began.elapsed().as_secs() >= seconds_max {
            world.violation(format!("after {seconds_max} seconds: {lacks}"));
            return None;
        }
        tokio::time::sleep(every).await;
    }
}
