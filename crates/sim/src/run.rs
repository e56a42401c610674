//! One run: processes that come and go, clients that do not, and the checks at the end.

use std::sync::Arc;
use std::time::Duration;

use base::ReplicaId;
use base::limits::SESSION_IDLE_MS_MAX;
use query::encoding::retry_range;
use replica::ReplicaStatus;
use storage::memory::DiskPart;
use storage::{Direction, KeyspaceName, RaftLog, Store};

use crate::check;
use crate::client::Client;
use crate::node::{CATALOG_REPLICA, Process, REPLICA};
use crate::world::World;

/// Simulated time that clients may take, in seconds. A run that takes longer has stalled.
const RUN_SECONDS_MAX: u64 = 600;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything random comes from it.
    pub seed: u64,
    /// Clients at work at the same time, at most.
    pub clients: u8,
    /// Operations of each client.
    pub operations: u64,
    /// Crashes, kills, failed fsyncs and clean restarts.
    pub faults: u64,
    /// The bug to put back.
    #[cfg(feature = "bugs")]
    pub bug: Option<replica::bugs::Bug>,
}

impl Options {
    /// The usual run of a seed.
    pub fn new(seed: u64) -> Options {
        Options {
            seed,
            clients: 8,
            operations: 30,
            faults: 5,
            #[cfg(feature = "bugs")]
            bug: None,
        }
    }
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Hash over every line of the trace: equal for equal seeds and code.
    pub trace_hash: u64,
    /// Lines of the trace.
    pub trace_lines: u64,
    /// The last lines of the trace.
    pub tail: Vec<String>,
    /// Operations that were answered.
    pub answered: u64,
    /// Requests that were sent again after an error.
    pub resent: u64,
    /// What must not have happened.
    pub violations: Vec<String>,
}

/// Runs one seed.
pub fn run(options: Options) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime needs nothing but memory").block_on(simulate(options))
}

async fn simulate(options: Options) -> Report {
    let world = Arc::new(World::new(options.seed));
    let clients = async {
        Client::new(world.clone(), 0).set_up().await;
        let clients = 1 + u8::try_from(world.choose(u64::from(options.clients))).expect("below the most");
        let run = |number: u8| {
            let mut client = Client::new(world.clone(), number);
            async move { client.run(options.operations).await }
        };
        futures::future::join_all((1..=clients).map(run)).await;
    };
    let limit = Duration::from_secs(RUN_SECONDS_MAX);
    let outcome = tokio::select! {
        biased;
        stopped = operate(&world, &options) => Err(stopped),
        finished = tokio::time::timeout(limit, clients) => finished.map_err(|_| "clients wait forever".to_owned()),
    };
    match outcome {
        Ok(()) => finish(&world, &options).await,
        Err(what) => world.history.lock().violation(what),
    }
    if let Some(process) = world.set_process(None) {
        process.end();
    }
    report(&world, &options)
}

/// Starts processes and ends them in all manners. Returns only when one cannot start.
async fn operate(world: &Arc<World>, options: &Options) -> String {
    let mut faults = options.faults;
    loop {
        let process = match start(world, options).await {
            Ok(process) => process,
            Err(what) => return what,
        };
        if faults == 0 {
            let fault = process.host.faulted().await;
            return format!("the node stopped by itself: {fault}");
        }
        faults -= 1;
        world.pause(120_000).await;
        if let Some(fault) = process.host.fault_latch().get() {
            return format!("the node stopped by itself: {fault}");
        }
        let ending = world.choose(5);
        match ending {
            0 | 1 => power_off(world, &process),
            2 => kill(world, &process),
            3 => fail_fsync(world, &process).await,
            _ => shut_down(world, &process).await,
        }
        if world.chance(30) {
            world.jump_wall_clock();
        }
        world.pause(20_000).await;
    }
}

async fn start(world: &Arc<World>, options: &Options) -> Result<Arc<Process>, String> {
    world.trace("process starts");
    let process =
        Process::start(world, options).await.map_err(|fault| format!("the node does not start: {fault}"))?;
    let process = Arc::new(process);
    process.create_missing();
    world.set_process(Some(process.clone()));
    Ok(process)
}

fn power_off(world: &Arc<World>, process: &Process) {
    world.trace("power fails");
    end(world, process);
    world.disk.crash(&mut |bound| world.choose(bound));
}

/// The process ends, and what it wrote stays in the page cache.
fn kill(world: &World, process: &Process) {
    world.trace("process is killed");
    end(world, process);
}

