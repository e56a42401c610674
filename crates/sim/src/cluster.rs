//! A whole cluster: a node founds it, others join, the catalog places replicas, and clients ask whichever router they
//! like for documents, collections and indexes, while others cut collections into shards.
//!
//! What makes replicas come, move and go here is the code of `router` and `catalog` alone; the simulator only starts, ends
//! and loses nodes. Called by the run for its share of the seeds.

mod check;
mod client;
mod cursors;
mod drain;
mod faults;
mod nodes;
mod peers;
mod quiet;
mod shards;
mod watch;

use std::sync::Arc;

use crate::run::{clients, end_in_time, run_faults};
use crate::world::World;

pub(crate) use check::catalog as catalog_of_leader;
pub(crate) use nodes::{begin, facts, router};

/// Runs a cluster from its founding to the checks at its end.
pub(crate) async fn run(world: &Arc<World>) {
    nodes::form(world).await;
    if world.chance(50) {
        faults::hurry_death(world).await;
    }
    let layout = shards::Layout::draw(world);
    let mut watch = watch::Watch::default();
    let working = async {
        client::Client::new(world.clone(), layout, 0).set_up().await;
        let run = |number: u8| {
            let mut client = client::Client::new(world.clone(), layout, number);
            async move { client.run().await }
        };
        let clients = futures::future::join_all(clients(world).map(run));
        futures::join!(clients, shards::cut(world, layout), shards::meddle(world));
    };
    let faulting = run_faults(world, |world| Box::pin(faults::inject(world)));
    let all = async {
        futures::join!(end_in_time(world, working), faulting);
        quiet::check(world).await;
        check::check(world).await;
    };
    tokio::select! {
        biased;
        () = all => {}
        () = watch.keep_watching(world) => {}
    }
}
