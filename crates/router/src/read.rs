//! `find`, `getMore`, `killCursors`, `count`, `distinct`.

use std::sync::Arc;
use std::time::Duration;

use base::limits::{BATCH_BYTES_MAX, FIRST_BATCH_DOCUMENTS, READ_VIEW_AGE_MS_MAX};
use base::{MonoTime, Result, SessionId};
use bson::Bson;
use catalog::CollectionRecord;
use document::filter::{Filter, Node};
use document::path::Path;
use document::projection::Projection;
use document::{DocBuf, EvalContext};
use query::execute::{Distinct, FindExecutor, Progress, Slice, collection_count};

use crate::command::{
    CountCommand, CursorId, CursorReply, DistinctCommand, FindCommand, GetMoreCommand, ReadSource,
};
use crate::cursor::{Cursor, OpenCursor, RemoteCursor};
use crate::search::{ReadRequest, order};
use crate::{OperationContext, Router, parse};

/// What is left of a find.
pub(crate) struct FindCursor {
    record: Arc<CollectionRecord>,
    executor: FindExecutor,
    output: Output,
    view_since: MonoTime,
    source: ReadSource,
}

/// What a find makes of the documents it finds.
struct Output {
    filter: Arc<Filter>,
    projection: Option<Projection>,
    context: EvalContext,
}

/// How much of a cursor one reply carries.
pub(crate) struct BatchSize {
    pub(crate) documents_max: usize,
    pub(crate) bytes_max: usize,
}

impl Router {
    /// `find` on this node's replica.
    pub(crate) async fn find_here(&self, cx: &OperationContext, command: FindCommand) -> Result<CursorReply> {
        let variables = parse::variables(command.variables.as_ref());
        let filter = Arc::new(parse::filter(command.filter.as_ref(), &variables)?);
        let projection = command.projection.as_ref().filter(|spec| !spec.as_doc().is_empty());
        let projection = projection.map(|spec| Projection::parse(spec.as_doc(), &variables)).transpose()?;
        let context = self.eval_context(variables);
        let (sort, hint) = order(command.sort.as_ref(), command.hint)?;
        let request = ReadRequest {
            filter: Arc::clone(&filter),
            sort,
            skip: command.skip,
            limit: command.limit,
            hint,
            context: context.clone(),
        };
        let namespace = command.namespace.to_string();
        let Some(record) = self.collection(&command.namespace).await? else { return Ok(nothing(namespace)) };
        let view_since = self.clock.monotonic();
        let Some(executor) = self.start_read(cx, &record, &request).await? else {
            return Ok(nothing(namespace));
        };
        let output = Output { filter, projection, context };
        let mut cursor = FindCursor { record, executor, output, view_since, source: cx.source };
        let size = first_batch(command.batch_size);
        let mut batch = Vec::new();
        let more = self.fill(cx, &mut cursor, &size, &mut batch).await?;
        let cursor = (more && !command.single_batch).then(|| Cursor::Find(Box::new(cursor)));
        self.reply(cx, namespace, cursor, batch)
    }

    /// `getMore` of a cursor of this router; what it continues may be on another node.
    pub(crate) async fn get_more_here(
        &self,
        cx: &OperationContext,
        command: GetMoreCommand,
    ) -> Result<CursorReply> {
        let mut open = self.cursors.take(command.cursor, &command.namespace, cx.session)?;
        let size = next_batch(command.batch_size);
        let mut batch = Vec::new();
        let more = self.continue_cursor(cx, &mut open.cursor, &size, &command.namespace, &mut batch).await;
        let more = more.inspect_err(|_| self.cursors.finish(command.cursor))?;
        let stays_open = if more {
            self.cursors.put_back(command.cursor, open, self.clock.monotonic())
        } else {
            self.cursors.finish(command.cursor);
            false
        };
        let cursor = stays_open.then_some(command.cursor);
        Ok(CursorReply { cursor, namespace: command.namespace, batch })
    }

