//! Those who cut the collections of a whole cluster into shards: one has shards cut anew, another one meddles with that.
//!
//! Always holds: both go on asking for as long as faults do; at the end nothing stands still because somebody said so. What
//! they are refused is what anybody may be refused who does not know what the other one does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::{Clock, Code, MonoTime, NodeId, Result};
use bson::{Document, doc};
use futures::future::BoxFuture;
use router::{OperationContext, Router, ShardRequest, ShardSelector};

use super::check;
use super::client::{THINGS, namespace};
use crate::rpc::{NoAnswer, call_router};
use crate::world::World;

/// Shards that one command asks for, at most.
const SHARDS_MAX: u64 = 4;
/// How long a command is waited for, in milliseconds: longer than a router tries.
const PATIENCE_MS: u64 = 40_000;

/// What holds for the shared collection throughout a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Whether no two documents have the same seat; then no key chooses the shard but the seat.
    pub(super) unique_seats: bool,
}

/// One wish of whoever cuts shards.
#[derive(Clone, Debug)]
enum Cut {
    Shard(ShardRequest),
    Reshard(ShardRequest),
    Split(u64, u32),
    Merge(u64, u64),
}

impl Layout {
    pub(super) fn draw(world: &World) -> Layout {
        Layout { unique_seats: world.chance(30) }
    }

    fn key(self, world: &World) -> Document {
        if self.unique_seats {
            return doc! { "seat": 1 };
        }
        match world.choose(6) {
            0..=1 => doc! { "_id": "hashed" },
            2 => doc! { "seat": 1 },
            3..=4 => doc! { "alias": "hashed" },
            _ => doc! { "tag": 1, "seat": 1 },
        }
    }
}

/// Cuts the shared collection until the faults are over, and at least a few times.
pub(super) async fn cut(world: &Arc<World>, layout: Layout) {
    let pause_ms = world.pick(&[100, 1_000, 4_000]);
    for done in 0.. {
        if done >= world.options.operations / 5 && !world.is_faulting.load(Ordering::SeqCst) {
            return;
        }
        world.pause(pause_ms).await;
        let cut = draw_cut(world, layout);
        let wait_ms = world.pick(&[50, 1_000, 20_000]);
        ask_for(world, world.pick(&world.members()), THINGS, cut, wait_ms).await;
    }
}

/// Gives up, stops and continues what the other one has begun, until the faults are over.
pub(super) async fn meddle(world: &Arc<World>) {
    let pause_ms = world.pick(&[300, 3_000, 10_000]);
    while world.is_faulting.load(Ordering::SeqCst) {
        world.pause(pause_ms).await;
        match world.choose(6) {
            0 => abort(world).await,
            1..=2 => move_and_call_off(world).await,
            3 => {
                pause(world, true).await;
                world.pause(3_000).await;
                pause(world, false).await;
            }
            _ => {}
        }
    }
    while !pause(world, false).await {}
}

/// Cuts a collection that others may be about to drop, without waiting for long.
pub(super) async fn cut_for_a_while(world: &Arc<World>, node: NodeId, collection: &str) {
    let request = ShardRequest { namespace: namespace(collection), key: doc! { "v": 1 }, shards: Some(2) };
    let wait_ms = world.pick(&[20, 300, 3_000]);
    ask_for(world, node, collection, Cut::Shard(request), wait_ms).await;
}

fn draw_cut(world: &World, layout: Layout) -> Cut {
    let request = || {
        let shards = u32::try_from(1 + world.choose(SHARDS_MAX)).expect("a few");
        ShardRequest { namespace: namespace(THINGS), key: layout.key(world), shards: Some(shards) }
    };
    let hash = || world.choose(u64::MAX);
    match world.choose(8) {
        0..=1 => Cut::Shard(request()),
        2..=3 => Cut::Reshard(request()),
        4..=5 => Cut::Split(hash(), 2),
        _ => Cut::Merge(hash(), hash()),
    }
}

async fn ask_for(world: &Arc<World>, node: NodeId, collection: &str, cut: Cut, wait_ms: u64) {
    let cx = OperationContext { deadline: deadline(world, node, wait_ms), ..OperationContext::default() };
    let what = format!("{cut:?} of {collection} through {node}, for {wait_ms} ms");
    world.trace(&what);
    let namespace = namespace(collection);
    let work = |router: Arc<Router>| -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            match cut {
                Cut::Shard(request) => router.shard_collection(&cx, request).await,
                Cut::Reshard(request) => router.reshard_collection(&cx, request).await,
                Cut::Split(hash, into) => {
                    router.split_shard(&cx, &namespace, &ShardSelector::Hash(hash), into).await
                }
                Cut::Merge(first, last) => {
                    let (first, last) = (ShardSelector::Hash(first), ShardSelector::Hash(last));
                    router.merge_shards(&cx, &namespace, &first, &last).await
                }
            }
        })
    };
    settle(world, &what, call_router(world, node, PATIENCE_MS, work).await);
}

