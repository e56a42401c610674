//! Reads on one shard's view: streams the documents of a plan through filter, sort, skip and limit.
//!
//! Called by the router for `find`, `aggregate`, `count`, `distinct` and the candidates of writes. Works in slices, so that
//! one call never runs for long, and can give its view back between calls and go on with a newer one. Always holds: a
//! document that the filter refuses costs no allocation here; each document comes out at most once.

mod distinct;
mod sorter;
mod source;
mod validate;

use std::sync::Arc;

use document::filter::Filter;
use document::sort::SortSpec;
use document::{DocBuf, EvalContext};
use storage::View;

use crate::Failure;
use crate::encoding::Count;
use crate::plan::{Access, Plan};
use sorter::Sorter;
use source::{Found, Next, Source};

pub use distinct::Distinct;
pub use validate::{ValidationReport, validate};

/// What a read does with the documents of its plan.
#[derive(Clone, Debug)]
pub struct FindRequest {
    /// Which documents.
    pub filter: Arc<Filter>,
    /// In which order.
    pub sort: Option<Arc<SortSpec>>,
    /// How many of them to leave out first.
    pub skip: u64,
    /// How many to give at most.
    pub limit: Option<u64>,
    /// The command's time and variables.
    pub context: EvalContext,
}

/// How much one call may do.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// Most documents to give.
    pub documents_max: usize,
    /// Most bytes of documents to give; the first document may exceed it.
    pub bytes_max: usize,
    /// Most documents and index entries to look at.
    pub examined_max: u64,
}

impl Slice {
    /// Documents and entries that take about a millisecond.
    pub const EXAMINED_DEFAULT: u64 = 1_000;

    /// A slice without limits on what it gives.
    pub fn examining(examined_max: u64) -> Slice {
        Slice { documents_max: usize::MAX, bytes_max: usize::MAX, examined_max }
    }
}

/// Why a call returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// As many documents or bytes as asked for; there may be more.
    Full,
    /// As much looked at as allowed: call again, after others had their turn.
    Paused,
    /// There are no more documents.
    Done,
}

/// What a read has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Index entries visited.
    pub keys_examined: u64,
    /// Documents looked at.
    pub docs_examined: u64,
    /// Documents that the filter accepted.
    pub matched: u64,
    /// Documents given.
    pub returned: u64,
}

/// A document with its key, for writes.
#[derive(Clone, Debug)]
pub struct Located {
    /// The document's key in the shard's keyspace.
    pub key: bytes::Bytes,
    /// The document.
    pub document: DocBuf,
}

/// A running read.
pub struct FindExecutor {
    plan: Arc<Plan>,
    request: FindRequest,
    source: Source,
    stage: Stage,
    skipped: u64,
    passed: u64,
    counters: Counters,
    /// A document that did not fit into the last slice.
    held: Option<Located>,
}

/// Where sorted documents stand.
enum Stage {
    /// Documents go out as they are found.
    Streaming,
    /// Documents are collected; none goes out before all are seen.
    Collecting(Sorter),
    /// Sorted documents go out; the view is not needed any more.
    Draining(std::vec::IntoIter<Located>),
}

impl FindExecutor {
    /// Starts a read of `plan` on `view`.
    pub fn new(plan: Arc<Plan>, request: FindRequest, view: Arc<dyn View>) -> FindExecutor {
        let stage = match (&request.sort, plan.sort_needed) {
            (Some(sort), true) => {
                let keep = request.limit.map(|limit| limit.saturating_add(request.skip));
                Stage::Collecting(Sorter::new(sort.clone(), keep))
            }
            _ => Stage::Streaming,
        };
        let source = Source::new(&plan.access, view);
        FindExecutor {
            plan,
            request,
            source,
            stage,
            skipped: 0,
            passed: 0,
            counters: Counters::default(),
            held: None,
        }
    }

    /// Adds the next documents to `out`.
    pub fn next_batch(&mut self, slice: &Slice, out: &mut Vec<DocBuf>) -> Result<Progress, Failure> {
        let (mut given, mut bytes) = (0, 0);
        let stop_at = self.examined().saturating_add(slice.examined_max);
        loop {
            if given >= slice.documents_max {
                return Ok(Progress::Full);
            }
            let located = match self.next_located(stop_at)? {
                Step::Document(located) => located,
                Step::Paused => return Ok(Progress::Paused),
                Step::Done => return Ok(Progress::Done),
            };
            let document = located.document.clone();
            let fits = document.bytes().len() <= slice.bytes_max.saturating_sub(bytes);
            if given > 0 && !fits {
                self.hold(located);
                return Ok(Progress::Full);
            }
            given += 1;
            bytes += document.bytes().len();
            out.push(document);
        }
    }

    /// Adds the next documents to `out` with their keys: the candidates of a write.
    pub fn next_located_batch(&mut self, slice: &Slice, out: &mut Vec<Located>) -> Result<Progress, Failure> {
        let stop_at = self.examined().saturating_add(slice.examined_max);
        let mut given = 0;
        while given < slice.documents_max {
            match self.next_located(stop_at)? {
                Step::Document(located) => out.push(located),
                Step::Paused => return Ok(Progress::Paused),
                Step::Done => return Ok(Progress::Done),
            }
            given += 1;
        }
        Ok(Progress::Full)
    }

