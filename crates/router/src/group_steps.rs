//! Brings a group's membership to what the catalog has placed, one step at a time, from the node of its leader.
//!
//! Called by `reconcile` for the catalog's group and for each shard's. The rules are `catalog::placement`; here they meet
//! what the leader knows of its followers.

use base::{Code, LogIndex, ReplicaId, Result, ShardId};
use catalog::placement::{GroupNow, GroupWanted, Step, next_step, unfit_voters};
use catalog::{Command, ReplicaPlacement};
use replica::{MemberChange, ReplicaHandle, StateMachine};

use crate::Router;
use crate::retry::is_stale;

/// A learner this close to the leader's log has caught up: the rest reaches it before its first vote matters.
const LAG_ENTRIES_MAX: u64 = 64;

/// Replicas of a group that are on their way out, as the catalog has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving<'a> {
    pub(crate) replicas: &'a [ReplicaPlacement],
    /// How many of its moves had been called off then.
    pub(crate) cancels_seen: u32,
}

impl Router {
    /// Takes the next step, if one can be taken, and tells the catalog of replicas that have left. Says whether the group is
    /// still on its way.
    pub(crate) async fn step_group<M: StateMachine>(
        &self,
        wanted: &GroupWanted<'_>,
        leaving: Leaving<'_>,
        replica: &ReplicaHandle<M>,
    ) -> Result<bool> {
        let GroupWanted { shard, placed, .. } = *wanted;
        let membership = replica.membership();
        if membership.is_joint() {
            return Ok(true);
        }
        self.report_left(shard, leaving, replica).await?;
        let settled = |placed: &[ReplicaPlacement]| {
            placed.len() == membership.nodes.len()
                && placed.iter().all(|placed| membership.nodes.contains_key(&placed.replica))
        };
        // An even number of voters is a step on the way to an odd one.
        let is_odd = !membership.voters.len().is_multiple_of(2);
        if settled(placed) && membership.learners.is_empty() && is_odd {
            return Ok(false);
        }
        let caught_up = self.caught_up(replica).await;
        let group = GroupNow {
            leader: replica.replica(),
            voters: &membership.voters,
            learners: &membership.learners,
            caught_up: &caught_up,
        };
        if next_step(wanted, &group).is_none() {
            // Most learners of the catalog's group stay learners, and so does one of two replicas: whether they have caught up,
            // or are gone, changes nothing.
            let all = membership.replicas();
            let is_pending = next_step(wanted, &GroupNow { caught_up: &all, ..group }).is_some();
            if is_pending {
                // While the group sleeps nobody is heard.
                replica.stir().await;
            }
            return Ok(is_pending);
        }
        // The membership may come from a catalog that this node's copy is behind: what that one has added, this one would
        // take away. From now on only this membership can be changed, by what is wanted now.
        let Some(step) = self.step_wanted_now(shard, &group).await? else { return Ok(true) };
        tracing::info!(%shard, ?step, "the group's membership changes");
        if let Step::HandOver(successor) = step {
            replica.transfer_to(successor).await;
            return Ok(true);
        }
        match replica.change_membership(membership, changes(step)).await {
            Ok(_) => Ok(true),
            // Another leader takes the step, or it has to wait.
            Err(error) if is_stale(&error) || error.code == Code::CONFLICTING_OPERATION_IN_PROGRESS => {
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    async fn step_wanted_now(&self, shard: ShardId, group: &GroupNow<'_>) -> Result<Option<Step>> {
        let catalog = self.catalog_now().await?;
        let unfit = unfit_voters(&catalog, shard);
        let placed = catalog.placed(shard);
        Ok(placed.and_then(|placed| next_step(&GroupWanted { shard, placed, unfit: &unfit }, group)))
    }

    /// The members that may get a vote. One that is gone may have everything and still give no vote: who is not heard has not
    /// caught up.
    async fn caught_up<M: StateMachine>(&self, replica: &ReplicaHandle<M>) -> Vec<ReplicaId> {
        #[cfg(feature = "bugs")]
        if self.has_bug(replica::bugs::Bug::PromoteEmptyLearner) {
            return replica.membership().replicas();
        }
        let progress = replica.progress_of_heard().await;
        let last = replica.commit_index();
        progress
            .into_iter()
            .filter(|(_, matched)| is_close(*matched, last))
            .map(|(replica, _)| replica)
            .collect()
    }

    /// Tells the catalog of replicas that are to leave and do not belong to the group any more: their nodes may remove them.
    async fn report_left<M: StateMachine>(
        &self,
        shard: ShardId,
        leaving: Leaving<'_>,
        replica: &ReplicaHandle<M>,
    ) -> Result<()> {
        let has_left = |placed: &&ReplicaPlacement| !replica.membership().nodes.contains_key(&placed.replica);
        let Leaving { replicas, cancels_seen } = leaving;
        if !replicas.iter().any(|placed| has_left(&placed)) {
            return Ok(());
        }
        // A new leader may not have applied every change yet that was committed before.
        replica.read().await?;
        for gone in replicas.iter().filter(has_left) {
            let left = Command::ReplicaLeft { shard, replica: gone.replica, cancels_seen };
            self.change_catalog(left).await?;
        }
        Ok(())
    }
}

fn changes(step: Step) -> Vec<MemberChange> {
    match step {
        Step::AddLearner(replica, node) => vec![MemberChange::AddLearner(replica, node)],
        Step::Promote(replicas) => replicas.into_iter().map(MemberChange::Promote).collect(),
        Step::Replace { promote, demote, remove } => {
            let promoted = promote.into_iter().map(MemberChange::Promote);
            let demoted = demote.into_iter().map(|(replica, node)| MemberChange::AddLearner(replica, node));
            promoted.chain(demoted).chain(remove.into_iter().map(MemberChange::Remove)).collect()
        }
        Step::Remove(replica) => vec![MemberChange::Remove(replica)],
        // The membership stays as it is; the caller hands the role over.
        Step::HandOver(_) => Vec::new(),
    }
}

/// Whether a replica that has everything up to `matched` may vote. One that has nothing yet may not, however short the log is.
fn is_close(matched: LogIndex, last: LogIndex) -> bool {
    matched.get() > 0 && matched.get() + LAG_ENTRIES_MAX >= last.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learner_is_close_once_it_has_something_and_lacks_little() {
        let close = |matched, last| is_close(LogIndex(matched), LogIndex(last));
        assert!(!close(0, 5), "the log is short, but the learner has none of it");
        assert!(close(1, 5) && close(5, 5));
        assert!(close(100, 164) && !close(100, 165));
    }
}
