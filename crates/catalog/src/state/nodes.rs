//! What the catalog evaluates about nodes, and about replicas that come, go and move between them.
//!
//! Called by [`Catalog::evaluate`]. Always holds: a command that is repeated after it was done does nothing; a replica that
//! loses its place is listed as leaving until its group's leader says that it has left; a shard never loses its last place.

use base::id::CATALOG_SHARD;
use base::{Code, Error, NodeId, ReplicaId, Result, ShardId};
use storage::KvBatch;

use super::{CLUSTER_KEY, COUNTERS_KEY, Catalog, Counters, collection_key, put_collection, put_node};
use crate::balance::Model;
use crate::record::encode;
use crate::{
    BalancerSettings, ClusterRecord, CollectionRecord, CollectionState, Command, NodeRecord, NodeState,
    ReplicaPlacement, Reply, ShardPlacement,
};

impl Catalog {
    pub(super) fn evaluate_nodes(&self, batch: &mut KvBatch, command: &Command) -> Result<Reply> {
        match command {
            Command::DrainNode { node } => self.drain_node(batch, *node)?,
            Command::CancelDrain { node } => self.change_node(batch, *node, |node| {
                node.state = NodeState::InUse;
            })?,
            Command::RemoveNode { node } => self.remove_node(batch, *node)?,
            Command::MarkDead { node } => self.change_node(batch, *node, |node| node.dead = true)?,
            Command::MarkAlive { node } => self.change_node(batch, *node, |node| node.dead = false)?,
            Command::PlaceReplica { shard, node } => self.place_replica(batch, *shard, *node)?,
            Command::MoveReplica { shard, from, to, cancels_seen } => {
                self.move_replica(batch, *shard, *from, *to, *cancels_seen)?
            }
            Command::CancelMove { shard, replica, cancels_seen } => {
                self.cancel_move(batch, *shard, *replica, *cancels_seen)?
            }
            Command::RetireReplica { shard, node } => self.retire_replica(batch, *shard, *node)?,
            Command::ReplicaLeft { shard, replica, cancels_seen } => {
                self.replica_left(batch, *shard, *replica, *cancels_seen)
            }
            Command::SetBalancer { enabled } => {
                let settings = BalancerSettings { enabled: *enabled, ..self.cluster.balancer };
                self.change_balancer(batch, settings)?;
            }
            Command::ChangeBalancerSettings { settings } => self.change_balancer(batch, *settings)?,
            other => unreachable!("{other:?} is not about nodes"),
        }
        Ok(Reply::Done)
    }

    /// A node of the cluster. Fails with `NodeNotFound`.
    fn member(&self, node: NodeId) -> Result<&NodeRecord> {
        let record = self.nodes.get(&node).filter(|record| record.is_member());
        let missing = || Error::new(Code::NODE_NOT_FOUND, format!("the cluster has no node {node}"));
        record.map(AsRef::as_ref).ok_or_else(missing)
    }

    fn change_node(&self, batch: &mut KvBatch, node: NodeId, change: impl Fn(&mut NodeRecord)) -> Result<()> {
        let before = self.member(node)?;
        let mut after = before.clone();
        change(&mut after);
        if after != *before {
            put_node(batch, &after);
        }
        Ok(())
    }

    fn drain_node(&self, batch: &mut KvBatch, node: NodeId) -> Result<()> {
        let record = self.member(node)?;
        if record.is_in_use() {
            let name = &record.facts.name;
            let factor = usize::try_from(self.cluster.replication_factor).unwrap_or(usize::MAX);
            let kept = self.nodes.values().filter(|other| other.is_in_use()).count();
            let left = self.nodes.values().filter(|other| other.takes_replicas() && other.id != node).count();
            if left == 0 {
                return Err(illegal(format!("no node would be left to take over what {name} holds")));
            }
            // Whoever has fewer nodes than the factor anyway has chosen to keep fewer replicas.
            if left < factor && kept >= factor {
                let message = format!(
                    "without {name}, {left} nodes would be left for {factor} replicas of each shard: add a node first"
                );
                return Err(illegal(message));
            }
        }
        if record.state == NodeState::Draining {
            return Ok(());
        }
        let held = u32::try_from(self.replicas_on(node).count()).unwrap_or(u32::MAX);
        let drained = NodeRecord { state: NodeState::Draining, drain_total: held, ..record.clone() };
        put_node(batch, &drained);
        Ok(())
    }

