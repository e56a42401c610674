//! Where replicas go, and who of them votes: pure functions of the catalog.
//!
//! Called by the catalog's evaluation (a new collection) and by the node of a group's leader (the next step towards what
//! the catalog wants). Where replicas move later is `balance`. Always holds: what is chosen is the same for equal catalogs; no
//! two replicas of a shard are on one node; a group settles on an odd number of voters, since two are less available than one.

use std::collections::BTreeSet;

use base::id::CATALOG_SHARD;
use base::{NodeId, ReplicaId, ShardId};

use crate::balance::Model;
use crate::{Catalog, ReplicaPlacement};

/// Voters of the catalog, at most, however many nodes there are: each of its changes waits for a majority of them.
const CATALOG_VOTERS_MAX: usize = 3;

/// One step of a group towards its placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A replica begins to receive.
    AddLearner(ReplicaId, NodeId),
    /// Learners get votes, all at once.
    Promote(Vec<ReplicaId>),
    /// Learners get votes, and others lose theirs, all at once.
    Replace {
        /// Learners that get a vote.
        promote: Vec<ReplicaId>,
        /// Voters that become learners, with their nodes.
        demote: Vec<(ReplicaId, NodeId)>,
        /// Replicas that leave.
        remove: Vec<ReplicaId>,
    },
    /// A replica that is not placed any more leaves.
    Remove(ReplicaId),
    /// The primary is to leave or to lose its vote: this voter shall be the primary first.
    HandOver(ReplicaId),
}

/// A group as the catalog wants it.
#[derive(Clone, Copy, Debug)]
pub struct GroupWanted<'a> {
    /// The shard.
    pub shard: ShardId,
    /// Its replicas.
    pub placed: &'a [ReplicaPlacement],
    /// Nodes whose replicas do not vote when others can: [`unfit_voters`].
    pub unfit: &'a BTreeSet<NodeId>,
}

/// A group as its leader knows it.
#[derive(Clone, Copy, Debug)]
pub struct GroupNow<'a> {
    /// The replica that leads.
    pub leader: ReplicaId,
    /// Replicas that vote.
    pub voters: &'a [ReplicaId],
    /// Replicas that only receive.
    pub learners: &'a [ReplicaId],
    /// Replicas that have almost all that the leader has.
    pub caught_up: &'a [ReplicaId],
}

/// Nodes whose replicas of a group shall not vote when others can: for the catalog, which has a replica on every node, those
/// that are to be emptied or are gone. Other groups leave such nodes altogether.
pub fn unfit_voters(catalog: &Catalog, shard: ShardId) -> BTreeSet<NodeId> {
    let nodes = catalog.nodes().filter(|node| shard == CATALOG_SHARD && !node.may_vote());
    nodes.map(|node| node.id).collect()
}

/// The next step of a group towards what is `wanted`; `None` when it is there, or has to wait for learners. On the way there
/// are never fewer voters, or fewer replicas with the group's data, than before and than wanted; and one voter more only when
/// none of them stays: the primary needs somebody to hand its role over to.
pub fn next_step(wanted: &GroupWanted<'_>, now: &GroupNow<'_>) -> Option<Step> {
    let is_member = |replica: &ReplicaId| now.voters.contains(replica) || now.learners.contains(replica);
    if let Some(new) = wanted.placed.iter().find(|placed| !is_member(&placed.replica)) {
        return Some(Step::AddLearner(new.replica, new.node));
    }
    let votes = Votes::chosen(wanted, now);
    if votes.is_no_change() {
        return None;
    }
    if votes.lost().all(|replica| replica != now.leader) {
        return Some(votes.step());
    }
    // Nobody removes itself: somebody who stays, and has what is needed, takes over first.
    let stays =
        |voter: &&ReplicaId| now.caught_up.contains(voter) && votes.lost().all(|lost| lost != **voter);
    if let Some(successor) = now.voters.iter().find(stays) {
        return Some(Step::HandOver(*successor));
    }
    let votes = votes.without_losing(now.leader);
    (votes.is_complete && !votes.is_no_change()).then(|| votes.step())
}