    /// Closes a cursor. Says whether it was open.
    pub(crate) fn kill_cursor(&self, cursor: CursorId, namespace: &str) -> bool {
        self.cursors.kill(cursor, namespace)
    }

    /// Closes the cursors of the sessions that `ended` selects.
    pub fn end_sessions(&self, ended: &dyn Fn(SessionId) -> bool) {
        self.cursors.kill_sessions(ended);
    }

    /// Closes cursors that nobody asked for in a long time. Call it every minute or so.
    pub fn expire_cursors(&self) {
        self.cursors.expire(self.clock.monotonic());
    }

    /// How many cursors are open.
    pub fn open_cursors(&self) -> usize {
        self.cursors.len()
    }

    /// `count` on this node's replica.
    pub(crate) async fn count_here(&self, cx: &OperationContext, command: CountCommand) -> Result<u64> {
        let variables = document::Variables::default();
        let filter = Arc::new(parse::filter(command.filter.as_ref(), &variables)?);
        let Some(record) = self.collection(&command.namespace).await? else { return Ok(0) };
        if matches!(filter.root(), Node::True) && command.hint.is_none() {
            let Some((view, _)) = self.view(cx, &record).await? else { return Ok(0) };
            let all = self.step(collection_count(view.as_ref()))?.documents;
            let rest = all.saturating_sub(command.skip);
            return Ok(command.limit.map_or(rest, |limit| rest.min(limit)));
        }
        let request = ReadRequest {
            filter,
            sort: None,
            skip: command.skip,
            limit: command.limit,
            hint: command.hint,
            context: self.eval_context(variables),
        };
        let Some(mut executor) = self.start_read(cx, &record, &request).await? else { return Ok(0) };
        let mut total = 0;
        loop {
            let (counted, progress) = self.step(executor.count_batch(Slice::EXAMINED_DEFAULT))?;
            total += counted;
            if progress == Progress::Done {
                return Ok(total);
            }
            self.breathe(cx).await?;
        }
    }

    /// `distinct` on this node's replica.
    pub(crate) async fn distinct_here(
        &self,
        cx: &OperationContext,
        command: DistinctCommand,
    ) -> Result<Vec<Bson>> {
        let variables = document::Variables::default();
        let request = ReadRequest {
            filter: Arc::new(parse::filter(command.filter.as_ref(), &variables)?),
            sort: None,
            skip: 0,
            limit: None,
            hint: command.hint,
            context: self.eval_context(variables),
        };
        let mut distinct = Distinct::new(Path::parse_bounded(&command.key)?);
        let Some(record) = self.collection(&command.namespace).await? else { return Ok(Vec::new()) };
        let Some(mut executor) = self.start_read(cx, &record, &request).await? else { return Ok(Vec::new()) };
        let mut documents = Vec::new();
        loop {
            let slice = Slice::examining(Slice::EXAMINED_DEFAULT);
            let progress = self.step(executor.next_batch(&slice, &mut documents))?;
            documents.drain(..).try_for_each(|document| distinct.add(document.as_doc()))?;
            if progress == Progress::Done {
                return Ok(distinct.into_values());
            }
            self.breathe(cx).await?;
        }
    }

    /// Adds a cursor's next documents to `batch`. Says whether there may be more.
    async fn continue_cursor(
        &self,
        cx: &OperationContext,
        cursor: &mut Cursor,
        size: &BatchSize,
        namespace: &str,
        batch: &mut Vec<DocBuf>,
    ) -> Result<bool> {
        match cursor {
            Cursor::Remote(remote) => self.fill_remote(cx, remote, size, namespace, batch).await,
            Cursor::Find(find) => {
                self.renew_view(cx, find).await?;
                self.fill(cx, find, size, batch).await
            }
            Cursor::Aggregate(aggregate) => self.fill_aggregate(cx, aggregate, size, batch).await,
        }
    }

