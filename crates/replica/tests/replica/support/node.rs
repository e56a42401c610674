//! The node itself: one process on a simulated disk, stepped by hand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use base::{Clock, Entropy, MonoTime, NodeId, ReplicaId, ShardId};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use replica::spawn::{Spawner, Work};
use replica::trace::{Event, TraceSink};
use replica::{CompactionPolicy, HostOf, HostOptions, Membership, NoPeers, ReplicaHandle, Transport};
use storage::memory::{MemoryDisk, MemoryRaftLog};
use storage::{LogBatch, LogWriter, RaftLog, WriteDone};

use super::machine::{KvMachine, initial};

/// The shard that scripts use.
pub(crate) const SHARD: ShardId = ShardId(7);
/// Its replica where it has only one.
pub(crate) const REPLICA: ReplicaId = ReplicaId(70);
/// The node of a test with only one.
pub(crate) const NODE: NodeId = NodeId(1);

/// The hosts that tests run.
pub(crate) type KvHost = HostOf<KvMachine, KvMachine>;

/// How a node is started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeOptions {
    /// Whether log writes and applying wait for [`Node::fsync`] and [`Node::apply`].
    pub(crate) manual: bool,
    /// Entries after which the Raft log is compacted.
    pub(crate) log_entries_max: u64,
}

/// A running node.
pub(crate) struct Node {
    pub(crate) disk: MemoryDisk,
    pub(crate) host: KvHost,
    world: Arc<World>,
}

/// What stands in for the operating system.
struct World {
    manual: bool,
    /// Whether the disk of the Raft log stands still.
    stalled: AtomicBool,
    log: MemoryRaftLog,
    writes: Mutex<VecDeque<(LogBatch, WriteDone)>>,
    applying: Mutex<VecDeque<Work>>,
    events: Mutex<Vec<String>>,
    tasks: Mutex<Vec<tokio::task::AbortHandle>>,
    wall_ms: AtomicI64,
    /// How much longer than the runtime's own this node's time has run, and by how much that grows when it is next asked for the
    /// time of day: once a command that is evaluated.
    ahead_ms: AtomicU64,
    lingers_ms: AtomicU64,
    started: tokio::time::Instant,
    random: AtomicU64,
}

impl Node {
    /// Starts a process on `disk` that has no peers.
    pub(crate) async fn start(disk: &MemoryDisk, options: NodeOptions) -> storage::Result<Node> {
        Node::start_with(disk, options, NODE, Arc::new(NoPeers)).await
    }

    /// Starts the process of one of several nodes.
    pub(crate) async fn start_with(
        disk: &MemoryDisk,
        options: NodeOptions,
        node: NodeId,
        transport: Arc<dyn Transport>,
    ) -> storage::Result<Node> {
        let (store, log) = disk.open()?;
        let world = Arc::new(World {
            manual: options.manual,
            stalled: AtomicBool::new(false),
            log: log.clone(),
            writes: Mutex::default(),
            applying: Mutex::default(),
            events: Mutex::default(),
            tasks: Mutex::default(),
            wall_ms: AtomicI64::new(1_000_000),
            ahead_ms: AtomicU64::new(0),
            lingers_ms: AtomicU64::new(0),
            started: tokio::time::Instant::now(),
            random: AtomicU64::new(u64::from(node.get())),
        });
        let host = HostOf::start(HostOptions {
            node,
            store: Arc::new(store),
            raft_log: Arc::new(log),
            log_writer: world.clone(),
            clock: world.clone(),
            entropy: world.clone(),
            spawner: world.clone(),
            transport,
            trace: Some(world.clone()),
            compaction: CompactionPolicy {
                entries_max: options.log_entries_max,
                ..CompactionPolicy::default()
            },
            #[cfg(feature = "bugs")]
            bug: None,
        })
        .await?;
        Ok(Node { disk: disk.clone(), host, world })
    }

