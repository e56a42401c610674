//! One run: clients and faults side by side, then peace, and the checks at the end.

use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};

use crate::client::Client;
use crate::groups;
use crate::large::Size;
use crate::world::World;
use crate::{checks_at_end, cluster, faults, large, repair};

/// Simulated time that clients and repairs get once nothing goes wrong any more, in seconds. Whoever takes longer has
/// stalled.
const PEACE_SECONDS_MAX: u64 = 120;

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Two Raft groups whose replicas clients and administrators reach directly: what can happen inside a group.
    Groups,
    /// A whole cluster: nodes that join, replicas placed by the catalog, clients that ask routers.
    Cluster,
    /// A cluster of many nodes and shards that loses the node with the most primaries. No seed says so.
    Large(Size),
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything random comes from it.
    pub seed: u64,
    /// What the run is about; `None` for what the seed says.
    pub kind: Option<Kind>,
    /// Clients at work at the same time, at most.
    pub clients: u8,
    /// Operations of each client, at least; clients go on while faults do.
    pub operations: u64,
    /// Faults that begin.
    pub faults: u64,
    /// Lines of the trace's end that are kept.
    pub trace_lines: usize,
    /// The bug to put back.
    #[cfg(feature = "bugs")]
    pub bug: Option<replica::bugs::Bug>,
}

/// One of so many seeds is about a whole cluster, which takes longer.
const CLUSTER_SEED_EVERY: u64 = 5;

impl Options {
    /// What the run is about. A bug is put back where it can be found.
    pub(crate) fn kind(&self) -> Kind {
        #[cfg(feature = "bugs")]
        if let Some(bug) = self.bug {
            return if bug.is_of_clusters() { Kind::Cluster } else { Kind::Groups };
        }
        let said = match self.seed.is_multiple_of(CLUSTER_SEED_EVERY) {
            true => Kind::Cluster,
            false => Kind::Groups,
        };
        self.kind.unwrap_or(said)
    }

    /// The usual run of a seed.
    pub fn new(seed: u64) -> Options {
        Options {
            seed,
            kind: None,
            clients: 6,
            operations: 20,
            faults: 10,
            trace_lines: 120,
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
    /// Faults that began.
    pub faults: u64,
    /// Hash over every line of the trace: equal for equal seeds and code.
    pub trace_hash: u64,
    /// Lines of the trace.
    pub trace_lines: u64,
    /// The last lines of the trace.
    pub tail: Vec<String>,
    /// What went wrong on purpose, and when.
    pub schedule: Vec<String>,
    /// Operations that were answered.
    pub answered: u64,
    /// Requests that were sent again after an error.
    pub resent: u64,
    /// What must not have happened.
    pub violations: Vec<String>,
    /// What a large cluster took, a sentence each.
    pub figures: Vec<String>,
}

/// Runs one seed.
pub fn run(options: Options) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime needs nothing but memory").block_on(simulate(options))
}

async fn simulate(options: Options) -> Report {
    let world = Arc::new(World::new(options));
    world.network.set_weather(faults::usual_weather(&world));
    let whole = async {
        match options.kind() {
            Kind::Groups => run_groups(&world).await,
            Kind::Cluster => cluster::run(&world).await,
            Kind::Large(size) => large::run(&world, size).await,
        }
    };
    // The first violation tells the most; what follows from it may take long.
    tokio::select! {
        biased;
        () = world.violated.notified() => {}
        () = whole => {}
    }
    world.nodes.values().for_each(crate::node::Node::kill);
    report(&world)
}

async fn run_groups(world: &Arc<World>) {
    groups::register_founders(world);
    for node in world.members() {
        faults::start(world, node).await;
    }
    let faulting = async {
        run_faults(world, |world| Box::pin(faults::inject(world))).await;
        let _administering = world.administration.lock().await;
        repair::drop_strangers(world).await;
    };
    futures::join!(run_clients(world), faulting);
    checks_at_end::check(world).await;
}

async fn run_clients(world: &Arc<World>) {
    let working = async {
        Client::new(world.clone(), 0).set_up().await;
        let run = |number: u8| {
            let mut client = Client::new(world.clone(), number);
            async move { client.run().await }
        };
        futures::future::join_all(clients(world).map(run)).await;
    };
    tokio::select! {
        biased;
        () = end_in_time(world, working) => {}
        () = tidy(world) => {}
    }
}

/// The numbers of the clients of a run.
pub(crate) fn clients(world: &World) -> RangeInclusive<u8> {
    1..=2 + u8::try_from(world.choose(u64::from(world.options.clients) - 1)).expect("few")
}

/// Lets clients work for as long as faults go on, and a while longer.
pub(crate) async fn end_in_time(world: &World, working: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = working => {}
        () = peace_is_over(world) => world.violation("clients wait forever"),
    }
}

/// Begins faults, one after the other, and waits until all of them are over; then everything works again.
pub(crate) async fn run_faults(world: &Arc<World>, inject: impl Fn(Arc<World>) -> BoxFuture<'static, ()>) {
    let mut running: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    for _ in 0..world.options.faults {
        let gap_ms = world.pick(&[50, 600, 1_500]);
        let gap = world.pause(gap_ms);
        tokio::pin!(gap);
        loop {
            tokio::select! {
                biased;
                () = &mut gap => break,
                Some(()) = running.next(), if !running.is_empty() => {}
            }
        }
        running.push(inject(world.clone()));
    }
    make_peace(world);
    let ending = async { while running.next().await.is_some() {} };
    tokio::select! {
        biased;
        () = ending => {}
        () = tokio::time::sleep(Duration::from_secs(PEACE_SECONDS_MAX)) => {
            world.violation("a fault or a repair does not end");
        }
    }
    world.is_faulting.store(false, Ordering::SeqCst);
    make_peace(world);
}

/// Drops what a snapshot that was on its way brought back after it was dropped, for as long as clients may turn to it. Never
/// resolves.
async fn tidy(world: &Arc<World>) {
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        if !world.is_faulting.load(Ordering::SeqCst) {
            let _administering = world.administration.lock().await;
            repair::drop_strangers(world).await;
        }
    }
}

fn make_peace(world: &World) {
    world.schedule("peace");
    world.network.heal();
    world.network.set_weather(crate::network::Weather { delay_ms: 2, ..Default::default() });
}

/// Resolves when everything has worked for so long that whoever waits waits in vain.
async fn peace_is_over(world: &World) {
    while world.is_faulting.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(PEACE_SECONDS_MAX)).await;
}

fn report(world: &World) -> Report {
    let (trace_hash, trace_lines, tail) = world.trace_summary();
    let mut history = world.history.lock();
    if trace_lines >= world.trace_lines_max() {
        history.violation("the run does not end".to_owned());
    }
    Report {
        seed: world.options.seed,
        faults: world.options.faults,
        trace_hash,
        trace_lines,
        tail,
        schedule: world.schedule_lines(),
        answered: history.answered,
        resent: history.resent,
        violations: history.violations.clone(),
        figures: world.figures(),
    }
}
