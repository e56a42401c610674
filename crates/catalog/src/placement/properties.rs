//! What holds on every way of a group to any placement: no data and no vote is given up before there is another.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// Steps in which any group here is where it shall be, at the latest.
const STEPS_MAX: usize = 40;

/// A group as it is, without messages: what is decided takes effect at once.
#[derive(Clone, Debug)]
struct Group {
    shard: ShardId,
    placed: Vec<ReplicaPlacement>,
    unfit: BTreeSet<NodeId>,
    voters: Vec<ReplicaId>,
    learners: Vec<ReplicaId>,
    caught_up: BTreeSet<ReplicaId>,
    leader: ReplicaId,
}

/// What happens between two steps.
#[derive(Clone, Debug)]
enum Event {
    /// The replica at this place moves to another node.
    Moved(Index),
    /// One more replica is wanted.
    Placed,
    /// The replica at this place is not wanted any more.
    Retired(Index),
    /// A learner catches up.
    CaughtUp(Index),
    /// Another voter is elected.
    Elected(Index),
    /// A node becomes unfit to vote, or fit again.
    Judged(Index),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        any::<Index>().prop_map(Event::Moved),
        Just(Event::Placed),
        any::<Index>().prop_map(Event::Retired),
        any::<Index>().prop_map(Event::CaughtUp),
        any::<Index>().prop_map(Event::CaughtUp),
        any::<Index>().prop_map(Event::Elected),
        any::<Index>().prop_map(Event::Judged),
    ]
}

fn replica(id: u64) -> ReplicaPlacement {
    ReplicaPlacement { replica: ReplicaId(id), node: NodeId(id as u32), founder: false, successor: None }
}

impl Group {
    fn new(shard: ShardId, size: u64) -> Group {
        let voters = (1..=size).map(ReplicaId).collect();
        Group {
            shard,
            placed: (1..=size).map(replica).collect(),
            unfit: BTreeSet::new(),
            voters,
            learners: Vec::new(),
            caught_up: (1..=size).map(ReplicaId).collect(),
            leader: ReplicaId(1),
        }
    }

    /// `fresh` names a replica that never was.
    fn happen(&mut self, event: &Event, fresh: u64) {
        match event {
            Event::Moved(at) => *at.get_mut(&mut self.placed) = replica(fresh),
            Event::Placed if self.placed.len() < 6 => self.placed.push(replica(fresh)),
            Event::Retired(at) if self.placed.len() > 1 => {
                self.placed.remove(at.index(self.placed.len()));
            }
            Event::CaughtUp(at) if !self.learners.is_empty() => {
                self.caught_up.insert(*at.get(&self.learners));
            }
            Event::Elected(at) => self.leader = *at.get(&self.voters),
            Event::Judged(at) if self.shard == CATALOG_SHARD => {
                let node = at.get(&self.placed).node;
                if !self.unfit.remove(&node) {
                    self.unfit.insert(node);
                }
            }
            Event::Placed | Event::Retired(_) | Event::CaughtUp(_) | Event::Judged(_) => {}
        }
    }

    fn next(&self) -> Option<Step> {
        let caught_up: Vec<_> = self.caught_up.iter().copied().collect();
        let wanted = GroupWanted { shard: self.shard, placed: &self.placed, unfit: &self.unfit };
        let (voters, learners) = (&self.voters, &self.learners);
        next_step(&wanted, &GroupNow { leader: self.leader, voters, learners, caught_up: &caught_up })
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::AddLearner(replica, _) => self.learners.push(replica),
            Step::Promote(promote) => self.replace(&promote, &[], &[]),
            Step::Replace { promote, demote, remove } => {
                let demote: Vec<_> = demote.into_iter().map(|(replica, _)| replica).collect();
                self.replace(&promote, &demote, &remove);
            }
            Step::Remove(replica) => self.replace(&[], &[], &[replica]),
            Step::HandOver(replica) => {
                assert!(self.voters.contains(&replica), "{replica} does not vote: {self:?}");
                self.leader = replica;
            }
        }
    }

    fn replace(&mut self, promote: &[ReplicaId], demote: &[ReplicaId], remove: &[ReplicaId]) {
        assert!(promote.iter().all(|replica| self.caught_up.contains(replica)), "{promote:?}: {self:?}");
        assert!(!demote.contains(&self.leader) && !remove.contains(&self.leader), "{self:?}");
        self.learners.retain(|learner| !promote.contains(learner) && !remove.contains(learner));
        self.voters.retain(|voter| !demote.contains(voter) && !remove.contains(voter));
        self.voters.extend(promote);
        self.learners.extend(demote);
    }

    /// Members that have the data.
    fn copies(&self) -> usize {
        self.voters.iter().chain(&self.learners).filter(|member| self.caught_up.contains(member)).count()
    }

    /// Whether a replica is placed, and its node fit to vote.
    fn may_stay(&self, replica: ReplicaId) -> bool {
        let placed = self.placed.iter().find(|placed| placed.replica == replica);
        placed.is_some_and(|placed| !self.unfit.contains(&placed.node))
    }

    /// Takes one step, if there is one, and checks what it must not do.
    fn step(&mut self) -> bool {
        let before = self.clone();
        let Some(step) = self.next() else { return false };
        self.take(step.clone());
        let said = format!("{step:?}: {before:?}");
        assert!(self.copies() >= before.copies().min(self.placed.len()), "{said}");
        let wanted = voters_wanted(self.shard, self.placed.len());
        assert!(self.voters.len() >= before.voters.len().min(wanted), "{said}");
        // A primary that has yet to hand its role over.
        let may_be_even = !self.may_stay(self.leader);
        assert!(
            !self.voters.len().is_multiple_of(2) || before.voters.len().is_multiple_of(2) || may_be_even,
            "{said}"
        );
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn a_group_gets_where_it_shall_be_and_never_has_too_little_on_the_way(
        is_catalog: bool, odd in 0..2_u64, events in prop::collection::vec(event(), 0..40),
    ) {
        let shard = if is_catalog { CATALOG_SHARD } else { ShardId(100) };
        let mut group = Group::new(shard, 2 * odd + 1);
        for (number, event) in events.iter().enumerate() {
            group.happen(event, 100 + number as u64);
            group.step();
        }
        let mut steps = 0;
        loop {
            group.caught_up.extend(group.learners.clone());
            if !group.step() {
                break;
            }
            steps += 1;
            prop_assert!(steps < STEPS_MAX, "{group:?}");
        }
        let members: BTreeSet<_> = group.voters.iter().chain(&group.learners).copied().collect();
        let placed: BTreeSet<_> = group.placed.iter().map(|placed| placed.replica).collect();
        prop_assert_eq!(&members, &placed, "{:?}", group);
        prop_assert_eq!(group.voters.len(), voters_wanted(shard, placed.len()), "{:?}", group);
        let is_unfit = |replica: &&ReplicaId| group.unfit.contains(&NodeId(replica.get() as u32));
        let idle = group.learners.iter().filter(|learner| !is_unfit(learner)).count();
        prop_assert!(idle == 0 || group.voters.iter().filter(is_unfit).count() == 0, "{group:?}");
    }
}
