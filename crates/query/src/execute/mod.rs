//! Reads on one shard's view: streams the documents of a plan through filter, sort, skip and limit.
//!
//! Called by the router for `find`, `aggregate`, `count`, `distinct` and the candidates of writes. Works in slices, so that
//! one call never runs for long, can give its view back between calls and go on with a newer one, and can be continued by
//! a fresh executor elsewhere from its position. Always holds: a document that the filter refuses costs no allocation here;
//! each document comes out at most once.

mod distinct;
mod scope;
mod sorter;
mod source;
mod validate;

use std::sync::Arc;

use bytes::Bytes;
use document::filter::Filter;
use document::sort::SortSpec;
use document::{DocBuf, EvalContext};
use storage::View;

use crate::Failure;
use crate::encoding::Count;
use crate::plan::{Access, Plan};
use crate::position::{Mark, Place, Position, Rank};
use sorter::{Sorted, Sorter};
use source::{Found, Next, Source};

pub use distinct::Distinct;
pub use scope::HashScope;
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
    /// Only the part of the shard's documents that is in all of them.
    pub scopes: Vec<HashScope>,
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
    pub key: Bytes,
    /// The document.
    pub document: DocBuf,
}

/// A document with what the shards' parts of a read are merged by: the sort key, then the document's key.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// The document.
    pub document: DocBuf,
    /// Its sort key: `SortSpec::key`. Empty when the read has no sort.
    pub sort_key: Bytes,
    /// The document's key in the shard's keyspace.
    pub document_key: Bytes,
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
    held: Option<Given>,
    /// Where the read began.
    started: Position,
    /// Where it met the last document that it gave.
    last: Option<At>,
}

/// Where sorted documents stand.
enum Stage {
    /// Documents go out as they are found.
    Streaming,
    /// Documents are collected; none goes out before all are seen.
    Collecting(Sorter),
    /// Sorted documents go out; the view is not needed any more.
    Draining(std::vec::IntoIter<Sorted>),
}

/// A document on its way out.
struct Given {
    located: Located,
    at: At,
}

/// Where a document was met: what a position is made of.
#[derive(Clone)]
enum At {
    Scan(Mark),
    Sort(Rank),
}

impl FindExecutor {
    /// Starts a read of `plan` on `view`.
    pub fn new(plan: Arc<Plan>, request: FindRequest, view: Arc<dyn View>) -> FindExecutor {
        FindExecutor::new_after(plan, request, view, Position::start())
    }

    /// Goes on with a read behind a position of it, possibly of another replica or shard. `plan` is one that was made for
    /// this position. The request's skip and limit are those of what is still to come.
    pub fn new_after(
        plan: Arc<Plan>,
        request: FindRequest,
        view: Arc<dyn View>,
        position: Position,
    ) -> FindExecutor {
        let (mark, rank) = match &position.0 {
            Place::Start => (None, None),
            Place::Scan(place) => (Some(&place.mark), None),
            Place::Sort(rank) => (None, Some(rank.clone())),
        };
        let stage = match (&request.sort, plan.sort_needed) {
            (Some(sort), true) => {
                let keep = request.limit.map(|limit| limit.saturating_add(request.skip));
                Stage::Collecting(Sorter::new(sort.clone(), keep, rank))
            }
            _ => Stage::Streaming,
        };
        let source = Source::new(&plan.access, view, mark);
        FindExecutor {
            plan,
            request,
            source,
            stage,
            skipped: 0,
            passed: 0,
            counters: Counters::default(),
            held: None,
            started: position,
            last: None,
        }
    }

    /// Adds the next documents to `out`.
    pub fn next_batch(&mut self, slice: &Slice, out: &mut Vec<DocBuf>) -> Result<Progress, Failure> {
        self.fill(slice, &mut |given| out.push(given.located.document))
    }

    /// Adds the next documents to `out` with their keys: the candidates of a write.
    pub fn next_located_batch(&mut self, slice: &Slice, out: &mut Vec<Located>) -> Result<Progress, Failure> {
        self.fill(slice, &mut |given| out.push(given.located))
    }

    /// Adds the next documents to `out` with what they are merged by. Sort keys never descend; documents with equal ones
    /// come in the order of their keys, or of the index that gives the order.
    pub fn next_ranked_batch(&mut self, slice: &Slice, out: &mut Vec<Ranked>) -> Result<Progress, Failure> {
        let sort = self.request.sort.clone();
        self.fill(slice, &mut |Given { located, at }| {
            let sort_key = match (at, &sort) {
                (At::Sort(rank), _) => rank.sort_key,
                (At::Scan(_), Some(sort)) => sort.key(located.document.as_doc()).into(),
                (At::Scan(_), None) => Bytes::new(),
            };
            out.push(Ranked { document: located.document, sort_key, document_key: located.key });
        })
    }

    /// Counts the next documents without keeping them; from index entries alone where their bounds say all.
    pub fn count_batch(&mut self, examined_max: u64) -> Result<(u64, Progress), Failure> {
        let mut counted = 0;
        if !self.counts_by_entries() {
            let progress = self.fill(&Slice::examining(examined_max), &mut |_| counted += 1)?;
            return Ok((counted, progress));
        }
        let stop_at = self.examined().saturating_add(examined_max);
        loop {
            match self.next_key(stop_at)? {
                Step::Document(mark) => self.last = Some(At::Scan(mark)),
                Step::Paused => return Ok((counted, Progress::Paused)),
                Step::Done => return Ok((counted, Progress::Done)),
            }
            counted += 1;
        }
    }

