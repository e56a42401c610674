//! What a lone client's replicated write cannot be faster than on this machine: two empty round trips on the stream between
//! nodes, and one fdatasync while three files are being synced.
//!
//! `cargo run --release -p rpc --example floor -- DIRECTORY`, beside `psdb bench --workload insert --clients 1` on three nodes
//! whose data is in the same file system. Prints medians in microseconds.

#![expect(clippy::print_stdout, reason = "that is what it is for")]

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base::{BootId, Entropy, LogIndex, NodeId, ShardId};
use raft::eraftpb::Message;
use replica::SnapshotReceiver;
use replica::snapshot::{NotInstalled, SnapshotHeader};
use router::peer::{PeerFailure, PeerReply, PeerRequest, Peers};
use rpc::{Greeting, Identity, JoinReply, JoinRequest, Network, NetworkOptions, Service, serve};
use storage::Fault;
use tokio::net::TcpListener;
use tokio::sync::watch;

const ROUND_TRIPS: usize = 4_000;
const SYNCS: usize = 1_000;
/// What one write adds to a log, as a document of 1 KB does.
const WRITE_BYTES: usize = 1_200;
const FILE_BYTES: usize = 8 << 20;
const FILES: usize = 3;

/// Answers at once.
struct Echo;

#[derive(Default)]
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

#[async_trait]
impl Service for Echo {
    fn receive(&self, _: NodeId, _: ShardId, _: Vec<Message>) {}

    async fn handle(&self, _: NodeId, _: PeerRequest) -> Result<PeerReply, PeerFailure> {
        Ok(PeerReply::Index(LogIndex(1)))
    }

    async fn begin_snapshot(&self, _: NodeId, _: SnapshotHeader) -> Result<SnapshotReceiver, NotInstalled> {
        Err(NotInstalled::Damaged)
    }

    async fn install_snapshot(&self, _: SnapshotReceiver) -> Result<Message, NotInstalled> {
        Err(NotInstalled::Damaged)
    }

    fn operations(&self) -> u64 {
        0
    }

    fn fault(&self, fault: Fault) {
        panic!("there is no store here: {fault}");
    }

    async fn join(&self, _: JoinRequest) -> base::Result<JoinReply> {
        Err(base::Error::new(base::Code::ILLEGAL_OPERATION, "there is no cluster here"))
    }

    async fn greet(&self) -> Greeting {
        Greeting {
            cluster_id: None,
            node: None,
            name: "floor".to_owned(),
            version: "0".to_owned(),
            empty: true,
        }
    }
}

fn identity(node: u32) -> Identity {
    Identity { cluster_id: "floor".to_owned(), node: NodeId(node), boot: BootId(u64::from(node)) }
}

/// One round trip after the other from one node to another, as a lone client causes them.
async fn round_trips() -> Vec<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let (_known, served) = watch::channel(Some(identity(2)));
    tokio::spawn(serve(listener, served, Arc::default(), Arc::new(Echo), std::future::pending()));
    let network =
        Network::new(identity(1), Arc::new(Counting::default()), Arc::default(), NetworkOptions::default());
    network.set_local(Arc::new(Echo));
    network.set_addresses([(NodeId(2), address)].into());
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    while times.len() < ROUND_TRIPS {
        let start = Instant::now();
        match network.call(NodeId(2), PeerRequest::CatalogIndex, Duration::from_secs(5)).await {
            Ok(_) => times.push(start.elapsed()),
            // The connection is still being made.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    times
}

/// Three files are written and synced at the same time, again and again; how long each first one takes.
fn syncs(directory: &Path) -> Vec<Duration> {
    let barrier = Arc::new(Barrier::new(FILES));
    let sync = |number: usize| {
        let (barrier, path) = (barrier.clone(), directory.join(format!("floor-{number}")));
        std::thread::spawn(move || sync_again_and_again(&path, &barrier))
    };
    let threads: Vec<_> = (0..FILES).map(sync).collect();
    let mut times: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    times.swap_remove(0)
}

fn sync_again_and_again(path: &PathBuf, barrier: &Barrier) -> Vec<Duration> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path).expect("a new file");
    file.write_all(&vec![1; FILE_BYTES]).and_then(|()| file.sync_all()).expect("room for a file");
    file.seek(SeekFrom::Start(0)).expect("a file");
    let block = [7_u8; WRITE_BYTES];
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        barrier.wait();
        let start = Instant::now();
        file.write_all(&block).and_then(|()| file.sync_data()).expect("the file can be written");
        times.push(start.elapsed());
    }
    std::fs::remove_file(path).expect("the file is there");
    times
}

fn median_us(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

#[tokio::main]
async fn main() {
    let directory = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| ".".to_owned()));
    let round_trip = median_us(round_trips().await);
    let sync = median_us(tokio::task::spawn_blocking(move || syncs(&directory)).await.expect("no panic"));
    println!("round trip {round_trip:.0} us, fdatasync beside two others {sync:.0} us");
    println!("two round trips and one fdatasync: {:.0} us", 2.0 * round_trip + sync);
}
