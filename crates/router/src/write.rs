//! `insert`, `update`, `delete`: statements become requests to the shard's owner loop.
//!
//! Consecutive statements that need no search (inserts; filters on `_id`) travel together in one request and one Raft
//! entry. A statement that needs a search is sent by itself with what was found; when its candidate was changed
//! meanwhile so that it matches no more, it is searched again. Acknowledged means fsynced on a majority.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::limits::{ENTRY_BYTES_MAX, MULTI_WRITE_BATCH};
use base::{Code, Error, Namespace, Result};
use bson::Bson;
use document::filter::Filter;
use document::{DocBuf, Variables};
use query::evaluate::{
    Candidates, Outcome, ReturnDocument, ShardCommand, ShardReply, Statement, StatementResult, WriteOp,
    WriteRequest,
};

use crate::command::{
    DeleteCommand, DeleteStatement, Found, Hint, InsertCommand, UpdateCommand, UpdateStatement, WriteReply,
};
use crate::resolve::Place;
use crate::retry::{ends_command, is_refusal};
use crate::search::Search;
use crate::{OperationContext, Router, parse, target};

/// Bytes of documents that one request carries; a larger command becomes several entries.
const REQUEST_BYTES_MAX: usize = ENTRY_BYTES_MAX / 2;
/// Statements that one request carries.
const REQUEST_STATEMENTS_MAX: usize = 1_000;

/// How a command's statements are sent.
pub(crate) struct WriteContext<'a> {
    pub(crate) cx: &'a OperationContext,
    pub(crate) namespace: &'a Namespace,
    pub(crate) ordered: bool,
    pub(crate) variables: &'a Variables,
    /// The shard that the operation was brought here for. `None`: there is no collection, and nothing matches.
    pub(crate) place: Option<&'a Place>,
    /// Whether a part of the operation was done.
    pub(crate) is_begun: AtomicBool,
}

/// A parsed statement.
struct Prepared {
    index: usize,
    stmt_id: i32,
    bytes: usize,
    op: WriteOp,
    /// How to find candidates; `None` when `op` names its documents.
    search: Option<Search>,
}

impl Router {
    /// `insert` into this node's replica.
    pub(crate) async fn insert_here(
        &self,
        cx: &OperationContext,
        place: Option<&Place>,
        command: InsertCommand,
    ) -> Result<WriteReply> {
        let variables = Variables::default();
        let statement_ids = command.statement_ids;
        let prepared = command.documents.into_iter().enumerate().map(|(index, document)| Prepared {
            index,
            stmt_id: stmt_id(&statement_ids, index),
            bytes: document.bytes().len(),
            op: WriteOp::Insert { document },
            search: None,
        });
        let context = WriteContext {
            cx,
            namespace: &command.namespace,
            ordered: command.ordered,
            variables: &variables,
            place,
            is_begun: AtomicBool::new(false),
        };
        self.run(&context, prepared.map(Ok)).await
    }

    /// `update` of this node's replica.
    pub(crate) async fn update_here(
        &self,
        cx: &OperationContext,
        place: Option<&Place>,
        command: UpdateCommand,
    ) -> Result<WriteReply> {
        let variables = parse::variables(command.variables.as_ref());
        let prepared = command.statements.iter().enumerate().map(|(index, statement)| {
            let stmt_id = stmt_id(&command.statement_ids, index);
            self.prepare_update(index, stmt_id, statement, &variables).map_err(|error| (index, error))
        });
        let context = WriteContext {
            cx,
            namespace: &command.namespace,
            ordered: command.ordered,
            variables: &variables,
            place,
            is_begun: AtomicBool::new(false),
        };
        self.run(&context, prepared).await
    }

    /// `delete` from this node's replica.
    pub(crate) async fn delete_here(
        &self,
        cx: &OperationContext,
        place: Option<&Place>,
        command: DeleteCommand,
    ) -> Result<WriteReply> {
        let variables = parse::variables(command.variables.as_ref());
        let prepared = command.statements.iter().enumerate().map(|(index, statement)| {
            let stmt_id = stmt_id(&command.statement_ids, index);
            prepare_delete(index, stmt_id, statement, &variables).map_err(|error| (index, error))
        });
        let context = WriteContext {
            cx,
            namespace: &command.namespace,
            ordered: command.ordered,
            variables: &variables,
            place,
            is_begun: AtomicBool::new(false),
        };
        self.run(&context, prepared).await
    }

