//! One replica's seat in its Raft group: the consensus library as a pure state machine, and the order that it demands.
//!
//! Driven by the owner loop only. [`Group::drive`] turns whatever the library has ready into three lists: log writes to
//! make durable, committed entries to apply, messages to send. Always holds: messages that promise something (votes,
//! acknowledgements) leave only after what they promise is durable; log writes are reported durable in order; proposals
//! are handed to the library only while this replica leads.

#[cfg(feature = "bugs")]
mod mischief;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use base::{Entropy, LogIndex, MonoTime, NodeId, ReplicaId, Term};
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType};
use raft::{RawNode, ReadState, StateRole};
use storage::{Fault, LogEntry};

use crate::log_store::{LogStore, to_log};
use crate::membership::{MemberChange, conf_change, decode_conf_change};

/// Length of a tick in milliseconds. Ticks that were missed are never caught up.
pub(crate) const TICK_MS: u64 = 50;
/// Two of them, and the time that the second one's echo takes, fit into a lease.
pub(crate) const HEARTBEAT_TICKS: u64 = 3;
const ELECTION_TICKS: usize = 8;
const ELECTION_TICKS_MAX: usize = 16;
/// Ticks between two voters' elections when their leader's node is known to be gone.
const RANK_TICKS: usize = 2;
/// How much less time several ticks may take than they should, in milliseconds.
pub(crate) const TICK_SLACK_MS: u64 = 5;
/// How much faster a voter's clock may run than a leader's, in milliseconds of one election timeout.
const DRIFT_MARGIN_MS: u64 = 40;
/// A lease runs this long from the moment before its proof was sent: for one election timeout no voter of the quorum
/// votes for another, less the tick that may have been almost over when the message came, less slack and drift.
pub(crate) const LEASE: Duration =
    Duration::from_millis((ELECTION_TICKS as u64 - 1) * TICK_MS - TICK_SLACK_MS - DRIFT_MARGIN_MS);
/// The last byte of a proof's context: whether somebody waits for it.
const WANTED: u8 = 1;
const NOT_WANTED: u8 = 0;
const PROOF_CONTEXT_BYTES: usize = 17;
/// No lease that was given before now holds after this time, whatever happens to its holder.
pub const LEASE_MAX: Duration = Duration::from_millis(ELECTION_TICKS as u64 * TICK_MS);
const MESSAGE_BYTES_MAX: u64 = 1024 * 1024;
const MESSAGES_IN_FLIGHT_MAX: usize = 256;

/// See the module's comment.
pub(crate) struct Group {
    raw: RawNode<LogStore>,
    /// Of log writes that are not durable yet: the numbers of the library's first and last batch of work in each.
    unlogged: VecDeque<(u64, u64)>,
    last_number: u64,
    /// Up to which number all log writes are durable.
    durable_number: u64,
    /// Term and vote as they were last given to the log, and the number of that batch.
    logged_vote: (u64, u64),
    vote_number: u64,
    /// Messages that wait until everything up to a number is durable.
    held: VecDeque<(u64, Vec<Message>)>,
    /// Ticks until this replica may vote: it may have acknowledged a leader's lease before it was restarted.
    silent_ticks: usize,
}

/// What [`Group::drive`] found to do.
#[derive(Default)]
pub(crate) struct Work {
    /// Parts of the log to write, in order, and the number to report when all of them are durable.
    pub(crate) logging: Option<Logging>,
    /// Entries that are committed, in log order.
    pub(crate) committed: Vec<Entry>,
    /// Messages that may leave now.
    pub(crate) messages: Vec<Message>,
    /// Proofs that this replica led: a quorum has acknowledged what was sent after the time, in the term.
    pub(crate) proofs: Vec<(Term, MonoTime)>,
    /// Replicas that need entries which are compacted away.
    pub(crate) behind: BTreeSet<ReplicaId>,
}

/// Log writes.
#[derive(Default)]
pub(crate) struct Logging {
    /// Passed to [`Group::logged`] when durable.
    pub(crate) number: u64,
    /// Runs of entries; a later run may replace the end of an earlier one.
    pub(crate) runs: Vec<Vec<LogEntry>>,
    /// Whether term or vote changed.
    pub(crate) vote: bool,
}

