//! What clients asked for and what they were told, with the order in which both happened.
//!
//! Filled by clients, read by the checkers. Every write is sent again until it is answered, so at the end of a run its
//! outcome is known: it happened exactly once, or it was refused.

use std::collections::{BTreeMap, BTreeSet};

/// See the module's comment.
#[derive(Debug, Default)]
pub(crate) struct History {
    clock: u64,
    /// Operations on each register.
    pub(crate) registers: BTreeMap<String, Vec<RegisterOp>>,
    /// Increments of each counter that were answered.
    pub(crate) increments: BTreeMap<String, u64>,
    /// Elements appended to each list, by the moment in which their append was answered.
    pub(crate) appends: BTreeMap<String, BTreeMap<i64, u64>>,
    /// Contents of lists that were read, and the moment in which the read began.
    pub(crate) list_reads: Vec<(String, u64, Vec<i64>)>,
    /// Documents that exist, with the seat each one holds.
    pub(crate) documents: BTreeMap<String, i64>,
    /// Documents that were deleted.
    pub(crate) deleted: BTreeSet<String>,
    /// Seats for which an insert was refused as a duplicate.
    pub(crate) refused_seats: BTreeSet<i64>,
    /// Seats for which an insert was ever answered with success.
    pub(crate) taken_seats: BTreeSet<i64>,
    /// Collections that were created.
    pub(crate) collections: BTreeSet<String>,
    /// Operations that were answered.
    pub(crate) answered: u64,
    /// Times that a request was sent again.
    pub(crate) resent: u64,
    /// What went wrong while clients ran.
    pub(crate) violations: Vec<String>,
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
}
