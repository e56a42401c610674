//! All replicas of one node.
//!
//! Made by the server (and by the simulator) once the engines are open; asked by the router for handles. Always holds: a
//! replica that is listed is open and its owner loop runs, unless the node has a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use base::id::CATALOG_SHARD;
use base::{Generation, LogIndex, NodeId, ReplicaId, ShardId, Term};
use bytes::Bytes;
use parking_lot::Mutex;
use storage::{Fault, KeyspaceName, KvBatch, LogBatch, ReplicaLogState};
use tokio::sync::oneshot;

use crate::fault::FaultLatch;
use crate::flush::{self, Flushed};
use crate::handle::ReplicaHandle;
use crate::machine::StateMachine;
use crate::membership::Membership;
use crate::metrics::HostMetrics;
use crate::node::{HostOptions, Node};
use crate::open::{self, Opened};
use crate::shared::Shared;

/// The key of the node in the Raft log that every start writes.
const OPENED_KEY: &str = "opened";

/// All replicas of one node: those of shards (`S`) and, where this node has one, the catalog's (`C`). Clones are the same
/// host.
pub struct HostOf<S: StateMachine, C: StateMachine> {
    pub(crate) inner: Arc<Inner<S, C>>,
}

pub(crate) struct Inner<S: StateMachine, C: StateMachine> {
    pub(crate) node: Arc<Node>,
    shards: ArcSwap<BTreeMap<ShardId, Running<S>>>,
    catalog: ArcSwap<Option<Running<C>>>,
    /// Creating and dropping replicas happens one at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// The newest generation that was given to a snapshot on its way, for each replica.
    generations: Mutex<BTreeMap<ReplicaId, Generation>>,
    /// Replicas that were dropped while this process ran, or are being dropped. They do not come back, though a leader that
    /// has not heard of it may send them a snapshot.
    dropped: Mutex<BTreeSet<ReplicaId>>,
    stop_flushing: Mutex<Option<oneshot::Sender<()>>>,
}

struct Running<M: StateMachine> {
    handle: ReplicaHandle<M>,
    shared: Arc<Shared<M::State>>,
}

/// What there is to say about a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Shard, replica and generation.
    pub name: KeyspaceName,
    /// Current term.
    pub term: Term,
    /// Whether it leads.
    pub is_leader: bool,
    /// Whether it has a vote.
    pub is_voter: bool,
    /// Highest index known committed.
    pub commit: LogIndex,
    /// Highest index applied.
    pub applied: LogIndex,
}

impl<S: StateMachine, C: StateMachine> Clone for HostOf<S, C> {
    fn clone(&self) -> Self {
        HostOf { inner: self.inner.clone() }
    }
}

impl<S: StateMachine, C: StateMachine> HostOf<S, C> {
    /// Opens every replica that the Raft log names, and removes keyspaces that nobody does. Returns as soon as the owner
    /// loops run: reads wait for their replica's election. Faults when anything on disk is damaged or does not fit.
    pub async fn start(options: HostOptions) -> storage::Result<Self> {
        let node = Arc::new(Node::new(options));
        let host = HostOf {
            inner: Arc::new(Inner {
                node: node.clone(),
                shards: ArcSwap::default(),
                catalog: ArcSwap::default(),
                changing: tokio::sync::Mutex::new(()),
                generations: Mutex::default(),
                dropped: Mutex::default(),
                stop_flushing: Mutex::new(None),
            }),
        };
        settle_log(&node)?;
        let mut found = Vec::new();
        for replica in node.options.raft_log.replicas()? {
            if let Some(state) = node.options.raft_log.state(replica)? {
                found.push((replica, state));
            }
        }
        let named = found
            .iter()
            .map(|(replica, state)| KeyspaceName {
                shard: state.shard,
                replica: *replica,
                generation: state.generation,
            })
            .collect();
        open::remove_orphans(&node, named).await?;
        for (replica, state) in take_superseded(&mut found) {
            let name = KeyspaceName { shard: state.shard, replica, generation: state.generation };
            open::remove(&node, name).await?;
        }
        for (replica, state) in found {
            match state.shard {
                CATALOG_SHARD => host.list_catalog(open::open(&node, replica, &state, true)?),
                shard => host.list_shard(shard, open::open(&node, replica, &state, true)?),
            }
        }
        host.start_flushing();
        Ok(host)
    }

