//! What an owner loop does with the other replicas of its group: messages, proofs that it leads, changes of
//! membership, and snapshots for those that are too far behind.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use base::id::CATALOG_SHARD;
use base::{Code, Error, LogIndex, MonoTime, NodeId, ReplicaId, Term};
use raft::eraftpb::{Entry, Message, MessageType};

use super::{Owner, ticks};
use crate::apply::{Change, MEMBERSHIP_KEY};
#[cfg(feature = "bugs")]
use crate::bugs::Bug;
use crate::group::{self, HEARTBEAT_TICKS, LEASE, TICK_MS, Work};
use crate::handle::{Answers, Control};
use crate::machine::StateMachine;
use crate::membership::{MemberChange, Membership};
use crate::snapshot::{DoneGuard, SnapshotHeader, SnapshotOffer};
use crate::trace::Event;
use crate::transport::Haste;

/// Ticks without a leader after which waiting commands are refused: whoever sent them may know of a better place.
const LEADERLESS_TICKS_MAX: u64 = 100;
/// Senders that this replica's membership does not have, at most.
const STRANGERS_MAX: usize = 64;
/// Ticks since its last message for which a replica counts as one that answers.
const ANSWERS_TICKS_MAX: u64 = 30;
/// Ticks since its last message for which the role may be handed to a replica: as many as its patience with a leader has.
const SUCCESSOR_TICKS_MAX: u64 = 8;
/// Ticks that a replica which is asked to stop gives another one to take over, and its last proposals to commit.
const STOPPING_TICKS_MAX: u64 = 20;
/// Ticks that a leader's log write may take before another replica shall lead: longer than any healthy disk takes, and about
/// as long as an election.
const STALLED_TICKS_MAX: u64 = 10;

/// Answers that wrote nothing and were evaluated without a lease: they count once a proof is younger than they are.
pub(super) struct Unproven<R> {
    pub(super) since: MonoTime,
    pub(super) index: LogIndex,
    pub(super) answers: Answers<R>,
}

impl<M: StateMachine> Owner<M> {
    /// Takes what peers sent and what others ask of this replica's group.
    pub(super) fn take_controls(&mut self) -> storage::Result<()> {
        for control in std::mem::take(&mut self.controls) {
            match control {
                Control::Receive(from, message) => self.receive(from, message),
                Control::Change(from, changes, answer) => {
                    self.stir();
                    let outcome = self.propose_change(&from, &changes);
                    match outcome {
                        Ok(index) => self.changing.push((index, answer)),
                        // Whoever asked may have gone away.
                        Err(error) => drop(answer.send(Err(error))),
                    }
                }
                Control::Transfer(replica) => self.transfer_to(replica),
                Control::HandOver => self.hand_over(),
                Control::Campaign => self.campaign()?,
                Control::PeerLost => {
                    #[cfg(feature = "bugs")]
                    if self.is_asleep() && self.node.has_bug(Bug::SleepThroughLoss) {
                        continue;
                    }
                    self.stir();
                    self.expect_election();
                }
                // Whoever asked may have gone away.
                Control::Progress(answer) => drop(answer.send(self.progress())),
                Control::ProgressOfHeard(answer) => drop(answer.send(self.progress_of_heard())),
                Control::Stir => self.stir(),
            }
        }
        Ok(())
    }

    fn campaign(&mut self) -> storage::Result<()> {
        let is_led = self.group.leads() || self.group.other_leader().is_some();
        if is_led || !self.membership.voters.contains(&self.shared.name.replica) {
            return Ok(());
        }
        self.group.campaign(self.node.options.entropy.as_ref())
    }

    /// The leader's node seems to be gone. Should that be true, the voters' patience ends one after the other, not at random.
    fn expect_election(&mut self) {
        let Some(leader) = self.group.other_leader() else { return };
        let candidates = self.membership.voters.iter().filter(|voter| **voter != leader);
        if let Some(rank) = candidates.copied().position(|voter| voter == self.shared.name.replica) {
            self.group.expect_election(rank);
        }
    }

    fn progress(&self) -> BTreeMap<ReplicaId, LogIndex> {
        let matched = |replica: &ReplicaId| Some((*replica, self.group.matched(*replica)?));
        self.membership.nodes.keys().filter_map(matched).collect()
    }

    fn progress_of_heard(&self) -> BTreeMap<ReplicaId, LogIndex> {
        let own = self.shared.name.replica;
        let mut progress = self.progress();
        progress.retain(|replica, _| *replica == own || self.is_near(*replica));
        progress
    }