    /// Counts the next documents without keeping them; from index entries alone where their bounds say all.
    pub fn count_batch(&mut self, examined_max: u64) -> Result<(u64, Progress), Failure> {
        let stop_at = self.examined().saturating_add(examined_max);
        let by_entries = matches!(&self.plan.access, Access::Index(access) if access.is_exact)
            && matches!(self.stage, Stage::Streaming);
        let mut counted = 0;
        loop {
            let step =
                if by_entries { self.next_key(stop_at)? } else { self.next_located(stop_at)?.map(drop) };
            match step {
                Step::Document(()) => counted += 1,
                Step::Paused => return Ok((counted, Progress::Paused)),
                Step::Done => return Ok((counted, Progress::Done)),
            }
        }
    }

    /// What the read has done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The plan that it runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Gives the view back. The read needs a new one before it goes on, unless it is past its sort.
    pub fn release_view(&mut self) {
        self.source.release_view();
    }

    /// Whether the read holds a view, or can go on without one.
    pub fn is_ready(&self) -> bool {
        self.source.has_view() || matches!(self.stage, Stage::Draining(_))
    }

    /// Goes on with a newer view, right after the last document or entry that was looked at.
    pub fn resume(&mut self, view: Arc<dyn View>) {
        self.source.resume(view);
    }

    fn examined(&self) -> u64 {
        self.counters.keys_examined + self.counters.docs_examined
    }

    /// The next document after sort, skip and limit.
    fn next_located(&mut self, stop_at: u64) -> Result<Step, Failure> {
        if let Some(held) = self.held.take() {
            self.counters.returned += 1;
            return Ok(Step::Document(held));
        }
        loop {
            if self.request.limit.is_some_and(|limit| self.passed >= limit) {
                return Ok(Step::Done);
            }
            let located = match self.next_ordered(stop_at)? {
                Step::Document(located) => located,
                step => return Ok(step),
            };
            if self.skipped < self.request.skip {
                self.skipped += 1;
                continue;
            }
            self.passed += 1;
            self.counters.returned += 1;
            return Ok(Step::Document(located));
        }
    }

    /// As `next_located`, without the documents.
    fn next_key(&mut self, stop_at: u64) -> Result<Step<()>, Failure> {
        loop {
            if self.request.limit.is_some_and(|limit| self.passed >= limit) {
                return Ok(Step::Done);
            }
            match self.source.next_key(&mut self.counters, stop_at)? {
                Next::Paused => return Ok(Step::Paused),
                Next::Done => return Ok(Step::Done),
                Next::Found(()) if self.skipped < self.request.skip => self.skipped += 1,
                Next::Found(()) => {
                    self.passed += 1;
                    self.counters.matched += 1;
                    self.counters.returned += 1;
                    return Ok(Step::Document(()));
                }
            }
        }
    }

    /// The next document in the order asked for.
    fn next_ordered(&mut self, stop_at: u64) -> Result<Step, Failure> {
        if let Stage::Draining(sorted) = &mut self.stage {
            return Ok(sorted.next().map_or(Step::Done, Step::Document));
        }
        loop {
            let located = match self.next_matching(stop_at)? {
                Step::Document(located) => located,
                Step::Paused => return Ok(Step::Paused),
                Step::Done => return Ok(self.finish_sort()),
            };
            match &mut self.stage {
                Stage::Collecting(sorter) => sorter.push(located)?,
                _ => return Ok(Step::Document(located)),
            }
        }
    }

    fn finish_sort(&mut self) -> Step {
        let Stage::Collecting(sorter) = &mut self.stage else { return Step::Done };
        let mut sorted = sorter.finish().into_iter();
        let first = sorted.next();
        self.stage = Stage::Draining(sorted);
        self.source.release_view();
        first.map_or(Step::Done, Step::Document)
    }

    /// The next document that the filter accepts.
    fn next_matching(&mut self, stop_at: u64) -> Result<Step, Failure> {
        loop {
            let found = match self.source.next(&mut self.counters, stop_at)? {
                Next::Found(found) => found,
                Next::Paused => return Ok(Step::Paused),
                Next::Done => return Ok(Step::Done),
            };
            let Found { key, document } = found;
            if self.request.filter.matches(document.as_doc(), &self.request.context)? {
                self.counters.matched += 1;
                return Ok(Step::Document(Located { key, document }));
            }
        }
    }

    fn hold(&mut self, located: Located) {
        self.counters.returned -= 1;
        self.held = Some(located);
    }
}

/// One document, or why there is none now.
enum Step<T = Located> {
    Document(T),
    Paused,
    Done,
}

impl<T> Step<T> {
    fn map<U>(self, f: impl FnOnce(T) -> U) -> Step<U> {
        match self {
            Step::Document(document) => Step::Document(f(document)),
            Step::Paused => Step::Paused,
            Step::Done => Step::Done,
        }
    }
}

/// The documents of the shard and their bytes, without a scan.
pub fn collection_count(view: &dyn View) -> Result<Count, Failure> {
    Ok(Count::decode(view.get(crate::encoding::COUNT_KEY)?.as_deref())?)
}
