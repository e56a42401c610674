//! What a node does when nothing has changed: it compares itself with a catalog of 10,000 shards, of which it leads 1,000.
//!
//! `cargo run --release -p rpc --example reconcile`. Prints milliseconds for each time; a node does this once a second, and
//! at each change of the catalog. Engines in memory; the node leads the catalog, so that what its leader repairs is in it.

#![expect(clippy::print_stdout, reason = "that is what it is for")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base::{Clock, Entropy, MonoTime, Namespace, NodeId, ReplicaId, ReshardId, ShardId};
use bson::Document;
use catalog::{Catalog, Command, NodeFacts, ReshardPlan, ReshardStep};
use raft::eraftpb::Message;
use replica::snapshot::SnapshotOffer;
use replica::{CompactionPolicy, Host, HostOptions, Membership, ThreadSpawner, Transport};
use router::{Router, RouterOptions, peer};
use storage::memory::{MemoryDisk, MemoryLogWriter};
use storage::{KvBatch, KvOp};

const NODES: u32 = 10;
const COLLECTIONS: usize = 100;
const SHARDS_EACH: usize = 100;
const REPEATS: usize = 50;
const OWN: NodeId = NodeId(1);

struct Machine {
    started: Instant,
    drawn: AtomicU64,
}

impl Clock for Machine {
    fn monotonic(&self) -> MonoTime {
        MonoTime(self.started.elapsed())
    }

    fn wall_ms(&self) -> i64 {
        1_700_000_000_000
    }
}

impl Entropy for Machine {
    fn next_u64(&self) -> u64 {
        self.drawn.fetch_add(1, Ordering::Relaxed)
    }
}

/// The other nodes of the catalog's group never hear anything.
struct Nowhere;

impl Transport for Nowhere {
    fn send(&self, _: NodeId, _: ShardId, _: Vec<Message>) {}

    fn send_snapshot(&self, _: NodeId, _: SnapshotOffer) {}
}

#[tokio::main]
async fn main() {
    let (catalog, first) = large_catalog();
    let machine = Arc::new(Machine { started: Instant::now(), drawn: AtomicU64::new(1) });
    let spawner =
        Arc::new(ThreadSpawner::new(tokio::runtime::Handle::current(), 1).expect("a thread starts"));
    let host = start(machine.clone(), spawner.clone()).await;
    let own = catalog.cluster().catalog[0].replica;
    host.create_catalog(own, &membership(&catalog), first).await.expect("is created");
    let router = Router::new(RouterOptions {
        node: OWN,
        host: Arc::new(host.clone()),
        peers: Arc::new(peer::NoPeers),
        describe: Arc::new(Document::new),
        clock: machine.clone(),
        entropy: machine,
        spawner,
    });
    host.catalog().expect("created").read().await.expect("it leads alone");
    let began = Instant::now();
    router.reconcile().await.expect("creates what is missing");
    println!("{} replicas created in {:.0} ms", host.shards().len(), ms(began.elapsed()));
    while host.shards().iter().any(|shard| !shard.is_leader()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut times = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let began = Instant::now();
        router.reconcile().await.expect("does nothing");
        times.push(began.elapsed());
    }
    times.sort_unstable();
    println!("nothing to do: {:.2} ms, at most {:.2} ms", ms(times[REPEATS / 2]), ms(times[REPEATS - 1]));
}

async fn start(machine: Arc<Machine>, spawner: Arc<ThreadSpawner>) -> Host {
    let (store, log) = MemoryDisk::new().open().expect("the disk opens");
    let log = Arc::new(log);
    let options = HostOptions {
        node: OWN,
        store: Arc::new(store),
        raft_log: log.clone(),
        log_writer: Arc::new(MemoryLogWriter::new(log)),
        clock: machine.clone(),
        entropy: machine,
        spawner,
        transport: Arc::new(Nowhere),
        trace: None,
        compaction: CompactionPolicy::default(),
    };
    Host::start(options).await.expect("the host starts")
}

/// Only this node's replica votes.
fn membership(catalog: &Catalog) -> Membership {
    let placed = catalog.cluster().catalog.iter().map(|placed| (placed.replica, placed.node));
    let mut membership = Membership::of_voters(placed);
    membership.learners = membership.voters.split_off(1);
    membership
}

/// The catalog and the keys and values that it is made of: shards of one replica each.
fn large_catalog() -> (Catalog, KvBatch) {
    let mut made = Made::default();
    for number in 1..=NODES {
        let node = facts(number);
        made.run(&match number {
            1 => Command::Found { name: "large".to_owned(), replication_factor: 1, node },
            _ => Command::JoinNode { token: node.name.clone(), facts: node },
        });
    }
    (0..COLLECTIONS).for_each(|number| made.add_collection(number));
    let mut batch = KvBatch::default();
    made.pairs.into_iter().for_each(|(key, value)| batch.put(key, value));
    (made.catalog, batch)
}

#[derive(Default)]
struct Made {
    catalog: Catalog,
    pairs: BTreeMap<bytes::Bytes, bytes::Bytes>,
}

impl Made {
    fn run(&mut self, command: &Command) {
        let (batch, _) =
            self.catalog.evaluate(command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.catalog.apply(&batch).expect("what was evaluated applies");
        for op in batch.ops {
            match op {
                KvOp::Put { key, value } => self.pairs.insert(key, value),
                KvOp::Delete { key } => self.pairs.remove(&key),
            };
        }
    }

    /// As `shardCollection` with a number of shards does it.
    fn add_collection(&mut self, number: usize) {
        let namespace = Namespace::new("large", &format!("c{number}")).expect("a valid name");
        let (uuid, options) = ((number as u128).to_be_bytes(), Document::new());
        self.run(&Command::CreateCollection { namespace: namespace.clone(), uuid, options, drops_seen: 0 });
        let record = Arc::clone(self.catalog.find(&namespace).expect("created"));
        let (collection, first) = (record.id, &record.shard_map.shards[0]);
        let source = first.shard;
        let plan = ReshardPlan::of_key(&record, vec![source], first.span().cut(SHARDS_EACH)).to_stay(&record);
        self.run(&Command::BeginReshard { collection, reshards_seen: 0, plan });
        for step in [ReshardStep::CaughtUp { source }, ReshardStep::Complete { source }] {
            self.run(&Command::StepReshard { collection, reshard: ReshardId(1), step });
        }
        let replicas: Vec<ReplicaId> = first.replicas.iter().map(|placed| placed.replica).collect();
        replicas.into_iter().for_each(|replica| self.run(&Command::ReplicaGone { collection, replica }));
    }
}

fn facts(number: u32) -> NodeFacts {
    NodeFacts {
        name: format!("n{number}"),
        listen: format!("n{number}.example.net:27017"),
        peer: format!("n{number}.example.net:27117"),
        storage: true,
        labels: BTreeMap::new(),
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
