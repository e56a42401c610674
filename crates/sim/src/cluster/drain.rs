//! Nodes of a whole cluster that are to be emptied: taken back into use before that is done, or taken out of the cluster
//! afterwards; and dead ones that are taken out of it as they are.
//!
//! Called by faults. Always holds: a node that lives is switched off only after it was said to belong to no group any more.

use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Code, NodeId, Result};
use futures::future::BoxFuture;
use router::{NodeProgress, OperationContext, Router};

use crate::rpc::{NoAnswer, call_router};
use crate::world::World;

/// How long an answer is waited for, in milliseconds: longer than a router tries.
const PATIENCE_MS: u64 = 40_000;
/// How long a router may wait for a node to leave its groups, in milliseconds.
const LEAVING_MS_MAX: u64 = 20_000;

/// Has a node drained, and sees to its end.
pub(super) async fn drain(world: &Arc<World>) {
    let Ok(_administering) = world.administration.try_lock() else { return };
    let members = world.members();
    if members.len() < 2 {
        return;
    }
    let node = world.pick(&members);
    let begun = ask(world, members[0], move |router| Box::pin(async move { router.drain_node(node).await }));
    match begun.await {
        // The others would be too few.
        Err(NoAnswer::Refused(error)) if error.code == Code::ILLEGAL_OPERATION => return,
        Ok(()) => world.schedule(&format!("{node} is drained")),
        Err(failure) => {
            note(world, &format!("draining {node}"), &failure);
            world.schedule(&format!("{node} may be drained"));
            return cancel(world, node).await;
        }
    }
    if world.chance(40) {
        world.pause(5_000).await;
        return cancel(world, node).await;
    }
    until_empty(world, node).await;
    // It would be refused if the node had anything left.
    remove(world, node, &[]).await;
    let place = world.node(node);
    let _busy = place.busy.lock().await;
    place.kill();
    place.wipe();
    world.dismiss(node);
}

async fn cancel(world: &Arc<World>, node: NodeId) {
    world.schedule(&format!("{node} is taken back into use"));
    loop {
        let work = move |router: Arc<Router>| -> BoxFuture<'static, Result<()>> {
            Box::pin(async move { router.cancel_drain(node).await })
        };
        match ask(world, world.pick(&world.members()), work).await {
            Ok(()) => return,
            Err(failure) => note(world, &format!("taking {node} back"), &failure),
        }
        world.pause(200).await;
    }
}

async fn until_empty(world: &Arc<World>, node: NodeId) {
    loop {
        world.pause(500).await;
        let work = move |router: Arc<Router>| -> BoxFuture<'static, Result<NodeProgress>> {
            Box::pin(async move { router.node_progress(node).await })
        };
        match ask(world, world.pick(&world.members()), work).await {
            Ok(progress) if progress.replicas == 0 => return,
            Ok(_) => {}
            Err(failure) => note(world, &format!("looking at {node}"), &failure),
        }
    }
}

/// Takes a node that is gone for good out of the cluster, once it counts as dead and all its shards have primaries without it.
pub(super) async fn remove_dead(world: &Arc<World>, node: NodeId) {
    remove(world, node, &[Code::ILLEGAL_OPERATION]).await;
}

/// Asks for that until it is done; these answers mean that it has to wait.
async fn remove(world: &Arc<World>, node: NodeId, has_to_wait: &[Code]) {
    world.schedule(&format!("{node} is removed"));
    loop {
        let others: Vec<NodeId> = world.members().into_iter().filter(|other| *other != node).collect();
        let asked = world.pick(&others);
        let deadline = world.node(asked).clock.monotonic() + Duration::from_millis(LEAVING_MS_MAX);
        let cx = OperationContext { deadline: Some(deadline), ..OperationContext::default() };
        let work = move |router: Arc<Router>| -> BoxFuture<'static, Result<()>> {
            Box::pin(async move { router.remove_node(&cx, node).await })
        };
        match ask(world, asked, work).await {
            Ok(()) => return,
            Err(NoAnswer::Refused(error)) if has_to_wait.contains(&error.code) => {
                world.trace(&format!("removing {node} has to wait: {error}"));
            }
            Err(failure) => note(world, &format!("removing {node}"), &failure),
        }
        world.pause(500).await;
    }
}

async fn ask<R: Send + 'static>(
    world: &Arc<World>,
    node: NodeId,
    work: impl FnOnce(Arc<Router>) -> BoxFuture<'static, Result<R>>,
) -> std::result::Result<R, NoAnswer> {
    call_router(world, node, PATIENCE_MS, work).await
}

/// Notes a failure. One that nobody should meet is a violation.
fn note(world: &World, what: &str, failure: &NoAnswer) {
    world.trace(&format!("{what}: {failure:?}"));
    let expected = [
        Code::CONFLICTING_OPERATION_IN_PROGRESS,
        Code::HOST_UNREACHABLE,
        Code::INTERRUPTED_AT_SHUTDOWN,
        Code::INTERRUPTED_DUE_TO_REPL_STATE_CHANGE,
        Code::MAX_TIME_MS_EXPIRED,
        Code::NOT_WRITABLE_PRIMARY,
        Code::SHUTDOWN_IN_PROGRESS,
        Code::STALE_CONFIG,
    ];
    if let NoAnswer::Refused(error) = failure
        && !expected.contains(&error.code)
    {
        world.violation(format!("{what} was answered {error}"));
    }
}
