//! One simulated process: a host whose tasks, log writer, apply side and sockets are the simulator's.
//!
//! Log writes are grouped, written and fsynced after random delays, with a crash possible between the steps. Always
//! holds: ending a process ends every task of it at once, in the middle of whatever it waits for; while it is paused none
//! of its tasks runs.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base::{NodeId, ReplicaId, ShardId};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use raft::eraftpb::Message;
use replica::snapshot::SnapshotOffer;
use replica::spawn::{Spawner, Work};
use replica::trace::{Event, TraceSink};
use replica::{CompactionPolicy, Haste, Host, HostOptions, Transport};
use router::Router;
use storage::memory::{MemoryRaftLog, MemoryStore};
use storage::{Fault, LogBatch, LogWriter, Store, WriteDone};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::groups;
use crate::run::Kind;
use crate::world::World;

/// Tasks that a process keeps track of before it forgets those that have ended.
const TASKS_KEPT: usize = 64;

/// How long another node may be lost before its loss is noticed, in milliseconds.
const PEER_LOOK_MS_MAX: u64 = 1_500;

/// How long an fsync takes in a large cluster, at most, in milliseconds.
const LARGE_FSYNC_MS: u64 = 2;

/// A running process.
pub(crate) struct Process {
    pub(crate) host: Host,
    /// Tells it from all other processes of the run.
    pub(crate) boot: u64,
    /// What clients ask in a whole cluster, once the process has a copy of the catalog.
    router: OnceLock<Arc<Router>>,
    machinery: Arc<Machinery>,
}

/// What stands in for the operating system.
struct Machinery {
    world: Arc<World>,
    node: NodeId,
    store: Arc<MemoryStore>,
    log: MemoryRaftLog,
    fsync_ms: u64,
    /// How long the next fsync hangs, in milliseconds.
    stall_ms: AtomicU64,
    writes: Mutex<VecDeque<(LogBatch, WriteDone)>>,
    write_submitted: Notify,
    applying: Mutex<BTreeMap<ReplicaId, VecDeque<Work>>>,
    apply_submitted: Notify,
    tasks: Mutex<Vec<AbortHandle>>,
    gate: Arc<Gate>,
    /// Whether a fault of the disk was ordered.
    expects_fault: AtomicBool,
    /// Whether the process has ended: what a client that still holds its host asks for is dropped.
    ended: AtomicBool,
}

/// Where the tasks of a paused process wait.
#[derive(Default)]
struct Gate {
    is_closed: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

/// A task that stands still while its process is paused.
struct Gated {
    gate: Arc<Gate>,
    task: BoxFuture<'static, ()>,
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.gate.is_closed.load(Ordering::SeqCst) {
            self.gate.waiting.lock().push(cx.waker().clone());
            return Poll::Pending;
        }
        self.task.as_mut().poll(cx)
    }
}

