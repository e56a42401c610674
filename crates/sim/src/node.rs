//! One simulated process: a host whose tasks, log writer and apply side are the simulator's.
//!
//! Log writes are grouped, written and fsynced after random delays, with a crash possible between the steps. Always
//! holds: ending a process ends every task of it at once, in the middle of whatever it waits for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{CollectionId, Epoch, IndexId, NodeId, ReplicaId, ShardId};
use catalog::{IndexSpec, KeyDirection};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use query::state::{IndexStatus, ShardIndex, ShardState};
use replica::spawn::{Spawner, Work};
use replica::trace::{Event, TraceSink};
use replica::{CompactionPolicy, Host, HostOptions, Membership, NoPeers};
use storage::memory::MemoryRaftLog;
use storage::{Fault, KvBatch, LogBatch, LogWriter, WriteDone};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::run::Options;
use crate::world::World;

/// The shard that clients write to.
pub(crate) const SHARD: ShardId = ShardId(100);
/// Its replica.
pub(crate) const REPLICA: ReplicaId = ReplicaId(100);
/// The catalog's replica.
pub(crate) const CATALOG_REPLICA: ReplicaId = ReplicaId(1);
/// The only node.
pub(crate) const NODE: NodeId = NodeId(1);
/// The shard map's version.
pub(crate) const EPOCH: Epoch = Epoch(1);

/// A running process.
pub(crate) struct Process {
    pub(crate) host: Host,
    machinery: Arc<Machinery>,
}

/// What stands in for the operating system.
struct Machinery {
    world: Arc<World>,
    log: MemoryRaftLog,
    slow_fsync_us: u64,
    writes: Mutex<VecDeque<(LogBatch, WriteDone)>>,
    write_submitted: Notify,
    applying: Mutex<BTreeMap<ReplicaId, VecDeque<Work>>>,
    apply_submitted: Notify,
    tasks: Mutex<Vec<AbortHandle>>,
    /// Whether the process has ended: what a client that still holds its host asks for is dropped.
    ended: AtomicBool,
}

impl Process {
    /// Opens the disk and starts a host on it. Replicas are created when the disk has none.
    pub(crate) async fn start(world: &Arc<World>, options: &Options) -> storage::Result<Process> {
        let (store, log) = world.disk.open()?;
        let machinery = Arc::new(Machinery {
            world: world.clone(),
            log: log.clone(),
            slow_fsync_us: [200, 2_000, 20_000][usize::try_from(world.choose(3)).expect("three")],
            writes: Mutex::default(),
            write_submitted: Notify::new(),
            applying: Mutex::default(),
            apply_submitted: Notify::new(),
            tasks: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        machinery.start();
        let compaction = CompactionPolicy {
            entries_max: 1 + world.choose(40),
            flush_interval_ms: 5 + world.choose(400),
            ..CompactionPolicy::default()
        };
        #[cfg(not(feature = "bugs"))]
        let _ = options;
        let started = Host::start(HostOptions {
            node: NODE,
            store: Arc::new(store),
            raft_log: Arc::new(log),
            log_writer: machinery.clone(),
            clock: world.clone(),
            entropy: world.clone(),
            spawner: machinery.clone(),
            transport: Arc::new(NoPeers),
            trace: Some(machinery.clone()),
            compaction,
            #[cfg(feature = "bugs")]
            bug: options.bug,
        });
        match started.await {
            Ok(host) => Ok(Process { host, machinery }),
            Err(fault) => {
                machinery.end();
                Err(fault)
            }
        }
    }

    /// Creates what a new disk lacks, in the background.
    pub(crate) fn create_missing(&self) {
        let host = self.host.clone();
        self.machinery.spawn(Box::pin(async move {
            if host.catalog().is_none()
                && host
                    .create_catalog(CATALOG_REPLICA, &sole_voter(CATALOG_REPLICA), KvBatch::default())
                    .await
                    .is_err()
            {
                return;
            }
            if host.shard(SHARD).is_none() {
                // A fault ends the process, which whoever runs it notices.
                let _ = host
                    .create_replica(SHARD, REPLICA, &sole_voter(REPLICA), initial_state().initial_batch())
                    .await;
            }
        }));
    }

    /// Whether both replicas are there.
    pub(crate) fn is_complete(&self) -> bool {
        self.host.catalog().is_some() && self.host.shard(SHARD).is_some()
    }

    /// Ends every task of the process.
    pub(crate) fn end(&self) {
        self.machinery.end();
    }
}

/// The membership of a group on the only node.
pub(crate) fn sole_voter(replica: ReplicaId) -> Membership {
    Membership::sole_voter(replica, NODE)
}

/// The shard's first state: an index that documents share values in, and a unique one.
pub(crate) fn initial_state() -> ShardState {
    let index = |id: u32, field: &str, unique: bool| {
        let spec = IndexSpec {
            id: IndexId(id),
            name: format!("{field}_1"),
            key: vec![(field.to_owned(), KeyDirection::Ascending)],
            unique,
        };
        ShardIndex::new(spec, IndexStatus::Ready)
    };
    let mut state = ShardState::new(CollectionId(1), EPOCH);
    state.indexes = vec![index(1, "tag", false), index(2, "seat", true)];
    state
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
        for batch in &batches {
            self.world.pause(100).await;
            self.world.note_logged(batch);
            self.log.append(batch)?;
        }
        self.world.pause(self.slow_fsync_us).await;
        self.log.sync()
    }

    async fn apply_forever(&self) {
        loop {
            let next = self.next_to_apply();
            let Some(work) = next else {
                self.apply_submitted.notified().await;
                continue;
            };
            let max_us = if self.world.chance(5) { 30_000 } else { 300 };
            self.world.pause(max_us).await;
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
        self.tasks.lock().push(tokio::spawn(task).abort_handle());
    }

    fn blocking(&self, work: Work) {
        let world = self.world.clone();
        self.spawn(Box::pin(async move {
            world.pause(5_000).await;
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

impl TraceSink for Machinery {
    fn event(&self, replica: ReplicaId, event: &Event) {
        self.world.trace(&format!("{replica} {event}"));
    }
}