    fn remove_node(&self, batch: &mut KvBatch, node: NodeId) -> Result<()> {
        if self.nodes.get(&node).is_some_and(|record| record.state == NodeState::Removed) {
            return Ok(());
        }
        let record = self.member(node)?;
        if self.nodes.values().all(|other| other.id == node || !other.takes_replicas()) {
            return Err(illegal(format!("{} is the last node that can hold data", record.facts.name)));
        }
        let held = self.replicas_on(node).count();
        if held > 0 && !record.dead {
            let message =
                format!("{} holds {held} replicas: drain it, and wait until it has none", record.facts.name);
            return Err(illegal(message));
        }
        let mut counters = self.counters;
        self.place_elsewhere(batch, &mut counters, record)?;
        let mut cluster = self.cluster.as_ref().clone();
        let out = cluster.catalog.extract_if(.., |placed| placed.node == node);
        cluster.leaving.extend(out);
        batch.put(COUNTERS_KEY, encode(&counters));
        batch.put(CLUSTER_KEY, encode(&cluster));
        put_node(batch, &NodeRecord { state: NodeState::Removed, ..record.clone() });
        Ok(())
    }

    /// The replicas of shards that a node holds or shall hold, those of dropped collections and those on their way out
    /// included, each with its shard.
    pub fn replicas_on(&self, node: NodeId) -> impl Iterator<Item = (ShardId, &ReplicaPlacement)> {
        let shards = self.collections.values().flat_map(|record| record.all_shards());
        let members = shards.flat_map(|shard| shard.members().map(|placed| (shard.shard, placed)));
        members.filter(move |(_, placed)| placed.node == node)
    }

    /// Gives what a dead node held to others, as far as there are any.
    fn place_elsewhere(&self, batch: &mut KvBatch, counters: &mut Counters, gone: &NodeRecord) -> Result<()> {
        let holds = |shard: &ShardPlacement| shard.members().any(|placed| placed.node == gone.id);
        let mut model = Model::new(self);
        for record in self.collections.values().filter(|record| record.all_shards().any(holds)) {
            let mut record = CollectionRecord::clone(record);
            if record.state == CollectionState::Dropping {
                forget_replicas(batch, &mut record, |placed| placed.node == gone.id);
                continue;
            }
            forget_retired(&mut record, |placed| placed.node == gone.id);
            let namespace = record.namespace.clone();
            for shard in record.all_shards_mut().filter(|shard| holds(shard)) {
                if !self.is_elsewhere(shard, gone.id) {
                    let message = format!(
                        "shard {} of {} has no other replica than the one on {}",
                        shard.shard, namespace, gone.facts.name
                    );
                    return Err(illegal(message));
                }
                let Some(at) = shard.replicas.iter().position(|placed| placed.node == gone.id) else {
                    continue;
                };
                let taker = model.take_over(shard.shard, gone.id);
                unplace(shard, at, taker.map(|node| new_replica(counters, node)));
            }
            put_collection(batch, &record);
        }
        Ok(())
    }

    /// Whether a replica's node belongs to the cluster no more. It may be placed still until the others of its group have taken it out
    /// of that; it will never say that it is gone.
    pub(crate) fn is_on_former_node(&self, placed: &ReplicaPlacement) -> bool {
        self.nodes.get(&placed.node).is_none_or(|node| !node.is_member())
    }

    /// Whether a node other than this one may have a shard's data. One that was to take the place of a replica which has not left
    /// yet may have nothing, also when it is on its way out again.
    fn is_elsewhere(&self, shard: &ShardPlacement, node: NodeId) -> bool {
        let takers: Vec<ReplicaId> = shard.leaving.iter().filter_map(|gone| gone.successor).collect();
        let is_no_taker = |placed: &&ReplicaPlacement| !takers.contains(&placed.replica);
        let leaving = shard.leaving.iter().filter(|gone| gone.successor.is_some());
        let others = shard.replicas.iter().chain(leaving).filter(is_no_taker);
        let mut nodes =
            others.filter(|placed| placed.node != node).filter_map(|placed| self.nodes.get(&placed.node));
        nodes.any(|other| other.is_member() && !other.dead)
    }

    /// The collection of a shard that is kept, and the shard's place among all of the collection's. Fails with `ShardNotFound` (70).
    fn shard_to_change(&self, shard: ShardId) -> Result<(CollectionRecord, usize)> {
        if shard == CATALOG_SHARD {
            return Err(illegal("the catalog has a replica on every node".to_owned()));
        }
        let found = self.placement(shard).filter(|(record, _)| record.state == CollectionState::Active);
        let found = found.and_then(|(record, _)| {
            let position = record.kept_shards().position(|placed| placed.shard == shard)?;
            Some((record.as_ref().clone(), position))
        });
        let missing = || Error::new(Code::SHARD_NOT_FOUND, format!("there is no shard {shard}"));
        found.ok_or_else(missing)
    }