    /// Whether a member was heard within the patience of a follower. What was heard before a sleep says nothing after it: the
    /// clock stood.
    fn is_near(&self, replica: ReplicaId) -> bool {
        let since_awake = || self.heard.get(&replica).is_some_and(|heard| *heard > self.sleep.woken_at());
        !self.is_asleep() && since_awake() && self.was_heard(replica, SUCCESSOR_TICKS_MAX)
    }

    fn receive(&mut self, from: NodeId, message: Message) {
        let sender = ReplicaId(message.from);
        // A replica that is behind does not know of a member that joined since, and has to answer it all the same.
        if !self.membership.nodes.contains_key(&sender) {
            if self.strangers.len() >= STRANGERS_MAX {
                self.strangers.clear();
            }
            self.strangers.insert(sender, from);
        } else {
            self.heard.insert(sender, self.ticks);
        }
        self.trace(|| Event::received(&message));
        if self.falls_asleep(&message) {
            return;
        }
        self.stir_at(&message);
        let commit = LogIndex(message.commit);
        if message.get_msg_type() == MessageType::MsgTimeoutNow {
            self.wish = self.wish.take().filter(|earlier| earlier.term > message.term).or(Some(message));
            return;
        }
        self.group.step(message, self.node.options.entropy.as_ref());
        if self.group.other_leader() == Some(sender) {
            self.leader_commit = commit.max(self.leader_commit);
            if self.applied >= self.leader_commit {
                self.shared.fresh_ns.raise(nanos(self.node.options.clock.monotonic()));
            }
        }
    }

    /// Hands messages to the transport, those for one replica together.
    pub(super) fn send_messages(&mut self, messages: Vec<Message>) {
        let mut by_replica: BTreeMap<ReplicaId, Vec<Message>> = BTreeMap::new();
        for message in messages {
            let earlier = by_replica.entry(ReplicaId(message.to)).or_default();
            earlier.pop_if(|earlier| says_all_of(&message, earlier));
            earlier.push(message);
        }
        for (replica, messages) in by_replica {
            let in_a_hurry = messages.iter().filter(|message| self.hurries(message)).count() > 0;
            messages.iter().for_each(|message| self.trace(|| Event::sent(message, in_a_hurry)));
            // A replica without a node was removed while the message was made.
            let node = self.membership.nodes.get(&replica).or_else(|| self.strangers.get(&replica));
            if let Some(node) = node {
                let haste = match in_a_hurry {
                    true => Haste::Now,
                    false => Haste::By(ticks::departure(self.node.origin)),
                };
                self.node.options.transport.send(*node, self.shard(), messages, haste);
            }
        }
    }

    /// Whether somebody waits for a message. Nobody does for the news that entries are committed, which the next entries carry
    /// as well (whoever changes the catalog waits until all nodes have it); for heartbeats, unless they carry a proof that is
    /// wanted; for their echoes, unless the leader may have missed that this replica has more than is committed; and for
    /// acknowledgements that were sent before of what is committed.
    fn hurries(&mut self, message: &Message) -> bool {
        match message.get_msg_type() {
            MessageType::MsgHeartbeat => group::is_wanted(message),
            MessageType::MsgHeartbeatResponse => {
                group::is_wanted(message) || self.group.last_index() > self.group.commit()
            }
            MessageType::MsgAppend => !message.entries.is_empty() || self.shard() == CATALOG_SHARD,
            // The index of a refusal is not one that this replica has.
            MessageType::MsgAppendResponse if message.reject => true,
            MessageType::MsgAppendResponse => {
                let index = LogIndex(message.index);
                let acknowledged = (Term(message.term), index);
                let is_new = acknowledged > self.acknowledged;
                self.acknowledged = acknowledged.max(self.acknowledged);
                is_new || index > self.group.commit()
            }
            _ => true,
        }
    }

    /// The node's tick of this number.
    pub(super) fn tick(&mut self, number: u64) {
        if std::mem::take(&mut self.skips_tick) {
            return;
        }
        let beats = self.group.tick(self.node.options.entropy.as_ref());
        // The heartbeats of all groups leave in the same ticks of the node, so that they share the way.
        self.skips_tick = beats && !number.is_multiple_of(HEARTBEAT_TICKS);
        self.ticks += 1;
        self.stopping_ticks += u64::from(self.shared.stopping.load(Ordering::SeqCst));
        let is_led = self.group.leads() || self.group.other_leader().is_some();
        self.leaderless_ticks = if is_led { 0 } else { self.leaderless_ticks + 1 };
        if beats && self.leading.is_some() && !self.group.is_sole_voter() {
            // So that the lease does not end while all is well.
            self.prove(false);
        }
        self.watch_log();
        self.count_idle_tick();
    }