/// A group's members by what becomes of them, in the order of preference.
struct Members {
    /// Voters that are placed.
    staying: Vec<(ReplicaId, NodeId)>,
    /// Learners that are placed and have caught up.
    ready: Vec<(ReplicaId, NodeId)>,
    /// Voters that are not placed, the primary last.
    outgoing: Vec<ReplicaId>,
    /// Learners that are not placed.
    strangers: Vec<ReplicaId>,
    /// How many of the strangers have the group's data.
    informed: usize,
    /// How many of those placed have not.
    lacking: usize,
}

impl Members {
    fn sorted(wanted: &GroupWanted<'_>, now: &GroupNow<'_>) -> Members {
        let node_of = |replica: &ReplicaId| {
            wanted.placed.iter().find(|placed| placed.replica == *replica).map(|placed| placed.node)
        };
        let is_informed = |replica: &ReplicaId| now.caught_up.contains(replica);
        let placed = |replicas: &[ReplicaId]| {
            let placed = replicas.iter().filter_map(|replica| Some((*replica, node_of(replica)?)));
            let mut placed: Vec<_> = placed.collect();
            placed.sort_by_key(|(replica, node)| {
                (wanted.unfit.contains(node), *replica != now.leader, *replica)
            });
            placed
        };
        let others = |replicas: &[ReplicaId]| {
            let mut others: Vec<_> =
                replicas.iter().copied().filter(|replica| node_of(replica).is_none()).collect();
            others.sort_by_key(|replica| (*replica == now.leader, *replica));
            others
        };
        let (staying, mut ready) = (placed(now.voters), placed(now.learners));
        ready.retain(|(replica, _)| is_informed(replica));
        let strangers = others(now.learners);
        Members {
            lacking: wanted.placed.len() - staying.len() - ready.len(),
            informed: strangers.iter().filter(|replica| is_informed(replica)).count(),
            outgoing: others(now.voters),
            staying,
            ready,
            strangers,
        }
    }

    /// How many can leave so that as many with the data remain as are placed.
    fn spare(&self, wanted: &GroupWanted<'_>) -> usize {
        let informed = self.staying.len() + self.ready.len() + self.outgoing.len() + self.informed;
        informed.saturating_sub(wanted.placed.len())
    }
}

/// Who gets a vote and who loses it.
struct Votes {
    promote: Vec<ReplicaId>,
    demote: Vec<(ReplicaId, NodeId)>,
    remove: Vec<ReplicaId>,
    /// Whether all voters are then those that are wanted.
    is_complete: bool,
}

impl Votes {
    /// What brings the group closest to what is wanted with the replicas that have caught up.
    fn chosen(wanted: &GroupWanted<'_>, now: &GroupNow<'_>) -> Votes {
        let members = Members::sorted(wanted, now);
        let count = voters_wanted(wanted.shard, wanted.placed.len());
        let is_fit = |(_, node): &&(ReplicaId, NodeId)| !wanted.unfit.contains(node);
        let fit = members.staying.iter().filter(is_fit).count().min(count);
        let stand_ins = members.ready.iter().filter(is_fit).count().min(count - fit);
        // A learner that is not fit votes only where voters are missing altogether.
        let kept = members.staying.len().min(count - stand_ins);
        let mut promote: Vec<ReplicaId> =
            members.ready.iter().take(count - kept).map(|(replica, _)| *replica).collect();
        let (spare, outgoing) = (members.spare(wanted), members.outgoing);
        let is_complete = kept + promote.len() == count && outgoing.len() <= spare;
        if !is_complete {
            // As many as leave: the number of voters stays, and stays odd.
            promote.truncate(outgoing.len().min(spare));
            let remove = outgoing.into_iter().take(promote.len()).collect();
            return Votes { promote, demote: Vec::new(), remove, is_complete };
        }
        let demote = members.staying.into_iter().skip(kept).collect();
        let mut remove = outgoing;
        if members.lacking == 0 {
            remove.extend(members.strangers);
        }
        Votes { promote, demote, remove, is_complete }
    }

    /// The same, but for a replica that stays a voter for now.
    fn without_losing(mut self, kept: ReplicaId) -> Votes {
        self.demote.retain(|(replica, _)| *replica != kept);
        self.remove.retain(|replica| *replica != kept);
        self
    }

    fn is_no_change(&self) -> bool {
        self.promote.is_empty() && self.demote.is_empty() && self.remove.is_empty()
    }

    /// Replicas that vote no more, or belong no more.
    fn lost(&self) -> impl Iterator<Item = ReplicaId> {
        self.demote.iter().map(|(replica, _)| *replica).chain(self.remove.iter().copied())
    }