    fn check_takes(&self, node: NodeId) -> Result<()> {
        let record = self.member(node)?;
        if record.takes_replicas() {
            return Ok(());
        }
        let why = match record {
            record if !record.facts.storage => "it is a router only",
            record if record.state == NodeState::Draining => "it is being drained",
            _ => "it is gone",
        };
        Err(illegal(format!("{} gets no replica: {why}", record.facts.name)))
    }

    fn place_replica(&self, batch: &mut KvBatch, shard: ShardId, node: NodeId) -> Result<()> {
        let (mut record, position) = self.shard_to_change(shard)?;
        let Some(placement) = record.all_shards_mut().nth(position) else { return Ok(()) };
        let factor = usize::try_from(self.cluster.replication_factor).unwrap_or(usize::MAX);
        // Somebody else may have placed the one that was missing.
        if placement.replicas.len() >= factor || placement.members().any(|placed| placed.node == node) {
            return Ok(());
        }
        self.check_takes(node)?;
        let mut counters = self.counters;
        placement.replicas.push(new_replica(&mut counters, node));
        batch.put(COUNTERS_KEY, encode(&counters));
        put_collection(batch, &record);
        Ok(())
    }

    /// How many moves of a shard's replicas were called off.
    pub fn cancels(&self, shard: ShardId) -> u32 {
        self.placement(shard).map_or(0, |(_, placement)| placement.cancels)
    }

    fn check_cancels(&self, shard: ShardId, seen: u32) -> Result<()> {
        if self.cancels(shard) == seen {
            return Ok(());
        }
        let message = format!("a move of shard {shard} was called off meanwhile");
        Err(Error::new(Code::WRITE_CONFLICT, message))
    }

    fn move_replica(
        &self,
        batch: &mut KvBatch,
        shard: ShardId,
        from: NodeId,
        to: NodeId,
        cancels_seen: u32,
    ) -> Result<()> {
        let (mut record, position) = self.shard_to_change(shard)?;
        let Some(placement) = record.all_shards_mut().nth(position) else { return Ok(()) };
        let place_of = |node: NodeId| placement.replicas.iter().position(|placed| placed.node == node);
        let Some(at) = place_of(from) else {
            let done = place_of(to).is_some();
            let refusal = || illegal(format!("shard {shard} has no replica on {from}"));
            return if done { Ok(()) } else { Err(refusal()) };
        };
        self.check_cancels(shard, cancels_seen)?;
        self.check_takes(to)?;
        if placement.members().any(|placed| placed.node == to) {
            return Err(illegal(format!("shard {shard} has a replica on {to} already")));
        }
        self.check_settled(placement, from)?;
        let mut counters = self.counters;
        unplace(placement, at, Some(new_replica(&mut counters, to)));
        batch.put(COUNTERS_KEY, encode(&counters));
        put_collection(batch, &record);
        Ok(())
    }

    fn cancel_move(
        &self,
        batch: &mut KvBatch,
        shard: ShardId,
        replica: ReplicaId,
        cancels_seen: u32,
    ) -> Result<()> {
        let (mut record, position) = self.shard_to_change(shard)?;
        let Some(placement) = record.all_shards_mut().nth(position) else { return Ok(()) };
        if placement.replicas.iter().any(|placed| placed.replica == replica) {
            return Ok(());
        }
        self.check_cancels(shard, cancels_seen)?;
        let kept = placement.leaving.iter().find(|leaving| leaving.replica == replica).copied();
        let taker = kept.and_then(|kept| placement.taker_of(&kept));
        let place = placement.replicas.iter_mut().find(|placed| Some(placed.replica) == taker);
        let (Some(kept), Some(place)) = (kept, place) else {
            let message = format!("{replica} of shard {shard} is not on its way to another node");
            return Err(illegal(message));
        };
        self.check_takes(kept.node)?;
        placement.leaving.retain(|leaving| leaving.replica != replica);
        let taker = std::mem::replace(place, ReplicaPlacement { successor: None, ..kept });
        placement.leaving.push(taker);
        placement.cancels += 1;
        put_collection(batch, &record);
        Ok(())
    }

    /// Whether the shard has no replica on its way out. What a dead node has waits for nothing: it may have been the
    /// successor.
    fn check_settled(&self, placement: &ShardPlacement, from: NodeId) -> Result<()> {
        if placement.leaving.is_empty() || self.nodes.get(&from).is_none_or(|node| node.dead) {
            return Ok(());
        }
        let message = format!("another replica of shard {} is on its way to another node", placement.shard);
        Err(Error::new(Code::CONFLICTING_OPERATION_IN_PROGRESS, message))
    }

