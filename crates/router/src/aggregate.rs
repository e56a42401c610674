//! `aggregate`: the shards filter, sort, limit and group what they can; rows then stream through the other stages here.
//!
//! Always holds: no more than a slice of rows is held between stages that do not block; `$sort` and `$group` account for
//! what they hold and fail with code 292 past their limit; `$lookup` reads one view of the other collection for a batch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::limits::{BATCH_BYTES_MAX, DOCUMENT_INTERNAL_BYTES_MAX, READ_VIEW_AGE_MS_MAX};
use base::{Code, Error, MonoTime, Namespace, Result};
use document::filter::Filter;
use document::pipeline::{Flow, LookupSpec, Pipeline, Row, Runner, Stage};
use document::sort::SortSpec;
use document::{DocBuf, EvalContext};
use query::execute::{Progress, Slice};
use query::state::ShardState;
use storage::View;

use crate::command::{AggregateCommand, CursorReply, FindCommand, GetMoreCommand, ScanCommand, ScanSize};
use crate::config_database::is_config;
use crate::cursor::Cursor;
use crate::gather::{BatchSize, Gather};
use crate::read::first_batch;
use crate::search::ReadRequest;
use crate::{OperationContext, Router, parse};

/// Stages that the router answers by itself, beside those that `document` knows.
pub const ROUTER_STAGES: [&str; 2] = ["$collStats", "$shardedDataDistribution"];
/// Rows that move through the stages at a time.
const SLICE_ROWS: usize = 256;
/// As [`SLICE_ROWS`] where `$lookup` may make each row as large as a document may be.
const SLICE_ROWS_LOOKUP: usize = 8;

/// What is left of an aggregation.
pub(crate) struct AggregateCursor {
    source: Option<Gather>,
    segments: Vec<Segment>,
    /// The segment whose held rows come out now; earlier ones have none left.
    draining: usize,
    ready: VecDeque<Row>,
    context: EvalContext,
    view_since: MonoTime,
}

/// Stages between two that need other collections, or one that does.
enum Segment {
    Run(Runner),
    Lookup { spec: LookupSpec, namespace: Namespace, foreign: Option<Foreign> },
}

/// The other collection of a `$lookup`.
enum Foreign {
    Absent,
    Present {
        view: Arc<dyn View>,
        state: Arc<ShardState>,
    },
    /// Its primary is on another node: each row is looked up there.
    Elsewhere,
}

/// A pipeline divided between the shards and the router.
pub(crate) struct Divided {
    /// What a shard's executor does.
    pub(crate) filter: Arc<Filter>,
    /// See `filter`.
    pub(crate) sort: Option<Arc<SortSpec>>,
    /// See `filter`.
    pub(crate) limit: Option<u64>,
    /// What the shard does to the documents then. Each treats a document by itself, but perhaps the last, which groups.
    pub(crate) shard: Vec<Stage>,
    /// Whether it groups.
    pub(crate) groups: bool,
    /// What the router does with what comes from the shards.
    pub(crate) router: Vec<Stage>,
}

impl Router {
    /// `aggregate`. A collection that does not exist has no documents.
    pub async fn aggregate(&self, cx: &OperationContext, command: AggregateCommand) -> Result<CursorReply> {
        if is_config(&command.namespace) {
            return Box::pin(self.aggregate_config(cx, &command)).await;
        }
        let variables = parse::variables(command.variables.as_ref());
        let context = self.eval_context(variables.clone());
        if let Some((stage, argument)) = own_stage(&command.pipeline) {
            let rest = Pipeline::parse(command.pipeline.get(1..).unwrap_or_default(), &variables)?.stages;
            let rows = match stage {
                OwnStage::Statistics => self.statistics_rows(cx, &command.namespace, argument).await?,
                OwnStage::Distribution => self.data_distribution(cx).await?,
            };
            return self.aggregate_rows(cx, &command, rows, rest, context).await;
        }
        let divided = divide(Pipeline::parse(&command.pipeline, &variables)?);
        let record = self.collection(&command.namespace).await?;
        let source =
            record.map(|record| self.gather_pipeline(cx, &record, &divided, pipeline_scan(&command)));
        let cursor = self.new_cursor(&command, source, divided.router, context)?;
        self.first_reply(cx, &command, cursor).await
    }

    /// A pipeline over rows that are no documents of a collection.
    pub(crate) async fn aggregate_rows(
        &self,
        cx: &OperationContext,
        command: &AggregateCommand,
        rows: Vec<bson::Document>,
        rest: Vec<Stage>,
        context: EvalContext,
    ) -> Result<CursorReply> {
        let mut cursor = self.new_cursor(command, None, rest, context)?;
        if let Some(segment) =
            self.push_through(cx, &mut cursor, 0, rows.into_iter().map(Row::Tree).collect()).await?
        {
            cursor.draining = segment;
        }
        self.first_reply(cx, command, cursor).await
    }

