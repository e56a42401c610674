//! The benchmark: YCSB's workloads and a few pure ones against any server of the wire protocol.
//!
//! [`run`] is called by `psdb bench`. Clients are tasks with one connection each; they share pre-generated values and
//! send raw documents, because on a small machine the client's CPU is taken from the server. What is measured begins
//! after a warm-up: latencies by operation in HDR histograms, errors, and CPU and memory of the server processes that
//! run on this machine.

mod clients;
mod distribution;
mod process;
mod report;
mod values;
mod workload;

use std::time::Duration;

pub(crate) use clients::empty_histogram;
pub(crate) use report::latency;
pub(crate) use workload::Workload;

use bson::{Document, RawDocumentBuf, doc};
use mongodb::Collection;
use mongodb::options::{ClientOptions, ServerAddress};

use crate::connection::{Connection, split_namespace};
use crate::failure::Failure;
use crate::output;
use clients::Run;
use process::{Process, Usage};
use report::{FsyncReport, ProcessReport, Report};

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The server.
    pub(crate) uri: String,
    /// The collection, `DATABASE.COLLECTION`.
    pub(crate) namespace: String,
    /// Which operations.
    pub(crate) workload: Workload,
    /// Documents that the collection holds.
    pub(crate) documents: u64,
    /// Tasks, each with a connection.
    pub(crate) clients: u32,
    /// How long to measure.
    pub(crate) duration: Duration,
    /// How long to run before measuring.
    pub(crate) warm_up: Duration,
    /// Bytes of a document's values, over ten fields.
    pub(crate) value_bytes: usize,
    /// Documents in one insert of the load.
    pub(crate) batch: usize,
    /// Seed of keys and values.
    pub(crate) seed: u64,
    /// Whether `load` may delete what the collection holds.
    pub(crate) drop: bool,
    /// The server's process, when it cannot be found by its port.
    pub(crate) pid: Option<u32>,
    /// Whether to print JSON.
    pub(crate) json: bool,
}

/// Runs the workload and prints the report.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let (database, collection) = split_namespace(&options.namespace)?;
    let connection = Connection::with_pool(&options.uri, Some(options.clients)).await?;
    let collection: Collection<RawDocumentBuf> = connection.database(database).collection(collection);
    let mut present = collection.estimated_document_count().await?;
    if options.workload == Workload::Load {
        make_room(&options, &collection, present).await?;
    } else if present == 0 && options.workload != Workload::Insert {
        output::warn(format!("loading {} documents first", output::grouped(options.documents)));
        clients::load(&options, &collection).await?;
        present = options.documents;
    } else if present < options.documents && options.workload != Workload::Insert {
        return Err(Failure::refused(format!(
            "{} holds {present} documents, fewer than {}; load it with: --workload load --drop",
            options.namespace, options.documents
        )));
    }

    let processes = find_processes(&options).await;
    if options.workload == Workload::Load {
        let before = Snapshot::take(&connection, &processes).await;
        let run = clients::load(&options, &collection).await?;
        return finish(&options, &connection, &processes, before, run).await;
    }
    let clients = clients::start(&options, &collection, present);
    // Taken when the warm-up ends, so that its work does not count.
    tokio::time::sleep(options.warm_up).await;
    let before = Snapshot::take(&connection, &processes).await;
    let run = clients.finish().await?;
    finish(&options, &connection, &processes, before, run).await
}

async fn make_room(
    options: &Options,
    collection: &Collection<RawDocumentBuf>,
    present: u64,
) -> Result<(), Failure> {
    match (present, options.drop) {
        (0, _) => Ok(()),
        (_, true) => Ok(collection.drop().await?),
        (present, false) => Err(Failure::refused(format!(
            "{} already holds {present} documents; --drop deletes them first",
            options.namespace
        ))),
    }
}

async fn finish(
    options: &Options,
    connection: &Connection,
    processes: &[Process],
    before: Snapshot,
    run: Run,
) -> Result<(), Failure> {
    let after = Snapshot::take(connection, processes).await;
    let usages = before.usages.iter().zip(&after.usages);
    let rows = processes
        .iter()
        .zip(usages)
        .filter_map(|(process, (before, after))| ProcessReport::new(process, before.as_ref(), after.as_ref()))
        .collect();
    let fsyncs = before.fsyncs.zip(after.fsyncs).and_then(|(before, after)| after.since(before));
    let failed = run.operations() == 0;
    let report = Report { options, run, processes: rows, fsyncs };
    output::say(if options.json { report.json() } else { report.table() })?;
    if failed { Err(Failure::refused("no operation succeeded")) } else { Ok(()) }
}

/// Counters at one moment.
struct Snapshot {
    usages: Vec<Option<Usage>>,
    fsyncs: Option<Fsyncs>,
}

/// Fsyncs of the server's Raft log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fsyncs {
    count: i64,
    /// Time spent in them, in microseconds.
    total_us: i64,
}

impl Snapshot {
    async fn take(connection: &Connection, processes: &[Process]) -> Snapshot {
        let status = connection.database("admin").run_command(doc! { "serverStatus": 1 }).await;
        let fsyncs = status.ok().and_then(|status| Fsyncs::read(&status));
        Snapshot { usages: processes.iter().map(|process| process::usage(process.pid)).collect(), fsyncs }
    }
}

impl Fsyncs {
    /// From `psdb.raftLog` of serverStatus, which only PSDB has.
    fn read(status: &Document) -> Option<Fsyncs> {
        let log = status.get_document("psdb").ok()?.get_document("raftLog").ok()?;
        Some(Fsyncs { count: log.get_i64("fsyncs").ok()?, total_us: log.get_i64("fsyncMicros").ok()? })
    }

    /// What was done since `before`; none if the server was started again meanwhile.
    fn since(self, before: Fsyncs) -> Option<FsyncReport> {
        let count = u64::try_from(self.count - before.count).ok()?;
        let total_us = u64::try_from(self.total_us - before.total_us).ok()?;
        Some(FsyncReport { count, total_us })
    }
}

/// The server processes on this machine that listen on the URI's ports, and this client.
async fn find_processes(options: &Options) -> Vec<Process> {
    let client = Process { pid: std::process::id(), name: "this client".to_owned() };
    if let Some(pid) = options.pid {
        return vec![Process::of(pid), client];
    }
    let uri = crate::connection::full_uri(&options.uri);
    let hosts = ClientOptions::parse(&uri).await.map(|parsed| parsed.hosts).unwrap_or_default();
    hosts
        .iter()
        .filter_map(|host| match host {
            ServerAddress::Tcp { host, port } if is_local(host) => process::listening(port.unwrap_or(27017)),
            _ => None,
        })
        .chain([client])
        .collect()
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(fsyncs: i64, micros: i64) -> Document {
        doc! { "psdb": { "raftLog": { "fsyncs": fsyncs, "fsyncMicros": micros } } }
    }

    #[test]
    fn fsyncs_are_what_was_counted_between_two_statuses() {
        let before = Fsyncs::read(&status(10, 9_000)).expect("a status of PSDB");
        let after = Fsyncs::read(&status(14, 13_000)).expect("a status of PSDB");
        assert_eq!(after.since(before), Some(FsyncReport { count: 4, total_us: 4_000 }));
        assert_eq!(before.since(after), None, "the counters went back: the server was started again");
        assert_eq!(Fsyncs::read(&doc! { "ok": 1 }), None, "another server");
    }
}