    /// A leader whose Raft log has not become durable for long is one that no client gets an answer from, though the others may
    /// have everything: one of them shall lead.
    fn watch_log(&mut self) {
        let durable = self.group.durable_number();
        let (before, ticks) = self.stalled;
        let ticks = if self.group.is_idle() || durable != before { 0 } else { ticks + 1 };
        self.stalled = (durable, ticks);
        if ticks > 0 && ticks.is_multiple_of(STALLED_TICKS_MAX) && self.may_hand_over() {
            let stalled_ms = ticks * TICK_MS;
            tracing::warn!(shard = %self.shard(), stalled_ms, "the Raft log's disk stands still: another node shall lead");
            self.transfer_to_furthest();
        }
    }

    /// Whether there has been no leader for so long that commands are refused.
    pub(super) fn is_leaderless(&self) -> bool {
        // One that leads alone counts no ticks any more.
        self.leading.is_none() && self.leaderless_ticks >= LEADERLESS_TICKS_MAX
    }

    fn prove(&mut self, is_wanted: bool) {
        let now = self.node.options.clock.monotonic();
        self.group.prove(now, is_wanted);
    }

    /// Begins a proof when a reader or an answer waits for one.
    pub(super) fn prove_if_wanted(&mut self) {
        let wanted = self.shared.proof_wanted.swap(false, Ordering::SeqCst);
        #[cfg(feature = "bugs")]
        self.serve_early();
        if wanted && self.group.leads() && !self.group.is_sole_voter() {
            self.stir();
            self.prove(true);
        }
    }

    /// Extends the lease, and answers what waited for a proof.
    pub(super) fn note_proofs(&mut self, work: &Work) {
        let Some(term) = self.leading.as_ref().map(|leading| leading.term) else { return };
        for &(_, sent) in work.proofs.iter().filter(|(proved, _)| *proved == term) {
            if self.group.is_sole_voter() {
                continue;
            }
            let held = self.holds_lease();
            // After a handover was tried, a vote may come at any time: there are no leases in this term any more.
            if self.handed_over != Some(term) {
                self.shared.lease.extend(self.lease_end(sent));
            }
            self.shared.proved_ns.raise(nanos(sent) + 1);
            if !held && self.holds_lease() {
                self.trace(|| Event::Leased { term });
            }
            self.shared.readers.notify_waiters();
        }
        self.answer_proved();
    }

    /// Until when a proof that was sent then lets this replica answer reads by itself.
    fn lease_end(&self, sent: MonoTime) -> MonoTime {
        #[cfg(feature = "bugs")]
        if let Some(end) = self.buggy_lease_end(sent) {
            return end;
        }
        sent + LEASE
    }

    /// Answers commands that wrote nothing, whose proof has come and whose reads are committed.
    pub(super) fn answer_proved(&mut self) {
        let commit = self.shared.commit.index();
        let proved = self.shared.proved_ns.get();
        let is_due =
            |waiting: &mut Unproven<M::Reply>| nanos(waiting.since) < proved && waiting.index <= commit;
        let due: Vec<_> = self.unproven.extract_if(.., is_due).collect();
        for Unproven { index, answers, .. } in due {
            let commands = answers.len();
            self.trace(|| Event::Answered { index, commands });
            answers.into_iter().for_each(|(answer, reply)| super::send(answer, reply));
        }
    }

    pub(super) fn holds_lease(&self) -> bool {
        self.shared.lease.holds(self.node.options.clock.as_ref())
    }

