//! What clients asked for and what they were told: the campaign's history files, read and sorted by key.
//!
//! Called by `main`. Always holds: every acknowledged operation has a result, no operation ends before it starts, and no
//! two operations append the same value to the same list, on which all checks rest.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Deserialize;
use serde_json::value::RawValue;

/// More values of a list than these are left out when an operation is shown.
const VALUES_SHOWN_AT_EACH_END: usize = 3;

/// What a client asked for, and the answer when there was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Appends the value to the list.
    Append(i64),
    /// Reads the whole list.
    Read(Vec<i64>),
    /// Adds one to the counter and returns its new value; `None` when the client was told nothing.
    Count(Option<i64>),
}

/// One operation of one client.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    /// The file and the line that it was read from.
    pub(crate) source: (Rc<str>, usize),
    pub(crate) process: i64,
    pub(crate) action: Action,
    /// Nanoseconds of the clock that all clients share.
    pub(crate) start: u64,
    /// When the client had its answer, or the exception in its place.
    pub(crate) end: u64,
    /// Whether the client had an answer. Else the operation takes effect at any time after `start`, or never.
    pub(crate) is_acknowledged: bool,
}

impl Operation {
    /// The time by which the operation has taken effect; `None` when nothing says that it ever does.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.is_acknowledged.then_some(self.end)
    }

    /// Whether the operation had been answered before `other` was asked for.
    pub(crate) fn precedes(&self, other: &Operation) -> bool {
        self.deadline().is_some_and(|deadline| deadline < other.start)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, line) = &self.source;
        write!(f, "{file}:{line} process {} ", self.process)?;
        match &self.action {
            Action::Append(value) => write!(f, "append {value}")?,
            Action::Read(list) => write_list(f, list)?,
            Action::Count(Some(count)) => write!(f, "count {count}")?,
            Action::Count(None) => write!(f, "count")?,
        }
        let outcome = if self.is_acknowledged { "ok" } else { "unknown" };
        write!(f, ", {outcome}, {} to {} s", Seconds(self.start), Seconds(self.end))
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, list: &[i64]) -> fmt::Result {
    let shown = VALUES_SHOWN_AT_EACH_END;
    match (list.get(..shown), list.len().checked_sub(shown).and_then(|from| list.get(from..))) {
        (Some(head), Some(tail)) if list.len() > 2 * shown => {
            write!(f, "read {head:?} ... {tail:?} of {} values", list.len())
        }
        _ => write!(f, "read {list:?}"),
    }
}

/// Nanoseconds, shown as seconds.
pub(crate) struct Seconds(pub(crate) u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// All operations of a campaign. A list and a counter of one name are different keys, as in the workload.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) files: usize,
    /// Unknown reads are left out: they say nothing and change nothing.
    pub(crate) lists: BTreeMap<String, Vec<Operation>>,
    pub(crate) counters: BTreeMap<String, Vec<Operation>>,
    pub(crate) unknown_reads: usize,
    /// How long the slowest operation took, and what it was.
    pub(crate) longest: Option<(u64, String)>,
}

/// A line of a history file.
#[derive(Deserialize)]
struct Line<'a> {
    process: i64,
    kind: Kind,
    key: String,
    value: Option<i64>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    outcome: Outcome,
    start: u64,
    end: u64,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Append,
    Read,
    Count,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    Unknown,
}

impl History {
    /// Reads the named files, and the history files of the named directories.
    pub(crate) fn read(arguments: &[PathBuf]) -> Result<History, String> {
        let mut history = History::default();
        for path in files(arguments)? {
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            history.add_file(&path, &text)?;
        }
        history.refuse_repeated_appends()?;
        Ok(history)
    }

    fn add_file(&mut self, path: &Path, text: &str) -> Result<(), String> {
        self.files += 1;
        let name: Rc<str> = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into();
        for (index, line) in text.lines().enumerate() {
            let source = (Rc::clone(&name), index + 1);
            self.add_line(source, line)
                .map_err(|error| format!("{}:{}: {error}", path.display(), index + 1))?;
        }
        Ok(())
    }

    fn add_line(&mut self, source: (Rc<str>, usize), line: &str) -> Result<(), String> {
        let line: Line<'_> = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if line.end < line.start {
            return Err("the operation ends before it starts".into());
        }
        let is_acknowledged = line.outcome == Outcome::Ok;
        let keys = if line.kind == Kind::Count { &mut self.counters } else { &mut self.lists };
        let operations = keys.entry(line.key.clone()).or_default();
        let Some(action) = action(&line)? else {
            self.unknown_reads += 1;
            return Ok(());
        };
        let (process, start, end) = (line.process, line.start, line.end);
        let operation = Operation { source, process, action, start, end, is_acknowledged };
        if self.longest.as_ref().is_none_or(|(longest, _)| *longest < end - start) {
            self.longest = Some((end - start, format!("{}: {operation}", line.key)));
        }
        operations.push(operation);
        Ok(())
    }

    fn refuse_repeated_appends(&self) -> Result<(), String> {
        for (key, operations) in &self.lists {
            let mut seen = HashSet::new();
            for operation in operations {
                if let Action::Append(value) = operation.action
                    && !seen.insert(value)
                {
                    return Err(format!("{key}: {value} is appended by two operations: {operation}"));
                }
            }
        }
        Ok(())
    }
}

/// What a line's operation is; `None` for a read without an answer.
fn action(line: &Line<'_>) -> Result<Option<Action>, String> {
    let is_acknowledged = line.outcome == Outcome::Ok;
    let result = line.result.map_or("null", RawValue::get);
    Ok(match line.kind {
        Kind::Append => Some(Action::Append(line.value.ok_or("an append without a value")?)),
        Kind::Read if is_acknowledged => Some(Action::Read(parse(result)?)),
        Kind::Read => None,
        Kind::Count if is_acknowledged => Some(Action::Count(Some(parse(result)?))),
        Kind::Count => Some(Action::Count(None)),
    })
}

fn parse<'a, T: Deserialize<'a>>(result: &'a str) -> Result<T, String> {
    serde_json::from_str(result).map_err(|error| format!("result: {error}"))
}

fn files(arguments: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for argument in arguments {
        if !argument.is_dir() {
            files.push(argument.clone());
            continue;
        }
        let entries = fs::read_dir(argument).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.map_err(|error| format!("{}: {error}", argument.display()))?;
        let before = files.len();
        files.extend(entries.iter().map(fs::DirEntry::path).filter(|path| is_history(path)));
        if files.len() == before {
            return Err(format!("{}: no history-*.jsonl in it", argument.display()));
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

fn is_history(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    name.starts_with("history-") && name.ends_with(".jsonl")
}

/// Operations for the tests of the checks, in short.
#[cfg(test)]
pub(crate) mod short {
    use super::{Action, Operation};

    pub(crate) fn append(value: i64, start: u64, end: u64) -> Operation {
        ok(Action::Append(value), start, end)
    }

    pub(crate) fn read(list: &[i64], start: u64, end: u64) -> Operation {
        ok(Action::Read(list.to_vec()), start, end)
    }

    pub(crate) fn count(result: i64, start: u64, end: u64) -> Operation {
        ok(Action::Count(Some(result)), start, end)
    }

    pub(crate) fn unknown(action: Action, start: u64) -> Operation {
        Operation { is_acknowledged: false, ..ok(action, start, start + 1) }
    }

    pub(crate) fn ok(action: Action, start: u64, end: u64) -> Operation {
        Operation { source: ("test".into(), 1), process: 1, action, start, end, is_acknowledged: true }
    }
}
