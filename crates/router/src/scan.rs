//! One shard's part of a read, on the node of its replica: what it finds, in slices, and what is left of it in a cursor.
//!
//! Called by `serve` for the reads of this node's clients and of other nodes' routers. Always holds: what a batch says of
//! its position is everything that it and the batches before it gave, so that whoever reads can go on elsewhere when this
//! node, or its cursor, is gone.

use std::sync::Arc;
use std::time::Duration;

use base::limits::READ_VIEW_AGE_MS_MAX;
use base::{Error, MonoTime, Result};
use bytes::Bytes;
use document::filter::Filter;
use document::pipeline::{Pipeline, Row, Runner};
use document::projection::Projection;
use document::{DocBuf, EvalContext, ShardKey};
use query::Failure;
use query::execute::{FindExecutor, HashScope, Progress, Ranked, Slice};
use query::position::Position;
use query::state::HashRange;

use crate::aggregate::divide;
use crate::command::{CursorId, ReadSource, ScanCommand, ScanReply, ScanScope, ScanSize};
use crate::cursor::{Cursor, OpenCursor};
use crate::resolve::Place;
use crate::search::{ReadRequest, order};
use crate::{OperationContext, Router, parse};

/// What is left of a scan.
pub(crate) struct ScanCursor {
    place: Place,
    executor: FindExecutor,
    output: Output,
    ranked: bool,
    /// Whether all documents are in their groups, which come out now.
    is_grouped: bool,
    view_since: MonoTime,
    source: ReadSource,
}

/// Groups that come out in one step.
const DRAINED_ROWS: usize = 256;

/// What a scan makes of the documents that it finds.
struct Output {
    filter: Arc<Filter>,
    projection: Option<Projection>,
    /// The shard's part of an aggregation's stages.
    stages: Option<Runner>,
    /// Whether those group, so that nothing comes out before the end.
    groups: bool,
    context: EvalContext,
}

impl Router {
    /// The first batch of a scan of this node's replica. Nothing where there is no collection.
    pub(crate) async fn scan_here(
        &self,
        cx: &OperationContext,
        place: Option<&Place>,
        command: ScanCommand,
    ) -> Result<ScanReply> {
        let (size, keep) = (command.size, command.keep);
        let namespace = command.namespace.to_string();
        let Some(mut scan) = self.start_scan(cx, place, command).await? else { return Ok(nothing()) };
        let mut reply = ScanReply::default();
        reply.is_done = !self.fill(cx, &mut scan, size, &mut reply).await?;
        if keep && !reply.is_done {
            let (connection, session) = (cx.connection, cx.session);
            let cursor = Cursor::Scan(Box::new(scan));
            let open = OpenCursor { namespace, connection, session, cursor };
            let now = self.clock.monotonic();
            reply.cursor = Some(self.cursors.insert(open, self.entropy.as_ref(), now)?);
        }
        Ok(reply)
    }

    async fn start_scan(
        &self,
        cx: &OperationContext,
        place: Option<&Place>,
        command: ScanCommand,
    ) -> Result<Option<ScanCursor>> {
        let variables = parse::variables(command.variables.as_ref());
        let filter = Arc::new(parse::filter(command.filter.as_ref(), &variables)?);
        let projection = command.projection.as_ref().filter(|spec| !spec.as_doc().is_empty());
        let projection = projection.map(|spec| Projection::parse(spec.as_doc(), &variables)).transpose()?;
        let context = self.eval_context(variables.clone());
        let (sort, hint) = order(command.sort.as_ref(), command.hint)?;
        let mut request = ReadRequest {
            filter: Arc::clone(&filter),
            sort,
            skip: command.skip,
            limit: command.limit,
            hint,
            context: context.clone(),
            after: command.after.as_deref().map(Position::decode).transpose()?,
            scopes: command.scopes.into_iter().map(scope).collect(),
        };
        let (mut stages, mut groups) = (None, false);
        if !command.pipeline.is_empty() {
            let divided = divide(Pipeline::parse(&command.pipeline, &variables)?);
            (request.filter, request.sort) = (divided.filter, divided.sort);
            request.limit = smaller(request.limit, divided.limit);
            groups = divided.groups;
            stages = (!divided.shard.is_empty()).then(|| Runner::new(&divided.shard, context.clone()));
        }
        let Some(place) = place else { return Ok(None) };
        let view_since = self.clock.monotonic();
        let Some(executor) = self.start_read(cx, place, &request).await? else { return Ok(None) };
        let (place, source) = (place.clone(), cx.source);
        let output = Output { filter, projection, stages, groups, context };
        let ranked = command.ranked;
        Ok(Some(ScanCursor { place, executor, output, ranked, is_grouped: false, view_since, source }))
    }

    /// The next batch of a scan that this node holds.
    pub(crate) async fn continue_scan_here(
        &self,
        cx: &OperationContext,
        namespace: &str,
        cursor: CursorId,
        size: ScanSize,
    ) -> Result<ScanReply> {
        let mut open = self.cursors.take(cursor, namespace, cx.session)?;
        let Cursor::Scan(scan) = &mut open.cursor else {
            self.cursors.put_back(cursor, open, self.clock.monotonic());
            return Err(Error::bad_value(format!("cursor id {} is not a shard's part of a read", cursor.0)));
        };
        let mut reply = ScanReply::default();
        let more = match self.renew_view(cx, scan).await {
            Ok(()) => self.fill(cx, scan, size, &mut reply).await,
            Err(error) => Err(error),
        };
        reply.is_done = !more.inspect_err(|_| self.cursors.finish(cursor))?;
        if reply.is_done {
            self.cursors.finish(cursor);
        } else if self.cursors.put_back(cursor, open, self.clock.monotonic()) {
            reply.cursor = Some(cursor);
        }
        Ok(reply)
    }

