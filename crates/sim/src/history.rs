//! What clients asked for and what they were told, with the order in which both happened.
//!
//! Filled by clients, read by the checkers. Every write is sent again until it is answered, so at the end of a run its
//! outcome is known: it happened exactly once, or it was refused.

use std::collections::{BTreeMap, BTreeSet};

/// A moment that has not come.
pub(crate) const NEVER: u64 = u64::MAX;

/// See the module's comment.
#[derive(Debug, Default)]
pub(crate) struct History {
    clock: u64,
    /// Operations on each register.
    pub(crate) registers: BTreeMap<String, Vec<RegisterOp>>,
    /// When each increment of a counter was asked for and answered.
    pub(crate) increments: BTreeMap<String, Vec<(u64, u64)>>,
    /// When each update of all documents that are counted together was asked for and answered.
    pub(crate) sweeps: Vec<(u64, u64)>,
    /// Reads of counters.
    pub(crate) counter_reads: Vec<(String, Read<i64>)>,
    /// Elements appended to each list, by the moment in which their append was answered.
    pub(crate) appends: BTreeMap<String, BTreeMap<i64, u64>>,
    /// Reads of lists.
    pub(crate) list_reads: Vec<(String, Read<Vec<i64>>)>,
    /// The lists as they were last shown to somebody who allowed them to be behind, by who showed them and by the process.
    pub(crate) behind: BTreeMap<(String, u64, String), Vec<i64>>,
    /// Documents that exist, with the seat each one holds.
    pub(crate) documents: BTreeMap<String, i64>,
    /// Documents whose insert was refused, although an earlier sending of it may still have happened later.
    pub(crate) doubtful: BTreeMap<String, i64>,
    /// Documents that were deleted.
    pub(crate) deleted: BTreeSet<String>,
    /// Who held each seat, and when.
    pub(crate) holdings: BTreeMap<i64, Vec<Holding>>,
    /// Inserts that were refused since somebody held the seat: seat, asked, answered.
    pub(crate) refusals: Vec<(i64, u64, u64)>,
    /// The document that clients race to insert now.
    pub(crate) claim: u64,
    /// Collections that were created.
    pub(crate) collections: BTreeSet<String>,
    /// Collections that somebody began to create, and may not have waited for.
    pub(crate) doubtful_collections: BTreeSet<String>,
    /// Clients that came with a fault.
    pub(crate) passers_by: u64,
    /// Operations that were answered.
    pub(crate) answered: u64,
    /// Times that a request was sent again.
    pub(crate) resent: u64,
    /// What went wrong while clients ran.
    pub(crate) violations: Vec<String>,
}

/// A read that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Read<T> {
    /// When it was asked for.
    pub(crate) invoked: u64,
    /// When it was answered.
    pub(crate) answered: u64,
    /// What it saw.
    pub(crate) value: T,
}

/// A document that holds a seat from some moment between the first two to some moment between the last two.
#[derive(Clone, Debug)]
pub(crate) struct Holding {
    pub(crate) document: String,
    pub(crate) insert_invoked: u64,
    /// [`NEVER`] when it may not have happened.
    pub(crate) insert_answered: u64,
    pub(crate) delete_invoked: u64,
    pub(crate) delete_answered: u64,
}

/// One operation on a register.
#[derive(Clone, Debug)]
pub(crate) struct RegisterOp {
    /// When it was asked for.
    pub(crate) invoked: u64,
    /// When it was answered.
    pub(crate) answered: u64,
    /// What it did.
    pub(crate) action: RegisterAction,
}

/// What an operation did to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegisterAction {
    /// Wrote a value that nobody else writes.
    Write(i64),
    /// Read a value.
    Read(i64),
}

impl History {
    /// The next moment.
    pub(crate) fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Records something that must not happen.
    pub(crate) fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// An operation on a register has been answered.
    pub(crate) fn note_register(&mut self, name: String, invoked: u64, action: RegisterAction) {
        let answered = self.now();
        self.registers.entry(name).or_default().push(RegisterOp { invoked, answered, action });
    }

    /// An increment of a counter is asked for. Nobody knows yet when it will be answered; a read may see it before. Returns which
    /// one of the counter it is.
    pub(crate) fn begin_increment(&mut self, name: &str) -> usize {
        let invoked = self.now();
        let increments = self.increments.entry(name.to_owned()).or_default();
        increments.push((invoked, NEVER));
        increments.len() - 1
    }

    /// It has been answered.
    pub(crate) fn end_increment(&mut self, name: &str, at: usize) {
        let answered = self.now();
        let increment = self.increments.get_mut(name).and_then(|increments| increments.get_mut(at));
        increment.expect("it was asked for").1 = answered;
    }

    /// A read of a counter has been answered.
    pub(crate) fn note_counter(&mut self, name: String, invoked: u64, value: i64) {
        let answered = self.now();
        self.counter_reads.push((name, Read { invoked, answered, value }));
    }

    /// An append to a list has been answered.
    pub(crate) fn note_append(&mut self, name: String, element: i64) {
        let answered = self.now();
        self.appends.entry(name).or_default().insert(element, answered);
    }

    /// A read of a list has been answered.
    pub(crate) fn note_list(&mut self, name: String, invoked: u64, value: Vec<i64>) {
        let answered = self.now();
        self.list_reads.push((name, Read { invoked, answered, value }));
    }

    /// A document holds a seat, or, when its insert is not `answered`, may do so.
    pub(crate) fn note_holding(&mut self, document: &str, seat: i64, invoked: u64, answered: u64) {
        self.holdings.entry(seat).or_default().push(Holding {
            document: document.to_owned(),
            insert_invoked: invoked,
            insert_answered: answered,
            delete_invoked: NEVER,
            delete_answered: NEVER,
        });
    }

    /// A document gave up its seat.
    pub(crate) fn note_release(&mut self, document: &str, invoked: u64, answered: u64) {
        let Some(seat) = self.documents.remove(document) else { return };
        let holdings = self.holdings.entry(seat).or_default();
        for holding in holdings.iter_mut().filter(|holding| holding.document == document) {
            holding.delete_invoked = invoked;
            holding.delete_answered = answered;
        }
        self.deleted.insert(document.to_owned());
    }
}