async fn fail_fsync(world: &Arc<World>, process: &Process) {
    let part = if world.chance(70) { DiskPart::RaftLog } else { DiskPart::Store };
    world.trace(&format!("the next fsync of the {part} fails"));
    world.disk.fail_next_fsync(part);
    let faulted = tokio::time::timeout(Duration::from_secs(2), process.host.faulted()).await;
    world.trace(if faulted.is_ok() { "process stops with a fault" } else { "nobody needed an fsync" });
    end(world, process);
    world.disk.crash(&mut |bound| world.choose(bound));
}

async fn shut_down(world: &Arc<World>, process: &Process) {
    world.trace("process is asked to end");
    let ended = tokio::time::timeout(Duration::from_secs(60), process.host.shutdown()).await;
    match ended {
        Ok(Ok(())) => world.trace("process ends"),
        Ok(Err(fault)) => world.history.lock().violation(format!("shutting down: {fault}")),
        Err(_) => world.history.lock().violation("shutting down takes forever".to_owned()),
    }
    end(world, process);
}

fn end(world: &World, process: &Process) {
    world.set_process(None);
    process.end();
}

/// One more power failure and restart, then the checks.
async fn finish(world: &Arc<World>, options: &Options) {
    check::check_answers(&mut world.history.lock());
    if let Some(process) = world.process() {
        power_off(world, &process);
    }
    let process = match start(world, options).await {
        Ok(process) => process,
        Err(what) => return world.history.lock().violation(what),
    };
    while !process.is_complete() {
        world.pause(10_000).await;
    }
    check_shard(world, &process).await;
    check_catalog(world, &process).await;
    if world.chance(10) {
        check_expiry(world, &process).await;
    }
    kill(world, &process);
    check_keyspaces(world);
}

/// Shards that were dropped, and creations that a crash cut short, leave nothing behind.
fn check_keyspaces(world: &World) {
    let left = world.disk.open().and_then(|(store, log)| Ok((store.keyspaces()?, log.replicas()?)));
    let expected = vec![CATALOG_REPLICA, REPLICA];
    let is_expected = |(keyspaces, replicas): &(Vec<KeyspaceName>, Vec<ReplicaId>)| {
        keyspaces.iter().map(|name| name.replica).eq(expected.iter().copied()) && *replicas == expected
    };
    if !left.as_ref().is_ok_and(is_expected) {
        world.history.lock().violation(format!("the disk holds {left:?}"));
    }
}

/// Sessions end when nobody uses them, and so do their retry records.
async fn check_expiry(world: &World, process: &Process) {
    tokio::time::sleep(Duration::from_millis(SESSION_IDLE_MS_MAX + 120_000)).await;
    let shard = process.host.shard(crate::node::SHARD).expect("the process is complete");
    let records = shard.read().await.map(|(view, _)| view.scan(retry_range(), Direction::Forward).count());
    if records != Ok(0) {
        world.history.lock().violation(format!("retry records of idle sessions: {records:?}"));
    }
}

async fn check_shard(world: &World, process: &Process) {
    let shard = process.host.shard(crate::node::SHARD).expect("the process is complete");
    let (view, state) = match shard.read().await {
        Ok(pair) => pair,
        Err(error) => return world.history.lock().violation(format!("the last read: {error}")),
    };
    let mut history = world.history.lock();
    check::check_documents(&mut history, view.as_ref());
    check::check_indexes(&mut history, &state, view.as_ref());
    let applied = shard.applied_index();
    check::check_replay(&mut history, REPLICA, &world.logged(REPLICA), applied, view.as_ref());
}

async fn check_catalog(world: &World, process: &Process) {
    let catalog = process.host.catalog().expect("the process is complete");
    let (view, state) = match catalog.read().await {
        Ok(pair) => pair,
        Err(error) => {
            return world.history.lock().violation(format!("the last read of the catalog: {error}"));
        }
    };
    let found: std::collections::BTreeSet<String> =
        state.active().map(|record| record.namespace.collection.clone()).collect();
    let mut history = world.history.lock();
    if found != history.collections {
        let what = format!("the catalog has {found:?}; created were {:?}", history.collections);
        history.violation(what);
    }
    let applied = catalog.applied_index();
    check::check_replay(
        &mut history,
        CATALOG_REPLICA,
        &world.logged(CATALOG_REPLICA),
        applied,
        view.as_ref(),
    );
    let statuses: Vec<ReplicaStatus> = process.host.replicas();
    if statuses.iter().any(|status| status.applied > status.commit) {
        history.violation(format!("something was applied before it was committed: {statuses:?}"));
    }
}

fn report(world: &World, options: &Options) -> Report {
    let (trace_hash, trace_lines, tail) = world.trace_summary();
    let history = world.history.lock();
    Report {
        seed: options.seed,
        trace_hash,
        trace_lines,
        tail,
        answered: history.answered,
        resent: history.resent,
        violations: history.violations.clone(),
    }
}