impl Group {
    /// Starts from what the log store holds, with everything up to `applied` applied. One that is `restarted` grants no
    /// vote for one election timeout.
    pub(crate) fn new(
        replica: ReplicaId,
        log: LogStore,
        applied: LogIndex,
        restarted: bool,
        entropy: &dyn Entropy,
    ) -> storage::Result<Group> {
        #[cfg(feature = "bugs")]
        let counts = log.bug == Some(crate::bugs::Bug::CommitByCounting);
        #[cfg(not(feature = "bugs"))]
        let counts = false;
        let config = raft::Config {
            id: replica.get(),
            election_tick: ELECTION_TICKS,
            min_election_tick: ELECTION_TICKS,
            max_election_tick: ELECTION_TICKS_MAX,
            heartbeat_tick: HEARTBEAT_TICKS as usize,
            applied: applied.get(),
            max_size_per_msg: if counts { 0 } else { MESSAGE_BYTES_MAX },
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            max_committed_size_per_ready: base::limits::ENTRY_BYTES_MAX as u64,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, log, &logger)
            .map_err(|error| Fault::corruption(format!("{replica} cannot take part in Raft: {error}")))?;
        let silent_ticks = if restarted { ELECTION_TICKS } else { 0 };
        let logged_vote = (raw.raft.term, raw.raft.vote);
        let mut group = Group {
            raw,
            unlogged: VecDeque::new(),
            last_number: 0,
            durable_number: 0,
            logged_vote,
            vote_number: 0,
            held: VecDeque::new(),
            silent_ticks,
        };
        group.draw_election_timeout(entropy);
        Ok(group)
    }

    /// Current term.
    pub(crate) fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    /// The replica voted for in this term.
    pub(crate) fn vote(&self) -> Option<ReplicaId> {
        Some(self.raw.raft.vote).filter(|&vote| vote != raft::INVALID_ID).map(ReplicaId)
    }

    /// Highest index known committed.
    pub(crate) fn commit(&self) -> LogIndex {
        LogIndex(self.raw.raft.raft_log.committed)
    }

    /// Index of the last entry, durable or not.
    pub(crate) fn last_index(&self) -> LogIndex {
        LogIndex(self.raw.raft.raft_log.last_index())
    }

    /// Whether this replica leads.
    pub(crate) fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// The leader of this term, if it is another replica.
    pub(crate) fn other_leader(&self) -> Option<ReplicaId> {
        let leader = self.raw.raft.leader_id;
        (leader != raft::INVALID_ID && leader != self.raw.raft.id).then_some(ReplicaId(leader))
    }

    /// Whether nobody else has a vote.
    pub(crate) fn is_sole_voter(&self) -> bool {
        let voters = self.raw.raft.prs().conf().voters();
        voters.contains(self.raw.raft.id) && voters.ids().iter().count() == 1
    }

    /// How far a follower's log is known to match. `None` on followers, and for strangers.
    pub(crate) fn matched(&self, replica: ReplicaId) -> Option<LogIndex> {
        let progress = self.raw.raft.prs().get(replica.get()).filter(|_| self.leads())?;
        Some(LogIndex(progress.matched))
    }

    /// The log.
    pub(crate) fn log(&self) -> &LogStore {
        self.raw.store()
    }

    /// The log, for eviction and compaction.
    pub(crate) fn log_mut(&mut self) -> &mut LogStore {
        self.raw.mut_store()
    }

    /// Asks for votes now instead of waiting for a timeout.
    pub(crate) fn campaign(&mut self, entropy: &dyn Entropy) -> storage::Result<()> {
        if !self.may_campaign() {
            return Ok(());
        }
        self.stepping(entropy, |raw| raw.campaign())
            .map_err(|error| Fault::corruption(format!("an election cannot start: {error}")))
    }

    /// Whether an election may begin. Who needs no other's vote has won it at once, and the library wants all that a leader has to
    /// be durable; where others vote, their answers come after that.
    pub(crate) fn may_campaign(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        self.leads() || !self.is_sole_voter() || log.persisted >= log.last_index()
    }

    /// Time passes by one tick. Returns whether this replica leads and sends heartbeats now.
    pub(crate) fn tick(&mut self, entropy: &dyn Entropy) -> bool {
        self.silent_ticks = self.silent_ticks.saturating_sub(1);
        if !self.may_campaign() {
            return false;
        }
        self.stepping(entropy, RawNode::tick);
        self.leads() && self.raw.raft.heartbeat_elapsed() == 0
    }

    /// The leader is probably gone: this follower's turn to ask for votes comes `rank` turns after the first one's. Even the
    /// first one waits a tick longer than voters keep their word to the leader, so that all of them may answer; the next
    /// leaves it the time to win.
    pub(crate) fn expect_election(&mut self, rank: usize) {
        let ticks = ELECTION_TICKS + 1 + RANK_TICKS.saturating_mul(rank);
        self.raw.raft.set_randomized_election_timeout(ticks.min(ELECTION_TICKS_MAX - 1));
    }

