//! What a catalog of 10,000 shards costs: opened, changed, copied as every node does for each change, looked up and balanced.
//!
//! `cargo run --release -p catalog --example many_shards`. Prints milliseconds, and nanoseconds of a lookup; each is the best
//! and the worst of several. 30 nodes with 1,000 replicas each: 90 collections of 100 shards, and one of 1,000.

#![expect(clippy::print_stdout, reason = "that is what it is for")]

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Namespace, NodeId, ReshardId, ShardId};
use bson::Document;
use catalog::balance::{self, Observed, ShardLoad};
use catalog::{Catalog, CollectionRecord, Command, NodeFacts, ReshardPlan, ReshardStep, ShardPlacement};
use document::{DocBuf, ShardKey};
use storage::{KvBatch, KvOp};

const NODES: u32 = 30;
const SMALL_COLLECTIONS: usize = 90;
const SMALL_SHARDS: usize = 100;
const LARGE_SHARDS: usize = 1_000;
const REPEATS: usize = 20;
const LOOKUPS: u32 = 1_000_000;

/// A catalog with the keys and values that a node has of it on its disk.
#[derive(Default)]
struct Stored {
    catalog: Catalog,
    pairs: BTreeMap<Vec<u8>, bytes::Bytes>,
    slowest: Duration,
}