    fn propose_change(&mut self, from: &Membership, changes: &[MemberChange]) -> base::Result<LogIndex> {
        let refused = |message: &str| Error::new(Code::CONFLICTING_OPERATION_IN_PROGRESS, message);
        // What came before this in the same turn may have ended the term.
        self.note_role();
        let may_change = self.may_evaluate();
        #[cfg(feature = "bugs")]
        let may_change = may_change || self.is_hasty();
        if !may_change {
            return Err(Error::new(Code::NOT_WRITABLE_PRIMARY, "this replica is not the primary"));
        }
        if !self.membership.has_members_of(from) {
            return Err(refused("the membership is not what the change was chosen for"));
        }
        let own = self.shared.name.replica;
        if changes.contains(&MemberChange::Remove(own)) {
            return Err(refused("a primary cannot be removed: hand its role over first"));
        }
        // A replica that has nothing yet can neither vote nor ask for a snapshot while nobody leads.
        let is_empty = |change: &MemberChange| match *change {
            MemberChange::Promote(replica) => {
                self.group.matched(replica).is_none_or(|index| index.get() == 0)
            }
            MemberChange::AddLearner(..) | MemberChange::Remove(_) => false,
        };
        let promotes_empty = changes.iter().any(is_empty);
        #[cfg(feature = "bugs")]
        let promotes_empty = promotes_empty && !self.node.has_bug(Bug::PromoteEmptyLearner);
        if promotes_empty {
            return Err(refused("a replica gets a vote only once it has the shard's state"));
        }
        let index = self.group.propose_change(changes);
        index.ok_or_else(|| refused("an earlier change of the membership is not complete"))
    }

    /// Hands the primary's role over, once a term: this replica stops, or its disk is nearly full.
    pub(super) fn hand_over(&mut self) {
        if self.may_hand_over() && self.handed_over != Some(self.group.term()) {
            self.transfer_to_furthest();
        }
    }

    /// Hands the role over to the voter that is furthest.
    fn transfer_to_furthest(&mut self) {
        if let Some(furthest) = self.furthest() {
            self.transfer_to(furthest);
        }
    }

    /// The voter that is furthest, of those that answer if any does.
    fn furthest(&self) -> Option<ReplicaId> {
        let own = self.shared.name.replica;
        let others = self.membership.voters.iter().copied().filter(|voter| *voter != own);
        others.max_by_key(|voter| (self.answers(*voter), self.group.matched(*voter)))
    }

    /// Whether a member of the group has written to this replica lately.
    pub(super) fn answers(&self, replica: ReplicaId) -> bool {
        self.was_heard(replica, ANSWERS_TICKS_MAX)
    }

    fn was_heard(&self, replica: ReplicaId, ticks_max: u64) -> bool {
        self.heard.get(&replica).is_some_and(|heard| self.ticks - heard <= ticks_max)
    }

    /// A change that an earlier leader proposed has taken the vote of this replica, which leads: the voter that is furthest
    /// shall lead.
    pub(super) fn step_down(&mut self) {
        self.shared.lease.revoke();
        let furthest = self.furthest();
        self.group.step_down(self.node.options.entropy.as_ref());
        self.note_role();
        if let Some(to) = furthest {
            self.trace(|| Event::HandsOver { to });
            let message = self.group.campaign_now(to);
            self.send_messages(vec![message]);
        }
    }

    /// Asks for votes as a leader wished that has handed its role over. Not while a change of the membership is committed and not
    /// applied: the library would drop the wish for good. Nor while the only voter's log is not durable.
    pub(super) fn succeed(&mut self) {
        let is_taken = self.shared.commit.index() >= self.group.commit();
        let is_applied = self.newer_memberships.back().is_none_or(|(index, _)| *index <= self.applied);
        let may_campaign = self.group.may_campaign();
        if let Some(wish) = self.wish.take_if(|_| is_taken && is_applied && may_campaign) {
            self.group.step(wish, self.node.options.entropy.as_ref());
        }
    }

    /// Whether this replica leads others that could take over.
    pub(super) fn may_hand_over(&self) -> bool {
        self.group.leads() && self.membership.voters.len() > 1
    }

    /// Whether it has waited long enough for that.
    pub(super) fn has_waited_to_stop(&self) -> bool {
        self.stopping_ticks >= STOPPING_TICKS_MAX
    }

    fn transfer_to(&mut self, replica: ReplicaId) {
        let is_own = replica == self.shared.name.replica;
        if is_own || !self.group.leads() || !self.membership.voters.contains(&replica) {
            return;
        }
        // While a role is handed over nothing is proposed, for as long as an election may take.
        if !self.was_heard(replica, SUCCESSOR_TICKS_MAX) {
            return;
        }
        // The lease ends first: the other replica may win its election at any time from now on.
        self.shared.lease.revoke();
        self.handed_over = Some(self.group.term());
        self.trace(|| Event::HandsOver { to: replica });
        self.group.transfer_to(replica);
    }