    fn step(self) -> Step {
        match (self.promote.as_slice(), self.demote.as_slice(), self.remove.as_slice()) {
            (_, [], []) => Step::Promote(self.promote),
            ([], [], [replica]) => Step::Remove(*replica),
            _ => Step::Replace { promote: self.promote, demote: self.demote, remove: self.remove },
        }
    }
}

/// How many of `replicas` vote: an odd number.
fn voters_wanted(shard: ShardId, replicas: usize) -> usize {
    let most = if shard == CATALOG_SHARD { CATALOG_VOTERS_MAX } else { usize::MAX };
    let all = replicas.min(most);
    if all.is_multiple_of(2) { all.saturating_sub(1) } else { all }
}

/// Nodes for a new shard, the one that shall be its primary first: see [`for_new_shards`].
pub(crate) fn for_new_shard(catalog: &Catalog) -> Vec<NodeId> {
    for_new_shards(catalog, 1).pop().unwrap_or_default()
}

/// Nodes for `count` new shards that are made at once: even over the nodes that may get replicas, each shard's in different zones
/// where there are as many. The first of a shard's nodes asks for votes first, and first places are even over the nodes too.
/// An odd number for each, so that all of them vote; none where no node may get any.
pub fn for_new_shards(catalog: &Catalog, count: usize) -> Vec<Vec<NodeId>> {
    let mut model = Model::new(catalog);
    let nodes = catalog.nodes().filter(|node| node.takes_replicas()).count();
    let factor = usize::try_from(catalog.cluster().replication_factor).unwrap_or(usize::MAX);
    let replicas = voters_wanted(ShardId(u64::MAX), nodes.min(factor));
    (0..count).map(|_| model.found_shard(replicas)).collect()
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(100);

    fn placed(replicas: &[u64]) -> Vec<ReplicaPlacement> {
        let place = |&id: &u64| ReplicaPlacement {
            replica: ReplicaId(id),
            node: NodeId(id as u32),
            founder: id == 1,
            successor: None,
        };
        replicas.iter().map(place).collect()
    }

    fn ids(replicas: &[u64]) -> Vec<ReplicaId> {
        replicas.iter().copied().map(ReplicaId).collect()
    }

    /// The next step of a group that the first voter leads.
    fn step(
        shard: ShardId,
        wanted: &[u64],
        voters: &[u64],
        learners: &[u64],
        caught_up: &[u64],
    ) -> Option<Step> {
        step_with(shard, wanted, &[], voters, learners, caught_up)
    }

    /// The same with nodes whose replicas shall not vote.
    fn step_with(
        shard: ShardId,
        wanted: &[u64],
        unfit: &[u32],
        voters: &[u64],
        learners: &[u64],
        caught_up: &[u64],
    ) -> Option<Step> {
        let (voters, learners) = (ids(voters), ids(learners));
        let caught_up: Vec<_> = ids(caught_up).into_iter().chain(voters.iter().copied()).collect();
        let unfit = unfit.iter().copied().map(NodeId).collect();
        let placed = placed(wanted);
        let wanted = GroupWanted { shard, placed: &placed, unfit: &unfit };
        let leader = voters[0];
        next_step(&wanted, &GroupNow { leader, voters: &voters, learners: &learners, caught_up: &caught_up })
    }

    fn replace(promote: &[u64], demote: &[u64], remove: &[u64]) -> Option<Step> {
        let demote = demote.iter().map(|id| (ReplicaId(*id), NodeId(*id as u32))).collect();
        Some(Step::Replace { promote: ids(promote), demote, remove: ids(remove) })
    }

    #[test]
    fn two_replicas_are_a_voter_and_a_learner() {
        let add = Step::AddLearner(ReplicaId(2), NodeId(2));
        assert_eq!(step(SHARD, &[1, 2], &[1], &[], &[]), Some(add));
        assert_eq!(step(SHARD, &[1, 2], &[1], &[2], &[2]), None);
        assert_eq!(step(SHARD, &[1, 2], &[1, 2], &[], &[]), replace(&[], &[2], &[]), "a move was called off");
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
    fn a_replica_leaves_at_the_moment_in_which_its_successor_votes() {
        let add = Step::AddLearner(ReplicaId(4), NodeId(4));
        assert_eq!(step(SHARD, &[1, 2, 4], &[1, 2, 3], &[], &[]), Some(add));
        assert_eq!(step(SHARD, &[1, 2, 4], &[1, 2, 3], &[4], &[]), None, "it is behind");
        assert_eq!(step(SHARD, &[1, 2, 4], &[1, 2, 3], &[4], &[4]), replace(&[4], &[], &[3]));
        assert_eq!(step(SHARD, &[1, 2, 4], &[1, 2, 4], &[], &[]), None);
        assert_eq!(step(SHARD, &[1, 2, 4], &[1, 2, 3, 4], &[], &[]), Some(Step::Remove(ReplicaId(3))));
    }

    #[test]
    fn of_two_moves_the_one_that_can_be_completed_is() {
        assert_eq!(step(SHARD, &[1, 4, 5], &[1, 2, 3], &[4, 5], &[5]), replace(&[5], &[], &[2]));
        assert_eq!(step(SHARD, &[1, 4, 5], &[1, 2, 3], &[4, 5], &[4, 5]), replace(&[4, 5], &[], &[2, 3]));
    }

    #[test]
    fn a_primary_that_is_to_leave_hands_its_role_over_once_its_successor_is_ready() {
        assert_eq!(step(SHARD, &[2, 3, 4], &[1, 2, 3], &[4], &[]), None);
        let hand_over = Some(Step::HandOver(ReplicaId(2)));
        assert_eq!(step(SHARD, &[2, 3, 4], &[1, 2, 3], &[4], &[4]), hand_over);
        assert_eq!(step(SHARD, &[2, 3, 4], &[2, 1, 3], &[4], &[4]), replace(&[4], &[], &[1]));
    }

    #[test]
    fn a_sole_voter_that_is_to_leave_gets_a_second_one_to_hand_over_to() {
        assert_eq!(step(SHARD, &[2, 3], &[1], &[2, 3], &[2, 3]), Some(Step::Promote(ids(&[2]))));
        assert_eq!(step(SHARD, &[2, 3], &[1, 2], &[3], &[3]), Some(Step::HandOver(ReplicaId(2))));
        assert_eq!(step(SHARD, &[2, 3], &[2, 1], &[3], &[3]), Some(Step::Remove(ReplicaId(1))));
        assert_eq!(step(SHARD, &[2, 3], &[2], &[3], &[3]), None);
    }

    #[test]
    fn a_learner_leaves_only_when_all_that_stay_have_the_data() {
        assert_eq!(step(SHARD, &[1, 3], &[1], &[2, 3], &[2]), None);
        assert_eq!(step(SHARD, &[1, 3], &[1], &[2, 3], &[2, 3]), Some(Step::Remove(ReplicaId(2))));
    }

    #[test]
    fn three_voters_of_which_one_is_given_up_become_a_voter_and_a_learner_at_once() {
        assert_eq!(step(SHARD, &[1, 2], &[1, 2, 3], &[], &[]), replace(&[], &[2], &[3]));
    }

    #[test]
    fn a_node_that_is_drained_or_gone_loses_its_vote_in_the_catalog_to_another_one() {
        let all = [1, 2, 3, 4, 5];
        let step = |unfit: &[u32], voters: &[u64], learners: &[u64], caught_up: &[u64]| {
            step_with(CATALOG_SHARD, &all, unfit, voters, learners, caught_up)
        };
        assert_eq!(step(&[3], &[1, 2, 3], &[4, 5], &[]), None, "nobody can take it over yet");
        assert_eq!(step(&[3], &[1, 2, 3], &[4, 5], &[4, 5]), replace(&[4], &[3], &[]));
        assert_eq!(step(&[3, 4], &[1, 2, 3], &[4, 5], &[4, 5]), replace(&[5], &[3], &[]));
        assert_eq!(step(&[3, 4, 5], &[1, 2, 3], &[4, 5], &[4, 5]), None, "the others are no better");
        assert_eq!(step(&[1], &[1, 2, 3], &[4, 5], &[4, 5]), Some(Step::HandOver(ReplicaId(2))));
    }

    #[test]
    fn the_catalog_has_three_voters_however_many_nodes_there_are() {
        assert_eq!(step(CATALOG_SHARD, &[1, 2, 3, 4, 5], &[1, 2, 3], &[4, 5], &[4, 5]), None);
    }
}
