//! `$sort`: all rows in order; with a limit behind it, only the first ones are held.
//!
//! Always holds: rows with equal keys stay in the order in which they came.

use std::collections::BinaryHeap;

use base::{Code, Error, Result, limits};

use super::{Stage, Step};
use crate::context::{EvalContext, Variables};
use crate::pipeline::row::Row;
use crate::pipeline::runner::{Emit, Flow};
use crate::sort::SortSpec;
use crate::value::Value;

pub(super) fn parse(argument: &Value<'_>, _: &Variables, out: &mut Vec<Stage>) -> Result<()> {
    let document = argument
        .as_document()
        .ok_or_else(|| Error::new(Code(15973), "the $sort key specification must be an object"))?;
    if document.is_empty() {
        return Err(Error::new(Code(15976), "$sort stage must have at least one sort key"));
    }
    out.push(Stage::Sort { spec: SortSpec::parse(document)?, limit: None });
    Ok(())
}

/// A row with what it is ordered by. The greatest is on top of the heap.
struct Entry {
    key: Vec<u8>,
    arrival: u64,
    row: Row,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        self.key.cmp(&other.key).then(self.arrival.cmp(&other.arrival))
    }
}

impl Entry {
    fn memory_bytes(&self) -> usize {
        size_of::<Entry>() + self.key.len() + self.row.memory_bytes()
    }
}

pub(super) struct SortStep {
    spec: SortSpec,
    limit: Option<u64>,
    heap: BinaryHeap<Entry>,
    arrivals: u64,
    memory_bytes: usize,
    sorted: std::vec::IntoIter<Entry>,
}

impl SortStep {
    pub(super) fn new(spec: SortSpec, limit: Option<u64>) -> SortStep {
        let (heap, sorted) = (BinaryHeap::new(), Vec::new().into_iter());
        SortStep { spec, limit, heap, arrivals: 0, memory_bytes: 0, sorted }
    }

    fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.heap.len() as u64 >= limit)
    }
}

impl Step for SortStep {
    fn push(&mut self, row: Row, _: &EvalContext, _: Emit<'_>) -> Result<Flow> {
        let key = self.spec.key(row.as_doc());
        if self.is_full() {
            // Of equal keys the earlier row stays.
            if self.heap.peek().is_none_or(|last| last.key <= key) {
                return Ok(Flow::More);
            }
            if let Some(last) = self.heap.pop() {
                self.memory_bytes = self.memory_bytes.saturating_sub(last.memory_bytes());
            }
        }
        let entry = Entry { key, arrival: self.arrivals, row };
        self.arrivals += 1;
        self.memory_bytes += entry.memory_bytes();
        if self.memory_bytes > limits::SORT_MEMORY_BYTES_MAX {
            let message = format!(
                "PlanExecutor error during aggregation :: caused by :: Sort exceeded memory limit of {} bytes, \
                 but did not opt in to external sorting.",
                limits::SORT_MEMORY_BYTES_MAX
            );
            return Err(Error::new(Code::QUERY_EXCEEDED_MEMORY_LIMIT, message));
        }
        self.heap.push(entry);
        Ok(Flow::More)
    }

    fn seal(&mut self, _: &EvalContext) -> Result<()> {
        self.sorted = std::mem::take(&mut self.heap).into_sorted_vec().into_iter();
        Ok(())
    }

    fn next_held(&mut self) -> Result<Option<Row>> {
        Ok(self.sorted.next().map(|entry| entry.row))
    }
}
