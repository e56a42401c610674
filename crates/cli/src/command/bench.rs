//! `psdb bench`: measures a server.

use std::time::Duration;

use crate::bench::{self, Options, Workload};
use crate::connection::Target;
use crate::failure::Failure;

/// Measure a server with the YCSB workloads, or with pure reads, updates, inserts or scans.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    psdb bench --workload load --documents 1000000 --drop\n  \
    psdb bench --workload A --documents 1000000 --clients 64 --seconds 60\n  \
    psdb bench --workload read --documents 1000000 --json\n\n\
    An empty collection is loaded first. For servers on this machine the report has CPU time and peak memory of their \
    processes, found by the port they listen on.")]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// The workload.
    #[arg(long, value_enum)]
    workload: Workload,
    /// Documents in the collection.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    documents: u64,
    /// Clients that work at the same time, each with a connection.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// Seconds to measure.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Seconds to run before measuring.
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
    /// Bytes of a document's ten fields, together.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=10_000_000))]
    value_bytes: u32,
    /// Documents in one insert of the load.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// The collection.
    #[arg(long, default_value = "ycsb.usertable", value_name = "NAMESPACE")]
    namespace: String,
    /// Seed of keys and values.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// With --workload load: delete what the collection holds first.
    #[arg(long)]
    drop: bool,
    /// The server's process, when it cannot be found by its port.
    #[arg(long)]
    pid: Option<u32>,
    /// Print one JSON document instead of tables.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    bench::run(Options {
        uri: arguments.target.uri,
        namespace: arguments.namespace,
        workload: arguments.workload,
        documents: arguments.documents,
        clients: arguments.clients,
        duration: Duration::from_secs(arguments.seconds),
        warm_up: Duration::from_secs(arguments.warm_up),
        value_bytes: arguments.value_bytes as usize,
        batch: arguments.batch as usize,
        seed: arguments.seed,
        drop: arguments.drop,
        pid: arguments.pid,
        json: arguments.json,
    })
    .await
}
