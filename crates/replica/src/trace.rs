//! What replicas do, as events: for protocol traces in tests and for the simulator's running hash.
//!
//! Emitted by owner loops and the apply side when the host was given a sink. Never read by the replicas themselves.

use std::fmt;

use base::{LogIndex, ReplicaId, Term, Timestamp};
use raft::eraftpb::{Message, MessageType};

use crate::membership::Membership;

/// Receives events in the order in which they happen on each replica.
pub trait TraceSink: Send + Sync + 'static {
    /// Takes one event of one replica.
    fn event(&self, replica: ReplicaId, event: &Event);
}

/// One step of a replica. Fields are what the texts of [`Event`]'s `Display` call them.
#[expect(missing_docs, reason = "each variant's sentence names its fields")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Opened with what the disk had.
    Opened { term: Term, commit: LogIndex, applied: LogIndex, last: LogIndex },
    /// Won an election; `first` is the first entry of its own term.
    Leads { term: Term, first: LogIndex },
    /// No longer leads the term that it led.
    Stepped { term: Term },
    /// Sleeps until something happens: its clock stands.
    Sleeps,
    /// Evaluates from here on: the first entry of its term is applied.
    Evaluates { from: LogIndex },
    /// Put commands into one entry.
    Proposed { index: LogIndex, commands: usize, bytes: usize, timestamp: Timestamp },
    /// Handed entries (and perhaps term and vote) to the log writer.
    Logging { number: u64, entries: Option<(LogIndex, LogIndex)>, vote: Option<Term> },
    /// The log writer made them durable.
    Logged { number: u64 },
    /// Learned that entries are committed.
    Committed { index: LogIndex },
    /// Answered commands whose entry, or whatever they were evaluated against, is committed.
    Answered { index: LogIndex, commands: usize },
    /// Applied entries to the store.
    Applied { first: LogIndex, last: LogIndex, changes: usize },
    /// Dropped entries up to `index` from the Raft log; the store has them durably.
    Compacted { index: LogIndex },
    /// Sent a message to a peer, at once or when others leave.
    Sent { to: ReplicaId, message: String, in_a_hurry: bool },
    /// Received a message from a peer.
    Received { from: ReplicaId, message: String },
    /// Began to answer reads by itself: a quorum acknowledged a proof that it leads.
    Leased { term: Term },
    /// Has a new membership.
    Changed { membership: Membership },
    /// Hands its role over.
    HandsOver { to: ReplicaId },
    /// Offers a snapshot to a replica that needs entries which are compacted away.
    Offers { to: ReplicaId, index: LogIndex },
    /// Stopped.
    Stopped,
}

impl Event {
    pub(crate) fn sent(message: &Message, in_a_hurry: bool) -> Event {
        Event::Sent { to: ReplicaId(message.to), message: describe(message), in_a_hurry }
    }

    pub(crate) fn received(message: &Message) -> Event {
        Event::Received { from: ReplicaId(message.from), message: describe(message) }
    }
}

/// A message in the words of the Raft paper.
fn describe(message: &Message) -> String {
    let Message { term, index, log_term, commit, reject, .. } = message;
    let answer = if *reject { "no" } else { "yes" };
    match message.get_msg_type() {
        MessageType::MsgAppend => {
            let entries =
                message.entries.iter().map(|entry| format!(" x{}", entry.index)).collect::<String>();
            format!("t{term} append after x{index} of t{log_term}:{entries} (commit x{commit})")
        }
        MessageType::MsgAppendResponse if *reject => {
            format!("t{term} refuses x{index}, has x{}", message.reject_hint)
        }
        MessageType::MsgAppendResponse => format!("t{term} has up to x{index}"),
        MessageType::MsgHeartbeat => format!("t{term} heartbeat (commit x{commit})"),
        MessageType::MsgHeartbeatResponse => format!("t{term} heartbeat seen"),
        MessageType::MsgRequestPreVote => format!("t{term} would you vote? (last x{index} of t{log_term})"),
        MessageType::MsgRequestPreVoteResponse => format!("t{term} would vote: {answer}"),
        MessageType::MsgRequestVote => format!("t{term} vote? (last x{index} of t{log_term})"),
        MessageType::MsgRequestVoteResponse => format!("t{term} votes: {answer}"),
        MessageType::MsgTimeoutNow => format!("t{term} campaign now"),
        other => format!("t{term} {other:?}"),
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Opened { term, commit, applied, last } => {
                write!(f, "opened at {term}: commit {commit}, applied {applied}, last {last}")
            }
            Event::Leads { term, first } => write!(f, "leads {term}, first entry {first}"),
            Event::Stepped { term } => write!(f, "leads {term} no longer"),
            Event::Sleeps => write!(f, "sleeps"),
            Event::Evaluates { from } => write!(f, "evaluates, having applied {from}"),
            Event::Proposed { index, commands, bytes, timestamp } => {
                write!(f, "proposed {index} with {commands} commands, {bytes} bytes, at {timestamp}")
            }
            Event::Logging { number, entries, vote } => {
                write!(f, "logging #{number}:")?;
                if let Some(term) = vote {
                    write!(f, " vote in {term}")?;
                }
                entries.iter().try_for_each(|(first, last)| write!(f, " entries {first}..={last}"))
            }
            Event::Logged { number } => write!(f, "logged #{number}"),
            Event::Committed { index } => write!(f, "committed {index}"),
            Event::Answered { index, commands } => write!(f, "answered {commands} commands at {index}"),
            Event::Applied { first, last, changes } => {
                write!(f, "applied {first}..={last}, {changes} changes")
            }
            Event::Compacted { index } => write!(f, "compacted to {index}"),
            Event::Sent { to, message, in_a_hurry: true } => write!(f, "-> {to}: {message}"),
            Event::Sent { to, message, in_a_hurry: false } => write!(f, "-> {to} with others: {message}"),
            Event::Received { from, message } => write!(f, "<- {from}: {message}"),
            Event::Leased { term } => write!(f, "has a lease in {term}"),
            Event::Changed { membership } => {
                write!(f, "voters {:?}", membership.voters)?;
                if membership.is_joint() {
                    write!(f, " and until then {:?}", membership.voters_outgoing)?;
                }
                match membership.learners.is_empty() {
                    true => Ok(()),
                    false => write!(f, ", learners {:?}", membership.learners),
                }
            }
            Event::HandsOver { to } => write!(f, "hands over to {to}"),
            Event::Offers { to, index } => write!(f, "offers {to} a snapshot at {index}"),
            Event::Stopped => write!(f, "stopped"),
        }
    }
}