    fn retire_replica(&self, batch: &mut KvBatch, shard: ShardId, node: NodeId) -> Result<()> {
        let (mut record, position) = self.shard_to_change(shard)?;
        let Some(placement) = record.all_shards_mut().nth(position) else { return Ok(()) };
        let Some(at) = placement.replicas.iter().position(|placed| placed.node == node) else {
            return Ok(());
        };
        self.check_settled(placement, node)?;
        let lasting = |placed: &&ReplicaPlacement| {
            self.nodes.get(&placed.node).is_some_and(|other| other.takes_replicas() && other.id != node)
        };
        let (left, wanted) = (placement.replicas.iter().filter(lasting).count(), self.replicas_wanted());
        if left < wanted.max(1) {
            let message = format!("shard {shard} would keep {left} replicas that last, and needs {wanted}");
            return Err(illegal(message));
        }
        unplace(placement, at, None);
        put_collection(batch, &record);
        Ok(())
    }

    /// How many replicas a shard shall have: the replication factor, as far as there are as many nodes in use. A node that is
    /// gone counts, so that losing it does not lower what is wanted.
    pub fn replicas_wanted(&self) -> usize {
        let factor = usize::try_from(self.cluster.replication_factor).unwrap_or(usize::MAX);
        factor.min(self.nodes.values().filter(|node| node.is_in_use()).count())
    }

    fn replica_left(&self, batch: &mut KvBatch, shard: ShardId, replica: ReplicaId, cancels_seen: u32) {
        if shard == CATALOG_SHARD {
            let mut cluster = self.cluster.as_ref().clone();
            cluster.leaving.retain(|placed| placed.replica != replica);
            if cluster != *self.cluster {
                batch.put(CLUSTER_KEY, encode(&cluster));
            }
            return;
        }
        let Some((record, placement)) = self.placement(shard) else { return };
        if placement.cancels != cancels_seen {
            return;
        }
        let mut record = record.as_ref().clone();
        for placement in record.all_shards_mut().filter(|placed| placed.shard == shard) {
            placement.leaving.retain(|placed| placed.replica != replica);
            // The group works. A founder that has not begun by now must not begin with fewer others than it had: it comes as
            // a snapshot.
            placement
                .replicas
                .iter_mut()
                .chain(&mut placement.leaving)
                .for_each(|placed| placed.founder = false);
        }
        if record.state == CollectionState::Dropping {
            forget_replicas(batch, &mut record, |placed| placed.replica == replica);
        } else {
            forget_retired(&mut record, |placed| placed.replica == replica);
            put_collection(batch, &record);
        }
    }

    fn change_balancer(&self, batch: &mut KvBatch, settings: BalancerSettings) -> Result<()> {
        settings.check()?;
        if settings != self.cluster.balancer {
            let cluster = ClusterRecord { balancer: settings, ..self.cluster.as_ref().clone() };
            batch.put(CLUSTER_KEY, encode(&cluster));
        }
        Ok(())
    }
}

/// Forgets replicas of a dropped collection, and the collection with the last one.
pub(super) fn forget_replicas(
    batch: &mut KvBatch,
    record: &mut CollectionRecord,
    is_gone: impl Fn(&ReplicaPlacement) -> bool,
) {
    for shard in record.all_shards_mut() {
        shard.replicas.retain(|placed| !is_gone(placed));
        shard.leaving.retain(|placed| !is_gone(placed));
    }
    if record.all_shards().all(|shard| shard.members().next().is_none()) {
        batch.delete(collection_key(record.id));
    } else {
        put_collection(batch, record);
    }
}

/// Forgets replicas of shards that are in use no more, and each of those shards with its last one. Says whether there were any.
pub(crate) fn forget_retired(
    record: &mut CollectionRecord,
    is_gone: impl Fn(&ReplicaPlacement) -> bool,
) -> bool {
    let is_changed = record.retired.iter().flat_map(ShardPlacement::members).any(&is_gone);
    for shard in &mut record.retired {
        shard.replicas.retain(|placed| !is_gone(placed));
        shard.leaving.retain(|placed| !is_gone(placed));
    }
    record.retired.retain(|shard| shard.members().next().is_some());
    is_changed
}

pub(super) fn new_replica(counters: &mut Counters, node: NodeId) -> ReplicaPlacement {
    let replica = counters.replica;
    counters.replica = replica.next();
    ReplicaPlacement { replica, node, founder: false, successor: None }
}

/// Takes the replica at `at` out of its place, and puts its successor there.
fn unplace(shard: &mut ShardPlacement, at: usize, taker: Option<ReplicaPlacement>) {
    let successor = taker.map(|taker| taker.replica);
    let gone = match (shard.replicas.get_mut(at), taker) {
        (Some(place), Some(taker)) => std::mem::replace(place, taker),
        (Some(_), None) => shard.replicas.remove(at),
        (None, _) => return,
    };
    shard.leaving.push(ReplicaPlacement { successor, ..gone });
}

fn illegal(message: String) -> Error {
    Error::new(Code::ILLEGAL_OPERATION, message)
}