    /// Everything given out so far, here and before the position that the read went on from: the place behind the last
    /// document that a call has given or counted. A read that has only skipped documents is where it started.
    pub fn position(&self) -> Position {
        match &self.last {
            None => self.started.clone(),
            Some(At::Scan(mark)) => Position::in_scan(&self.plan.access, mark),
            Some(At::Sort(rank)) => Position(Place::Sort(rank.clone())),
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

    /// The scopes, and what was given before, are questions to documents.
    fn counts_by_entries(&self) -> bool {
        matches!(&self.plan.access, Access::Index(access) if access.is_exact)
            && matches!(self.stage, Stage::Streaming)
            && self.request.scopes.is_empty()
            && self.source.knows_by_entries()
    }

    /// Gives the next documents until the slice is full.
    fn fill(&mut self, slice: &Slice, give: &mut dyn FnMut(Given)) -> Result<Progress, Failure> {
        let (mut documents, mut bytes) = (0, 0);
        let stop_at = self.examined().saturating_add(slice.examined_max);
        while documents < slice.documents_max {
            let given = match self.next_given(stop_at)? {
                Step::Document(given) => given,
                Step::Paused => return Ok(Progress::Paused),
                Step::Done => return Ok(Progress::Done),
            };
            let length = given.located.document.bytes().len();
            if documents > 0 && length > slice.bytes_max.saturating_sub(bytes) {
                self.held = Some(given);
                return Ok(Progress::Full);
            }
            documents += 1;
            bytes += length;
            self.counters.returned += 1;
            self.last = Some(given.at.clone());
            give(given);
        }
        Ok(Progress::Full)
    }

    /// The next document after sort, skip and limit.
    fn next_given(&mut self, stop_at: u64) -> Result<Step, Failure> {
        if let Some(held) = self.held.take() {
            return Ok(Step::Document(held));
        }
        loop {
            if self.request.limit.is_some_and(|limit| self.passed >= limit) {
                return Ok(Step::Done);
            }
            let given = match self.next_ordered(stop_at)? {
                Step::Document(given) => given,
                step => return Ok(step),
            };
            if self.skipped < self.request.skip {
                self.skipped += 1;
                continue;
            }
            self.passed += 1;
            return Ok(Step::Document(given));
        }
    }

    /// As `next_given`, without the documents.
    fn next_key(&mut self, stop_at: u64) -> Result<Step<Mark>, Failure> {
        loop {
            if self.request.limit.is_some_and(|limit| self.passed >= limit) {
                return Ok(Step::Done);
            }
            match self.source.next_key(&mut self.counters, stop_at)? {
                Next::Paused => return Ok(Step::Paused),
                Next::Done => return Ok(Step::Done),
                Next::Found(_) if self.skipped < self.request.skip => self.skipped += 1,
                Next::Found(mark) => {
                    self.passed += 1;
                    self.counters.matched += 1;
                    self.counters.returned += 1;
                    return Ok(Step::Document(mark));
                }
            }
        }
    }

    /// The next document in the order asked for.
    fn next_ordered(&mut self, stop_at: u64) -> Result<Step, Failure> {
        if let Stage::Draining(sorted) = &mut self.stage {
            return Ok(sorted.next().map_or(Step::Done, Step::of_sorted));
        }
        loop {
            let given = match self.next_matching(stop_at)? {
                Step::Document(given) => given,
                Step::Paused => return Ok(Step::Paused),
                Step::Done => return Ok(self.finish_sort()),
            };
            match &mut self.stage {
                Stage::Collecting(sorter) => sorter.push(given.located)?,
                _ => return Ok(Step::Document(given)),
            }
        }
    }

    fn finish_sort(&mut self) -> Step {
        let Stage::Collecting(sorter) = &mut self.stage else { return Step::Done };
        let mut sorted = sorter.finish().into_iter();
        let first = sorted.next();
        self.stage = Stage::Draining(sorted);
        self.source.release_view();
        first.map_or(Step::Done, Step::of_sorted)
    }

    /// The next document of the scopes that the filter accepts.
    fn next_matching(&mut self, stop_at: u64) -> Result<Step, Failure> {
        loop {
            let found = match self.source.next(&mut self.counters, stop_at)? {
                Next::Found(found) => found,
                Next::Paused => return Ok(Step::Paused),
                Next::Done => return Ok(Step::Done),
            };
            let Found { key, document, mark } = found;
            if self.request.scopes.iter().all(|scope| scope.contains(document.as_doc()))
                && self.request.filter.matches(document.as_doc(), &self.request.context)?
            {
                self.counters.matched += 1;
                return Ok(Step::Document(Given { located: Located { key, document }, at: At::Scan(mark) }));
            }
        }
    }
}

/// One document, or why there is none now.
enum Step<T = Given> {
    Document(T),
    Paused,
    Done,
}

impl Step {
    fn of_sorted(sorted: Sorted) -> Step {
        let located = Located { key: sorted.rank.document_key.clone(), document: sorted.document };
        Step::Document(Given { located, at: At::Sort(sorted.rank) })
    }
}

/// The documents of the shard and their bytes, without a scan.
pub fn collection_count(view: &dyn View) -> Result<Count, Failure> {
    Ok(Count::decode(view.get(crate::encoding::COUNT_KEY)?.as_deref())?)
}