    /// Appends an entry, and returns its index; `None` when the library refuses it. Only while this replica leads.
    pub(crate) fn propose(&mut self, data: Vec<u8>) -> Option<LogIndex> {
        assert!(self.leads(), "a forwarded physical write corrupts");
        self.raw.propose(Vec::new(), data).ok()?;
        Some(self.last_index())
    }

    /// Takes a message from a peer. One that no peer may send, or that came too late, is dropped: losing messages is
    /// allowed. Entries that a follower would forward are among them: a forwarded physical write corrupts.
    pub(crate) fn step(&mut self, message: Message, entropy: &dyn Entropy) {
        let votes =
            matches!(message.get_msg_type(), MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
        if !may_come_from_a_peer(&message) || votes && self.silent_ticks > 0 {
            return;
        }
        #[cfg(feature = "bugs")]
        let appended = message.entries.last().cloned();
        // The library names what it dropped; there is nothing to do about it.
        let _ = self.stepping(entropy, |raw| raw.step(message));
        #[cfg(feature = "bugs")]
        self.truncate_after(appended);
    }

    /// Begins a round of messages whose acknowledgement by a quorum proves that this replica leads at `now`. They do not wait
    /// for others to share the way with when the proof is wanted.
    pub(crate) fn prove(&mut self, now: MonoTime, is_wanted: bool) {
        let mut context = Vec::with_capacity(PROOF_CONTEXT_BYTES);
        context.extend_from_slice(&self.term().get().to_be_bytes());
        context.extend_from_slice(&(now.0.as_nanos() as u64).to_be_bytes());
        context.push(if is_wanted { WANTED } else { NOT_WANTED });
        self.raw.read_index(context);
    }

    /// Appends an entry that changes the membership, and returns its index; `None` when the library refuses it, since
    /// an earlier change is not complete. Only while this replica leads.
    pub(crate) fn propose_change(&mut self, changes: &[MemberChange]) -> Option<LogIndex> {
        assert!(self.leads(), "a forwarded change is evaluated by nobody");
        #[cfg(feature = "bugs")]
        self.overlook_earlier_change();
        let before = self.last_index();
        self.raw.propose_conf_change(Vec::new(), conf_change(changes)).ok()?;
        // A change that the library refuses becomes an empty entry in its place.
        let index = self.last_index();
        let refused = self
            .raw
            .raft
            .raft_log
            .unstable_entries()
            .last()
            .is_none_or(|entry| entry.index != index.get() || entry.entry_type == EntryType::EntryNormal);
        (index > before && !refused).then_some(index)
    }

    /// A committed entry that changes the membership takes effect. Returns what it leads to, and new replicas' nodes.
    pub(crate) fn apply_change(
        &mut self,
        data: &[u8],
    ) -> storage::Result<(ConfState, Vec<(ReplicaId, NodeId)>)> {
        let (change, added) = decode_conf_change(data)?;
        let state = self.raw.apply_conf_change(&change);
        let state = state.map_err(|error| {
            Fault::corruption(format!("a committed change of membership cannot be made: {error}"))
        })?;
        Ok((state, added))
    }

    /// Hands leadership to another voter, which campaigns as soon as it has every entry.
    pub(crate) fn transfer_to(&mut self, replica: ReplicaId) {
        self.raw.transfer_leader(replica.get());
    }

    /// Whether this replica leads a group in which a committed change has left it no vote. The library would let it go on, takes
    /// the last other voter for the proof that it leads, and panics when it looks for its place in a group that it has left.
    pub(crate) fn leads_without_vote(&self) -> bool {
        self.leads() && !self.raw.raft.prs().conf().voters().contains(self.raw.raft.id)
    }

    /// Gives the role up, to nobody.
    pub(crate) fn step_down(&mut self, entropy: &dyn Entropy) {
        let term = self.raw.raft.term;
        self.stepping(entropy, |raw| raw.raft.become_follower(term, raft::INVALID_ID));
    }

    /// Asks a voter to campaign at once.
    pub(crate) fn campaign_now(&self, voter: ReplicaId) -> Message {
        Message {
            msg_type: MessageType::MsgTimeoutNow,
            from: self.raw.raft.id,
            to: voter.get(),
            term: self.raw.raft.term,
            ..Message::default()
        }
    }

    /// Collects everything that the library wants done. Faults on an entry that this version cannot apply.
    pub(crate) fn drive(&mut self) -> storage::Result<Work> {
        let mut work = Work::default();
        let mut first_logged = None;
        #[cfg(feature = "bugs")]
        self.commit_by_counting();
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            let number = ready.number();
            self.last_number = number;
            if ready.hs().is_some_and(|now| (now.term, now.vote) != self.logged_vote) {
                self.logged_vote = (self.raw.raft.term, self.raw.raft.vote);
                self.vote_number = number;
            }
            // A sole voter leads before its own vote is durable, and must not lead the same term again after a crash.
            let leaving = ready.take_messages();
            match self.durable_number >= self.vote_number {
                true => work.messages.extend(leaving),
                false => self.held.push_back((self.vote_number, leaving)),
            }
            work.committed.append(&mut ready.take_committed_entries());
            work.proofs.extend(ready.take_read_states().iter().filter_map(decode_proof));
            if !ready.snapshot().is_empty() {
                return Err(Fault::corruption("a snapshot arrived that nobody asked for"));
            }
            if ready.must_sync() {
                first_logged.get_or_insert(number);
                let logging = work.logging.get_or_insert_default();
                logging.number = number;
                logging.vote |= ready.hs().is_some();
                let entries = ready.take_entries();
                self.raw.mut_store().append(&entries);
                if !entries.is_empty() {
                    logging.runs.push(entries.iter().map(to_log).collect());
                }
            }
            let held = ready.take_persisted_messages();
            if !held.is_empty() {
                self.held.push_back((number, held));
            }
            self.raw.advance_append_async(ready);
            if work.logging.is_none() && self.unlogged.is_empty() {
                self.raw.on_persist_ready(number);
                self.durable_number = number;
                self.release_messages(number, &mut work);
            }
        }
        self.unlogged.extend(first_logged.zip(work.logging.as_ref().map(|logging| logging.number)));
        work.behind = self.raw.mut_store().take_behind();
        Ok(work)
    }