impl Process {
    /// Opens the node's disk and starts a host on it.
    pub(crate) async fn start(world: &Arc<World>, node: NodeId) -> storage::Result<Process> {
        let (store, log) = world.node(node).disk().open()?;
        let store = Arc::new(store);
        let machinery = Arc::new(Machinery {
            world: world.clone(),
            node,
            store: store.clone(),
            log: log.clone(),
            fsync_ms: match world.options.kind() {
                Kind::Groups | Kind::Cluster => world.pick(&[0, 2, 2, 20]),
                Kind::Large(_) => LARGE_FSYNC_MS,
            },
            stall_ms: AtomicU64::new(0),
            writes: Mutex::default(),
            write_submitted: Notify::new(),
            applying: Mutex::default(),
            apply_submitted: Notify::new(),
            tasks: Mutex::default(),
            gate: Arc::default(),
            expects_fault: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        world.ledger.lock().read_disk(&log)?;
        machinery.start();
        let compaction = match world.options.kind() {
            Kind::Groups | Kind::Cluster => CompactionPolicy {
                entries_max: 3 + world.choose(40),
                flush_interval_ms: 5 + world.choose(400),
                ..CompactionPolicy::default()
            },
            Kind::Large(_) => CompactionPolicy::default(),
        };
        let started = Host::start(HostOptions {
            node,
            store,
            raft_log: Arc::new(log),
            log_writer: machinery.clone(),
            clock: world.node(node).clock.clone(),
            entropy: world.clone(),
            spawner: machinery.clone(),
            transport: machinery.clone(),
            trace: Some(machinery.clone()),
            compaction,
            #[cfg(feature = "bugs")]
            bug: world.options.bug,
        });
        match started.await {
            Ok(host) => {
                Ok(Process { host, boot: world.history.lock().now(), router: OnceLock::new(), machinery })
            }
            Err(fault) => {
                machinery.end();
                Err(fault)
            }
        }
    }

    /// Creates what a new cluster's node lacks, in the background.
    pub(crate) fn found(&self) {
        let (host, world, node) = (self.host.clone(), self.machinery.world.clone(), self.machinery.node);
        self.spawn(Box::pin(async move {
            // A fault ends the process, which whoever runs it notices.
            if groups::found(&host, &world, node).await.is_ok() {
                world.node(node).is_founded.store(true, Ordering::SeqCst);
            }
        }));
    }

    /// Notices when the process stops by itself. Only ordered faults of the disk may make it.
    pub(crate) fn watch(&self) {
        let (host, machinery) = (self.host.clone(), self.machinery.clone());
        self.spawn(Box::pin(async move {
            let fault = host.faulted().await;
            let Machinery { world, node, .. } = machinery.as_ref();
            match machinery.expects_fault.load(Ordering::SeqCst) {
                true => world.trace(&format!("{node} stops: {fault}")),
                false => world.violation(format!("{node} stopped by itself: {fault}")),
            }
        }));
    }

    /// Tells the replicas when another node is lost or has been restarted, as pings between nodes find out.
    pub(crate) fn watch_peers(&self) {
        let (host, machinery) = (self.host.clone(), self.machinery.clone());
        self.spawn(Box::pin(async move {
            let Machinery { world, node, .. } = machinery.as_ref();
            let mut boots = BTreeMap::new();
            loop {
                world.pause(PEER_LOOK_MS_MAX).await;
                for other in world.nodes.keys().filter(|other| *other != node) {
                    let process = world.node(*other).process().filter(|process| !process.is_paused());
                    let boot = process.map(|process| process.boot);
                    let is_cut = world.network.is_cut(*node, *other) || world.network.is_cut(*other, *node);
                    if boot.is_none() || is_cut || boots.insert(*other, boot) != Some(boot) {
                        host.peer_lost(*other);
                    }
                }
            }
        }));
    }

    /// A fault of the disk is about to be ordered.
    pub(crate) fn expect_fault(&self) {
        self.machinery.expects_fault.store(true, Ordering::SeqCst);
    }

    /// Runs a task as part of the process.
    pub(crate) fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.machinery.spawn(task);
    }

    /// Where the process runs its work.
    pub(crate) fn spawner(&self) -> Arc<dyn Spawner> {
        self.machinery.clone()
    }

    /// The process takes clients from now on.
    pub(crate) fn serve(&self, router: Arc<Router>) {
        assert!(self.router.set(router).is_ok(), "a process has one router");
    }

    /// What clients ask, if the process takes any.
    pub(crate) fn router(&self) -> Option<Arc<Router>> {
        self.router.get().cloned()
    }

    /// Makes the next fsync of the Raft log hang.
    pub(crate) fn stall_fsync(&self, ms: u64) {
        self.machinery.stall_ms.store(ms, Ordering::SeqCst);
    }

    /// From now on no task of the process runs.
    pub(crate) fn pause(&self) {
        self.machinery.gate.is_closed.store(true, Ordering::SeqCst);
    }

    /// The process goes on where it was.
    pub(crate) fn resume(&self) {
        let gate = &self.machinery.gate;
        gate.is_closed.store(false, Ordering::SeqCst);
        gate.waiting.lock().drain(..).for_each(Waker::wake);
    }

    /// Whether it is paused.
    pub(crate) fn is_paused(&self) -> bool {
        self.machinery.gate.is_closed.load(Ordering::SeqCst)
    }

    /// Ends every task of the process.
    pub(crate) fn end(&self) {
        self.machinery.end();
    }
}

impl Machinery {
    fn start(self: &Arc<Self>) {
        let writer = self.clone();
        self.spawn(Box::pin(async move { writer.write_forever().await }));
        let applier = self.clone();
        self.spawn(Box::pin(async move { applier.apply_forever().await }));
    }

    fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.tasks.lock().drain(..).for_each(|task| task.abort());
        self.writes.lock().clear();
        self.applying.lock().clear();
    }

    /// Group commit: everything that waits is written, then fsynced once.
    async fn write_forever(&self) {
        loop {
            let group = self.take_writes();
            if group.is_empty() {
                self.write_submitted.notified().await;
                continue;
            }
            let (batches, waiting): (Vec<_>, Vec<_>) = group.into_iter().unzip();
            let result = self.write_group(batches).await;
            for done in waiting {
                done(result.clone());
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn take_writes(&self) -> VecDeque<(LogBatch, WriteDone)> {
        std::mem::take(&mut *self.writes.lock())
    }

    async fn write_group(&self, batches: Vec<LogBatch>) -> Result<(), Fault> {
        if self.world.options.kind() != Kind::Groups {
            self.world.ledger.lock().register_all(&self.store.keyspaces()?);
        }
        for batch in &batches {
            if self.world.chance(10) {
                self.world.pause(1).await;
            }
            self.world.ledger.lock().note_logged(batch);
            self.log.append(batch)?;
        }
        self.world.pause(self.fsync_ms).await;
        let stall_ms = self.stall_ms.swap(0, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(stall_ms)).await;
        self.log.sync()
    }

    async fn apply_forever(&self) {
        loop {
            let next = self.next_to_apply();
            let Some(work) = next else {
                self.apply_submitted.notified().await;
                continue;
            };
            let max_ms = if self.world.chance(5) { 30 } else { 0 };
            self.world.pause(max_ms).await;
            work();
        }
    }

    /// The next piece of work of a replica drawn at random: replicas overtake each other, a replica's own work does not.
    fn next_to_apply(&self) -> Option<Work> {
        let mut applying = self.applying.lock();
        applying.retain(|_, queue| !queue.is_empty());
        let count = applying.len() as u64;
        if count == 0 {
            return None;
        }
        let chosen = usize::try_from(self.world.choose(count)).expect("a handful");
        applying.values_mut().nth(chosen)?.pop_front()
    }
}

impl Spawner for Machinery {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        if self.has_ended() {
            return;
        }
        let mut tasks = self.tasks.lock();
        if tasks.len() >= TASKS_KEPT {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(tokio::spawn(Gated { gate: self.gate.clone(), task }).abort_handle());
    }

    fn blocking(&self, work: Work) {
        let world = self.world.clone();
        self.spawn(Box::pin(async move {
            world.pause(5).await;
            work();
        }));
    }

    fn apply(&self, replica: ReplicaId, work: Work) {
        if self.has_ended() {
            return;
        }
        self.applying.lock().entry(replica).or_default().push_back(work);
        self.apply_submitted.notify_one();
    }
}

impl LogWriter for Machinery {
    fn submit(&self, batch: LogBatch, done: WriteDone) {
        if self.has_ended() {
            return;
        }
        self.writes.lock().push_back((batch, done));
        self.write_submitted.notify_one();
    }
}

impl Transport for Machinery {
    fn send(&self, to: NodeId, shard: ShardId, messages: Vec<Message>, haste: Haste) {
        if !self.has_ended() {
            self.world.carry(self.node, to, shard, messages, haste);
        }
    }

    fn send_snapshot(&self, to: NodeId, offer: SnapshotOffer) {
        self.spawn(Box::pin(self.world.clone().convey(self.node, to, offer)));
    }
}

impl TraceSink for Machinery {
    fn event(&self, replica: ReplicaId, event: &Event) {
        self.world.trace(&format!("{} {replica} {event}", self.node));
        match event {
            Event::Leads { .. } => self.world.elections.notify_waiters(),
            Event::Committed { .. } => self.world.commits.notify_waiters(),
            _ => {}
        }
        let observed = self.world.ledger.lock().observe(replica, event, &self.store, &self.log);
        if let Err(what) = observed {
            self.world.violation(format!("{} {what}", self.node));
        }
    }
}
