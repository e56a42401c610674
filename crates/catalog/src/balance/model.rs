//! The cluster as the balancer sees it: nodes with what they carry, shards with where they are, all by position.
//!
//! Made for one plan, or for one choice of nodes; changed by each proposal as if it were done. Always holds: `replicas` of
//! a node counts the shards that list it, and neither counts a replica that is on its way out.

use std::collections::{BTreeMap, BTreeSet};

use base::{CollectionId, NodeId, ShardId};

use super::{Action, Observed, Proposal, ShardLoad};
use crate::{
    BalancerSettings, Catalog, CollectionRecord, CollectionState, NodeRecord, NodeState, ShardPlacement,
};

/// The label that says in which zone a node is.
const ZONE_LABEL: &str = "zone";

/// A node and what it carries.
pub(crate) struct Node<'a> {
    pub(super) record: &'a NodeRecord,
    /// Nodes of one zone have one number.
    pub(super) zone: usize,
    /// Whether it may get replicas, and answers.
    pub(super) takes: bool,
    /// Replicas of shards in use.
    pub(super) replicas: usize,
    /// Shards whose first place it has.
    pub(super) firsts: usize,
    pub(super) primaries: usize,
    pub(super) bytes: u64,
    /// Operations a second of the shards whose primary it has.
    pub(super) operations: u64,
    /// Replicas that are moving to or from it.
    pub(super) moves: u32,
    /// The shards that it has a replica of.
    pub(super) hosted: Vec<usize>,
}

/// A shard and where it is.
pub(crate) struct Shard<'a> {
    pub(super) record: &'a CollectionRecord,
    pub(super) placement: &'a ShardPlacement,
    pub(super) load: ShardLoad,
    /// Whether its primary has said how it is.
    pub(super) is_known: bool,
    /// The nodes of its replicas.
    pub(super) replicas: Vec<usize>,
    /// The nodes of replicas on their way out.
    pub(super) leaving: Vec<usize>,
    pub(super) primary: Option<usize>,
    /// Whether something is under way with it, or one of its nodes is not there: evenness can wait.
    pub(super) is_busy: bool,
}

/// See the module's comment.
pub(crate) struct Model<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) settings: BalancerSettings,
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) shards: Vec<Shard<'a>>,
    /// Collections with a split or a merge under way.
    pub(super) resharding: BTreeSet<CollectionId>,
    positions: BTreeMap<ShardId, usize>,
    /// How many shards two nodes both have, once somebody has asked: the square of all nodes, by rows.
    shared: Vec<u32>,
}

impl<'a> Model<'a> {
    /// The cluster as the catalog alone describes it: every node that is not marked as dead answers.
    pub(crate) fn new(catalog: &'a Catalog) -> Model<'a> {
        let alive = catalog.nodes().filter(|node| !node.dead).map(|node| node.id).collect();
        Model::observed(catalog, &Observed { alive, ..Observed::default() })
    }

    /// The cluster as it was observed.
    pub(super) fn observed(catalog: &'a Catalog, observed: &Observed) -> Model<'a> {
        let mut model = Model {
            catalog,
            settings: catalog.cluster().balancer,
            nodes: nodes(catalog, observed),
            shards: Vec::new(),
            resharding: observed.resharding.clone(),
            positions: BTreeMap::new(),
            shared: Vec::new(),
        };
        let of_node: BTreeMap<NodeId, usize> =
            model.nodes.iter().enumerate().map(|(at, node)| (node.record.id, at)).collect();
        for record in catalog.collections().filter(|record| record.state == CollectionState::Active) {
            for placement in record.kept_shards() {
                model.add_shard(record, placement, &of_node, observed);
            }
        }
        model
    }

    fn add_shard(
        &mut self,
        record: &'a CollectionRecord,
        placement: &'a ShardPlacement,
        of_node: &BTreeMap<NodeId, usize>,
        observed: &Observed,
    ) {
        let at = |node: &NodeId| of_node.get(node).copied();
        let replicas: Vec<usize> = placement.replicas.iter().filter_map(|placed| at(&placed.node)).collect();
        let leaving: Vec<usize> = placement.leaving.iter().filter_map(|placed| at(&placed.node)).collect();
        let known = observed.shards.get(&placement.shard);
        let load = known.copied().unwrap_or_default();
        let primary = load.primary.as_ref().and_then(at).filter(|node| replicas.contains(node));
        let is_unsettled = observed.unsettled.contains(&placement.shard);
        let is_moving = is_unsettled || !placement.leaving.is_empty();
        let is_resharded = record.reshard.as_ref().is_some_and(|reshard| {
            let is_target = reshard.targets.iter().any(|target| target.shard == placement.shard);
            is_target || reshard.sources.contains(&placement.shard)
        });
        let answers = |node: &usize| observed.alive.contains(&self.nodes[*node].record.id);
        let shard = Shard {
            record,
            placement,
            load,
            is_known: known.is_some(),
            is_busy: is_moving || is_resharded || !replicas.iter().all(answers),
            replicas,
            leaving,
            primary,
        };
        let position = self.shards.len();
        for &node in &shard.replicas {
            let node = &mut self.nodes[node];
            node.replicas += 1;
            node.bytes += load.bytes;
            node.hosted.push(position);
        }
        if let Some(&first) = shard.replicas.first() {
            self.nodes[first].firsts += 1;
        }
        if let Some(primary) = primary {
            self.nodes[primary].primaries += 1;
            self.nodes[primary].operations += load.operations_per_s;
        }
        if is_moving {
            // The replica that is arriving is the newest.
            let newest = placement.replicas.iter().max_by_key(|placed| placed.replica);
            let arriving = newest.and_then(|placed| at(&placed.node));
            shard.leaving.iter().copied().chain(arriving).for_each(|node| self.nodes[node].moves += 1);
        }
        self.positions.insert(placement.shard, position);
        self.shards.push(shard);
    }

    /// Whether a replica is on its way to or from a node that may get some.
    pub(super) fn is_moving(&self) -> bool {
        self.nodes.iter().any(|node| node.takes && node.moves > 0)
    }

    /// How many replicas a shard shall have where nothing hinders that.
    pub(super) fn factor(&self) -> usize {
        usize::try_from(self.catalog.cluster().replication_factor).unwrap_or(usize::MAX)
    }

    /// The nodes that may get replicas.
    pub(super) fn takers(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].takes).collect()
    }