    fn new_cursor(
        &self,
        command: &AggregateCommand,
        source: Option<Gather>,
        rest: Vec<Stage>,
        context: EvalContext,
    ) -> Result<AggregateCursor> {
        Ok(AggregateCursor {
            source,
            segments: segments(rest, &command.namespace.database, &context)?,
            draining: 0,
            ready: VecDeque::new(),
            context,
            view_since: self.clock.monotonic(),
        })
    }

    async fn first_reply(
        &self,
        cx: &OperationContext,
        command: &AggregateCommand,
        mut cursor: AggregateCursor,
    ) -> Result<CursorReply> {
        if cursor.source.is_none() {
            cursor.finish_segment()?;
        }
        let mut batch = Vec::new();
        let more = self.fill_aggregate(cx, &mut cursor, &first_batch(command.batch_size), &mut batch).await?;
        let cursor = more.then(|| Cursor::Aggregate(Box::new(cursor)));
        self.reply(cx, command.namespace.to_string(), cursor, batch)
    }

    /// Adds the next rows to `batch`. Says whether there may be more.
    pub(crate) async fn fill_aggregate(
        &self,
        cx: &OperationContext,
        cursor: &mut AggregateCursor,
        size: &BatchSize,
        batch: &mut Vec<DocBuf>,
    ) -> Result<bool> {
        self.renew_views(cursor);
        let mut bytes = 0;
        loop {
            while let Some(row) = cursor.ready.pop_front() {
                if batch.len() >= size.documents_max {
                    cursor.ready.push_front(row);
                    return Ok(true);
                }
                let document = row.into_docbuf()?;
                if !batch.is_empty() && bytes + document.bytes().len() > size.bytes_max {
                    cursor.ready.push_front(Row::Raw(document));
                    return Ok(true);
                }
                bytes += document.bytes().len();
                batch.push(document);
            }
            if cursor.is_exhausted() {
                return Ok(false);
            }
            if batch.len() >= size.documents_max {
                return Ok(true);
            }
            self.advance(cx, cursor).await?;
            self.breathe(cx).await?;
        }
    }

    /// Moves one slice of rows forward.
    async fn advance(&self, cx: &OperationContext, cursor: &mut AggregateCursor) -> Result<()> {
        let Some(source) = &mut cursor.source else { return self.drain(cx, cursor).await };
        let looks_up = cursor.segments.iter().any(|segment| matches!(segment, Segment::Lookup { .. }));
        let size = BatchSize {
            documents_max: if looks_up { SLICE_ROWS_LOOKUP } else { SLICE_ROWS },
            bytes_max: BATCH_BYTES_MAX,
        };
        let mut documents = Vec::new();
        let more = self.fill_gather(cx, source, &size, &mut documents).await?;
        let rows = documents.into_iter().map(Row::Raw).collect();
        let ended = self.push_through(cx, cursor, 0, rows).await?;
        if let Some(segment) = ended {
            cursor.cut_off(segment)?;
        } else if !more {
            cursor.source = None;
            cursor.finish_segment()?;
        }
        Ok(())
    }

    /// Moves rows that a blocking stage held.
    async fn drain(&self, cx: &OperationContext, cursor: &mut AggregateCursor) -> Result<()> {
        let mut rows = Vec::new();
        let more = match cursor.segments.get_mut(cursor.draining) {
            Some(Segment::Run(runner)) => runner.drain(SLICE_ROWS, &mut rows)?,
            Some(Segment::Lookup { .. }) | None => false,
        };
        let ended = self.push_through(cx, cursor, cursor.draining + 1, rows).await?;
        if let Some(segment) = ended {
            cursor.cut_off(segment)?;
        } else if !more {
            cursor.draining += 1;
            cursor.finish_segment()?;
        }
        Ok(())
    }

    /// Sends rows through the segments from `first` on. Returns the last segment that wants no more rows.
    async fn push_through(
        &self,
        cx: &OperationContext,
        cursor: &mut AggregateCursor,
        first: usize,
        mut rows: Vec<Row>,
    ) -> Result<Option<usize>> {
        let mut ended = None;
        for (index, segment) in cursor.segments.iter_mut().enumerate().skip(first) {
            let mut out = Vec::with_capacity(rows.len());
            match segment {
                Segment::Run(runner) => {
                    for row in rows {
                        if runner.push(row, &mut out)? == Flow::Done {
                            ended = Some(index);
                            break;
                        }
                    }
                }
                Segment::Lookup { spec, namespace, foreign } => {
                    for row in rows {
                        let found = self.look_up(cx, spec, namespace, foreign, &row, &cursor.context).await?;
                        out.push(spec.attach(row, found));
                    }
                }
            }
            rows = out;
        }
        cursor.ready.extend(rows);
        Ok(ended)
    }

