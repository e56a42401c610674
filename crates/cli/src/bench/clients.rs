//! The clients: tasks that send operations until the time is over, each with its own histograms.
//!
//! Called by the benchmark's `run`. What happens before the warm-up ends is not recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bson::{RawDocumentBuf, doc};
use futures::TryStreamExt;
use hdrhistogram::Histogram;
use mongodb::Collection;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;

use super::values::{FIELDS, Values, key};
use super::workload::Operation;
use super::{Options, Workload};
use crate::failure::Failure;
use crate::output;

/// Longest range scan, in documents, as in YCSB.
const RANGE_DOCUMENTS_MAX: i64 = 100;
/// Different error messages that are kept for the report.
const MESSAGES_MAX: usize = 5;

/// Longest latency that is told apart, in microseconds: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// A histogram of latencies in microseconds, exact to three digits.
pub(crate) fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds and the digits are allowed")
}

/// What the clients measured, together.
pub(super) struct Run {
    /// Latencies in microseconds.
    pub(super) latencies: BTreeMap<Operation, Histogram<u64>>,
    /// Operations that failed.
    pub(super) errors: u64,
    /// Some of their messages.
    pub(super) messages: Vec<String>,
    /// Documents that a read did not find.
    pub(super) missing: u64,
    /// The measured time.
    pub(super) elapsed: Duration,
    /// Documents inserted by batches.
    pub(super) loaded: u64,
}

impl Run {
    fn new() -> Run {
        Run {
            latencies: BTreeMap::new(),
            errors: 0,
            messages: Vec::new(),
            missing: 0,
            elapsed: Duration::ZERO,
            loaded: 0,
        }
    }

    /// Operations that succeeded.
    pub(super) fn operations(&self) -> u64 {
        self.latencies.values().map(Histogram::len).sum()
    }

    /// Documents or operations that the CPU figures are divided by.
    pub(super) fn units(&self) -> u64 {
        if self.loaded > 0 { self.loaded } else { self.operations() }
    }

    fn record(&mut self, operation: Operation, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let histogram = self.latencies.entry(operation).or_insert_with(empty_histogram);
        histogram.saturating_record(micros);
    }

    fn record_error(&mut self, message: String) {
        self.errors += 1;
        if self.messages.len() < MESSAGES_MAX && !self.messages.contains(&message) {
            self.messages.push(message);
        }
    }

    fn add(&mut self, other: Run) -> Result<(), Failure> {
        for (operation, histogram) in other.latencies {
            match self.latencies.get_mut(&operation) {
                Some(sum) => sum.add(&histogram).map_err(Failure::refused)?,
                None => {
                    self.latencies.insert(operation, histogram);
                }
            }
        }
        self.errors += other.errors;
        self.missing += other.missing;
        self.loaded += other.loaded;
        for message in other.messages {
            if self.messages.len() < MESSAGES_MAX && !self.messages.contains(&message) {
                self.messages.push(message);
            }
        }
        Ok(())
    }
}

/// Clients at work.
pub(super) struct Clients {
    tasks: Vec<JoinHandle<Run>>,
    duration: Duration,
}

impl Clients {
    /// Waits for all of them.
    pub(super) async fn finish(self) -> Result<Run, Failure> {
        let mut sum = Run::new();
        for task in self.tasks {
            sum.add(task.await.map_err(Failure::refused)?)?;
        }
        sum.elapsed = self.duration;
        Ok(sum)
    }
}

/// Starts the clients on a collection of `documents`.
pub(super) fn start(options: &Options, collection: &Collection<RawDocumentBuf>, documents: u64) -> Clients {
    let values = Arc::new(Values::new(options.value_bytes, &mut StdRng::seed_from_u64(options.seed)));
    let numbers = Arc::new(Numbers::new(documents));
    let measure_from = Instant::now() + options.warm_up;
    let tasks = (0..options.clients)
        .map(|number| {
            let mut client = Client {
                collection: collection.clone(),
                values: values.clone(),
                numbers: numbers.clone(),
                documents: options.documents,
                workload: options.workload,
                random: client_random(options, number),
            };
            let until = measure_from + options.duration;
            tokio::spawn(async move { client.run(measure_from, until).await })
        })
        .collect();
    Clients { tasks, duration: options.duration }
}

/// Inserts all documents in batches, as fast as the clients can.
pub(super) async fn load(options: &Options, collection: &Collection<RawDocumentBuf>) -> Result<Run, Failure> {
    let values = Arc::new(Values::new(options.value_bytes, &mut StdRng::seed_from_u64(options.seed)));
    let next_number = Arc::new(AtomicU64::new(0));
    let bar =
        output::progress(Some(options.documents), "{bar:40} {pos}/{len} documents, {per_sec}, {eta} left");
    let started = Instant::now();
    // Batches are large: a few in flight keep the server busy, more would only wait.
    let tasks = options.clients.min(8);
    let mut handles = Vec::new();
    for number in 0..tasks {
        let (values, next_number, bar) = (values.clone(), next_number.clone(), bar.clone());
        let (collection, options) = (collection.clone(), options.clone());
        handles.push(tokio::spawn(async move {
            let mut random = client_random(&options, number);
            let mut run = Run::new();
            loop {
                let first = next_number.fetch_add(options.batch as u64, Ordering::Relaxed);
                let end = options.documents.min(first.saturating_add(options.batch as u64));
                if first >= end {
                    return run;
                }
                let batch: Vec<_> = (first..end).map(|n| values.document(n, &mut random)).collect();
                let sent = Instant::now();
                match collection.insert_many(batch).await {
                    Ok(_) => {
                        run.record(Operation::InsertBatch, sent.elapsed());
                        run.loaded += end - first;
                    }
                    Err(error) => run.record_error(Failure::from(error).message),
                }
                bar.inc(end - first);
            }
        }));
    }
    let clients = Clients { tasks: handles, duration: Duration::ZERO };
    let mut run = clients.finish().await?;
    run.elapsed = started.elapsed();
    bar.finish_and_clear();
    match run.messages.first() {
        Some(message) => Err(Failure::refused(format!("the load failed: {message}"))),
        None => Ok(run),
    }
}

