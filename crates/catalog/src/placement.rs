//! Where replicas go, and who of them votes: pure functions of the catalog.
//!
//! Called by the catalog's evaluation (a new collection), by the node of the catalog's leader (replicas that are missing)
//! and by the node of a group's leader (the next step towards what the catalog wants). Always holds: what is chosen is the
//! same for equal catalogs; no two replicas of a shard are on one node; a group never has two voters, since two are less
//! available than one.

use std::collections::BTreeMap;

use base::id::CATALOG_SHARD;
use base::{NodeId, ReplicaId, ShardId};

use crate::{Catalog, CollectionState, Command, ReplicaPlacement};

/// Voters of the catalog, at most.
const CATALOG_VOTERS_MAX: usize = 3;

/// One step of a group towards its placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A replica begins to receive.
    AddLearner(ReplicaId, NodeId),
    /// Learners get votes, all at once.
    Promote(Vec<ReplicaId>),
    /// A replica that is not placed any more leaves.
    Remove(ReplicaId),
}

/// A group as its leader knows it.
#[derive(Clone, Copy, Debug)]
pub struct GroupNow<'a> {
    /// Replicas that vote.
    pub voters: &'a [ReplicaId],
    /// Replicas that only receive.
    pub learners: &'a [ReplicaId],
    /// Learners that have almost all that the leader has.
    pub caught_up: &'a [ReplicaId],
}

/// The next step of a group towards `placed`; `None` when it is there, or has to wait for learners.
pub fn next_step(shard: ShardId, placed: &[ReplicaPlacement], now: &GroupNow<'_>) -> Option<Step> {
    let is_member = |replica: &ReplicaId| now.voters.contains(replica) || now.learners.contains(replica);
    if let Some(new) = placed.iter().find(|placed| !is_member(&placed.replica)) {
        return Some(Step::AddLearner(new.replica, new.node));
    }
    let is_placed = |replica: &ReplicaId| placed.iter().any(|placed| placed.replica == *replica);
    let missing =
        voters_wanted(shard, placed.len()).saturating_sub(now.voters.iter().filter(|v| is_placed(v)).count());
    let ready: Vec<ReplicaId> = now
        .learners
        .iter()
        .filter(|l| now.caught_up.contains(l) && is_placed(l))
        .copied()
        .take(missing)
        .collect();
    if missing > 0 {
        return (ready.len() == missing).then_some(Step::Promote(ready));
    }
    let mut members = now.learners.iter().chain(now.voters);
    members.find(|replica| !is_placed(replica)).map(|replica| Step::Remove(*replica))
}

/// How many of `replicas` vote: an odd number.
fn voters_wanted(shard: ShardId, replicas: usize) -> usize {
    let most = if shard == CATALOG_SHARD { CATALOG_VOTERS_MAX } else { usize::MAX };
    let all = replicas.min(most);
    if all.is_multiple_of(2) { all.saturating_sub(1) } else { all }
}

/// Nodes for a new shard: those with the fewest replicas. An odd number, so that all of them vote.
pub(crate) fn for_new_shard(catalog: &Catalog) -> Vec<NodeId> {
    for_new_shards(catalog, 1).into_iter().next().expect("one shard was asked for")
}

/// Nodes for each of several new shards: those with the fewest replicas, the first of them those that are first the least
/// often, since the first replica leads. An odd number, so that all of them vote; none where no node holds data.
pub(crate) fn for_new_shards(catalog: &Catalog, count: usize) -> Vec<Vec<NodeId>> {
    let factor = usize::try_from(catalog.cluster().replication_factor).unwrap_or(usize::MAX);
    let mut load = load(catalog);
    let mut firsts: BTreeMap<NodeId, usize> = load.keys().map(|node| (*node, 0)).collect();
    for shard in catalog.collections().flat_map(|record| record.kept_shards()) {
        let first = shard.replicas.first().and_then(|first| firsts.get_mut(&first.node));
        first.into_iter().for_each(|firsts| *firsts += 1);
    }
    let wanted = voters_wanted(ShardId(u64::MAX), load.len().min(factor));
    let choose = |_| {
        let mut nodes: Vec<NodeId> = load.keys().copied().collect();
        nodes.sort_by_key(|node| (load.get(node).copied(), *node));
        nodes.truncate(wanted);
        nodes.sort_by_key(|node| (firsts.get(node).copied(), load.get(node).copied(), *node));
        for node in &nodes {
            load.entry(*node).and_modify(|replicas| *replicas += 1);
        }
        let first = nodes.first().and_then(|first| firsts.get_mut(first));
        first.into_iter().for_each(|firsts| *firsts += 1);
        nodes
    };
    (0..count).map(choose).collect()
}

