//! What outlives a simulated process: the seed's randomness, the clock, the trace, the disk and what was ever logged.
//!
//! Shared by everything in a run. All randomness of a run comes from here, in the order in which it is asked for, and the
//! scheduler has one thread: that is what makes a run replay.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base::{Clock, Entropy, MonoTime, ReplicaId};
use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use storage::LogBatch;
use storage::memory::MemoryDisk;
use tokio::time::Instant;

use crate::history::History;
use crate::node::Process;

/// Lines of the trace that a failure prints.
const TAIL_LINES: usize = 80;
/// Wall-clock time at the start of every run, in milliseconds.
const WALL_START_MS: i64 = 1_700_000_000_000;

/// See the module's comment.
pub(crate) struct World {
    pub(crate) disk: MemoryDisk,
    pub(crate) history: Mutex<History>,
    random: Mutex<StdRng>,
    trace: Mutex<Trace>,
    started: Instant,
    wall_jump_ms: AtomicI64,
    process: Mutex<Option<Arc<Process>>>,
    /// The data of every entry that was ever logged; of two with one index, the later one.
    logged: Mutex<BTreeMap<ReplicaId, BTreeMap<u64, Bytes>>>,
}

#[derive(Default)]
struct Trace {
    hash: u64,
    lines: u64,
    tail: VecDeque<String>,
}

impl World {
    /// The world of one run. Called inside the run's runtime.
    pub(crate) fn new(seed: u64) -> World {
        World {
            disk: MemoryDisk::new(),
            history: Mutex::default(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            trace: Mutex::new(Trace { hash: 0xCBF2_9CE4_8422_2325, ..Trace::default() }),
            started: Instant::now(),
            wall_jump_ms: AtomicI64::new(0),
            process: Mutex::new(None),
            logged: Mutex::default(),
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

    /// Lets up to `max_us` microseconds pass.
    pub(crate) async fn pause(&self, max_us: u64) {
        tokio::time::sleep(Duration::from_micros(self.choose(max_us) + 1)).await;
    }

    /// Moves the wall clock, to and fro.
    pub(crate) fn jump_wall_clock(&self) {
        let jump_ms = i64::try_from(self.choose(20_000)).expect("seconds") - 10_000;
        self.wall_jump_ms.fetch_add(jump_ms, Ordering::SeqCst);
        self.trace(&format!("wall clock jumps by {jump_ms} ms"));
    }

    /// Adds a line to the trace and to its hash.
    pub(crate) fn trace(&self, line: &str) {
        let at_us = self.started.elapsed().as_micros();
        let line = format!("{at_us:>9} {line}");
        let mut trace = self.trace.lock();
        // FNV-1a.
        trace.hash = line
            .bytes()
            .chain([b'\n'])
            .fold(trace.hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
        trace.lines += 1;
        if trace.tail.len() == TAIL_LINES {
            trace.tail.pop_front();
        }
        trace.tail.push_back(line);
    }

    /// The trace's hash, its length in lines, and its last lines.
    pub(crate) fn trace_summary(&self) -> (u64, u64, Vec<String>) {
        let trace = self.trace.lock();
        (trace.hash, trace.lines, trace.tail.iter().cloned().collect())
    }

    /// Remembers what is being logged.
    pub(crate) fn note_logged(&self, batch: &LogBatch) {
        let mut logged = self.logged.lock();
        for (replica, writes) in &batch.replicas {
            let entries = logged.entry(*replica).or_default();
            entries.extend(writes.entries.iter().map(|entry| (entry.index.get(), entry.data.clone())));
        }
    }

    /// The data of the entries that were last logged for a replica, by index.
    pub(crate) fn logged(&self, replica: ReplicaId) -> BTreeMap<u64, Bytes> {
        self.logged.lock().get(&replica).cloned().unwrap_or_default()
    }

    /// The process that runs now.
    pub(crate) fn process(&self) -> Option<Arc<Process>> {
        self.process.lock().clone()
    }

    /// Replaces the running process.
    pub(crate) fn set_process(&self, process: Option<Arc<Process>>) -> Option<Arc<Process>> {
        std::mem::replace(&mut *self.process.lock(), process)
    }
}

impl Clock for World {
    fn monotonic(&self) -> MonoTime {
        MonoTime(self.started.elapsed())
    }

    fn wall_ms(&self) -> i64 {
        let passed_ms = i64::try_from(self.started.elapsed().as_millis()).expect("a run takes minutes");
        WALL_START_MS + passed_ms + self.wall_jump_ms.load(Ordering::SeqCst)
    }
}

impl Entropy for World {
    fn next_u64(&self) -> u64 {
        self.random.lock().next_u64()
    }
}
