//! How a client reaches a node, as through a connection of its driver: late, without a promise that an answer comes.
//!
//! What is asked runs as a task of the node's process: it stands still with it, and ends with it.

use std::sync::Arc;
use std::time::Duration;

use base::NodeId;
use futures::future::BoxFuture;
use replica::Host;
use router::Router;
use tokio::sync::oneshot;

use crate::process::Process;
use crate::world::World;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// Nobody listens on the node.
    Unreachable,
    /// The process ended, or the client lost its patience: nobody knows what became of the request.
    Lost,
    /// The node's error.
    Refused(base::Error),
}

/// Asks a node. With `patience`, gives up after so many milliseconds, while the node may go on.
pub(crate) async fn call<R: Send + 'static>(
    world: &Arc<World>,
    node: NodeId,
    patience_ms: Option<u64>,
    work: impl FnOnce(Host) -> BoxFuture<'static, base::Result<R>>,
) -> Result<R, NoAnswer> {
    ask(world, node, patience_ms, |process| Some(work(process.host.clone()))).await
}

/// Asks the router of a node, as above.
pub(crate) async fn call_router<R: Send + 'static>(
    world: &Arc<World>,
    node: NodeId,
    patience_ms: u64,
    work: impl FnOnce(Arc<Router>) -> BoxFuture<'static, base::Result<R>>,
) -> Result<R, NoAnswer> {
    ask(world, node, Some(patience_ms), |process| process.router().map(work)).await
}

async fn ask<R: Send + 'static>(
    world: &Arc<World>,
    node: NodeId,
    patience_ms: Option<u64>,
    work: impl FnOnce(&Process) -> Option<BoxFuture<'static, base::Result<R>>>,
) -> Result<R, NoAnswer> {
    world.pause(1).await;
    let Some(process) = world.node(node).process() else { return Err(NoAnswer::Unreachable) };
    let (tell, told) = oneshot::channel();
    let Some(working) = work(&process) else { return Err(NoAnswer::Unreachable) };
    process.spawn(Box::pin(async move {
        // A client that is gone does not listen.
        let _ = tell.send(working.await);
    }));
    drop(process);
    let answer = match patience_ms {
        Some(ms) => {
            tokio::time::timeout(Duration::from_millis(ms), told).await.map_err(|_| NoAnswer::Lost)?
        }
        None => told.await,
    };
    world.pause(1).await;
    answer.map_err(|_| NoAnswer::Lost)?.map_err(NoAnswer::Refused)
}