    /// Adds the next documents of a cursor that another node holds. Says whether there may be more.
    async fn fill_remote(
        &self,
        cx: &OperationContext,
        remote: &RemoteCursor,
        size: &BatchSize,
        namespace: &str,
        batch: &mut Vec<DocBuf>,
    ) -> Result<bool> {
        let batch_size = (size.documents_max != usize::MAX).then_some(size.documents_max as u64);
        let command = GetMoreCommand { cursor: remote.cursor, namespace: namespace.to_owned(), batch_size };
        let reply = self.continue_remote(cx, remote, command).await?;
        batch.extend(reply.batch);
        Ok(reply.cursor.is_some())
    }

    /// Gives a cursor a view of now when its own has become old, so that old versions can be dropped.
    async fn renew_view(&self, cx: &OperationContext, cursor: &mut FindCursor) -> Result<()> {
        let now = self.clock.monotonic();
        if now.since(cursor.view_since) < Duration::from_millis(READ_VIEW_AGE_MS_MAX) {
            return Ok(());
        }
        cursor.executor.release_view();
        if !cursor.executor.is_ready() {
            let cx = &OperationContext { source: cursor.source, ..cx.clone() };
            let (view, _) = self.view(cx, &cursor.record).await?.ok_or_else(|| dropped(&cursor.record))?;
            cursor.executor.resume(view);
            cursor.view_since = now;
        }
        Ok(())
    }

    async fn fill(
        &self,
        cx: &OperationContext,
        cursor: &mut FindCursor,
        size: &BatchSize,
        batch: &mut Vec<DocBuf>,
    ) -> Result<bool> {
        let mut bytes = 0;
        loop {
            let from = batch.len();
            let slice = Slice {
                documents_max: size.documents_max.saturating_sub(from),
                bytes_max: size.bytes_max.saturating_sub(bytes),
                examined_max: Slice::EXAMINED_DEFAULT,
            };
            if slice.documents_max == 0 || (slice.bytes_max == 0 && from > 0) {
                return Ok(true);
            }
            let progress = self.step(cursor.executor.next_batch(&slice, batch))?;
            for document in batch.iter_mut().skip(from) {
                bytes += document.bytes().len();
                cursor.output.project(document)?;
            }
            match progress {
                Progress::Done => return Ok(false),
                Progress::Full => return Ok(true),
                Progress::Paused => self.breathe(cx).await?,
            }
        }
    }

    /// A reply with its first batch; registers what is left.
    pub(crate) fn reply(
        &self,
        cx: &OperationContext,
        namespace: String,
        cursor: Option<Cursor>,
        batch: Vec<DocBuf>,
    ) -> Result<CursorReply> {
        let cursor = cursor.map(|cursor| {
            let (connection, session) = (cx.connection, cx.session);
            let open = OpenCursor { namespace: namespace.clone(), connection, session, cursor };
            self.cursors.insert(open, self.entropy.as_ref(), self.clock.monotonic())
        });
        Ok(CursorReply { cursor: cursor.transpose()?, namespace, batch })
    }
}

impl Output {
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

/// The first batch of a cursor.
pub(crate) fn first_batch(batch_size: Option<u64>) -> BatchSize {
    let documents = batch_size.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    BatchSize { documents_max: documents.unwrap_or(FIRST_BATCH_DOCUMENTS), bytes_max: BATCH_BYTES_MAX }
}

/// A later batch: no size, or zero, asks for as much as fits.
fn next_batch(batch_size: Option<u64>) -> BatchSize {
    let documents =
        batch_size.filter(|size| *size > 0).map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    BatchSize { documents_max: documents.unwrap_or(usize::MAX), bytes_max: BATCH_BYTES_MAX }
}

/// The reply for a collection that does not exist.
pub(crate) fn nothing(namespace: String) -> CursorReply {
    CursorReply { cursor: None, namespace, batch: Vec::new() }
}

pub(crate) fn dropped(record: &CollectionRecord) -> base::Error {
    let message = format!("collection dropped. UUID of {} is gone", record.namespace);
    base::Error::new(base::Code::QUERY_PLAN_KILLED, message)
}