    /// A change of the membership is committed: it takes effect here and now. Returns what the store has to note.
    pub(super) fn apply_change(&mut self, entry: &Entry) -> storage::Result<Change> {
        let (state, added) = self.group.apply_change(&entry.data)?;
        self.membership = self.membership.changed(&state, &added);
        self.heard.retain(|replica, _| self.membership.nodes.contains_key(replica));
        self.newer_memberships.push_back((LogIndex(entry.index), self.membership.clone()));
        self.shared.membership.store(std::sync::Arc::new(self.membership.clone()));
        if !self.group.is_sole_voter() {
            // A sole voter's lease has no end, and others may be elected from now on.
            self.shared.lease.revoke();
        }
        let membership = self.membership.clone();
        self.trace(|| Event::Changed { membership });
        Ok(Change::Membership(self.membership.encode()))
    }

    /// Tells whoever asked for a change that it is committed.
    pub(super) fn answer_changes(&mut self, commit: LogIndex) {
        for (index, answer) in self.changing.extract_if(.., |(index, _)| *index <= commit) {
            // Whoever asked may have gone away; the change stands all the same.
            let _ = answer.send(Ok(index));
        }
    }

    /// Offers a snapshot to every replica that needs entries which are gone, one at a time for each.
    pub(super) fn send_snapshots(&mut self, work: &Work) -> storage::Result<()> {
        for &to in &work.behind {
            let Some(&node) = self.membership.nodes.get(&to) else { continue };
            if !self.group.leads() || self.shared.sending.lock().contains_key(&to) {
                continue;
            }
            let view = self.node.options.store.view(self.shared.name)?;
            let index = view.applied_index()?;
            self.shared.sending.lock().insert(to, index);
            let index_term = self.group.log().term_of(index)?;
            // A keyspace without one has applied no change, and none is durable.
            let stored = stored_membership(view.as_ref())?;
            let mut membership = stored.unwrap_or_else(|| self.durable_membership.clone());
            membership.last_timestamp = self.clock.last();
            let header = SnapshotHeader {
                shard: self.shard(),
                from: self.shared.name.replica,
                to,
                term: self.group.term(),
                index,
                index_term: index_term.expect("the log keeps the term of what is applied"),
                membership: membership.encode(),
            };
            self.trace(|| Event::Offers { to, index });
            #[cfg(feature = "bugs")]
            let view = self.buggy_view(view);
            let shared = self.shared.clone();
            let done = DoneGuard::new(move || {
                shared.sending.lock().remove(&to);
            });
            self.node.options.transport.send_snapshot(node, SnapshotOffer::new(header, view, done));
        }
        Ok(())
    }

    /// Whatever waited for this replica to lead waits in vain.
    pub(super) fn drop_unproven(&mut self, error: &Error) {
        for (answer, _) in self.unproven.drain(..).flat_map(|waiting| waiting.answers) {
            super::send(answer, Err(error.clone()));
        }
        for (_, answer) in self.changing.drain(..) {
            // As above.
            let _ = answer.send(Err(error.clone()));
        }
    }

    /// Publishes who leads, for those who look for the primary.
    pub(super) fn publish_leader(&self) {
        let own = self.shared.name.replica;
        let leader = if self.group.leads() { Some(own) } else { self.group.other_leader() };
        let number = leader.map_or(0, ReplicaId::get);
        if self.shared.leader.swap(number, Ordering::SeqCst) != number {
            self.shared.readers.notify_waiters();
        }
    }
}

/// Whether a message says, and proves, whatever an earlier one to the same replica did.
fn says_all_of(message: &Message, earlier: &Message) -> bool {
    let alike = message.get_msg_type() == earlier.get_msg_type() && message.term == earlier.term;
    alike
        && match message.get_msg_type() {
            MessageType::MsgHeartbeat => true,
            MessageType::MsgAppend => {
                earlier.entries.is_empty()
                    && message.index == earlier.index
                    && message.commit >= earlier.commit
            }
            _ => false,
        }
}

/// The membership that a keyspace holds as of its applied index.
pub(crate) fn stored_membership(view: &dyn storage::View) -> storage::Result<Option<Membership>> {
    view.get(MEMBERSHIP_KEY)?.map(|stored| Membership::decode(&stored)).transpose()
}

/// As the marks of replicas count time.
pub(crate) fn nanos(time: MonoTime) -> u64 {
    u64::try_from(time.0.as_nanos()).expect("a process runs for less than centuries")
}