    fn prepare_update(
        &self,
        index: usize,
        stmt_id: i32,
        statement: &UpdateStatement,
        variables: &Variables,
    ) -> Result<Prepared> {
        let filter = Arc::new(Filter::parse(statement.filter.as_doc(), variables)?);
        let update_variables = parse::statement_variables(variables, statement);
        let update = parse::update(&statement.update, &statement.array_filters, &update_variables)?;
        let (candidates, search) = aim(&filter, &statement.hint, &statement.sort, statement.multi);
        let op = WriteOp::Update {
            candidates,
            filter,
            update: Arc::new(update),
            upsert: statement.upsert.then(|| self.new_object_id()),
            multi: statement.multi,
            return_document: ReturnDocument::None,
        };
        Ok(Prepared { index, stmt_id, bytes: statement.filter.bytes().len(), op, search })
    }

    /// Runs prepared statements in order; `Err` items are statements that do not parse.
    async fn run(
        &self,
        context: &WriteContext<'_>,
        prepared: impl Iterator<Item = Result<Prepared, (usize, base::Error)>>,
    ) -> Result<WriteReply> {
        let mut reply = WriteReply::default();
        let mut pending = Pending::default();
        for item in prepared {
            let flush_first = match &item {
                Ok(statement) => statement.search.is_some() || !pending.takes(statement),
                Err(_) => true,
            };
            if flush_first && self.send_pending(context, &mut pending, &mut reply).await?.is_stop() {
                return Ok(reply);
            }
            let goes_on = match item {
                Ok(statement) if statement.search.is_none() => {
                    pending.add(statement);
                    Progress::Continue
                }
                Ok(statement) => self.search_and_send(context, statement, &mut reply).await?,
                Err((index, error)) => {
                    reply.write_errors.push((index, error));
                    Progress::after_error(context.ordered)
                }
            };
            if goes_on.is_stop() {
                return Ok(reply);
            }
        }
        self.send_pending(context, &mut pending, &mut reply).await?;
        Ok(reply)
    }

    async fn send_pending(
        &self,
        context: &WriteContext<'_>,
        pending: &mut Pending,
        reply: &mut WriteReply,
    ) -> Result<Progress> {
        if pending.statements.is_empty() {
            return Ok(Progress::Continue);
        }
        let Pending { indexes, statements, .. } = std::mem::take(pending);
        let statements: Arc<[Statement]> = statements.into();
        let results = self.send(context, &statements).await?;
        let mut progress = Progress::Continue;
        for result in results {
            let index =
                *indexes.get(result.statement).expect("a shard answers for the statements it was sent");
            let stmt_id = statements.get(result.statement).map(|statement| statement.stmt_id);
            if collect(reply, index, stmt_id, result) {
                progress = Progress::after_error(context.ordered);
            }
        }
        Ok(progress)
    }

    /// Sends one statement whose documents must be found first.
    async fn search_and_send(
        &self,
        context: &WriteContext<'_>,
        prepared: Prepared,
        reply: &mut WriteReply,
    ) -> Result<Progress> {
        let Prepared { index, stmt_id, op, search, .. } = prepared;
        let search = search.expect("the caller checked that this statement needs a search");
        let sent = if search.multi {
            self.send_multi(context, &search, stmt_id, op).await
        } else {
            self.send_found(context, &search, stmt_id, op).await
        };
        let failed = match sent {
            Ok(result) => collect(reply, index, Some(stmt_id), result),
            // What the node could not do ends the command, so that the driver sends it again; a statement's own error
            // belongs to the statement.
            Err(error) if ends_command(&error) => return Err(error),
            Err(error) => {
                reply.write_errors.push((index, error));
                true
            }
        };
        Ok(if failed { Progress::after_error(context.ordered) } else { Progress::Continue })
    }

    /// Finds one document for a statement and sends it, again and again until the found one still matches.
    pub(crate) async fn send_found(
        &self,
        context: &WriteContext<'_>,
        search: &Search,
        stmt_id: i32,
        mut op: WriteOp,
    ) -> Result<StatementResult> {
        if let Some(found) = &context.cx.found {
            return self.send_here_or_nowhere(context, found, stmt_id, op).await;
        }
        loop {
            context.cx.check(self.clock.monotonic())?;
            let keys = self.search(context, search, 1).await?;
            let exact = keys.is_empty();
            *candidates_mut(&mut op) = Candidates { keys, exact, more: false };
            let result = self.send_one(context, Statement { stmt_id, op: op.clone() }).await?;
            if !matches!(result.outcome, Ok(Outcome::LostCandidate)) {
                return Ok(result);
            }
        }
    }

