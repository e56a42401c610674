//! Moves rows through stages.
//!
//! Called by `query` on a shard and by `router` behind the merge: `push` every row until it answers [`Flow::Done`] or
//! there is none left, then `finish`, then `drain` until it answers false.
//!
//! Always holds: rows come out in the order that the stages define; after an error the runner is not used again.

use std::collections::VecDeque;

use base::{Code, Error, Result, limits};

use super::row::Row;
use super::stage::{Stage, Step};
use crate::context::EvalContext;

/// Whether more rows are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    More,
    /// No further row can change the result. `finish` and `drain` still follow.
    Done,
}

/// A running pipeline.
pub struct Runner {
    steps: Vec<Box<dyn Step>>,
    cx: EvalContext,
    done: bool,
    /// The step whose held rows are drained now; earlier ones are exhausted.
    draining: usize,
    /// Whether the step at `draining` was told that its input has ended.
    sealed: bool,
    /// Rows that came out and did not fit the last `drain`.
    ready: VecDeque<Row>,
}

impl Runner {
    /// A runner over `stages`.
    ///
    /// # Panics
    /// When a stage is a `$lookup`, which reads other collections: the caller runs it between two runners.
    pub fn new(stages: &[Stage], cx: EvalContext) -> Runner {
        let steps = stages.iter().map(Stage::step).collect();
        Runner { steps, cx, done: false, draining: 0, sealed: false, ready: VecDeque::new() }
    }

    /// Takes one row. Rows that are complete are appended to `out`. Rows after [`Flow::Done`] are ignored.
    ///
    /// Errors: what an expression refuses; 292 when a stage holds too much.
    pub fn push(&mut self, row: Row, out: &mut Vec<Row>) -> Result<Flow> {
        if self.done {
            return Ok(Flow::Done);
        }
        let start = out.len();
        let mut held_bytes = 0_usize;
        let flow = feed(&mut self.steps, row, &self.cx, &mut |row| {
            // One row may unwind into very many.
            if out.len() > start {
                held_bytes = held_bytes.saturating_add(row.memory_bytes());
                check_memory(held_bytes)?;
            }
            out.push(row);
            Ok(Flow::More)
        })?;
        self.done = flow == Flow::Done;
        Ok(flow)
    }

    /// The input has ended.
    pub fn finish(&mut self) -> Result<()> {
        self.done = true;
        Ok(())
    }

    /// Appends at most `max_rows` of the rows that blocking stages held. False when there is none left.
    pub fn drain(&mut self, max_rows: usize, out: &mut Vec<Row>) -> Result<bool> {
        let end = out.len().saturating_add(max_rows);
        loop {
            while out.len() < end {
                let Some(row) = self.ready.pop_front() else {
                    break;
                };
                out.push(row);
            }
            if out.len() >= end {
                return Ok(true);
            }
            if !self.advance()? {
                return Ok(false);
            }
        }
    }

    /// Brings one held row further. False when all steps are exhausted.
    fn advance(&mut self) -> Result<bool> {
        let Some((step, rest)) = self.steps.get_mut(self.draining..).and_then(<[_]>::split_first_mut) else {
            return Ok(false);
        };
        if !self.sealed {
            step.seal(&self.cx)?;
            self.sealed = true;
        }
        let Some(row) = step.next_held()? else {
            self.draining += 1;
            self.sealed = false;
            return Ok(true);
        };
        let (ready, mut held_bytes) = (&mut self.ready, 0_usize);
        let flow = feed(rest, row, &self.cx, &mut |row| {
            if !ready.is_empty() {
                held_bytes = held_bytes.saturating_add(row.memory_bytes());
                check_memory(held_bytes)?;
            }
            ready.push_back(row);
            Ok(Flow::More)
        })?;
        if flow == Flow::Done {
            // The last step that wants nothing more ends all before it; those behind it are still to be sealed.
            let ended = self.steps.iter().rposition(|step| step.is_done());
            self.draining = ended.map_or(self.steps.len(), |index| index + 1);
            self.sealed = false;
        }
        Ok(true)
    }
}

/// Where a step puts its rows.
pub(crate) type Emit<'e> = &'e mut dyn FnMut(Row) -> Result<Flow>;

fn feed(steps: &mut [Box<dyn Step>], row: Row, cx: &EvalContext, emit: Emit<'_>) -> Result<Flow> {
    match steps.split_first_mut() {
        None => emit(row),
        Some((step, rest)) => step.push(row, cx, &mut |row| feed(rest, row, cx, emit)),
    }
}

fn check_memory(bytes: usize) -> Result<()> {
    if bytes <= limits::SORT_MEMORY_BYTES_MAX {
        return Ok(());
    }
    let limit = limits::SORT_MEMORY_BYTES_MAX;
    let message = format!(
        "PlanExecutor error during aggregation :: caused by :: one document unwinds into more than {limit} bytes"
    );
    Err(Error::new(Code::QUERY_EXCEEDED_MEMORY_LIMIT, message))
}