    /// The log writes up to `number` are durable. [`Group::drive`] then finds what follows from it.
    pub(crate) fn logged(&mut self, number: u64) -> Work {
        let mut work = Work::default();
        while self.unlogged.pop_front_if(|(_, last)| *last <= number).is_some() {}
        let durable = self.unlogged.front().map_or(self.last_number, |(first, _)| first - 1);
        self.raw.on_persist_ready(durable);
        self.durable_number = durable;
        self.release_messages(durable, &mut work);
        work
    }

    /// Up to which number all log writes are durable.
    pub(crate) fn durable_number(&self) -> u64 {
        self.durable_number
    }

    /// Whether every log write is durable.
    pub(crate) fn is_idle(&self) -> bool {
        self.unlogged.is_empty()
    }

    /// Everything up to `index` is applied. The library may leave a joint configuration now, by an entry of its own.
    pub(crate) fn applied(&mut self, index: LogIndex) {
        self.raw.advance_apply_to(index.get());
    }

    fn release_messages(&mut self, number: u64, work: &mut Work) {
        while let Some((_, mut messages)) = self.held.pop_front_if(|(waits_for, _)| *waits_for <= number) {
            work.messages.append(&mut messages);
        }
    }

    /// The library's own randomness would make runs that cannot be repeated.
    fn draw_election_timeout(&mut self, entropy: &dyn Entropy) {
        self.raw.raft.set_randomized_election_timeout(draw_timeout(entropy));
    }

    /// Runs a step that may change role or term; the election timeout that follows then comes from our own randomness.
    fn stepping<R>(&mut self, entropy: &dyn Entropy, step: impl FnOnce(&mut RawNode<LogStore>) -> R) -> R {
        let before = (self.raw.raft.term, self.raw.raft.state);
        let result = step(&mut self.raw);
        if before != (self.raw.raft.term, self.raw.raft.state) {
            self.draw_election_timeout(entropy);
        }
        result
    }
}

fn draw_timeout(entropy: &dyn Entropy) -> usize {
    let spread = entropy.below((ELECTION_TICKS_MAX - ELECTION_TICKS) as u64);
    ELECTION_TICKS + usize::try_from(spread).expect("below the number of ticks")
}

fn decode_proof(state: &ReadState) -> Option<(Term, MonoTime)> {
    let (term, rest) = state.request_ctx.split_first_chunk::<8>()?;
    let (sent, _) = rest.split_first_chunk::<8>()?;
    let sent = Duration::from_nanos(u64::from_be_bytes(*sent));
    Some((Term(u64::from_be_bytes(*term)), MonoTime(sent)))
}

/// Whether somebody waits for what a heartbeat, or the echo of one, proves.
pub(crate) fn is_wanted(message: &Message) -> bool {
    message.context.len() == PROOF_CONTEXT_BYTES && message.context.last() == Some(&WANTED)
}

/// Whether another node may send this: proposals, reads and wishes of the local node may not come from outside, and
/// snapshots go their own way.
fn may_come_from_a_peer(message: &Message) -> bool {
    match message.get_msg_type() {
        MessageType::MsgAppend
        | MessageType::MsgAppendResponse
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgTimeoutNow => true,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgSnapshot
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp => false,
    }
}