    /// Creates a replica of a new shard, with `initial` as its first state. Every member of `membership` is created with the
    /// same one. On return: fsynced and running. Does nothing when the replica exists.
    pub async fn create_replica(
        &self,
        shard: ShardId,
        replica: ReplicaId,
        membership: &Membership,
        initial: KvBatch,
    ) -> base::Result<ReplicaHandle<S>> {
        assert_ne!(shard, CATALOG_SHARD, "the catalog's replica is created by create_catalog");
        let _changing = self.inner.changing.lock().await;
        if let Some(handle) = self.shard(shard).filter(|handle| handle.replica() == replica) {
            return Ok(handle);
        }
        let opened = self
            .create_and_open(shard, replica, membership, initial)
            .await
            .map_err(|fault| self.fail(fault))?;
        let handle = opened.handle.clone();
        self.list_shard(shard, opened);
        Ok(handle)
    }

    /// Creates a replica of a new catalog. As [`HostOf::create_replica`].
    pub async fn create_catalog(
        &self,
        replica: ReplicaId,
        membership: &Membership,
        initial: KvBatch,
    ) -> base::Result<ReplicaHandle<C>> {
        let _changing = self.inner.changing.lock().await;
        if let Some(handle) = self.catalog() {
            return Ok(handle);
        }
        let opened = self
            .create_and_open(CATALOG_SHARD, replica, membership, initial)
            .await
            .map_err(|fault| self.fail(fault))?;
        let handle = opened.handle.clone();
        self.list_catalog(opened);
        Ok(handle)
    }

    /// Stops a shard's replica on this node and removes all its data. On return: gone for good. Does nothing when there
    /// is none. Requests that are under way get an error.
    pub async fn drop_replica(&self, shard: ShardId) -> base::Result<()> {
        self.drop_listed(shard, |_| true).await
    }

    /// The same for one replica of the shard. Does nothing when there is another by now.
    pub async fn drop_this_replica(&self, shard: ShardId, replica: ReplicaId) -> base::Result<()> {
        self.drop_listed(shard, |listed| listed == replica).await
    }

    async fn drop_listed(&self, shard: ShardId, is_meant: impl Fn(ReplicaId) -> bool) -> base::Result<()> {
        let _changing = self.inner.changing.lock().await;
        // An earlier removal that met the fault has taken the replica off the list, not off the disk.
        if let Some(fault) = self.inner.node.latch.get() {
            return Err(self.fail(fault));
        }
        let mut shards = BTreeMap::clone(&self.inner.shards.load());
        let Some(running) = shards.remove(&shard) else { return Ok(()) };
        if !is_meant(running.shared.name.replica) {
            return Ok(());
        }
        self.inner.dropped.lock().insert(running.shared.name.replica);
        self.inner.shards.store(Arc::new(shards));
        running.shared.go();
        running.shared.wait_stopped().await;
        if let Some(fault) = self.inner.node.latch.get() {
            return Err(self.fail(fault));
        }
        open::remove(&self.inner.node, running.shared.name).await.map_err(|fault| self.fail(fault))
    }

    /// Whether the replica was dropped, or is being dropped.
    pub(crate) fn is_dropped(&self, replica: ReplicaId) -> bool {
        self.inner.dropped.lock().contains(&replica)
    }

    /// Ends the owner loop of a replica. Its data stays; requests that are under way get an error.
    pub(crate) async fn stop_replica(&self, shard: ShardId) {
        if shard == CATALOG_SHARD {
            if let Some(running) = self.inner.catalog.load().as_ref() {
                running.shared.stop();
                running.shared.wait_stopped().await;
            }
            return;
        }
        let running = self.inner.shards.load().get(&shard).cloned();
        if let Some(running) = running {
            running.shared.stop();
            running.shared.wait_stopped().await;
        }
    }

    /// The replica of a shard on this node.
    pub fn shard(&self, shard: ShardId) -> Option<ReplicaHandle<S>> {
        self.inner.shards.load().get(&shard).map(|running| running.handle.clone())
    }

