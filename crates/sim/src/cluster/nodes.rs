//! Nodes of a whole cluster: how a process begins to serve, how the first one founds the cluster, how others join.
//!
//! Always holds: what a node does as it starts is what the server does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::NodeId;
use catalog::{Command, NodeFacts};
use futures::future::BoxFuture;
use replica::Host;
use replica::spawn::Spawner;
use router::{FIRST_NODE, Router, RouterOptions, found_cluster};

use super::peers::Way;
use crate::faults;
use crate::process::Process;
use crate::rpc::call_router;
use crate::world::World;

/// How long a node that joins waits for one answer, in milliseconds.
const JOIN_PATIENCE_MS: u64 = 10_000;
/// How often a node that joined looks whether its replica of the catalog has come.
const CATALOG_LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Has a process serve as soon as it has a copy of the catalog.
pub(crate) fn begin(world: &Arc<World>, process: &Arc<Process>, node: NodeId) {
    let (world, own) = (world.clone(), Arc::downgrade(process));
    let (host, spawner) = (process.host.clone(), process.spawner());
    process.spawn(Box::pin(async move {
        // What a founder cannot finish, its next process does.
        if node == FIRST_NODE && found_cluster(&host, founding).await.is_err() {
            return;
        }
        while host.catalog().is_none() {
            tokio::time::sleep(CATALOG_LOOK_INTERVAL).await;
        }
        let router = router(&world, node, host, spawner);
        world.trace(&format!("{node} serves"));
        if let Some(process) = own.upgrade() {
            process.serve(router.clone());
        }
        futures::join!(router.clone().keep_reconciled(), router.keep_balanced());
    }));
}

/// The router of a process.
pub(crate) fn router(world: &Arc<World>, node: NodeId, host: Host, spawner: Arc<dyn Spawner>) -> Arc<Router> {
    Router::new(RouterOptions {
        node,
        host: Arc::new(host),
        peers: Arc::new(Way { world: world.clone(), from: node }),
        describe: Arc::new(bson::Document::new),
        clock: world.node(node).clock.clone(),
        entropy: world.clone(),
        spawner,
    })
}

/// Founds the cluster, and lets the first nodes join: mostly as many as shards have replicas.
pub(super) async fn form(world: &Arc<World>) {
    world.admit(FIRST_NODE, FIRST_NODE.get());
    faults::start(world, FIRST_NODE).await;
    let others = world.pick(&[1, 2, 2, 2, 2, 2, 3]);
    for machine in 2..2 + others {
        join(world, machine).await;
    }
}

/// A node joins on a machine, perhaps in the place of one that is gone. Returns which one it is.
pub(super) async fn join(world: &Arc<World>, machine: u32) -> NodeId {
    let token = format!("token {}", world.choose(u64::MAX));
    let node = loop {
        let asked = world.pick(&world.members());
        let (token, facts) = (token.clone(), facts(machine));
        let join = |router: Arc<Router>| -> BoxFuture<'static, _> {
            Box::pin(async move { router.join_node(token, facts).await })
        };
        match call_router(world, asked, JOIN_PATIENCE_MS, join).await {
            Ok((node, _)) => break node,
            Err(failure) => world.trace(&format!("a node cannot join through {asked}: {failure:?}")),
        }
        world.pause(200).await;
    };
    world.schedule(&format!("{node} joins as n{machine}"));
    world.admit(node, machine);
    faults::start(world, node).await;
    node
}

fn founding() -> Command {
    Command::Found { name: "sim".to_owned(), replication_factor: 3, node: facts(FIRST_NODE.get()) }
}

pub(crate) fn facts(machine: u32) -> NodeFacts {
    NodeFacts {
        name: format!("n{machine}"),
        listen: format!("n{machine}:27017"),
        peer: format!("n{machine}:27117"),
        storage: true,
        labels: BTreeMap::new(),
    }
}
