//! Brings a group's membership to what the catalog has placed, one step at a time, from the node of its leader.
//!
//! Called by `reconcile` for the catalog's group and for each shard's. The rules are `catalog::placement`; here they meet
//! what the leader knows of its followers.

use base::{Code, LogIndex, Result, ShardId};
use catalog::ReplicaPlacement;
use catalog::placement::{GroupNow, Step, next_step};
use replica::{MemberChange, ReplicaHandle, StateMachine};

use crate::Router;
use crate::retry::is_stale;

/// A learner this close to the leader's log has caught up: the rest reaches it before its first vote matters.
const LAG_ENTRIES_MAX: u64 = 64;

impl Router {
    /// Takes the next step, if one can be taken. Says whether the group is still on its way.
    pub(crate) async fn step_group<M: StateMachine>(
        &self,
        shard: ShardId,
        placed: &[ReplicaPlacement],
        replica: &ReplicaHandle<M>,
    ) -> Result<bool> {
        let membership = replica.membership();
        if membership.is_joint() {
            return Ok(true);
        }
        let settled = |placed: &[ReplicaPlacement]| {
            placed.len() == membership.nodes.len()
                && placed.iter().all(|placed| membership.nodes.contains_key(&placed.replica))
        };
        if settled(placed) && membership.learners.is_empty() {
            return Ok(false);
        }
        let progress = replica.progress().await;
        let last = replica.commit_index();
        let caught_up: Vec<_> = progress
            .iter()
            .filter(|(_, matched)| is_close(**matched, last))
            .map(|(replica, _)| *replica)
            .collect();
        let now =
            GroupNow { voters: &membership.voters, learners: &membership.learners, caught_up: &caught_up };
        let Some(step) = next_step(shard, placed, &now) else {
            // Two replicas stay a voter and a learner; there is nothing to wait for.
            return Ok(membership.learners.iter().any(|learner| !caught_up.contains(learner)));
        };
        tracing::info!(%shard, ?step, "the group's membership changes");
        match replica.change_membership(changes(step)).await {
            Ok(_) => Ok(true),
            // Another leader takes the step, or it has to wait.
            Err(error) if is_stale(&error) || error.code == Code::CONFLICTING_OPERATION_IN_PROGRESS => {
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}

fn changes(step: Step) -> Vec<MemberChange> {
    match step {
        Step::AddLearner(replica, node) => vec![MemberChange::AddLearner(replica, node)],
        Step::Promote(replicas) => replicas.into_iter().map(MemberChange::Promote).collect(),
        Step::Remove(replica) => vec![MemberChange::Remove(replica)],
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