    /// Creates the shard. The log write that it takes is fsynced at once.
    pub(crate) async fn create(&self) -> base::Result<ReplicaHandle<KvMachine>> {
        let membership = Membership::sole_voter(REPLICA, NODE);
        let create = self.host.create_replica(SHARD, REPLICA, &membership, initial());
        let fsync = async {
            loop {
                tokio::task::yield_now().await;
                self.fsync();
            }
        };
        tokio::select! {
            biased;
            created = create => created,
            () = fsync => unreachable!("the loop has no end"),
        }
    }

    /// The shard's replica.
    pub(crate) fn handle(&self) -> ReplicaHandle<KvMachine> {
        self.host.shard(SHARD).expect("created before")
    }

    /// Lets all tasks run until none can go on by itself.
    pub(crate) async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// Writes and fsyncs everything that was submitted.
    pub(crate) fn fsync(&self) {
        let writes = std::mem::take(&mut *self.world.writes.lock());
        for (batch, done) in writes {
            done(self.world.log.write(batch));
        }
    }

    /// From now on nothing that is submitted is written, until [`Node::go_on`].
    pub(crate) fn stall(&self) {
        self.world.stalled.store(true, Ordering::SeqCst);
    }

    /// Everything that was submitted meanwhile is written, and so is what comes.
    pub(crate) fn go_on(&self) {
        self.world.stalled.store(false, Ordering::SeqCst);
        self.fsync();
    }

    /// The next command takes this long to evaluate.
    pub(crate) fn linger(&self, ms: u64) {
        self.world.lingers_ms.store(ms, Ordering::SeqCst);
    }

    /// Writes what was submitted, without an fsync: nobody is told.
    pub(crate) fn write_without_fsync(&self) {
        for (batch, _) in std::mem::take(&mut *self.world.writes.lock()) {
            self.world.log.append(&batch).expect("nothing fails here");
        }
    }

    /// Runs everything that waits to be applied.
    pub(crate) fn apply(&self) {
        let work = std::mem::take(&mut *self.world.applying.lock());
        work.into_iter().for_each(|work| work());
    }

    /// The events since the last call.
    pub(crate) fn take_events(&self) -> Vec<String> {
        std::mem::take(&mut *self.world.events.lock())
    }

    /// The process ends here and now; the disk keeps everything that was written.
    pub(crate) fn kill(self) -> MemoryDisk {
        self.world.tasks.lock().drain(..).for_each(|task| task.abort());
        self.disk
    }

    /// The power fails: whatever was not synced is gone.
    pub(crate) fn crash(self) -> MemoryDisk {
        let disk = self.kill();
        disk.crash(&mut |_| 0);
        disk
    }
}

impl LogWriter for World {
    fn submit(&self, batch: LogBatch, done: WriteDone) {
        match self.manual || self.stalled.load(Ordering::SeqCst) {
            true => self.writes.lock().push_back((batch, done)),
            false => done(self.log.write(batch)),
        }
    }
}

impl Spawner for World {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.tasks.lock().push(tokio::spawn(task).abort_handle());
    }

    fn blocking(&self, work: Work) {
        work();
    }

    fn apply(&self, _replica: ReplicaId, work: Work) {
        match self.manual {
            true => self.applying.lock().push_back(work),
            false => work(),
        }
    }
}

impl TraceSink for World {
    fn event(&self, _replica: ReplicaId, event: &Event) {
        self.events.lock().push(event.to_string());
    }
}

impl Clock for World {
    fn monotonic(&self) -> MonoTime {
        MonoTime(self.started.elapsed() + Duration::from_millis(self.ahead_ms.load(Ordering::SeqCst)))
    }

    fn wall_ms(&self) -> i64 {
        self.ahead_ms.fetch_add(self.lingers_ms.swap(0, Ordering::SeqCst), Ordering::SeqCst);
        self.wall_ms.load(Ordering::SeqCst)
    }
}

impl Entropy for World {
    fn next_u64(&self) -> u64 {
        self.random.fetch_add(1, Ordering::SeqCst)
    }
}
