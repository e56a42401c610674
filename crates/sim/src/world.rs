//! What outlives simulated processes: the seed's randomness, time, the trace, the nodes and the network between them.
//!
//! Shared by everything in a run. All randomness of a run comes from here, in the order in which it is asked for, and the
//! scheduler has one thread: that is what makes a run replay.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use base::{Entropy, NodeId, ReplicaId, ShardId};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::history::History;
use crate::ledger::Ledger;
use crate::network::Network;
use crate::node::Node;
use crate::process::Process;
use crate::run::{Kind, Options};

/// Lines of trace after which a run is taken for one that never ends: a hundred times as many as most have.
const TRACE_LINES_MAX: u64 = 1_000_000;

/// Nodes that a whole cluster has in a run, at most, those included that take the place of lost ones.
const CLUSTER_NODES_MAX: u32 = 9;

/// See the module's comment.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) history: Mutex<History>,
    pub(crate) ledger: Mutex<Ledger>,
    pub(crate) network: Network,
    /// Nodes that begin with a replica of each group.
    pub(crate) founders: Vec<NodeId>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// Nodes that belong to the cluster now, by what their machines are called; the others may join it, or have been lost.
    members: Mutex<BTreeMap<NodeId, u32>>,
    /// Nodes that belong to the cluster, or did.
    joined: AtomicU32,
    /// Whether faults still happen.
    pub(crate) is_faulting: AtomicBool,
    /// Whether clients only read for a while.
    pub(crate) is_lull: AtomicBool,
    /// One who changes a membership, or takes a disk away, holds this.
    pub(crate) administration: tokio::sync::Mutex<()>,
    /// Rings when a replica wins an election.
    pub(crate) elections: Notify,
    /// Rings when a replica commits something.
    pub(crate) commits: Notify,
    /// Rings when something happened that must not happen.
    pub(crate) violated: Notify,
    next_replica: AtomicU64,
    schedule: Mutex<Vec<String>>,
    figures: Mutex<Vec<String>>,
    random: Mutex<StdRng>,
    trace: Mutex<Trace>,
    started: Instant,
}

#[derive(Default)]
struct Trace {
    hash: u64,
    lines: u64,
    tail: VecDeque<String>,
}

impl World {
    /// The world of one run. Called inside the run's runtime.
    pub(crate) fn new(options: Options) -> World {
        let mut random = StdRng::seed_from_u64(options.seed);
        let drawn = [1, 3, 3, 3, 3, 3, 3, 5][usize::try_from(random.next_u64() % 8).expect("eight")];
        let numbers = |count: u32| (1..=count).map(NodeId);
        // Nodes that join later, or never.
        let (founders, total) = match options.kind() {
            Kind::Groups if drawn == 1 => (1, 3),
            Kind::Groups => (drawn, drawn + 1),
            Kind::Cluster => (1, CLUSTER_NODES_MAX),
            Kind::Large(size) => (1, size.nodes),
        };
        let members = match options.kind() {
            Kind::Groups | Kind::Large(_) => numbers(total).map(|node| (node, node.get())).collect(),
            Kind::Cluster => BTreeMap::new(),
        };
        let started = Instant::now();
        World {
            options,
            history: Mutex::default(),
            ledger: Mutex::default(),
            network: Network::default(),
            founders: numbers(founders).collect(),
            nodes: numbers(total).map(|id| (id, Node::new(id, started))).collect(),
            members: Mutex::new(members),
            joined: AtomicU32::new(0),
            is_faulting: AtomicBool::new(true),
            is_lull: AtomicBool::new(false),
            administration: tokio::sync::Mutex::new(()),
            elections: Notify::new(),
            commits: Notify::new(),
            violated: Notify::new(),
            next_replica: AtomicU64::new(1_000),
            schedule: Mutex::default(),
            figures: Mutex::default(),
            random: Mutex::new(random),
            trace: Mutex::new(Trace { hash: 0xCBF2_9CE4_8422_2325, ..Trace::default() }),
            started,
        }
    }

    /// A random number below `bound`.
    pub(crate) fn choose(&self, bound: u64) -> u64 {
        self.below(bound)
    }

    /// Whether something happens that happens `percent` of the time.
    pub(crate) fn chance(&self, percent: u64) -> bool {
        self.choose(100) < percent
    }

    /// One of several.
    pub(crate) fn pick<T: Copy>(&self, from: &[T]) -> T {
        let at = usize::try_from(self.choose(from.len() as u64)).expect("an index");
        *from.get(at).expect("below the length")
    }