    /// The catalog's replica on this node.
    pub fn catalog(&self) -> Option<ReplicaHandle<C>> {
        self.inner.catalog.load().as_ref().as_ref().map(|running| running.handle.clone())
    }

    /// What the catalog's replica on this node publishes.
    pub fn catalog_state(&self) -> Option<Arc<C::State>> {
        self.inner.catalog.load().as_ref().as_ref().map(|running| running.shared.state())
    }

    /// The replicas of shards on this node.
    pub fn shards(&self) -> Vec<ReplicaHandle<S>> {
        self.inner.shards.load().values().map(|running| running.handle.clone()).collect()
    }

    /// Reads and commands that this node's replicas of shards were asked for by clients since it started; those of replicas that
    /// have left are forgotten.
    pub fn operations(&self) -> u64 {
        self.inner.shards.load().values().map(|running| running.handle.operations()).sum()
    }

    /// Replicas whose state is on its way to this node as a snapshot, each with its shard and the bytes of keys and values that have
    /// come.
    pub fn receiving(&self) -> Vec<(ShardId, ReplicaId, u64)> {
        let receiving = self.inner.node.receiving.lock();
        receiving.iter().map(|(name, bytes)| (name.shard, name.replica, *bytes)).collect()
    }

    /// All replicas of this node, by shard.
    pub fn replicas(&self) -> Vec<ReplicaStatus> {
        let catalog = self.inner.catalog.load();
        let catalog = catalog.as_ref().as_ref().map(|running| status(&running.shared));
        let shards = self.inner.shards.load();
        catalog.into_iter().chain(shards.values().map(|running| status(&running.shared))).collect()
    }

    /// A node is lost, or has been restarted: replicas that follow a primary there wake up, and see for themselves whether
    /// it still leads. A hint; being wrong costs a few messages.
    pub fn peer_lost(&self, node: NodeId) {
        for replica in self.shards().iter().filter(|replica| replica.leader_node() == Some(node)) {
            replica.peer_lost();
        }
        if let Some(catalog) = self.catalog().filter(|catalog| catalog.leader_node() == Some(node)) {
            catalog.peer_lost();
        }
    }

    /// Has other nodes take over whatever replicas of this one lead, where there are others.
    pub async fn hand_over(&self) {
        for replica in self.shards() {
            replica.hand_over().await;
        }
        if let Some(catalog) = self.catalog() {
            catalog.hand_over().await;
        }
    }

    /// Counters.
    pub fn metrics(&self) -> Arc<HostMetrics> {
        self.inner.node.metrics.clone()
    }

    /// Resolves with the fault that stops this node. The process must end then.
    pub async fn faulted(&self) -> Fault {
        self.inner.node.latch.wait().await
    }

    /// Where other parts of the node report faults that they meet in the store.
    pub fn fault_latch(&self) -> Arc<FaultLatch> {
        self.inner.node.latch.clone()
    }

    /// Whether the bug is put back, for whoever works on this host's replicas.
    #[cfg(feature = "bugs")]
    pub fn has_bug(&self, bug: crate::bugs::Bug) -> bool {
        self.inner.node.has_bug(bug)
    }

    /// Refuses new requests, finishes those that were proposed, and flushes the store. The host serves nothing after.
    pub async fn shutdown(&self) -> storage::Result<()> {
        let _changing = self.inner.changing.lock().await;
        self.inner.node.stopping.store(true, Ordering::SeqCst);
        let shards = self.inner.shards.load_full();
        let catalog = self.inner.catalog.load_full();
        shards.values().for_each(|running| running.shared.stop());
        catalog.iter().for_each(|running| running.shared.stop());
        for running in shards.values() {
            running.shared.wait_stopped().await;
        }
        for running in catalog.iter() {
            running.shared.wait_stopped().await;
        }
        drop(self.inner.stop_flushing.lock().take());
        if let Some(fault) = self.inner.node.latch.get() {
            return Err(fault);
        }
        self.inner.node.blocking(|store| store.flush()).await
    }