    /// Sends a statement whose document was sought in all shards. Fails with `WriteConflict` when it has to be sought again.
    async fn send_here_or_nowhere(
        &self,
        context: &WriteContext<'_>,
        found: &Found,
        stmt_id: i32,
        mut op: WriteOp,
    ) -> Result<StatementResult> {
        let keys: Vec<_> = found.key.iter().cloned().collect();
        let exact = keys.is_empty();
        *candidates_mut(&mut op) = Candidates { keys, exact, more: false };
        if let (WriteOp::Update { upsert: Some(id), .. }, Some(drawn)) = (&mut op, &found.upsert_id) {
            *id = drawn.clone();
        }
        self.send_one(context, Statement { stmt_id, op }).await
    }

    /// Finds all documents for a statement on one read view and sends them in batches.
    async fn send_multi(
        &self,
        context: &WriteContext<'_>,
        search: &Search,
        stmt_id: i32,
        mut op: WriteOp,
    ) -> Result<StatementResult> {
        if let Some(found) = &context.cx.found {
            return self.send_here_or_nowhere(context, found, stmt_id, op).await;
        }
        let mut keys = self.search(context, search, usize::MAX).await?;
        // A repeat goes on behind the last document of the batches that were done.
        keys.sort_unstable();
        // Only a statement that finds nothing may insert.
        if !keys.is_empty()
            && let WriteOp::Update { upsert, .. } = &mut op
        {
            *upsert = None;
        }
        let mut batches = batches(keys).into_iter().peekable();
        let mut total = None;
        while let Some(keys) = batches.next() {
            context.cx.check(self.clock.monotonic())?;
            let more = batches.peek().is_some();
            *candidates_mut(&mut op) = Candidates { keys, exact: true, more };
            let result = self.send_one(context, Statement { stmt_id, op: op.clone() }).await?;
            let failed = result.outcome.is_err();
            total = Some(result);
            if failed {
                break;
            }
        }
        Ok(total.expect("there is at least one batch, perhaps empty"))
    }

    pub(crate) async fn send_one(
        &self,
        context: &WriteContext<'_>,
        statement: Statement,
    ) -> Result<StatementResult> {
        let statements: Arc<[Statement]> = Arc::new([statement]);
        let results = self.send(context, &statements).await?;
        Ok(results.into_iter().next().expect("a shard answers for every statement until one fails"))
    }

    /// Sends statements to the shard's owner loop. Fails as stale when this node's replica does not lead.
    async fn send(
        &self,
        context: &WriteContext<'_>,
        statements: &Arc<[Statement]>,
    ) -> Result<Vec<StatementResult>> {
        match context.place {
            Some(place) => self.send_to(context, place, Arc::clone(statements)).await,
            None => Ok(nothing_matched(statements)),
        }
    }

    async fn send_to(
        &self,
        context: &WriteContext<'_>,
        place: &Place,
        statements: Arc<[Statement]>,
    ) -> Result<Vec<StatementResult>> {
        let request = WriteRequest {
            namespace: context.namespace.clone(),
            epoch: place.since,
            session: context.cx.retry_identity(),
            statements,
            ordered: context.ordered,
            fence: context.cx.found.as_ref().and_then(|found| found.fence),
            variables: context.variables.clone(),
        };
        let written = match self.shard_of(place) {
            Ok(shard) => match self.check_room_of(&shard) {
                Ok(()) => shard.write(ShardCommand::Write(request)).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match written {
            // Whoever sought the document in all shards seeks it again.
            Ok(ShardReply::Write(results)) if context.cx.found.is_some() && results.iter().any(is_lost) => {
                let message = "the document was changed, or another attempt at this write is under way";
                Err(Error::new(Code::WRITE_CONFLICT, message))
            }
            Ok(ShardReply::Write(results)) => {
                context.is_begun.store(true, Ordering::Relaxed);
                Ok(results)
            }
            Ok(other) => unreachable!("a shard answers a write with {other:?}"),
            // The rest was refused; it cannot be said of the operation that nothing was done.
            Err(error) if is_refusal(&error) && context.is_begun.load(Ordering::Relaxed) => {
                Err(Error::new(Code::INTERRUPTED_DUE_TO_REPL_STATE_CHANGE, error.message))
            }
            Err(error) => Err(error),
        }
    }

    /// An ObjectId as the BSON specification describes it: seconds, then random bytes.
    pub(crate) fn new_object_id(&self) -> Bson {
        let mut bytes = [0; 12];
        let seconds = u32::try_from(self.clock.wall_ms().max(0) / 1000).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&seconds.to_be_bytes());
        bytes[4..].copy_from_slice(&self.entropy.next_u64().to_be_bytes());
        Bson::ObjectId(bson::oid::ObjectId::from_bytes(bytes))
    }
}

fn is_lost(result: &StatementResult) -> bool {
    matches!(result.outcome, Ok(Outcome::LostCandidate))
}

/// Whether to go on with the next statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Continue,
    Stop,
}