    /// Whether as many replicas move to or from the node as may at a time.
    pub(super) fn is_full(&self, node: usize) -> bool {
        self.nodes[node].moves >= self.settings.moves_per_node_max
    }

    /// Whether a node may get a replica of a shard that has none there.
    pub(super) fn can_take(&self, shard: usize, node: usize) -> bool {
        let held = &self.shards[shard];
        self.nodes[node].takes && !held.replicas.contains(&node) && !held.leaving.contains(&node)
    }

    /// How many replicas of a shard are in a zone, not counting the one on `except`.
    pub(super) fn crowd(&self, shard: usize, zone: usize, except: Option<usize>) -> usize {
        let held = self.shards[shard].replicas.iter().filter(|node| Some(**node) != except);
        held.filter(|node| self.nodes[**node].zone == zone).count()
    }

    /// Whether a move between two nodes puts no more of a shard's replicas together in one zone than there are.
    pub(super) fn keeps_zones(&self, shard: usize, from: usize, to: usize) -> bool {
        let crowd = |node: usize| self.crowd(shard, self.nodes[node].zone, Some(from));
        crowd(to) <= crowd(from)
    }

    /// The best node for a replica of a shard, in the place of the one on `from` or in addition: where fewest of the shard's
    /// replicas are in the zone, then where fewest replicas are.
    pub(super) fn best_node(&self, shard: usize, from: Option<usize>, may_wait: bool) -> Option<usize> {
        let free = (0..self.nodes.len()).filter(|&node| self.can_take(shard, node));
        let rank = |&node: &usize| {
            let carries = &self.nodes[node];
            let is_late = !may_wait && self.is_full(node);
            (
                self.crowd(shard, carries.zone, from),
                is_late,
                carries.replicas,
                carries.bytes,
                carries.record.id,
            )
        };
        free.min_by_key(rank)
    }

    /// Counts a replica on a node. It is on its way from now on.
    pub(super) fn place(&mut self, shard: usize, node: usize) {
        let bytes = self.shards[shard].load.bytes;
        self.shards[shard].replicas.push(node);
        let carries = &mut self.nodes[node];
        carries.replicas += 1;
        carries.bytes += bytes;
        carries.moves += 1;
        carries.hosted.push(shard);
        self.shards[shard].is_busy = true;
    }

    /// Counts a replica as on its way out.
    pub(super) fn unplace(&mut self, shard: usize, node: usize) {
        let held = &mut self.shards[shard];
        held.replicas.retain(|other| *other != node);
        held.leaving.push(node);
        held.is_busy = true;
        let load = held.load;
        let was_primary = held.primary.take_if(|primary| *primary == node).is_some();
        let carries = &mut self.nodes[node];
        carries.replicas -= 1;
        carries.bytes -= load.bytes;
        carries.moves += 1;
        carries.hosted.retain(|other| *other != shard);
        if was_primary {
            carries.primaries -= 1;
            carries.operations -= load.operations_per_s;
        }
    }

