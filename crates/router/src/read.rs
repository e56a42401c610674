//! `getMore`, `killCursors`, and one shard's part of `count` and `distinct`.

use std::sync::Arc;

use base::limits::{BATCH_BYTES_MAX, FIRST_BATCH_DOCUMENTS};
use base::{Error, Result, SessionId};
use bson::Bson;
use document::DocBuf;
use document::filter::Node;
use document::path::Path;
use query::execute::{Distinct, Progress, Slice, collection_count};

use crate::command::{
    CountCommand, CursorId, CursorReply, DistinctCommand, FindCommand, GetMoreCommand, ScanCommand, ScanSize,
};
use crate::cursor::{Cursor, OpenCursor};
use crate::gather::BatchSize;
use crate::resolve::Place;
use crate::search::ReadRequest;
use crate::{OperationContext, Router, parse};

impl Router {
    /// `getMore` of a cursor of this router; what it continues may be on another node.
    pub(crate) async fn get_more_here(
        &self,
        cx: &OperationContext,
        command: GetMoreCommand,
    ) -> Result<CursorReply> {
        let mut open = self.cursors.take(command.cursor, &command.namespace, cx.session)?;
        let size = next_batch(command.batch_size);
        let mut batch = Vec::new();
        let more = self.continue_cursor(cx, &mut open.cursor, &size, &mut batch).await;
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

    /// How many cursors of clients are open.
    pub fn open_cursors(&self) -> usize {
        self.cursors.len()
    }

    /// How many parts of cursors this node holds, for routers here and on other nodes.
    pub fn open_cursor_parts(&self) -> usize {
        self.cursors.parts()
    }

    /// `count` on this node's replica.
    pub(crate) async fn count_here(
        &self,
        cx: &OperationContext,
        place: Option<&Place>,
        command: CountCommand,
    ) -> Result<u64> {
        let variables = document::Variables::default();
        let filter = Arc::new(parse::filter(command.filter.as_ref(), &variables)?);
        let Some(place) = place else { return Ok(0) };
        if matches!(filter.root(), Node::True) && command.hint.is_none() {
            let Some((view, _)) = self.view(cx, place).await? else { return Ok(0) };
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
            after: None,
            scopes: Vec::new(),
        };
        let Some(mut executor) = self.start_read(cx, place, &request).await? else { return Ok(0) };
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
        place: Option<&Place>,
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
            after: None,
            scopes: Vec::new(),
        };
        let mut distinct = Distinct::new(Path::parse_bounded(&command.key)?);
        let Some(place) = place else { return Ok(Vec::new()) };
        let Some(mut executor) = self.start_read(cx, place, &request).await? else { return Ok(Vec::new()) };
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
        batch: &mut Vec<DocBuf>,
    ) -> Result<bool> {
        match cursor {
            Cursor::Find(gather) => self.fill_gather(cx, gather, size, batch).await,
            Cursor::Aggregate(aggregate) => self.fill_aggregate(cx, aggregate, size, batch).await,
            Cursor::Scan(_) => Err(Error::bad_value("a shard's part of a read is continued by its router")),
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

/// What each shard is asked for a find, and whether the client wants its first batch only.
pub(crate) fn scan_of(command: FindCommand, size: &BatchSize) -> (ScanCommand, bool) {
    let scan = ScanCommand {
        namespace: command.namespace,
        filter: command.filter,
        sort: command.sort,
        projection: command.projection,
        skip: command.skip,
        limit: command.limit,
        hint: command.hint,
        variables: command.variables,
        pipeline: Vec::new(),
        ranked: false,
        after: None,
        scopes: Vec::new(),
        size: ScanSize { documents_max: size.documents_max as u64, bytes_max: size.bytes_max as u64 },
        keep: !command.single_batch,
    };
    (scan, command.single_batch)
}