fn client_random(options: &Options, number: u32) -> StdRng {
    StdRng::seed_from_u64(options.seed ^ (u64::from(number) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// The numbers of documents that the clients insert between them.
struct Numbers {
    /// The next one to insert.
    next: AtomicU64,
    /// All below have been inserted, so that a read of the latest finds them.
    present: AtomicU64,
    /// Inserted ones above `present`.
    ahead: Mutex<BTreeSet<u64>>,
}

impl Numbers {
    fn new(documents: u64) -> Numbers {
        Numbers {
            next: AtomicU64::new(documents),
            present: AtomicU64::new(documents),
            ahead: Mutex::new(BTreeSet::new()),
        }
    }

    fn finished(&self, number: u64) {
        let mut ahead = self.ahead.lock().expect("no client panics with the lock");
        ahead.insert(number);
        let mut present = self.present.load(Ordering::Relaxed);
        while ahead.remove(&present) {
            present += 1;
        }
        self.present.store(present, Ordering::Relaxed);
    }
}

struct Client {
    collection: Collection<RawDocumentBuf>,
    values: Arc<Values>,
    numbers: Arc<Numbers>,
    documents: u64,
    workload: Workload,
    random: StdRng,
}

impl Client {
    async fn run(&mut self, measure_from: Instant, until: Instant) -> Run {
        let mut distribution = self.workload.distribution(self.documents);
        let mut run = Run::new();
        loop {
            let started = Instant::now();
            if started >= until {
                return run;
            }
            let operation = self.workload.operation(self.random.random_range(0..100));
            let documents = match self.workload {
                Workload::D => self.numbers.present.load(Ordering::Relaxed),
                _ => self.documents,
            };
            let number = distribution.next(documents.max(1), &mut self.random);
            let outcome = self.send(operation, number).await;
            let ended = Instant::now();
            // An operation counts if it ended in the measured time, so that none is counted twice or by halves.
            if ended < measure_from || ended > until {
                continue;
            }
            match outcome {
                Ok(found) => {
                    run.record(operation, ended - started);
                    run.missing += u64::from(!found);
                }
                Err(error) => {
                    run.record_error(Failure::from(error).message);
                    // A server that is gone must not be asked millions of times.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }

    /// Sends one operation; false if a document was expected and not found.
    async fn send(&mut self, operation: Operation, number: u64) -> mongodb::error::Result<bool> {
        match operation {
            Operation::Read => self.read(number).await,
            Operation::Update => self.update(number).await,
            Operation::ReadModifyWrite => {
                self.read(number).await?;
                self.update(number).await
            }
            Operation::Insert | Operation::InsertBatch => {
                let number = self.numbers.next.fetch_add(1, Ordering::Relaxed);
                let document = self.values.document(number, &mut self.random);
                let outcome = self.collection.insert_one(document).await;
                self.numbers.finished(number);
                outcome.map(|_| true)
            }
            Operation::RangeScan => {
                let length = self.random.random_range(1..=RANGE_DOCUMENTS_MAX);
                let filter = doc! { "_id": { "$gte": key(number) } };
                let cursor = self.collection.find(filter).sort(doc! { "_id": 1 }).limit(length).await?;
                self.drain(cursor).await
            }
            Operation::FilterScan => {
                let cursor = self.collection.find(doc! { "field0": "no document has this" }).await?;
                self.drain(cursor).await.map(|_| true)
            }
        }
    }

    async fn read(&self, number: u64) -> mongodb::error::Result<bool> {
        Ok(self.collection.find_one(doc! { "_id": key(number) }).await?.is_some())
    }

    async fn update(&mut self, number: u64) -> mongodb::error::Result<bool> {
        let field = format!("field{}", self.random.random_range(0..FIELDS));
        let value = self.values.field(&mut self.random);
        let change = doc! { "$set": { field: value } };
        let outcome = self.collection.update_one(doc! { "_id": key(number) }, change).await?;
        Ok(outcome.matched_count == 1)
    }

    /// Reads a cursor to its end; false if it was empty.
    async fn drain(&self, mut cursor: mongodb::Cursor<RawDocumentBuf>) -> mongodb::error::Result<bool> {
        let mut found = false;
        while cursor.try_next().await?.is_some() {
            found = true;
        }
        Ok(found)
    }
}