    async fn create_and_open<M: StateMachine>(
        &self,
        shard: ShardId,
        replica: ReplicaId,
        membership: &Membership,
        initial: KvBatch,
    ) -> storage::Result<Opened<M>> {
        let node = &self.inner.node;
        let restarted = node.options.raft_log.state(replica)?.is_some();
        open::create(node, shard, replica, membership, initial).await?;
        let state = node.options.raft_log.state(replica)?;
        let state =
            state.ok_or_else(|| Fault::corruption(format!("the new {replica} left no trace in the log")))?;
        open::open(node, replica, &state, restarted)
    }

    pub(crate) fn list_shard(&self, shard: ShardId, opened: Opened<S>) {
        let mut shards = BTreeMap::clone(&self.inner.shards.load());
        shards.insert(shard, Running { handle: opened.handle, shared: opened.shared });
        self.inner.shards.store(Arc::new(shards));
    }

    pub(crate) fn list_catalog(&self, opened: Opened<C>) {
        let running = Running { handle: opened.handle, shared: opened.shared };
        self.inner.catalog.store(Arc::new(Some(running)));
    }

    fn start_flushing(&self) {
        let (stop, stopped) = oneshot::channel();
        *self.inner.stop_flushing.lock() = Some(stop);
        // A weak reference: the task must not keep a host alive that everyone else has let go of.
        let inner = Arc::downgrade(&self.inner);
        let replicas = Box::new(move || inner.upgrade().map(|inner| inner.flushed()).unwrap_or_default());
        let task = flush::run(self.inner.node.clone(), replicas, stopped);
        self.inner.node.options.spawner.spawn(Box::pin(task));
    }

    /// Closes the latch, and says so to whoever asked.
    fn fail(&self, fault: Fault) -> base::Error {
        let message = format!("this node is stopping: {fault}");
        self.inner.node.latch.set(fault);
        base::Error::new(base::Code::INTERRUPTED_AT_SHUTDOWN, message)
    }
}

impl<S: StateMachine, C: StateMachine> Inner<S, C> {
    /// A generation above the `current` one, and above every one that an earlier attempt got.
    pub(crate) fn new_generation(&self, replica: ReplicaId, current: Generation) -> Generation {
        let mut generations = self.generations.lock();
        let newest = generations.entry(replica).or_insert(current);
        *newest = current.max(*newest).next();
        *newest
    }

    fn flushed(&self) -> Vec<Arc<dyn Flushed>> {
        let shards = self.shards.load();
        let catalog = self.catalog.load();
        let mut all: Vec<Arc<dyn Flushed>> = Vec::with_capacity(shards.len() + 1);
        all.extend(catalog.iter().map(|running| running.shared.clone() as Arc<dyn Flushed>));
        all.extend(shards.values().map(|running| running.shared.clone() as Arc<dyn Flushed>));
        all
    }
}

impl<M: StateMachine> Clone for Running<M> {
    fn clone(&self) -> Self {
        Running { handle: self.handle.clone(), shared: self.shared.clone() }
    }
}

/// Makes durable whatever the log holds. A process that was killed may have left writes that no fsync covered; they
/// read as if one had, until the power fails. Everything decided from here on relies on what is read.
fn settle_log(node: &Node) -> storage::Result<()> {
    let mark = (OPENED_KEY.to_owned(), Bytes::from_static(b"1"));
    node.options.raft_log.write(LogBatch { replicas: Vec::new(), node: vec![mark] })
}

/// Takes out the replicas whose shard has a newer one here: a crash came before they were removed.
fn take_superseded(found: &mut Vec<(ReplicaId, ReplicaLogState)>) -> Vec<(ReplicaId, ReplicaLogState)> {
    let newest: BTreeMap<ShardId, ReplicaId> =
        found.iter().map(|(replica, state)| (state.shard, *replica)).collect();
    let is_superseded = |(replica, state): &mut (ReplicaId, ReplicaLogState)| {
        newest.get(&state.shard).is_some_and(|newest| newest > replica)
    };
    found.extract_if(.., is_superseded).collect()
}

fn status<T>(shared: &Shared<T>) -> ReplicaStatus {
    ReplicaStatus {
        name: shared.name,
        term: Term(shared.term.get()),
        is_leader: shared.known_leader() == Some(shared.name.replica),
        is_voter: shared.membership.load().voters.contains(&shared.name.replica),
        commit: shared.commit.index(),
        applied: shared.applied.index(),
    }
}