impl Progress {
    fn after_error(ordered: bool) -> Progress {
        if ordered { Progress::Stop } else { Progress::Continue }
    }

    fn is_stop(self) -> bool {
        self == Progress::Stop
    }
}

/// Statements that travel in one request.
#[derive(Default)]
struct Pending {
    indexes: Vec<usize>,
    statements: Vec<Statement>,
    bytes: usize,
}

impl Pending {
    fn takes(&self, statement: &Prepared) -> bool {
        self.statements.is_empty()
            || (self.statements.len() < REQUEST_STATEMENTS_MAX
                && self.bytes + statement.bytes <= REQUEST_BYTES_MAX)
    }

    fn add(&mut self, statement: Prepared) {
        self.indexes.push(statement.index);
        self.bytes += statement.bytes;
        self.statements.push(Statement { stmt_id: statement.stmt_id, op: statement.op });
    }
}

fn prepare_delete(
    index: usize,
    stmt_id: i32,
    statement: &DeleteStatement,
    variables: &Variables,
) -> Result<Prepared> {
    let filter = Arc::new(Filter::parse(statement.filter.as_doc(), variables)?);
    let (candidates, search) = aim(&filter, &statement.hint, &None, statement.multi);
    let op =
        WriteOp::Delete { candidates, filter, multi: statement.multi, return_document: ReturnDocument::None };
    Ok(Prepared { index, stmt_id, bytes: statement.filter.bytes().len(), op, search })
}

/// Names the documents of a filter on `_id`; for any other filter says how to search.
fn aim(
    filter: &Arc<Filter>,
    hint: &Option<Hint>,
    sort: &Option<DocBuf>,
    multi: bool,
) -> (Candidates, Option<Search>) {
    let direct = if hint.is_none() && sort.is_none() { target::document_keys(filter) } else { None };
    match direct {
        Some(keys) => (Candidates { keys, exact: true, more: false }, None),
        None => {
            let search = Search { filter: Arc::clone(filter), sort: sort.clone(), hint: hint.clone(), multi };
            (Candidates::default(), Some(search))
        }
    }
}

pub(crate) fn candidates_mut(op: &mut WriteOp) -> &mut Candidates {
    match op {
        WriteOp::Update { candidates, .. } | WriteOp::Delete { candidates, .. } => candidates,
        WriteOp::Insert { .. } => unreachable!("an insert has no candidates"),
    }
}

/// Cuts keys into batches; one empty batch for no key, so that the shard hears of the statement.
fn batches(keys: Vec<bytes::Bytes>) -> Vec<Vec<bytes::Bytes>> {
    if keys.is_empty() {
        return vec![Vec::new()];
    }
    keys.chunks(MULTI_WRITE_BATCH).map(<[_]>::to_vec).collect()
}

/// What statements do in a collection that does not exist.
fn nothing_matched(statements: &[Statement]) -> Vec<StatementResult> {
    let outcome = |op: &WriteOp| match op {
        WriteOp::Update { .. } => {
            Outcome::Updated { matched: 0, modified: 0, upserted: None, document: None }
        }
        WriteOp::Delete { .. } => Outcome::Deleted { deleted: 0, document: None },
        WriteOp::Insert { .. } => unreachable!("an insert creates its collection"),
    };
    let result = |(statement, sent): (usize, &Statement)| StatementResult {
        statement,
        outcome: Ok(outcome(&sent.op)),
        repeated: false,
    };
    statements.iter().enumerate().map(result).collect()
}

/// Adds a statement's result to the reply. Says whether it failed.
fn collect(reply: &mut WriteReply, index: usize, stmt_id: Option<i32>, result: StatementResult) -> bool {
    if result.repeated {
        reply.retried_statement_ids.extend(stmt_id);
    }
    match result.outcome {
        Ok(Outcome::Inserted) => reply.n += 1,
        Ok(Outcome::Updated { matched, modified, upserted, .. }) => {
            reply.n += matched + u64::from(upserted.is_some());
            reply.n_modified += modified;
            reply.upserted.extend(upserted.map(|id| (index, id)));
        }
        Ok(Outcome::Deleted { deleted, .. }) => reply.n += deleted,
        Ok(Outcome::LostCandidate) => unreachable!("a statement that lost its candidate is searched again"),
        Err(error) => {
            reply.write_errors.push((index, error));
            return true;
        }
    }
    false
}

pub(crate) fn stmt_id(statement_ids: &[i32], index: usize) -> i32 {
    statement_ids.get(index).copied().unwrap_or_else(|| i32::try_from(index).expect("a batch is limited"))
}
