//! One replica's seat in its Raft group: the consensus library as a pure state machine, and the order that it demands.
//!
//! Driven by the owner loop only. [`Group::drive`] turns whatever the library has ready into three lists: log writes to
//! make durable, committed entries to apply, messages to send. Always holds: messages that promise something (votes,
//! acknowledgements) leave only after what they promise is durable; log writes are reported durable in order; proposals
//! are handed to the library only while this replica leads.

use std::collections::VecDeque;

use base::{Entropy, LogIndex, ReplicaId, Term};
use raft::eraftpb::{Entry, EntryType, Message};
use raft::{RawNode, StateRole};
use storage::{Fault, LogEntry};

use crate::log_store::{LogStore, to_log};

/// Length of a tick in milliseconds.
pub(crate) const TICK_MS: u64 = 50;
const HEARTBEAT_TICKS: usize = 2;
const ELECTION_TICKS: usize = 8;
const ELECTION_TICKS_MAX: usize = 16;
const MESSAGE_BYTES_MAX: u64 = 1024 * 1024;
const MESSAGES_IN_FLIGHT_MAX: usize = 256;

/// See the module's comment.
pub(crate) struct Group {
    raw: RawNode<LogStore>,
    /// Numbers of the library's batches of work whose log writes are not durable yet.
    unlogged: VecDeque<u64>,
    last_number: u64,
    /// Messages that wait until everything up to a number is durable.
    held: VecDeque<(u64, Vec<Message>)>,
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
    /// Starts from what the log store holds, with everything up to `applied` applied.
    pub(crate) fn new(replica: ReplicaId, log: LogStore, applied: LogIndex) -> storage::Result<Group> {
        let config = raft::Config {
            id: replica.get(),
            election_tick: ELECTION_TICKS,
            min_election_tick: ELECTION_TICKS,
            max_election_tick: ELECTION_TICKS_MAX,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: applied.get(),
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            max_committed_size_per_ready: base::limits::ENTRY_BYTES_MAX as u64,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, log, &logger)
            .map_err(|error| Fault::corruption(format!("{replica} cannot take part in Raft: {error}")))?;
        Ok(Group { raw, unlogged: VecDeque::new(), last_number: 0, held: VecDeque::new() })
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
        self.stepping(entropy, |raw| raw.campaign())
            .map_err(|error| Fault::corruption(format!("an election cannot start: {error}")))
    }

    /// Time passes by one tick.
    pub(crate) fn tick(&mut self, entropy: &dyn Entropy) {
        self.stepping(entropy, RawNode::tick);
    }

    /// Appends an entry, and returns its index; `None` when the library refuses it. Only while this replica leads.
    pub(crate) fn propose(&mut self, data: Vec<u8>) -> Option<LogIndex> {
        assert!(self.leads(), "a forwarded physical write corrupts");
        self.raw.propose(Vec::new(), data).ok()?;
        Some(self.last_index())
    }

    /// Collects everything that the library wants done. Faults on an entry that this version cannot apply.
    pub(crate) fn drive(&mut self) -> storage::Result<Work> {
        let mut work = Work::default();
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            let number = ready.number();
            self.last_number = number;
            work.messages.append(&mut ready.take_messages());
            work.committed.append(&mut ready.take_committed_entries());
            if !ready.snapshot().is_empty() {
                return Err(Fault::corruption("a snapshot arrived that nobody asked for"));
            }
            if ready.must_sync() {
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
                self.release_messages(number, &mut work);
            }
        }
        self.unlogged.extend(work.logging.as_ref().map(|logging| logging.number));
        work.committed.iter().try_for_each(check_kind)?;
        Ok(work)
    }

    /// The log writes up to `number` are durable. [`Group::drive`] then finds what follows from it.
    pub(crate) fn logged(&mut self, number: u64) -> Work {
        let mut work = Work::default();
        while self.unlogged.pop_front_if(|waiting| *waiting <= number).is_some() {}
        let durable = self.unlogged.front().map_or(self.last_number, |waiting| waiting - 1);
        self.raw.on_persist_ready(durable);
        self.release_messages(durable, &mut work);
        work
    }

    /// Whether every log write is durable.
    pub(crate) fn is_idle(&self) -> bool {
        self.unlogged.is_empty()
    }

    /// Everything up to `index` is applied.
    pub(crate) fn applied(&mut self, index: LogIndex) {
        self.raw.advance_apply_to(index.get());
    }

    fn release_messages(&mut self, number: u64, work: &mut Work) {
        while let Some((_, mut messages)) = self.held.pop_front_if(|(waits_for, _)| *waits_for <= number) {
            work.messages.append(&mut messages);
        }
    }

    /// Runs a step that may change role or term; the election timeout that follows then comes from our own randomness.
    fn stepping<R>(&mut self, entropy: &dyn Entropy, step: impl FnOnce(&mut RawNode<LogStore>) -> R) -> R {
        let before = (self.raw.raft.term, self.raw.raft.state);
        let result = step(&mut self.raw);
        if before != (self.raw.raft.term, self.raw.raft.state) {
            let spread = entropy.below((ELECTION_TICKS_MAX - ELECTION_TICKS) as u64);
            let timeout = ELECTION_TICKS + usize::try_from(spread).expect("below the number of ticks");
            self.raw.raft.set_randomized_election_timeout(timeout);
        }
        result
    }
}

fn check_kind(entry: &Entry) -> storage::Result<()> {
    if entry.entry_type == EntryType::EntryNormal {
        return Ok(());
    }
    let message = format!("Raft entry {} changes the membership, which this version cannot do", entry.index);
    Err(Fault::corruption(message))
}
