//! Clusters for tests: a catalog with nodes and shards as a test wants them, and what becomes of it as proposals are carried out.

use std::collections::{BTreeMap, BTreeSet};

use base::{CollectionId, Epoch, IndexId, Namespace, NodeId, ReplicaId, ShardId};
use bson::doc;
use storage::KvBatch;

use super::{Action, Observed, Proposal, ShardLoad, plan};
use crate::record::encode;
use crate::{
    Catalog, CollectionRecord, CollectionState, Command, IndexSpec, IndexState, NodeFacts, ReplicaPlacement,
    ShardMap, ShardPlacement,
};

/// Shards of each collection, at most.
const SHARDS_OF_COLLECTION: usize = 4;

/// A cluster in which a test stands in for nodes and primaries.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) catalog: Catalog,
    pub(super) loads: BTreeMap<ShardId, ShardLoad>,
    /// Nodes that do not answer.
    pub(super) down: BTreeSet<NodeId>,
}

pub(super) fn facts(name: &str, zone: Option<&str>) -> NodeFacts {
    NodeFacts {
        name: name.to_owned(),
        listen: name.to_owned(),
        peer: name.to_owned(),
        storage: true,
        labels: zone.map(|zone| ("zone".to_owned(), zone.to_owned())).into_iter().collect(),
    }
}

impl Cluster {
    /// Nodes `n1` and so on in these zones, and no shards.
    pub(super) fn new(factor: u32, zones: &[Option<&str>]) -> Cluster {
        let mut cluster =
            Cluster { catalog: Catalog::default(), loads: BTreeMap::new(), down: BTreeSet::new() };
        for zone in zones {
            cluster.add_node(factor, *zone);
        }
        cluster
    }

    pub(super) fn add_node(&mut self, factor: u32, zone: Option<&str>) -> NodeId {
        let number = self.catalog.nodes().count() + 1;
        let node = facts(&format!("n{number}"), zone);
        self.run(&match number {
            1 => Command::Found { name: "shop".to_owned(), replication_factor: factor, node },
            _ => Command::JoinNode { token: node.name.clone(), facts: node },
        });
        NodeId(u32::try_from(number).expect("few nodes"))
    }

    /// Shards with replicas on these nodes, from id 100 on, four to a collection. The first of a shard's nodes is its primary.
    pub(super) fn with_shards(mut self, shards: &[Vec<NodeId>]) -> Cluster {
        let mut batch = KvBatch::default();
        let mut replica = 100;
        for (number, group) in shards.chunks(SHARDS_OF_COLLECTION).enumerate() {
            let first = ShardId(100 + (number * SHARDS_OF_COLLECTION) as u64);
            let record = collection(CollectionId(1 + number as u64), first, group, &mut replica);
            for placed in &record.shard_map.shards {
                let primary = placed.replicas.first().map(|first| first.node);
                let load = ShardLoad { bytes: 1 << 29, documents: 1_000, primary, ..ShardLoad::default() };
                self.loads.insert(placed.shard, load);
            }
            batch.put(collection_key(record.id), encode(&record));
        }
        let counters = doc! {
            "collection": 1_000_i64, "shard": 1_000_000_i64, "replica": 1_000_000_i64,
            "node": self.catalog.nodes().count() as i64 + 1, "drops": 0_i64,
        };
        batch.put(b"k".to_vec(), encode(&counters));
        self.catalog.apply(&batch).expect("applies");
        self
    }

    /// What `shardCollection` with a number of shards notes.
    pub(super) fn ask_for_shards(&mut self, collection: CollectionId, shards_min: u32) {
        let record = self.catalog.collection(collection).expect("there");
        let record = CollectionRecord { shards_min, ..record.as_ref().clone() };
        let mut batch = KvBatch::default();
        batch.put(collection_key(collection), encode(&record));
        self.catalog.apply(&batch).expect("applies");
    }

