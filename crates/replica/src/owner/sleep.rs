//! Groups without traffic sleep: no ticks, no heartbeats, no proofs, and so no lease.
//!
//! A leader that has had nothing to do for a while, and whose followers have all that it has, tells them so in a last heartbeat
//! and stops its clock; a follower that agrees stops its own. Any other message, any command, a read that wants a proof, and
//! the news that a node is lost wake a replica up. Always holds: a replica that sleeps votes for nobody that it would not vote
//! for awake (its clock stands, so that its promise to the leader only lasts longer); a follower whose leader's node is lost is
//! woken by its host, since nobody else would tell it.

use std::sync::atomic::Ordering;

use base::{LogIndex, ReplicaId};
use raft::eraftpb::{Message, MessageType};

use super::Owner;
use crate::machine::StateMachine;
use crate::trace::Event;

/// Ticks without anything to do after which a leader puts its group to sleep.
const IDLE_TICKS_MAX: u64 = 100;
/// The context of the heartbeat that says so.
const GOOD_NIGHT: &[u8] = b"sleep";

/// Whether a replica's clock runs.
#[derive(Default)]
pub(super) struct Sleep {
    asleep: bool,
    idle_ticks: u64,
    /// The tick at which it last began to run again.
    woken_at: u64,
}

impl Sleep {
    pub(super) fn woken_at(&self) -> u64 {
        self.woken_at
    }
}

impl<M: StateMachine> Owner<M> {
    /// Whether the replica's clock stands.
    pub(super) fn is_asleep(&self) -> bool {
        self.sleep.asleep && !self.shared.stopping.load(Ordering::SeqCst)
    }

    /// There is something to do.
    pub(super) fn stir(&mut self) {
        let woken_at = if self.sleep.asleep { self.ticks } else { self.sleep.woken_at };
        self.sleep = Sleep { woken_at, ..Sleep::default() };
    }

    /// A message has come. What only echoes this leader's own messages neither wakes it nor keeps it awake.
    pub(super) fn stir_at(&mut self, message: &Message) {
        let is_echo = match message.get_msg_type() {
            MessageType::MsgHeartbeatResponse => true,
            MessageType::MsgAppendResponse => !message.reject,
            _ => false,
        };
        if !is_echo {
            self.stir();
        }
    }

    /// A tick of a leader.
    pub(super) fn count_idle_tick(&mut self) {
        if self.leading.is_some() && !self.is_alone() {
            self.sleep.idle_ticks += 1;
        }
    }

    /// Puts the group to sleep when it has been idle for long enough. Called when nothing else is left to send: whatever
    /// reached a follower after the last heartbeat would wake it again.
    pub(super) fn say_good_night(&mut self) {
        if self.sleep.idle_ticks < IDLE_TICKS_MAX || !self.may_sleep() {
            return;
        }
        let others = self.membership.nodes.keys().filter(|replica| **replica != self.shared.name.replica);
        let messages: Vec<Message> = others.map(|replica| self.good_night(*replica)).collect();
        self.send_messages(messages);
        self.fall_asleep();
    }

    /// A follower takes the leader's word that nothing is to come, when it has everything. Says whether it does.
    pub(super) fn falls_asleep(&mut self, message: &Message) -> bool {
        if message.get_msg_type() != MessageType::MsgHeartbeat || message.context[..] != *GOOD_NIGHT {
            return false;
        }
        let everything = LogIndex(message.commit);
        let agrees = message.term == self.group.term().get()
            && self.group.other_leader() == Some(ReplicaId(message.from))
            && self.group.last_index() == everything
            && self.applied == everything
            && self.group.is_idle();
        if agrees {
            self.fall_asleep();
        }
        agrees
    }

    /// Whether nobody else belongs to the group.
    pub(super) fn is_alone(&self) -> bool {
        self.membership.nodes.keys().all(|replica| *replica == self.shared.name.replica)
    }

    fn may_sleep(&self) -> bool {
        let last = self.group.last_index();
        let has_all = |replica: &ReplicaId| {
            *replica == self.shared.name.replica || self.group.matched(*replica) == Some(last)
        };
        self.leading.is_some()
            && self.applied == last
            && self.waiting.is_empty()
            && self.unproven.is_empty()
            && !self.membership.is_joint()
            && self.group.is_idle()
            && self.membership.nodes.keys().all(has_all)
    }

    fn good_night(&self, to: ReplicaId) -> Message {
        Message {
            msg_type: MessageType::MsgHeartbeat,
            from: self.shared.name.replica.get(),
            to: to.get(),
            term: self.group.term().get(),
            commit: self.group.last_index().get(),
            context: GOOD_NIGHT.into(),
            ..Message::default()
        }
    }

    fn fall_asleep(&mut self) {
        self.sleep = Sleep { asleep: true, ..Sleep::default() };
        self.trace(|| Event::Sleeps);
    }
}