    /// Lets up to `max_ms` milliseconds pass.
    pub(crate) async fn pause(&self, max_ms: u64) {
        match self.choose(max_ms + 1) {
            0 => tokio::task::yield_now().await,
            ms => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
    }

    /// The nodes that belong to the cluster now.
    pub(crate) fn members(&self) -> Vec<NodeId> {
        self.members.lock().keys().copied().collect()
    }

    /// A node belongs to the cluster from now on; its machine goes by a number.
    pub(crate) fn admit(&self, node: NodeId, machine: u32) {
        self.members.lock().insert(node, machine);
        self.joined.fetch_add(1, Ordering::SeqCst);
    }

    /// A node belongs to the cluster no more. Returns the number of its machine.
    pub(crate) fn dismiss(&self, node: NodeId) -> Option<u32> {
        self.members.lock().remove(&node)
    }

    /// How many nodes belong to the cluster, or did.
    pub(crate) fn joined(&self) -> u32 {
        self.joined.load(Ordering::SeqCst)
    }

    /// Whether another node can join.
    pub(crate) fn has_room(&self) -> bool {
        usize::try_from(self.joined()).is_ok_and(|joined| joined < self.nodes.len())
    }

    /// A node.
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(&id).expect("nodes are made with the world")
    }

    /// The processes that run, by node.
    pub(crate) fn processes(&self) -> Vec<(NodeId, Arc<Process>)> {
        self.nodes.iter().filter_map(|(id, node)| Some((*id, node.process()?))).collect()
    }

    /// An id that no replica ever had.
    pub(crate) fn new_replica(&self, shard: ShardId) -> ReplicaId {
        let replica = ReplicaId(self.next_replica.fetch_add(1, Ordering::SeqCst));
        self.ledger.lock().register(replica, shard);
        replica
    }

    /// Records what goes wrong on purpose.
    pub(crate) fn schedule(&self, what: &str) {
        let at_ms = self.started.elapsed().as_millis();
        self.schedule.lock().push(format!("{at_ms:>6} ms  {what}"));
        self.trace(what);
    }

    /// Everything that went wrong on purpose.
    pub(crate) fn schedule_lines(&self) -> Vec<String> {
        self.schedule.lock().clone()
    }

    /// Keeps a sentence for whoever reads the report.
    pub(crate) fn figure(&self, sentence: String) {
        self.trace(&sentence);
        self.figures.lock().push(sentence);
    }

    /// The sentences kept.
    pub(crate) fn figures(&self) -> Vec<String> {
        self.figures.lock().clone()
    }

    /// Lines of trace after which the run is taken for one that never ends.
    pub(crate) fn trace_lines_max(&self) -> u64 {
        match self.options.kind() {
            Kind::Groups | Kind::Cluster => TRACE_LINES_MAX,
            // Its phases have ends of their own.
            Kind::Large(_) => u64::MAX,
        }
    }

    /// Records something that must not happen.
    pub(crate) fn violation(&self, what: impl Into<String>) {
        let what = what.into();
        self.trace(&format!("VIOLATION {what}"));
        self.history.lock().violation(what);
        self.violated.notify_one();
    }

    /// Somebody showed a list to a reader who allowed it to be behind.
    pub(crate) fn note_behind(&self, shown_by: &str, boot: u64, list: String, items: Vec<i64>) {
        let key = (shown_by.to_owned(), boot, list.clone());
        let before = self.history.lock().behind.insert(key, items.clone());
        if before.as_ref().is_some_and(|before| !items.starts_with(before)) {
            self.violation(format!("{list} by {shown_by} was {before:?} and then {items:?}"));
        }
    }

    /// Adds a line to the trace and to its hash.
    pub(crate) fn trace(&self, line: &str) {
        let at_ms = self.started.elapsed().as_millis();
        let line = format!("{at_ms:>6} {line}");
        let mut trace = self.trace.lock();
        trace.hash = fnv(trace.hash, line.as_bytes());
        trace.lines += 1;
        if trace.tail.len() >= self.options.trace_lines {
            trace.tail.pop_front();
        }
        trace.tail.push_back(line);
        if trace.lines == self.trace_lines_max() {
            self.violated.notify_one();
        }
    }

    /// The trace's hash, its length in lines, and its last lines.
    pub(crate) fn trace_summary(&self) -> (u64, u64, Vec<String>) {
        let trace = self.trace.lock();
        (trace.hash, trace.lines, trace.tail.iter().cloned().collect())
    }
}

impl Entropy for World {
    fn next_u64(&self) -> u64 {
        self.random.lock().next_u64()
    }
}

/// FNV-1a, continued from `hash`.
pub(crate) fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3))
}