    /// The documents of the other collection that belong to a row.
    async fn look_up(
        &self,
        cx: &OperationContext,
        spec: &LookupSpec,
        namespace: &Namespace,
        foreign: &mut Option<Foreign>,
        row: &Row,
        context: &EvalContext,
    ) -> Result<Vec<bson::Document>> {
        let foreign = match foreign {
            Some(foreign) => foreign,
            None => foreign.insert(self.foreign(cx, namespace).await?),
        };
        let (view, state) = match foreign {
            Foreign::Absent => return Ok(Vec::new()),
            Foreign::Present { view, state } => (view, state),
            Foreign::Elsewhere => return self.look_up_elsewhere(cx, spec, namespace, row).await,
        };
        let request = ReadRequest {
            filter: Arc::new(spec.foreign_filter(row.as_doc())),
            sort: None,
            skip: 0,
            limit: None,
            hint: None,
            context: context.clone(),
            after: None,
            scopes: Vec::new(),
        };
        let mut executor = self.executor(Arc::clone(view), state, &request)?;
        let mut found = Vec::new();
        let slice =
            Slice { bytes_max: DOCUMENT_INTERNAL_BYTES_MAX, ..Slice::examining(Slice::EXAMINED_DEFAULT) };
        let (mut counted, mut bytes) = (0, 0);
        loop {
            let progress = self.step(executor.next_batch(&slice, &mut found))?;
            bytes += found.iter().skip(counted).map(|document| document.bytes().len()).sum::<usize>();
            counted = found.len();
            check_looked_up(namespace, bytes)?;
            if progress == Progress::Done {
                return Ok(found.iter().map(DocBuf::to_document).collect());
            }
            self.breathe(cx).await?;
        }
    }

    /// As [`Router::look_up`], by a find of its own for the row.
    async fn look_up_elsewhere(
        &self,
        cx: &OperationContext,
        spec: &LookupSpec,
        namespace: &Namespace,
        row: &Row,
    ) -> Result<Vec<bson::Document>> {
        let filter = DocBuf::encode(&spec.foreign_query(row.as_doc()))?;
        let command = FindCommand { filter: Some(filter), ..FindCommand::all(namespace.clone()) };
        let mut reply = self.find(cx, command).await?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        loop {
            bytes += reply.batch.iter().map(|document| document.bytes().len()).sum::<usize>();
            check_looked_up(namespace, bytes)?;
            found.extend(reply.batch.iter().map(DocBuf::to_document));
            let Some(cursor) = reply.cursor else { return Ok(found) };
            let command = GetMoreCommand { cursor, namespace: reply.namespace, batch_size: None };
            // A cursor of a cursor: an aggregation is itself continued by a getMore.
            reply = Box::pin(self.get_more(cx, command)).await?;
        }
    }

    async fn foreign(&self, cx: &OperationContext, namespace: &Namespace) -> Result<Foreign> {
        if is_config(namespace) {
            return Ok(Foreign::Elsewhere);
        }
        if self.collection(namespace).await?.is_none() {
            return Ok(Foreign::Absent);
        }
        let Some(place) = self.led(namespace) else { return Ok(Foreign::Elsewhere) };
        let view = self.view(cx, &place).await?;
        Ok(view.map_or(Foreign::Absent, |(view, state)| Foreign::Present { view, state }))
    }

    /// Gives a cursor views of now when its own have become old.
    fn renew_views(&self, cursor: &mut AggregateCursor) {
        let now = self.clock.monotonic();
        if now.since(cursor.view_since) < Duration::from_millis(READ_VIEW_AGE_MS_MAX) {
            return;
        }
        cursor.view_since = now;
        for segment in &mut cursor.segments {
            if let Segment::Lookup { foreign, .. } = segment {
                *foreign = None;
            }
        }
    }
}

impl AggregateCursor {
    /// A cursor with nothing left, for tests of what holds cursors.
    #[cfg(test)]
    pub(crate) fn exhausted() -> AggregateCursor {
        AggregateCursor {
            source: None,
            segments: Vec::new(),
            draining: 0,
            ready: VecDeque::new(),
            context: EvalContext::new(bson::DateTime::from_millis(0), base::Timestamp::default()),
            view_since: MonoTime::default(),
        }
    }

