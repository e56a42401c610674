//! The catalog that a large cluster begins with: which nodes and collections there are, and where the shards' replicas are.
//!
//! Made of the catalog's own commands before any node starts. Always holds: the node that will be lost has a replica of the
//! shards that it shall lead, and of no other; all other replicas are even over the other nodes.

use std::collections::BTreeMap;

use base::{Namespace, NodeId, ReplicaId};
use bson::Document;
use bytes::Bytes;
use catalog::{BalancerSettings, Catalog, Command, NodeFacts};
use replica::Membership;
use storage::{KvBatch, KvOp};

use super::Size;
use crate::cluster::facts;

/// Voters of the catalog.
const CATALOG_VOTERS: usize = 3;
/// Seconds without an answer after which a node's replicas are rebuilt elsewhere.
const NODE_DEAD_AFTER_S: u32 = 30;

/// See the module's comment.
pub(super) struct Layout {
    /// The node that will be lost: a voter of the catalog, too.
    pub(super) lost: NodeId,
    /// The collections, of one shard each, whose primary shall be there.
    pub(super) led: Vec<Namespace>,
    /// The catalog.
    pub(super) catalog: Catalog,
    pairs: BTreeMap<Bytes, Bytes>,
}

impl Layout {
    pub(super) fn new(size: Size) -> Layout {
        let lost = NodeId(1);
        let mut layout =
            Layout { lost, led: Vec::new(), catalog: Catalog::default(), pairs: BTreeMap::new() };
        layout.join(size.nodes);
        let others: Vec<NodeId> = (2..=size.nodes).map(NodeId).collect();
        layout.open(&others, false);
        for number in 0..size.led {
            let at = 2 * number as usize;
            let pair = [at, at + 1].map(|at| others[at % others.len()]);
            layout.open(&pair, true);
            let namespace = layout.create(number);
            layout.led.push(namespace);
            layout.open(&pair, false);
        }
        layout.open(&[lost], false);
        layout.open(&others, true);
        (size.led..size.shards).for_each(|number| drop(layout.create(number)));
        layout.open(&[lost], true);
        let settings = BalancerSettings {
            enabled: false,
            node_dead_after_s: NODE_DEAD_AFTER_S,
            ..BalancerSettings::default()
        };
        layout.run(&Command::ChangeBalancerSettings { settings });
        layout
    }

    /// What every node's replica of the catalog begins with.
    pub(super) fn first_state(&self) -> KvBatch {
        let mut batch = KvBatch::default();
        self.pairs.iter().for_each(|(key, value)| batch.put(key.clone(), value.clone()));
        batch
    }

    /// The catalog's group: a few voters, and everybody else as a learner.
    pub(super) fn membership(&self) -> Membership {
        let placed = &self.catalog.cluster().catalog;
        let all = placed.iter().map(|placed| (placed.replica, placed.node));
        let mut membership = Membership::of_voters(all);
        membership.learners = membership.voters.split_off(CATALOG_VOTERS);
        membership
    }

    /// The catalog's replica on a node.
    pub(super) fn catalog_replica(&self, node: NodeId) -> ReplicaId {
        let mut placed = self.catalog.cluster().catalog.iter();
        placed.find(|placed| placed.node == node).expect("one on each node").replica
    }

    fn join(&mut self, nodes: u32) {
        for machine in 1..=nodes {
            let node = facts(machine);
            self.run(&match machine {
                1 => Command::Found { name: "large".to_owned(), replication_factor: 3, node },
                _ => Command::JoinNode { token: node.name.clone(), facts: node },
            });
        }
    }

    /// Whether these nodes get replicas of what is created next.
    fn open(&mut self, nodes: &[NodeId], storage: bool) {
        for node in nodes {
            let facts = NodeFacts { storage, ..facts(node.get()) };
            self.run(&Command::RenewNode { node: *node, facts });
        }
    }

    fn create(&mut self, number: u32) -> Namespace {
        let namespace = Namespace::new("large", &format!("c{number}")).expect("a valid name");
        let uuid = u128::from(number).to_be_bytes();
        let options = Document::new();
        self.run(&Command::CreateCollection { namespace: namespace.clone(), uuid, options, drops_seen: 0 });
        namespace
    }

    fn run(&mut self, command: &Command) {
        let evaluated = self.catalog.evaluate(command);
        let (batch, _) = evaluated.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.catalog.apply(&batch).expect("what was evaluated applies");
        for op in batch.ops {
            match op {
                KvOp::Put { key, value } => self.pairs.insert(key, value),
                KvOp::Delete { key } => self.pairs.remove(&key),
            };
        }
    }
}
