//! What replicas do, as events: for protocol traces in tests and for the simulator's running hash.
//!
//! Emitted by owner loops and the apply side when the host was given a sink. Never read by the replicas themselves.

use std::fmt;

use base::{LogIndex, ReplicaId, Term, Timestamp};

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
    /// Stopped.
    Stopped,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Opened { term, commit, applied, last } => {
                write!(f, "opened at {term}: commit {commit}, applied {applied}, last {last}")
            }
            Event::Leads { term, first } => write!(f, "leads {term}, first entry {first}"),
            Event::Stepped { term } => write!(f, "leads {term} no longer"),
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
            Event::Stopped => write!(f, "stopped"),
        }
    }
}