async fn abort(world: &Arc<World>) {
    let node = world.pick(&world.members());
    let cx = OperationContext { deadline: deadline(world, node, 5_000), ..OperationContext::default() };
    let work = |router: Arc<Router>| -> BoxFuture<'static, Result<()>> {
        Box::pin(async move { router.abort_reshard(&cx, &namespace(THINGS)).await })
    };
    settle(world, &format!("abort through {node}"), call_router(world, node, PATIENCE_MS, work).await);
}

/// Moves a shard, and half of the time does not wait for the end of it but calls it off.
async fn move_and_call_off(world: &Arc<World>) {
    let (selector, to) = (ShardSelector::Hash(world.choose(u64::MAX)), world.pick(&world.members()));
    let record = check::catalog(world).and_then(|catalog| catalog.node(to).cloned());
    let Some(name) = record.map(|record| record.facts.name.clone()) else { return };
    let calls_off = world.chance(50);
    let wait_ms = if calls_off { world.pick(&[20, 100, 400]) } else { 20_000 };
    let node = world.pick(&world.members());
    let cx = OperationContext { deadline: deadline(world, node, wait_ms), ..OperationContext::default() };
    let shard = selector.clone();
    let work = |router: Arc<Router>| -> BoxFuture<'static, Result<()>> {
        Box::pin(async move { router.move_shard(&cx, &namespace(THINGS), &shard, &name).await })
    };
    let what = format!("move {selector:?} to {to} through {node}, for {wait_ms} ms");
    let answer = call_router(world, node, PATIENCE_MS, work).await;
    if let Err(NoAnswer::Refused(error)) = &answer
        && error.code == Code::CONFLICTING_OPERATION_IN_PROGRESS
    {
        world.violation(format!("{what} was answered {error}: a move waits for others"));
    }
    settle(world, &what, answer);
    if calls_off {
        let node = world.pick(&world.members());
        let work = |router: Arc<Router>| -> BoxFuture<'static, Result<()>> {
            Box::pin(async move { router.cancel_move(&namespace(THINGS), &selector).await.map(drop) })
        };
        let what = format!("call off the move through {node}");
        settle(world, &what, call_router(world, node, PATIENCE_MS, work).await);
    }
}

/// Whether it was done.
pub(super) async fn pause(world: &Arc<World>, paused: bool) -> bool {
    let node = world.pick(&world.members());
    let work = |router: Arc<Router>| -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            router.pause_reshard(&OperationContext::default(), &namespace(THINGS), paused).await
        })
    };
    let what = format!("pause ({paused}) through {node}");
    let done = settle(world, &what, call_router(world, node, PATIENCE_MS, work).await);
    if !done {
        world.pause(200).await;
    }
    done
}

fn deadline(world: &World, node: NodeId, wait_ms: u64) -> Option<MonoTime> {
    Some(world.node(node).clock.monotonic() + Duration::from_millis(wait_ms))
}

/// Notes an answer. One that nobody should get is a violation. Whether all was well.
fn settle(world: &World, what: &str, answer: std::result::Result<(), NoAnswer>) -> bool {
    world.trace(&format!("{what}: {answer:?}"));
    let expected = [
        Code::ALREADY_INITIALIZED,
        Code::CANNOT_SPLIT,
        Code::CONFLICTING_OPERATION_IN_PROGRESS,
        Code::HOST_UNREACHABLE,
        Code::ILLEGAL_OPERATION,
        Code::INTERRUPTED,
        Code::INTERRUPTED_AT_SHUTDOWN,
        Code::INTERRUPTED_DUE_TO_REPL_STATE_CHANGE,
        // Shards that know their own documents only could not keep an index unique.
        Code::INVALID_OPTIONS,
        Code::MAX_TIME_MS_EXPIRED,
        Code::NAMESPACE_NOT_SHARDED,
        // It was removed.
        Code::NODE_NOT_FOUND,
        Code::NOT_WRITABLE_PRIMARY,
        // It was cut or merged.
        Code::SHARD_NOT_FOUND,
        Code::SHUTDOWN_IN_PROGRESS,
        Code::STALE_CONFIG,
    ];
    if let Err(NoAnswer::Refused(error)) = &answer
        && !expected.contains(&error.code)
    {
        world.violation(format!("{what} was answered {error}"));
    }
    answer.is_ok()
}
