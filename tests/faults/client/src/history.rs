//! The history file: one line of JSON for each operation, as the checker beside this client reads it.
//!
//! Called by `workload`. Always holds: times are nanoseconds of the machine's monotonic clock, which the clients in Python
//! use as well, so that histories of one machine can be compared.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use mongodb::error::ErrorKind;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde_json::{Value, json};

/// Longer texts of errors are cut.
const ERROR_CHARS_MAX: usize = 300;

/// What a client asks for, with the name that the checker knows.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Append,
    Read,
    Count,
}

/// A question: its kind, the document that it is about, and what it appends.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) kind: Kind,
    pub(crate) key: String,
    pub(crate) value: Option<i64>,
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    process: i64,
    kind: Kind,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<i64>,
    outcome: &'a str,
    #[serde(flatten)]
    answer: Value,
    start: u64,
    end: u64,
}

/// The file of one process.
#[derive(Debug)]
pub(crate) struct History {
    file: BufWriter<File>,
    process: i64,
}

impl History {
    pub(crate) fn create(path: &str, process: i64) -> io::Result<History> {
        Ok(History { file: BufWriter::new(File::create(path)?), process })
    }

    /// Asks, and writes down what the answer was. An append has the answer `None`.
    pub(crate) fn note(
        &mut self,
        question: &Question,
        ask: impl FnOnce(&Question) -> mongodb::error::Result<Option<Value>>,
    ) -> io::Result<()> {
        let start = now_ns();
        let answer = ask(question);
        let end = now_ns();
        let (outcome, answer) = match answer {
            Ok(Some(result)) => ("ok", json!({ "result": result })),
            Ok(None) => ("ok", json!({})),
            Err(error) => ("unknown", failure(&error)),
        };
        let Question { kind, key, value } = question;
        let line =
            Line { process: self.process, kind: *kind, key, value: *value, outcome, answer, start, end };
        serde_json::to_writer(&mut self.file, &line)?;
        self.file.write_all(b"\n")
    }

    /// Nothing is left in memory.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// What a client was told in the place of an answer.
fn failure(error: &mongodb::error::Error) -> Value {
    let text: String = format!("rust driver: {error}").chars().take(ERROR_CHARS_MAX).collect();
    json!({ "error": text, "code": code(error) })
}

fn code(error: &mongodb::error::Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(failed) => Some(failed.code),
        ErrorKind::Write(mongodb::error::WriteFailure::WriteError(failed)) => Some(failed.code),
        _ => None,
    }
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // The clock counts from the machine's start: it is never negative.
    (now.tv_sec.unsigned_abs()) * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
