//! A simulated node: its disk, its clocks, and the process that runs on it, if one does.
//!
//! Changed by faults and by whoever repairs. Always holds: at most one process runs on a disk, and whoever ends or starts
//! it holds the node's lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use base::{Clock, MonoTime, NodeId};
use parking_lot::Mutex;
use storage::memory::MemoryDisk;
use tokio::time::Instant;

use crate::cluster;
use crate::process::Process;
use crate::run::Kind;
use crate::world::World;

/// Wall-clock time at the start of every run, in milliseconds.
const WALL_START_MS: i64 = 1_700_000_000_000;
/// How much faster or slower a node's monotonic clock may run than time does: what a lease has to bear. The ticks that
/// election timeouts count follow time itself.
pub(crate) const DRIFT_PERMILLE_MAX: i64 = 95;

/// See the module's comment.
pub(crate) struct Node {
    id: NodeId,
    pub(crate) clock: Arc<NodeClock>,
    /// Held by whoever ends, starts or pauses the node's process.
    pub(crate) busy: tokio::sync::Mutex<()>,
    /// Whether its first replicas were created: never again after that.
    pub(crate) is_founded: AtomicBool,
    disk: Mutex<MemoryDisk>,
    process: Mutex<Option<Arc<Process>>>,
}

/// A node's clocks.
pub(crate) struct NodeClock {
    started: Instant,
    drift_permille: AtomicI64,
    wall_jump_ms: AtomicI64,
}

impl Node {
    pub(crate) fn new(id: NodeId, started: Instant) -> Node {
        let clock = NodeClock { started, drift_permille: AtomicI64::new(0), wall_jump_ms: AtomicI64::new(0) };
        Node {
            id,
            clock: Arc::new(clock),
            busy: tokio::sync::Mutex::new(()),
            is_founded: AtomicBool::new(false),
            disk: Mutex::default(),
            process: Mutex::new(None),
        }
    }

    /// Its disk.
    pub(crate) fn disk(&self) -> MemoryDisk {
        self.disk.lock().clone()
    }

    /// Puts an empty disk in the place of the one that it has.
    pub(crate) fn wipe(&self) {
        *self.disk.lock() = MemoryDisk::new();
    }

    /// The process that runs now.
    pub(crate) fn process(&self) -> Option<Arc<Process>> {
        self.process.lock().clone()
    }

    /// Starts a process on the disk. Fails with what the process would say as it ends.
    pub(crate) async fn start(&self, world: &Arc<World>) -> Result<Arc<Process>, String> {
        world.trace(&format!("{} starts", self.id));
        self.clock.set_drift(world);
        let started = Process::start(world, self.id).await;
        let process = started.map_err(|fault| format!("{} does not start: {fault}", self.id))?;
        let process = Arc::new(process);
        *self.process.lock() = Some(process.clone());
        process.watch();
        match world.options.kind() {
            // Whoever starts it has a catalog for it first.
            Kind::Large(_) => {}
            Kind::Cluster => {
                process.watch_peers();
                cluster::begin(world, &process, self.id);
            }
            Kind::Groups => {
                process.watch_peers();
                if world.founders.contains(&self.id) && !self.is_founded.load(Ordering::SeqCst) {
                    process.found();
                }
            }
        }
        Ok(process)
    }

    /// Ends the process here and now. What it wrote stays in the page cache.
    pub(crate) fn kill(&self) {
        if let Some(process) = self.process.lock().take() {
            process.end();
        }
    }

    /// As [`Node::kill`], and what was not synced may be gone or torn.
    pub(crate) fn power_off(&self, world: &World) {
        self.kill();
        self.disk().crash(&mut |bound| world.choose(bound));
    }
}

impl NodeClock {
    /// Gives the monotonic clock another speed. Only between two processes: it must not go backwards.
    fn set_drift(&self, world: &World) {
        let max = DRIFT_PERMILLE_MAX;
        let between = i64::try_from(world.choose(2 * max.unsigned_abs() + 1)).expect("small") - max;
        self.drift_permille.store(world.pick(&[-max, 0, max, between]), Ordering::SeqCst);
    }

    /// Moves the wall clock, to and fro. Returns by how much.
    pub(crate) fn jump(&self, world: &World) -> i64 {
        let jump_ms = i64::try_from(world.choose(20_000)).expect("seconds") - 10_000;
        self.wall_jump_ms.fetch_add(jump_ms, Ordering::SeqCst);
        jump_ms
    }

    fn passed(&self) -> Duration {
        let permille = 1_000 + self.drift_permille.load(Ordering::SeqCst);
        let permille = u32::try_from(permille).expect("no clock stands still");
        self.started.elapsed() * permille / 1_000
    }
}

impl Clock for NodeClock {
    fn monotonic(&self) -> MonoTime {
        MonoTime(self.passed())
    }

    fn wall_ms(&self) -> i64 {
        let passed_ms = i64::try_from(self.passed().as_millis()).expect("a run takes minutes");
        WALL_START_MS + passed_ms + self.wall_jump_ms.load(Ordering::SeqCst)
    }
}
