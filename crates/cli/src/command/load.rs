//! Loading documents into a collection from any of the import formats: the engine of `import`, `insert` and `demo`.
//!
//! A thread reads and parses; tasks send batches, a few at a time. Every record that is refused, by the parser or by
//! the server, is reported on standard error with its number and the reason. Memory stays bounded: the reader waits
//! when the senders fall behind.

use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bson::RawDocumentBuf;
use indicatif::ProgressBar;
use mongodb::Collection;
use mongodb::error::ErrorKind;
use tokio::sync::mpsc;

use super::records::{self, Record};
use crate::failure::Failure;
use crate::output;

/// Batches that wait between the reader and the senders, and batches on the wire at a time.
const BATCHES_WAITING: usize = 4;
const SENDERS: usize = 4;
/// Most bytes of documents in one batch.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How records are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// One document a line.
    Jsonl,
    /// An array of documents, or documents one after the other.
    Json,
    /// Comma-separated values with a header.
    Csv,
}

/// What to load and when to stop.
#[derive(Clone, Debug)]
pub(crate) struct LoadOptions {
    /// The input's layout.
    pub(crate) format: Format,
    /// Documents in a batch.
    pub(crate) batch: usize,
    /// Whether the first refused record ends the load.
    pub(crate) stop_on_error: bool,
    /// CSV: the columns, when the input has no header.
    pub(crate) columns: Vec<String>,
    /// CSV: whether numbers, truth values and dates are recognised.
    pub(crate) infer_types: bool,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            format: Format::Jsonl,
            batch: 1000,
            stop_on_error: false,
            columns: Vec::new(),
            infer_types: true,
        }
    }
}

/// What a load did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded {
    /// Documents that the server acknowledged.
    pub(crate) documents: u64,
    /// Records that were refused.
    pub(crate) rejected: u64,
    /// From the first byte to the last acknowledgement.
    pub(crate) elapsed: Duration,
}

impl Loaded {
    /// Acknowledged documents a second.
    pub(crate) fn rate(&self) -> u64 {
        (self.documents as f64 / self.elapsed.as_secs_f64().max(0.001)) as u64
    }
}

struct Batch {
    numbers: Vec<u64>,
    documents: Vec<RawDocumentBuf>,
    bytes_read: u64,
}

#[derive(Default)]
struct Counters {
    documents: AtomicU64,
    rejected: AtomicU64,
}

/// Loads everything and says how it went; fails if any record was refused.
pub(crate) async fn load(
    input: Box<dyn BufRead + Send>,
    bytes: Option<u64>,
    collection: Collection<RawDocumentBuf>,
    options: LoadOptions,
) -> Result<(), Failure> {
    let loaded = load_records(input, bytes, collection, options).await?;
    let sentence = format!(
        "{} in {:.1} s ({}/s), {} rejected",
        output::documents(loaded.documents),
        loaded.elapsed.as_secs_f64(),
        output::grouped(loaded.rate()),
        output::grouped(loaded.rejected),
    );
    if loaded.rejected > 0 {
        return Err(Failure::refused(sentence));
    }
    output::warn(sentence);
    Ok(())
}

/// Loads everything; `bytes` is the input's length, for the progress bar.
pub(crate) async fn load_records(
    input: Box<dyn BufRead + Send>,
    bytes: Option<u64>,
    collection: Collection<RawDocumentBuf>,
    options: LoadOptions,
) -> Result<Loaded, Failure> {
    let started = Instant::now();
    let bar = progress(bytes);
    let counters = Arc::new(Counters::default());
    let (sender, receiver) = mpsc::channel(BATCHES_WAITING);
    let reader = {
        let (counters, bar, options) = (counters.clone(), bar.clone(), options.clone());
        tokio::task::spawn_blocking(move || read(input, &options, &counters, &bar, &sender))
    };
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    // Stopping at the first error means that nothing behind it may be on its way.
    let senders = if options.stop_on_error { 1 } else { SENDERS };
    let tasks: Vec<_> = (0..senders)
        .map(|_| {
            let (receiver, collection) = (receiver.clone(), collection.clone());
            let (counters, bar, stop) = (counters.clone(), bar.clone(), options.stop_on_error);
            tokio::spawn(async move { send_all(&receiver, &collection, &counters, &bar, stop).await })
        })
        .collect();
    drop(receiver);
    let mut outcome = Ok(());
    for task in tasks {
        let sent = task.await.map_err(Failure::refused)?;
        outcome = outcome.and(sent);
    }
    let read = reader.await.map_err(Failure::refused)?;
    bar.finish_and_clear();
    outcome.and(read)?;
    Ok(Loaded {
        documents: counters.documents.load(Ordering::Relaxed),
        rejected: counters.rejected.load(Ordering::Relaxed),
        elapsed: started.elapsed(),
    })
}