    pub(super) fn run(&mut self, command: &Command) {
        let (batch, _) =
            self.catalog.evaluate(command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.catalog.apply(&batch).expect("what was evaluated applies");
    }

    pub(super) fn refusal(&self, command: &Command) -> base::Error {
        self.catalog.evaluate(command).expect_err("refused")
    }

    pub(super) fn observed(&self) -> Observed {
        let answers = |node: &NodeId| !self.down.contains(node);
        let nodes = self.catalog.nodes().filter(|node| node.is_member() && !node.dead).map(|node| node.id);
        let alive = nodes.filter(answers).collect();
        Observed { shards: self.loads.clone(), alive, ..Observed::default() }
    }

    pub(super) fn plan(&self) -> Vec<Proposal> {
        plan(&self.catalog, &self.observed())
    }

    pub(super) fn reasons(&self) -> Vec<String> {
        self.plan().into_iter().map(|proposal| proposal.reason).collect()
    }

    /// Carries a proposal out as far as the catalog and the primaries do. Splits and merges stay undone.
    pub(super) fn carry_out(&mut self, action: &Action) {
        if let Some(command) = action.command(&self.catalog) {
            self.run(&command);
        }
        if let Action::TransferPrimary { shard, to } = action {
            self.loads.get_mut(shard).expect("known").primary = Some(*to);
        }
    }

    /// All groups become what is placed: replicas on their way out leave, and who led there leads elsewhere.
    pub(super) fn settle(&mut self) {
        for placed in self.shards() {
            for replica in &placed.leaving {
                let (shard, replica, cancels_seen) = (placed.shard, replica.replica, placed.cancels);
                self.run(&Command::ReplicaLeft { shard, replica, cancels_seen });
            }
            let load = self.loads.get_mut(&placed.shard).expect("known");
            if !placed.replicas.iter().any(|replica| Some(replica.node) == load.primary) {
                load.primary = placed.replicas.first().map(|first| first.node);
            }
        }
    }

    /// Plans and carries out until nothing is proposed, and returns what each round did. Fails after `rounds_max`.
    pub(super) fn converge(
        &mut self,
        rounds_max: usize,
        mut check: impl FnMut(usize, &Cluster, &Cluster, &Proposal),
    ) -> Vec<Vec<Action>> {
        let mut rounds = Vec::new();
        loop {
            let mut plan = self.plan();
            plan.retain(|proposal| !matches!(proposal.action, Action::Split { .. } | Action::Merge { .. }));
            if plan.is_empty() {
                return rounds;
            }
            assert!(rounds.len() < rounds_max, "no end after {rounds_max} rounds: {plan:?}");
            for proposal in &plan {
                let before = self.clone();
                self.carry_out(&proposal.action);
                check(rounds.len(), &before, self, proposal);
            }
            self.settle();
            rounds.push(plan.into_iter().map(|proposal| proposal.action).collect());
        }
    }

    pub(super) fn shards(&self) -> Vec<ShardPlacement> {
        self.catalog.active().flat_map(|record| record.shard_map.shards.clone()).collect()
    }

    /// How many replicas each node that may have some has.
    pub(super) fn replica_counts(&self) -> BTreeMap<NodeId, usize> {
        let takers = self.catalog.nodes().filter(|node| node.takes_replicas());
        let mut counts: BTreeMap<NodeId, usize> = takers.map(|node| (node.id, 0)).collect();
        for replica in self.shards().iter().flat_map(|shard| &shard.replicas) {
            counts.entry(replica.node).and_modify(|count| *count += 1);
        }
        counts
    }

    /// How many primaries each node that may have some has.
    pub(super) fn primary_counts(&self) -> BTreeMap<NodeId, usize> {
        let mut counts: BTreeMap<NodeId, usize> =
            self.replica_counts().into_keys().map(|node| (node, 0)).collect();
        for primary in self.loads.values().filter_map(|load| load.primary) {
            counts.entry(primary).and_modify(|count| *count += 1);
        }
        counts
    }
}

fn collection_key(collection: CollectionId) -> Vec<u8> {
    [b"c".as_slice(), &collection.get().to_be_bytes()].concat()
}

/// By how much the largest of these differs from the smallest.
pub(super) fn spread<K>(counts: &BTreeMap<K, usize>) -> usize {
    let (most, least) = (counts.values().max(), counts.values().min());
    most.unwrap_or(&0) - least.unwrap_or(&0)
}

fn collection(
    id: CollectionId,
    first: ShardId,
    shards: &[Vec<NodeId>],
    replica: &mut u64,
) -> CollectionRecord {
    let width = u32::MAX / SHARDS_OF_COLLECTION as u32;
    let placed = shards.iter().enumerate().map(|(at, nodes)| {
        let replicas = nodes.iter().map(|node| {
            *replica += 1;
            ReplicaPlacement { replica: ReplicaId(*replica), node: *node, founder: true, successor: None }
        });
        let begin = width * at as u32;
        let end = if at + 1 == shards.len() { u32::MAX } else { begin + width - 1 };
        ShardPlacement {
            shard: ShardId(first.get() + at as u64),
            first: (begin, 0),
            last: (end, u32::MAX),
            replicas: replicas.collect(),
            leaving: Vec::new(),
            cancels: 0,
            since: Epoch(1),
        }
    });
    CollectionRecord {
        id,
        uuid: [0; 16],
        namespace: Namespace::new("shop", &format!("things{}", id.get())).expect("valid"),
        options: doc! {},
        state: CollectionState::Active,
        indexes: vec![(IndexSpec::id_index(), IndexState::Ready)],
        next_index: IndexId(1),
        index_drops: 0,
        failures: Vec::new(),
        shard_key: vec!["_id".to_owned()],
        shards_min: 1,
        key_pattern: doc! {},
        shard_map: ShardMap { epoch: Epoch(1), shards: placed.collect() },
        built: Vec::new(),
        births: Vec::new(),
        reshard: None,
        reshards: 0,
        last_reshard: None,
        retired: Vec::new(),
    }
}