/// The replica that is missing most, if any is: shards with fewer replicas than they should have.
pub fn missing_replica(catalog: &Catalog) -> Option<Command> {
    let load = load(catalog);
    let factor = usize::try_from(catalog.cluster().replication_factor).unwrap_or(usize::MAX).min(load.len());
    let active = catalog.collections().filter(|record| record.state == CollectionState::Active);
    let shards = active.flat_map(|record| record.kept_shards());
    let short =
        shards.filter(|shard| shard.replicas.len() < factor).min_by_key(|shard| shard.replicas.len())?;
    let free = load.iter().filter(|(node, _)| short.replicas.iter().all(|replica| replica.node != **node));
    let (node, _) = free.min_by_key(|(node, replicas)| (**replicas, **node))?;
    Some(Command::PlaceReplica { shard: short.shard, node: *node })
}

/// Replicas of each node that may hold some.
fn load(catalog: &Catalog) -> BTreeMap<NodeId, usize> {
    let storage = catalog.nodes().filter(|node| node.facts.storage && node.replaced_by.is_none());
    let mut load: BTreeMap<NodeId, usize> = storage.map(|node| (node.id, 0)).collect();
    for replica in
        catalog.collections().flat_map(|record| record.all_shards()).flat_map(|shard| &shard.replicas)
    {
        load.entry(replica.node).and_modify(|replicas| *replicas += 1);
    }
    load
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(100);

    fn placed(replicas: &[u64]) -> Vec<ReplicaPlacement> {
        let place = |&id: &u64| ReplicaPlacement {
            replica: ReplicaId(id),
            node: NodeId(id as u32),
            founder: id == 1,
        };
        replicas.iter().map(place).collect()
    }

    fn ids(replicas: &[u64]) -> Vec<ReplicaId> {
        replicas.iter().copied().map(ReplicaId).collect()
    }

    fn step(
        shard: ShardId,
        wanted: &[u64],
        voters: &[u64],
        learners: &[u64],
        caught_up: &[u64],
    ) -> Option<Step> {
        let (voters, learners, caught_up) = (ids(voters), ids(learners), ids(caught_up));
        let now = GroupNow { voters: &voters, learners: &learners, caught_up: &caught_up };
        next_step(shard, &placed(wanted), &now)
    }

    #[test]
    fn two_replicas_are_a_voter_and_a_learner() {
        let add = Step::AddLearner(ReplicaId(2), NodeId(2));
        assert_eq!(step(SHARD, &[1, 2], &[1], &[], &[]), Some(add));
        assert_eq!(step(SHARD, &[1, 2], &[1], &[2], &[2]), None);
    }

    #[test]
    fn with_the_third_replica_both_learners_get_votes_at_once() {
        let add = Step::AddLearner(ReplicaId(3), NodeId(3));
        assert_eq!(step(SHARD, &[1, 2, 3], &[1], &[2], &[2]), Some(add));
        assert_eq!(step(SHARD, &[1, 2, 3], &[1], &[2, 3], &[2]), None, "one of them is behind");
        let promote = Step::Promote(ids(&[2, 3]));
        assert_eq!(step(SHARD, &[1, 2, 3], &[1], &[2, 3], &[2, 3]), Some(promote));
        assert_eq!(step(SHARD, &[1, 2, 3], &[1, 2, 3], &[], &[]), None);
    }

    #[test]
    fn a_replica_is_removed_only_once_its_successor_votes() {
        assert_eq!(step(SHARD, &[1, 2, 4], &[1, 2, 3], &[4], &[]), None);
        assert_eq!(step(SHARD, &[1, 2, 4], &[1, 2, 3], &[4], &[4]), Some(Step::Promote(ids(&[4]))));
        assert_eq!(step(SHARD, &[1, 2, 4], &[1, 2, 3, 4], &[], &[]), Some(Step::Remove(ReplicaId(3))));
    }

    #[test]
    fn the_catalog_has_three_voters_however_many_nodes_there_are() {
        assert_eq!(step(CATALOG_SHARD, &[1, 2, 3, 4, 5], &[1, 2, 3], &[4, 5], &[4, 5]), None);
    }
}
