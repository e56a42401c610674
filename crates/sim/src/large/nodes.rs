//! The nodes of a large cluster: how each starts with its copy of the catalog, and how it notices that another one is lost.
//!
//! Always holds: what a node does as it serves is what the server does; it notices a loss as late as one that pings the others
//! does, who go silent without a word.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::NodeId;
use replica::Host;
use tokio::time::Instant;

use super::layout::Layout;
use crate::cluster::router;
use crate::process::Process;
use crate::world::World;

/// How often another node is asked for a sign of life, at the latest, in milliseconds.
const PING_MS: u64 = 200;
/// How long another node may be silent before it counts as lost.
const DEAD_AFTER: Duration = Duration::from_secs(1);
/// How often a node looks who is lost.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Starts all nodes, each with a replica of the same catalog.
pub(super) async fn start_all(world: &Arc<World>, layout: &Layout) {
    let (membership, first) = (layout.membership(), layout.first_state());
    for node in world.members() {
        let process = match world.node(node).start(world).await {
            Ok(process) => process,
            Err(what) => return world.violation(what),
        };
        let created = process.host.create_catalog(layout.catalog_replica(node), &membership, first.clone());
        if let Err(error) = created.await {
            return world.violation(format!("{node} has no catalog: {error}"));
        }
        serve(world, &process, node);
    }
}

fn serve(world: &Arc<World>, process: &Arc<Process>, node: NodeId) {
    let router = router(world, node, process.host.clone(), process.spawner());
    process.serve(router.clone());
    process.spawn(Box::pin(router.clone().keep_reconciled()));
    process.spawn(Box::pin(router.keep_balanced()));
    process.spawn(Box::pin(watch_peers(world.clone(), process.host.clone(), node)));
}

/// Tells the replicas of a node when another one is lost.
async fn watch_peers(world: Arc<World>, host: Host, node: NodeId) {
    let others: Vec<NodeId> = world.nodes.keys().copied().filter(|other| *other != node).collect();
    let mut heard: BTreeMap<NodeId, Instant> = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let now = Instant::now();
        for other in &others {
            if world.node(*other).process().is_some() {
                heard.insert(*other, now);
            } else if let Some(last) = heard.get(other) {
                // Its last sign of life may have come as long before its end as signs are apart.
                let ping = Duration::from_millis(world.choose(PING_MS));
                if now.duration_since(*last) + ping >= DEAD_AFTER {
                    heard.remove(other);
                    host.peer_lost(*other);
                }
            }
        }
    }
}
