//! Group commit: one thread that takes every batch waiting for the Raft log and makes them durable with one fsync. The
//! server starts it; every replica's owner loop submits to it.
//!
//! Always holds: batches become durable, and their `done` runs, in the order of submission; when a write fails, its
//! batches and all later ones get the same fault. There is no timer: an idle thread is woken by the first batch, and
//! batches that arrive during an fsync share the next one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base::{DurationHistogram, DurationReading};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::{Fault, LogBatch, LogWriter, RaftLog, Result, WriteDone};

/// Settings of the writer.
#[derive(Clone, Debug)]
pub struct GroupCommitOptions {
    /// Batches that may wait; a submitter of more is held back.
    pub queue_batches_max: usize,
    /// Bytes of entries that may wait, and that one fsync carries at most; a single batch may be larger.
    pub queue_bytes_max: usize,
    /// Makes each fsync take at least this much longer. For benchmarks and tests that imitate a slow disk; 0 otherwise.
    pub fsync_delay_us: u64,
}

impl Default for GroupCommitOptions {
    fn default() -> GroupCommitOptions {
        GroupCommitOptions { queue_batches_max: 4096, queue_bytes_max: 32 << 20, fsync_delay_us: 0 }
    }
}

/// What the writer has done since it started. Read with [`GroupCommitWriter::statistics`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupCommitStatistics {
    /// Synced writes.
    pub fsyncs: u64,
    /// Batches that they carried.
    pub batches: u64,
    /// Entries that they carried.
    pub entries: u64,
    /// Bytes of entries that they carried.
    pub bytes: u64,
    /// How long they took.
    pub durations: DurationReading,
    /// How many fsyncs carried 1, 2 to 3, 4 to 7, ... batches.
    pub batches_per_fsync: [u64; BUCKETS],
}

/// Buckets of [`GroupCommitStatistics::batches_per_fsync`]; the last one has no upper bound.
pub const BUCKETS: usize = 12;

/// The [`LogWriter`] of a running node. Dropping it writes what is queued and ends its thread.
pub struct GroupCommitWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    options: GroupCommitOptions,
    queue: Mutex<Queue>,
    /// Signalled when the queue is no longer empty, or stops.
    filled: Condvar,
    /// Signalled when there is room again.
    drained: Condvar,
    counters: Counters,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Submission>,
    bytes: usize,
    stop: bool,
    /// Submitters that wait for room.
    blocked: usize,
}

struct Submission {
    batch: LogBatch,
    done: WriteDone,
}

#[derive(Default)]
struct Counters {
    fsyncs: AtomicU64,
    batches: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
    durations: DurationHistogram,
    batches_per_fsync: [AtomicU64; BUCKETS],
}

impl GroupCommitWriter {
    /// Starts the thread that writes `log`. Nobody else writes to it meanwhile.
    pub fn start(log: Arc<dyn RaftLog>, options: GroupCommitOptions) -> Result<GroupCommitWriter> {
        let shared = Arc::new(Shared {
            options,
            queue: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            counters: Counters::default(),
        });
        let in_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || in_thread.run(&*log))
            .map_err(|error| Fault::io(format!("starting the Raft log's thread failed: {error}")))?;
        Ok(GroupCommitWriter { shared, thread: Some(thread) })
    }

    /// What was done since the start.
    pub fn statistics(&self) -> GroupCommitStatistics {
        let counters = &self.shared.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GroupCommitStatistics {
            fsyncs: load(&counters.fsyncs),
            batches: load(&counters.batches),
            entries: load(&counters.entries),
            bytes: load(&counters.bytes),
            durations: counters.durations.read(),
            batches_per_fsync: counters.batches_per_fsync.each_ref().map(load),
        }
    }
}

impl LogWriter for GroupCommitWriter {
    /// Blocks while the queue is full.
    fn submit(&self, batch: LogBatch, done: WriteDone) {
        let bytes = batch_bytes(&batch);
        let mut queue = self.shared.wait_for_room(bytes);
        let was_empty = queue.waiting.is_empty();
        queue.bytes += bytes;
        queue.waiting.push_back(Submission { batch, done });
        drop(queue);
        if was_empty {
            self.shared.filled.notify_one();
        }
    }
}

impl Drop for GroupCommitWriter {
    fn drop(&mut self) {
        self.shared.queue.lock().stop = true;
        self.shared.filled.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the Raft log's thread panicked");
        }
    }
}

impl Shared {
    fn wait_for_room(&self, bytes: usize) -> MutexGuard<'_, Queue> {
        let mut queue = self.queue.lock();
        while queue.waiting.len() >= self.options.queue_batches_max
            || (!queue.waiting.is_empty() && queue.bytes + bytes > self.options.queue_bytes_max)
        {
            queue.blocked += 1;
            self.drained.wait(&mut queue);
            queue.blocked -= 1;
        }
        queue
    }

    fn run(&self, log: &dyn RaftLog) {
        let mut fault: Option<Fault> = None;
        while let Some(group) = self.take_group() {
            let mut merged = LogBatch::default();
            let mut done = Vec::with_capacity(group.len());
            for submission in group {
                merged.replicas.extend(submission.batch.replicas);
                merged.node.extend(submission.batch.node);
                done.push(submission.done);
            }
            let result = match &fault {
                Some(fault) => Err(fault.clone()),
                None => self.write(log, merged, done.len() as u64),
            };
            if let Err(new) = &result {
                fault.get_or_insert_with(|| new.clone());
            }
            for done in done {
                done(result.clone());
            }
        }
    }

    /// Waits until there is something to write and takes all of it that fits; `None` to stop.
    fn take_group(&self) -> Option<Vec<Submission>> {
        let mut queue = self.queue.lock();
        while queue.waiting.is_empty() {
            if queue.stop {
                return None;
            }
            self.filled.wait(&mut queue);
        }
        // The queue is bounded by what one fsync may carry.
        let group = std::mem::take(&mut queue.waiting).into();
        queue.bytes = 0;
        if queue.blocked > 0 {
            self.drained.notify_all();
        }
        Some(group)
    }

    fn write(&self, log: &dyn RaftLog, merged: LogBatch, batches: u64) -> Result<()> {
        let entries: usize = merged.replicas.iter().map(|(_, writes)| writes.entries.len()).sum();
        let bytes = batch_bytes(&merged);
        let start = Instant::now();
        log.write(merged)?;
        if self.options.fsync_delay_us > 0 {
            std::thread::sleep(Duration::from_micros(self.options.fsync_delay_us));
        }
        let add = |counter: &AtomicU64, amount: u64| counter.fetch_add(amount, Ordering::Relaxed);
        let counters = &self.counters;
        add(&counters.fsyncs, 1);
        add(&counters.batches, batches);
        add(&counters.entries, entries as u64);
        add(&counters.bytes, bytes as u64);
        counters.durations.record(start.elapsed());
        let bucket = (batches.max(1).ilog2() as usize).min(BUCKETS - 1);
        if let Some(counter) = counters.batches_per_fsync.get(bucket) {
            add(counter, 1);
        }
        Ok(())
    }
}

fn batch_bytes(batch: &LogBatch) -> usize {
    let entries = batch.replicas.iter().flat_map(|(_, writes)| &writes.entries);
    entries.map(|entry| entry.data.len()).sum()
}