    /// Counts a move, and proposes it.
    pub(super) fn move_replica(&mut self, shard: usize, from: usize, to: usize, why: &str) -> Proposal {
        self.unplace(shard, from);
        self.place(shard, to);
        let (from, to) = (self.nodes[from].record, self.nodes[to].record);
        let reason =
            format!("{why}: {} moves from {} to {}", self.title(shard), from.facts.name, to.facts.name);
        let shard = self.shards[shard].placement.shard;
        Proposal { action: Action::MoveReplica { shard, from: from.id, to: to.id }, reason }
    }

    /// Counts the primary of a shard as on another node.
    pub(super) fn lead(&mut self, shard: usize, to: usize) {
        let held = &mut self.shards[shard];
        let load = held.load;
        if let Some(from) = held.primary.replace(to) {
            self.nodes[from].primaries -= 1;
            self.nodes[from].operations -= load.operations_per_s;
        }
        self.nodes[to].primaries += 1;
        self.nodes[to].operations += load.operations_per_s;
    }

    /// Another node for what a node that is taken out of the cluster held of a shard; counts it there.
    pub(crate) fn take_over(&mut self, shard: ShardId, gone: NodeId) -> Option<NodeId> {
        let shard = *self.positions.get(&shard)?;
        let from =
            self.shards[shard].replicas.iter().copied().find(|at| self.nodes[*at].record.id == gone)?;
        let to = self.best_node(shard, Some(from), true)?;
        self.unplace(shard, from);
        self.place(shard, to);
        Some(self.nodes[to].record.id)
    }

    /// Nodes for a new shard, which is counted there: in different zones, with the fewest replicas, and with the fewest shards
    /// in common, so that what one of them loses is taken over by many. The first of them, which asks for votes first, is the
    /// one with the fewest first places. At most `count`.
    pub(crate) fn found_shard(&mut self, count: usize) -> Vec<NodeId> {
        self.count_shared();
        let mut chosen: Vec<usize> = Vec::new();
        for _ in 0..count {
            let free = (0..self.nodes.len()).filter(|at| self.nodes[*at].takes && !chosen.contains(at));
            let rank = |at: &usize| {
                let carries = &self.nodes[*at];
                let crowd = chosen.iter().filter(|other| self.nodes[**other].zone == carries.zone).count();
                let shared: u32 = chosen.iter().map(|other| self.shared[at * self.nodes.len() + other]).sum();
                (crowd, carries.replicas, shared, carries.record.id)
            };
            chosen.extend(free.min_by_key(rank));
        }
        let first = (0..chosen.len()).min_by_key(|position| {
            let carries = &self.nodes[chosen[*position]];
            (carries.firsts, carries.replicas, *position)
        });
        if let Some(first) = first {
            let first = chosen.remove(first);
            chosen.insert(0, first);
            self.nodes[first].firsts += 1;
        }
        chosen.iter().for_each(|&at| self.nodes[at].replicas += 1);
        self.share(&chosen);
        chosen.into_iter().map(|at| self.nodes[at].record.id).collect()
    }

    /// Counts the shards that nodes have in common, unless that was done.
    fn count_shared(&mut self) {
        if !self.shared.is_empty() {
            return;
        }
        self.shared = vec![0; self.nodes.len() * self.nodes.len()];
        for shard in 0..self.shards.len() {
            let replicas = std::mem::take(&mut self.shards[shard].replicas);
            self.share(&replicas);
            self.shards[shard].replicas = replicas;
        }
    }

    fn share(&mut self, replicas: &[usize]) {
        for one in replicas {
            for other in replicas.iter().filter(|other| *other != one) {
                self.shared[one * self.nodes.len() + other] += 1;
            }
        }
    }

    pub(super) fn name(&self, node: usize) -> &'a str {
        &self.nodes[node].record.facts.name
    }

    /// A shard as people know it.
    pub(super) fn title(&self, shard: usize) -> String {
        let held = &self.shards[shard];
        format!("shard {} of {}", held.placement.shard.get(), held.record.namespace)
    }
}

/// The nodes of the cluster that hold shards, or did.
fn nodes<'a>(catalog: &'a Catalog, observed: &Observed) -> Vec<Node<'a>> {
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    let members = catalog.nodes().filter(|node| node.is_member()).enumerate();
    let node = |(at, record): (usize, &'a std::sync::Arc<NodeRecord>)| {
        // Without a label a node is a zone of its own: labels can be given to one node after the other.
        let zone = match record.facts.labels.get(ZONE_LABEL) {
            Some(label) => *zones.entry(label).or_insert(at),
            None => at,
        };
        Node {
            record,
            zone,
            takes: record.takes_replicas() && observed.alive.contains(&record.id),
            replicas: 0,
            firsts: 0,
            primaries: 0,
            bytes: 0,
            operations: 0,
            moves: 0,
            hosted: Vec::new(),
        }
    };
    members.map(node).collect()
}

impl Node<'_> {
    pub(super) fn is_draining(&self) -> bool {
        self.record.state == NodeState::Draining
    }
}