fn progress(bytes: Option<u64>) -> ProgressBar {
    let template = match bytes {
        Some(_) => "{bar:40} {percent:>3}%  {msg}  {eta} left",
        None => "{spinner} {bytes}  {msg}",
    };
    output::progress(bytes, template)
}

/// Reads and parses on a thread of its own, until the end or until no one takes batches any more.
fn read(
    input: Box<dyn BufRead + Send>,
    options: &LoadOptions,
    counters: &Counters,
    bar: &ProgressBar,
    sender: &mpsc::Sender<Batch>,
) -> Result<(), Failure> {
    let mut numbers = Vec::new();
    let mut documents: Vec<RawDocumentBuf> = Vec::new();
    let mut batch_bytes = 0;
    let mut stopped = false;
    records::read(input, options, &mut |record: Record| {
        let bytes_read = record.bytes_read;
        match record.document {
            Ok(document) => {
                batch_bytes += document.as_bytes().len();
                documents.push(document);
                numbers.push(record.number);
            }
            Err(reason) => {
                reject(counters, bar, record.number, &reason);
                stopped = options.stop_on_error;
            }
        }
        if documents.len() < options.batch && batch_bytes < BATCH_BYTES_MAX {
            return !stopped;
        }
        batch_bytes = 0;
        let batch = Batch {
            numbers: std::mem::take(&mut numbers),
            documents: std::mem::take(&mut documents),
            bytes_read,
        };
        sender.blocking_send(batch).is_ok() && !stopped
    })?;
    if !documents.is_empty() {
        let bytes_read = bar.position();
        // A closed channel means that a sender failed, which is what gets reported.
        let _ = sender.blocking_send(Batch { numbers, documents, bytes_read });
    }
    Ok(())
}

async fn send_all(
    receiver: &tokio::sync::Mutex<mpsc::Receiver<Batch>>,
    collection: &Collection<RawDocumentBuf>,
    counters: &Counters,
    bar: &ProgressBar,
    stop_on_error: bool,
) -> Result<(), Failure> {
    let started = Instant::now();
    loop {
        let Some(batch) = receiver.lock().await.recv().await else {
            return Ok(());
        };
        let rejected = send(batch.documents, &batch.numbers, collection, counters, bar, stop_on_error).await;
        if rejected.is_err() || (stop_on_error && rejected.as_ref().is_ok_and(|rejected| *rejected)) {
            receiver.lock().await.close();
            return rejected.map(|_| ());
        }
        let documents = counters.documents.load(Ordering::Relaxed);
        let rate = documents as f64 / started.elapsed().as_secs_f64().max(0.001);
        let message = format!("{} documents, {}/s", output::grouped(documents), output::grouped(rate as u64));
        bar.set_message(message);
        bar.set_position(bar.position().max(batch.bytes_read));
    }
}

/// Sends one batch; true if the server refused some of it.
async fn send(
    documents: Vec<RawDocumentBuf>,
    numbers: &[u64],
    collection: &Collection<RawDocumentBuf>,
    counters: &Counters,
    bar: &ProgressBar,
    ordered: bool,
) -> Result<bool, Failure> {
    let sent = documents.len() as u64;
    let error = match collection.insert_many(documents).ordered(ordered).await {
        Ok(_) => {
            counters.documents.fetch_add(sent, Ordering::Relaxed);
            return Ok(false);
        }
        Err(error) => error,
    };
    let ErrorKind::InsertMany(failed) = error.kind.as_ref() else {
        return Err(error.into());
    };
    let Some(errors) = failed.write_errors.as_ref().filter(|_| failed.write_concern_error.is_none()) else {
        return Err(error.into());
    };
    for refused in errors {
        let number = numbers.get(refused.index).copied().unwrap_or_default();
        reject(counters, bar, number, &format!("{} ({})", refused.message, refused.code));
    }
    // In an ordered batch nothing behind the first error was tried.
    let inserted = match errors.first() {
        Some(first) if ordered => first.index as u64,
        _ => sent.saturating_sub(errors.len() as u64),
    };
    counters.documents.fetch_add(inserted, Ordering::Relaxed);
    Ok(true)
}

fn reject(counters: &Counters, bar: &ProgressBar, number: u64, reason: &str) {
    counters.rejected.fetch_add(1, Ordering::Relaxed);
    bar.suspend(|| output::warn(format!("record {number}: {reason}")));
}