impl Stored {
    fn run(&mut self, command: &Command) -> KvBatch {
        let began = Instant::now();
        let (batch, _) =
            self.catalog.evaluate(command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.catalog.apply(&batch).expect("what was evaluated applies");
        self.slowest = self.slowest.max(began.elapsed());
        for op in &batch.ops {
            match op {
                KvOp::Put { key, value } => self.pairs.insert(key.to_vec(), value.clone()),
                KvOp::Delete { key } => self.pairs.remove(&key[..]),
            };
        }
        batch
    }

    fn join_nodes(&mut self) {
        for number in 1..=NODES {
            let node = facts(number);
            self.run(&match number {
                1 => Command::Found { name: "large".to_owned(), replication_factor: 3, node },
                _ => Command::JoinNode { token: node.name.clone(), facts: node },
            });
        }
    }

    /// As `shardCollection` with a number of shards does it.
    fn add_collection(&mut self, number: usize, shards: usize) {
        let namespace = namespace(number);
        let uuid = (number as u128).to_be_bytes();
        let (options, drops_seen) = (Document::new(), 0);
        self.run(&Command::CreateCollection { namespace: namespace.clone(), uuid, options, drops_seen });
        let record = Arc::clone(self.catalog.find(&namespace).expect("created"));
        let first = &record.shard_map.shards[0];
        let plan = ReshardPlan::of_key(&record, vec![first.shard], first.span().cut(shards));
        let (collection, source) = (record.id, first.shard);
        self.run(&Command::BeginReshard { collection, reshards_seen: 0, plan: plan.to_stay(&record) });
        for step in [ReshardStep::CaughtUp { source }, ReshardStep::Complete { source }] {
            self.run(&Command::StepReshard { collection, reshard: ReshardId(1), step });
        }
        for placed in &first.replicas {
            self.run(&Command::ReplicaGone { collection, replica: placed.replica });
        }
    }
}

fn main() {
    let mut stored = Stored::default();
    stored.join_nodes();
    let began = Instant::now();
    (0..SMALL_COLLECTIONS).for_each(|number| stored.add_collection(number, SMALL_SHARDS));
    stored.add_collection(SMALL_COLLECTIONS, LARGE_SHARDS);
    let shards = stored.catalog.active().map(|record| record.shard_map.shards.len()).sum::<usize>();
    let kib = stored.pairs.values().map(|value| value.len()).sum::<usize>() / 1024;
    println!(
        "{shards} shards of {} collections on {NODES} nodes, {kib} KiB, node 1 has {} replicas",
        stored.catalog.active().count(),
        stored.catalog.replicas_on(NodeId(1)).count()
    );
    println!("made in {:.0} ms, slowest command {:.2} ms", ms(began.elapsed()), ms(stored.slowest));
    report("opened from its keys", || open(&stored.pairs));
    let (small, large) = (namespace(0), namespace(SMALL_COLLECTIONS));
    report_change("a collection of 100 shards", &stored.catalog, &small);
    report_change("a collection of 1,000 shards", &stored.catalog, &large);
    report_lookups(&stored.catalog, &large);
    let observed = observed(&stored.catalog);
    report("the balancer looks, nothing to do", || balance::plan(&stored.catalog, &observed).len());
    report("what the catalog's leader repairs, nothing", || balance::repairs(&stored.catalog).len());
    report("nodes for one new shard", || catalog::placement::for_new_shards(&stored.catalog, 1).len());
    lose_a_node(&mut stored, observed);
}

fn open(pairs: &BTreeMap<Vec<u8>, bytes::Bytes>) -> usize {
    let pairs = pairs.iter().map(|(key, value)| Ok((bytes::Bytes::copy_from_slice(key), value.clone())));
    Catalog::load(pairs).expect("it was written by this program").nodes().count()
}

/// A replica of the collection's first shard is to move: what the leader evaluates, and what every node does with the outcome.
fn report_change(what: &str, catalog: &Catalog, namespace: &Namespace) {
    let record = catalog.find(namespace).expect("there");
    let first = &record.shard_map.shards[0];
    let command = move_of(first);
    report(&format!("{what}: a change evaluated"), || catalog.evaluate(&command).is_ok());
    let (batch, _) = catalog.evaluate(&command).expect("a free node takes a replica");
    report(&format!("{what}: a copy of the catalog with the change"), || {
        let mut next = catalog.clone();
        next.apply(&batch).expect("applies");
        next.nodes().count()
    });
}

fn move_of(shard: &ShardPlacement) -> Command {
    let holds = |node: &NodeId| shard.replicas.iter().any(|placed| placed.node == *node);
    let to = (1..=NODES).map(NodeId).find(|node| !holds(node)).expect("more nodes than replicas");
    Command::MoveReplica { shard: shard.shard, from: shard.replicas[0].node, to, cancels_seen: 0 }
}

/// From a document's key to its shard, as the router finds it.
fn report_lookups(catalog: &Catalog, namespace: &Namespace) {
    let documents: Vec<DocBuf> =
        (0..1_024_i32).map(|id| DocBuf::encode(&bson::doc! { "_id": id }).expect("small")).collect();
    let record: Arc<CollectionRecord> = Arc::clone(catalog.find(namespace).expect("there"));
    let key = ShardKey::from(record.shard_key.clone());
    let hashes: Vec<u64> =
        documents.iter().map(|document| key.hash(document.as_doc()).expect("has a key")).collect();
    per_lookup("from a hash to its shard, of 1,000", |at| {
        record.shard_map.owner(hashes[at % hashes.len()]).shard.get()
    });
    per_lookup("from a document to its shard, hashing included", |at| {
        let document = &documents[at % documents.len()];
        record.shard_map.owner(key.hash(document.as_doc()).expect("has a key")).shard.get()
    });
    per_lookup("from a name and a document to its shard", |at| {
        let record = catalog.find(namespace).expect("there");
        let key = ShardKey::from(record.shard_key.clone());
        let document = &documents[at % documents.len()];
        record.shard_map.owner(key.hash(document.as_doc()).expect("has a key")).shard.get()
    });
}

/// The rounds in which what a lost node had is rebuilt on others, each a look of the balancer.
fn lose_a_node(stored: &mut Stored, mut observed: Observed) {
    let lost = NodeId(NODES);
    let held = stored.catalog.replicas_on(lost).count();
    observed.alive.remove(&lost);
    stored.run(&Command::MarkDead { node: lost });
    let (mut rounds, mut moves, mut planning) = (0, 0, Duration::ZERO);
    let (mut changing, mut slowest) = (Duration::ZERO, Duration::ZERO);
    loop {
        let began = Instant::now();
        let plan = balance::plan(&stored.catalog, &observed);
        planning += began.elapsed();
        slowest = slowest.max(began.elapsed());
        if plan.is_empty() {
            break;
        }
        rounds += 1;
        let began = Instant::now();
        for proposal in plan {
            if let Some(command) = proposal.action.command(&stored.catalog) {
                moves += 1;
                stored.run(&command);
            }
            if let balance::Action::TransferPrimary { shard, to } = proposal.action {
                observed.shards.entry(shard).and_modify(|load| load.primary = Some(to));
            }
        }
        changing += began.elapsed();
        settle(stored, &mut observed);
    }
    let counts: Vec<usize> =
        (1..NODES).map(|node| stored.catalog.replicas_on(NodeId(node)).count()).collect();
    println!(
        "a lost node's {held} replicas rebuilt in {moves} moves and {rounds} rounds; others have {:?} to {:?} replicas; \
         a look took at most {:.1} ms and {:.1} ms on average, the changes of a round {:.1} ms on average",
        counts.iter().min().expect("nodes"),
        counts.iter().max().expect("nodes"),
        ms(slowest),
        ms(planning) / f64::from(rounds + 1),
        ms(changing) / f64::from(rounds.max(1)),
    );
}

/// All groups become what is placed.
fn settle(stored: &mut Stored, observed: &mut Observed) {
    let placements: Vec<ShardPlacement> =
        stored.catalog.active().flat_map(|record| record.shard_map.shards.clone()).collect();
    for placed in placements {
        for gone in &placed.leaving {
            let (shard, replica, cancels_seen) = (placed.shard, gone.replica, placed.cancels);
            stored.run(&Command::ReplicaLeft { shard, replica, cancels_seen });
        }
        let load = observed.shards.get_mut(&placed.shard).expect("all were observed");
        if !placed.replicas.iter().any(|replica| Some(replica.node) == load.primary) {
            load.primary = placed.replicas.first().map(|first| first.node);
        }
    }
}

fn observed(catalog: &Catalog) -> Observed {
    let load = |placed: &ShardPlacement| {
        let primary = placed.replicas.first().map(|first| first.node);
        let load = ShardLoad { bytes: 1 << 29, documents: 1_000_000, operations_per_s: 100, primary };
        (placed.shard, load)
    };
    let shards: BTreeMap<ShardId, ShardLoad> =
        catalog.active().flat_map(|record| record.shard_map.shards.iter().map(load)).collect();
    let alive: BTreeSet<NodeId> = catalog.nodes().map(|node| node.id).collect();
    Observed { shards, alive, ..Observed::default() }
}

fn report<R>(what: &str, mut work: impl FnMut() -> R) {
    let mut times: Vec<Duration> = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let began = Instant::now();
        black_box(work());
        times.push(began.elapsed());
    }
    times.sort_unstable();
    println!("{what}: {:.3} to {:.3} ms", ms(times[0]), ms(times[REPEATS - 1]));
}

fn per_lookup(what: &str, mut look: impl FnMut(usize) -> u64) {
    let mut times: Vec<Duration> = Vec::with_capacity(5);
    for _ in 0..5 {
        let began = Instant::now();
        for at in 0..LOOKUPS as usize {
            black_box(look(black_box(at)));
        }
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let ns = |time: Duration| time.as_nanos() as f64 / f64::from(LOOKUPS);
    println!("{what}: {:.1} to {:.1} ns", ns(times[0]), ns(times[times.len() - 1]));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn namespace(number: usize) -> Namespace {
    Namespace::new("large", &format!("c{number}")).expect("a valid name")
}

fn facts(number: u32) -> NodeFacts {
    NodeFacts {
        name: format!("n{number}"),
        listen: format!("n{number}.example.net:27017"),
        peer: format!("n{number}.example.net:27117"),
        storage: true,
        labels: BTreeMap::from([("zone".to_owned(), format!("z{}", number % 3))]),
    }
}
