//! What was found: anomalies, and the summary of a run.
//!
//! Called by `main` and by the checks. Always holds: the number of anomalies is the whole number, whatever is left out of
//! what is shown.

use std::fmt;

use crate::history::{Action, History, Operation, Seconds};

/// More anomalies than these, and more operations of one anomaly, are counted and not shown.
const SHOWN_MAX: usize = 20;

/// Something that a correct database never lets its clients see.
#[derive(Debug)]
pub(crate) struct Anomaly<'a> {
    pub(crate) key: String,
    pub(crate) message: String,
    pub(crate) operations: Vec<&'a Operation>,
}

impl<'a> Anomaly<'a> {
    pub(crate) fn new(key: &str, message: impl Into<String>, operations: &[&'a Operation]) -> Anomaly<'a> {
        Anomaly { key: key.into(), message: message.into(), operations: operations.to_vec() }
    }
}

impl fmt::Display for Anomaly<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.key, self.message)?;
        for operation in self.operations.iter().take(SHOWN_MAX) {
            writeln!(f, "    {operation}")?;
        }
        write_rest(f, self.operations.len(), "operations")
    }
}

fn write_rest(f: &mut fmt::Formatter<'_>, len: usize, what: &str) -> fmt::Result {
    match len.saturating_sub(SHOWN_MAX) {
        0 => Ok(()),
        rest => writeln!(f, "    and {rest} more {what}"),
    }
}

/// The summary of a run.
#[derive(Debug)]
pub(crate) struct Summary<'a> {
    pub(crate) history: &'a History,
    pub(crate) anomalies: &'a [Anomaly<'a>],
    /// Acknowledged appends of which nothing that came later could show whether they are there.
    pub(crate) unverified: usize,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let history = self.history;
        let all = || history.lists.values().chain(history.counters.values()).flatten();
        let of = |kind: fn(&Action) -> bool| all().filter(|operation| kind(&operation.action)).count();
        let appends = of(|action| matches!(action, Action::Append(_)));
        let reads = of(|action| matches!(action, Action::Read(_))) + history.unknown_reads;
        let counts = of(|action| matches!(action, Action::Count(_)));
        let unknown = all().filter(|operation| !operation.is_acknowledged).count() + history.unknown_reads;
        let (lists, counters) = (history.lists.len(), history.counters.len());
        writeln!(f, "files       {}", history.files)?;
        let total = appends + reads + counts;
        writeln!(f, "operations  {total} ({appends} appends, {reads} reads, {counts} counts)")?;
        writeln!(f, "unknown     {unknown}")?;
        writeln!(f, "keys        {} ({lists} lists, {counters} counters)", lists + counters)?;
        writeln!(
            f,
            "unverified  {} acknowledged appends that no later read shows or misses",
            self.unverified
        )?;
        if let Some((time, operation)) = &history.longest {
            writeln!(f, "longest     {} s: {operation}", Seconds(*time))?;
        }
        writeln!(f, "anomalies   {}", self.anomalies.len())?;
        for anomaly in self.anomalies.iter().take(SHOWN_MAX) {
            write!(f, "\n{anomaly}")?;
        }
        write_rest(f, self.anomalies.len(), "anomalies")
    }
}