    fn is_exhausted(&self) -> bool {
        self.source.is_none() && self.draining >= self.segments.len()
    }

    /// Tells the segment that is drained next that it has had its last row.
    fn finish_segment(&mut self) -> Result<()> {
        match self.segments.get_mut(self.draining) {
            Some(Segment::Run(runner)) => runner.finish(),
            Some(Segment::Lookup { .. }) | None => Ok(()),
        }
    }

    /// A segment wants no more rows: what comes before it is not needed any more.
    fn cut_off(&mut self, segment: usize) -> Result<()> {
        self.source = None;
        self.draining = segment;
        self.finish_segment()
    }
}

fn check_looked_up(namespace: &Namespace, bytes: usize) -> Result<()> {
    if bytes <= DOCUMENT_INTERNAL_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "Total size of documents in {} matching pipeline's $lookup stage exceeds {DOCUMENT_INTERNAL_BYTES_MAX} bytes",
        namespace.collection
    );
    Err(Error::new(Code(4_568), message))
}

/// A stage that makes rows of what is no collection, and can only come first.
#[derive(Clone, Copy)]
enum OwnStage {
    Statistics,
    Distribution,
}

/// The first stage with its argument, if it is one of the router's own.
fn own_stage(pipeline: &[bson::Bson]) -> Option<(OwnStage, &bson::Document)> {
    let (name, argument) = pipeline.first()?.as_document()?.iter().next()?;
    let stage = match name.as_str() {
        "$collStats" => OwnStage::Statistics,
        "$shardedDataDistribution" => OwnStage::Distribution,
        _ => return None,
    };
    Some((stage, argument.as_document()?))
}

/// Gives the shards what they can do by themselves: a first `$match`, then a `$sort` and a `$limit`, then stages that make
/// one row of each document; or everything up to a `$group`, and that half way.
pub(crate) fn divide(pipeline: Pipeline) -> Divided {
    let split = pipeline.split_for_shard();
    let groups = matches!(split.shard.last(), Some(Stage::PartialGroup(_)));
    let stages = if groups { split.shard } else { pipeline.stages };
    let mut rest: VecDeque<Stage> = stages.into();
    let filter = match rest.pop_front_if(|stage| matches!(stage, Stage::Match(_))) {
        Some(Stage::Match(filter)) => filter,
        _ => Filter::everything(),
    };
    let (sort, mut limit) = match rest.pop_front_if(|stage| matches!(stage, Stage::Sort { .. })) {
        Some(Stage::Sort { spec, limit }) => (Some(Arc::new(spec)), limit),
        _ => (None, None),
    };
    if let Some(Stage::Limit(first)) = rest.front() {
        limit = Some(limit.map_or(*first, |limit| limit.min(*first)));
    }
    let alone = rest.iter().take_while(|stage| groups || makes_one_row(stage)).count();
    let router = if groups { split.router } else { rest.split_off(alone).into() };
    Divided { filter: Arc::new(filter), sort, limit, shard: rest.into(), groups, router }
}

/// Whether a stage makes at most one row of each. What `$unwind` makes of one document may not fit a message.
fn makes_one_row(stage: &Stage) -> bool {
    stage.is_local() && !matches!(stage, Stage::Unwind(_))
}

/// What each shard is asked for an aggregation.
fn pipeline_scan(command: &AggregateCommand) -> ScanCommand {
    ScanCommand {
        namespace: command.namespace.clone(),
        filter: None,
        sort: None,
        projection: None,
        skip: 0,
        limit: None,
        hint: command.hint.clone(),
        variables: command.variables.clone(),
        pipeline: command.pipeline.clone(),
        ranked: false,
        after: None,
        scopes: Vec::new(),
        size: ScanSize { documents_max: SLICE_ROWS as u64, bytes_max: BATCH_BYTES_MAX as u64 },
        keep: true,
    }
}

fn segments(stages: Vec<Stage>, database: &str, context: &EvalContext) -> Result<Vec<Segment>> {
    let mut segments = Vec::new();
    let mut run = Vec::new();
    for stage in stages {
        if let Stage::Lookup(spec) = stage {
            push_run(&mut segments, &mut run, context);
            let namespace = Namespace::new(database, &spec.from)?;
            segments.push(Segment::Lookup { spec, namespace, foreign: None });
        } else {
            run.push(stage);
        }
    }
    push_run(&mut segments, &mut run, context);
    Ok(segments)
}

fn push_run(segments: &mut Vec<Segment>, run: &mut Vec<Stage>, context: &EvalContext) {
    if !run.is_empty() {
        segments.push(Segment::Run(Runner::new(run, context.clone())));
        run.clear();
    }
}