    /// Gives a scan a view of now when its own has become old, so that old versions can be dropped.
    async fn renew_view(&self, cx: &OperationContext, scan: &mut ScanCursor) -> Result<()> {
        let now = self.clock.monotonic();
        if scan.is_grouped || now.since(scan.view_since) < Duration::from_millis(READ_VIEW_AGE_MS_MAX) {
            return Ok(());
        }
        scan.executor.release_view();
        if !scan.executor.is_ready() {
            let cx = &OperationContext { source: scan.source, ..cx.clone() };
            let (view, _) = self.view(cx, &scan.place).await?.ok_or_else(|| dropped(&scan.place))?;
            scan.executor.resume(view);
            scan.view_since = now;
        }
        Ok(())
    }

    /// Adds the next documents to the reply, with the position behind them. Says whether there may be more.
    async fn fill(
        &self,
        cx: &OperationContext,
        scan: &mut ScanCursor,
        size: ScanSize,
        reply: &mut ScanReply,
    ) -> Result<bool> {
        let documents_max = usize::try_from(size.documents_max).unwrap_or(usize::MAX);
        let bytes_max = usize::try_from(size.bytes_max).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let more = loop {
            let slice = Slice {
                documents_max: documents_max.saturating_sub(reply.documents.len()),
                bytes_max: bytes_max.saturating_sub(bytes),
                examined_max: Slice::EXAMINED_DEFAULT,
            };
            if slice.documents_max == 0 || (slice.bytes_max == 0 && !reply.documents.is_empty()) {
                break true;
            }
            let mut found = Vec::new();
            let progress = self.step(scan.advance(&slice, &mut found))?;
            for (document, sort_key) in found {
                bytes += document.bytes().len();
                reply.documents.push(document);
                if scan.ranked {
                    reply.sort_keys.push(sort_key);
                }
            }
            match progress {
                Progress::Done => break false,
                Progress::Full if !reply.documents.is_empty() => break true,
                Progress::Full | Progress::Paused => self.breathe(cx).await?,
            }
        };
        if more && !scan.output.groups {
            reply.position = scan.executor.position().encode();
        }
        Ok(more)
    }
}

impl ScanCursor {
    /// Adds what a slice of documents becomes, with the sort keys of the documents.
    fn advance(&mut self, slice: &Slice, out: &mut Vec<(DocBuf, Bytes)>) -> Result<Progress, Failure> {
        if self.is_grouped {
            return self.output.drain(slice.documents_max.min(DRAINED_ROWS), out);
        }
        let all = Slice::examining(slice.examined_max);
        let slice = if self.output.groups { &all } else { slice };
        let mut found = Vec::new();
        let progress = self.executor.next_ranked_batch(slice, &mut found)?;
        for Ranked { document, sort_key, .. } in found {
            self.output.add(document, &sort_key, out)?;
        }
        if self.output.groups && progress == Progress::Done {
            self.is_grouped = true;
            self.output.stages.iter_mut().try_for_each(Runner::finish)?;
            return Ok(Progress::Paused);
        }
        Ok(progress)
    }
}

impl Output {
    /// Adds what becomes of a document.
    fn add(&mut self, mut document: DocBuf, sort_key: &Bytes, out: &mut Vec<(DocBuf, Bytes)>) -> Result<()> {
        let Some(stages) = &mut self.stages else {
            self.project(&mut document)?;
            out.push((document, sort_key.clone()));
            return Ok(());
        };
        let mut rows = Vec::new();
        // None of the stages wants less than every document.
        let _ = stages.push(Row::Raw(document), &mut rows)?;
        for row in rows {
            out.push((row.into_docbuf()?, sort_key.clone()));
        }
        Ok(())
    }

    /// Adds groups that are complete.
    fn drain(&mut self, rows_max: usize, out: &mut Vec<(DocBuf, Bytes)>) -> Result<Progress, Failure> {
        let Some(stages) = &mut self.stages else { return Ok(Progress::Done) };
        let mut rows = Vec::new();
        let more = stages.drain(rows_max, &mut rows)?;
        for row in rows {
            out.push((row.into_docbuf()?, Bytes::new()));
        }
        Ok(if more { Progress::Paused } else { Progress::Done })
    }

    fn project(&self, document: &mut DocBuf) -> Result<()> {
        let Some(projection) = &self.projection else { return Ok(()) };
        let details = if projection.is_positional() {
            self.filter.matches_positional(document.as_doc(), &self.context)?
        } else {
            None
        };
        *document = projection.apply(document.as_doc(), details.as_ref(), &self.context)?;
        Ok(())
    }
}

fn smaller(left: Option<u64>, right: Option<u64>) -> Option<u64> {
    left.into_iter().chain(right).min()
}

fn scope(scope: ScanScope) -> HashScope {
    let range = HashRange { first: scope.first, last: scope.last };
    HashScope { key: Arc::new(ShardKey::from(scope.shard_key)), range }
}

/// The batch of a collection that does not exist.
fn nothing() -> ScanReply {
    ScanReply { is_done: true, ..ScanReply::default() }
}

fn dropped(place: &Place) -> Error {
    let message = format!("collection dropped. UUID of {} is gone", place.record.namespace);
    Error::new(base::Code::QUERY_PLAN_KILLED, message)
}
