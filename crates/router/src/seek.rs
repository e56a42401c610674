//! Writes of one document whose filter does not say in which shard it is.
//!
//! Called by `spread`. Each shard is asked for the best document that it has, and for the right to execute the statement
//! (`query::evaluate::probe`); then one of them executes it, with a recheck. Always holds: of all attempts at a statement
//! that carry one identity, at most one is executed, in one shard; a repeat of one that was, is answered by the shard that
//! did it.

use std::sync::Arc;

use base::{Code, Error, Result};
use bson::Bson;
use catalog::CollectionRecord;
use document::filter::Filter;
use document::update::Update;
use document::{DocBuf, Variables};
use query::evaluate::{Ballot, ProbeReply, ShardCommand, ShardReply};

use crate::command::WriteReply;
use crate::command::{
    FindAndModifyAction, FindAndModifyCommand, Found, Hint, SeekCommand, SeekReply, UpdateCommand,
};
use crate::gather::unexpected;
use crate::peer::{Operation, OperationReply};
use crate::resolve::{Place, place_of, places_of, shard_key};
use crate::search::{ReadRequest, order};
use crate::spread::{Statements, merge};
use crate::{OperationContext, Router, parse};

/// The best document so far: its sort key and its key, and where it is.
struct Best {
    rank: (bytes::Bytes, bytes::Bytes),
    place: Place,
    found: Found,
}

/// What an upsert inserts where nothing matches.
struct Upsert<'a> {
    filter: &'a Filter,
    update: &'a Update,
    variables: &'a Variables,
}

impl Router {
    /// `update` or `delete` of one document.
    pub(crate) async fn seek_statement(
        &self,
        cx: &OperationContext,
        command: &Statements,
        at: usize,
        places: Vec<Place>,
        reply: &mut WriteReply,
    ) -> Result<()> {
        let stmt_id = command.stmt_id(at);
        let (namespace, filter, sort, hint, variables) = match command {
            Statements::Update(update) => {
                let statement = update.statements.get(at).expect("a statement of the command");
                let (filter, sort) = (statement.filter.clone(), statement.sort.clone());
                (&update.namespace, filter, sort, statement.hint.clone(), update.variables.clone())
            }
            Statements::Delete(delete) => {
                let statement = delete.statements.get(at).expect("a statement of the command");
                (
                    &delete.namespace,
                    statement.filter.clone(),
                    None,
                    statement.hint.clone(),
                    delete.variables.clone(),
                )
            }
            Statements::Insert(_) => unreachable!("an insert says where its document belongs"),
        };
        let seek = |ballot| SeekCommand {
            namespace: namespace.clone(),
            filter: filter.clone(),
            sort: sort.clone(),
            hint: hint.clone(),
            variables: variables.clone(),
            stmt_id,
            ballot,
        };
        let upsert = |places: &[Place]| match command {
            Statements::Update(update) => self.upsert_place(record_of(places), update, at),
            _ => Ok(None),
        };
        match self.seek(cx, places, seek, upsert, command.part(&[at])).await? {
            OperationReply::Write(part) => {
                merge(reply, part, &[at]);
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }

    /// `findAndModify`.
    pub(crate) async fn spread_find_and_modify(
        &self,
        cx: &OperationContext,
        record: &Arc<CollectionRecord>,
        command: FindAndModifyCommand,
    ) -> Result<OperationReply> {
        let variables = parse::variables(command.variables.as_ref());
        let filter = Filter::parse(command.filter.as_doc(), &variables)?;
        let mut places = places_of(record, &filter);
        if places.len() == 1 {
            let place = places.remove(0);
            return self.attempt(cx, &place, Operation::FindAndModify(command)).await;
        }
        let seek = |ballot| SeekCommand {
            namespace: command.namespace.clone(),
            filter: command.filter.clone(),
            sort: command.sort.clone(),
            hint: command.hint.clone(),
            variables: command.variables.clone(),
            stmt_id: 0,
            ballot,
        };
        let upsert = |_: &[Place]| match &command.action {
            FindAndModifyAction::Update { update, upsert: true, .. } => {
                let update = parse::update(update, &command.array_filters, &variables)?;
                self.upsert_at(record, &Upsert { filter: &filter, update: &update, variables: &variables })
                    .map(Some)
            }
            _ => Ok(None),
        };
        self.seek(cx, places, seek, upsert, Operation::FindAndModify(command.clone())).await
    }

    /// Asks all shards, until one of them may execute the operation and does.
    async fn seek(
        &self,
        cx: &OperationContext,
        places: Vec<Place>,
        seek: impl Fn(Ballot) -> SeekCommand + Send + Sync,
        upsert: impl Fn(&[Place]) -> Result<Option<(Place, Bson)>> + Send + Sync,
        operation: Operation,
    ) -> Result<OperationReply> {
        let mut ballot = self.next_ballot(None);
        loop {
            cx.check(self.clock.monotonic())?;
            let replies = self.ask_all(cx, places.clone(), &Operation::Seek(seek(ballot))).await?;
            let mut best: Option<Best> = None;
            let (mut executed, mut outranked, mut fences) = (None, None, Vec::new());
            for (place, reply) in places.iter().zip(replies) {
                match reply {
                    OperationReply::Seek(SeekReply::Executed) => executed = Some(place.clone()),
                    OperationReply::Seek(SeekReply::Outranked(higher)) => {
                        outranked = outranked.max(Some(higher))
                    }
                    OperationReply::Seek(SeekReply::Fenced { fence, found }) => {
                        fences.push((place.shard, fence));
                        let Some((sort_key, key)) = found else { continue };
                        let rank = (sort_key, key.clone());
                        if best.as_ref().is_none_or(|best| rank < best.rank) {
                            let found = Found { fence: Some(fence), key: Some(key), upsert_id: None };
                            best = Some(Best { rank, place: place.clone(), found });
                        }
                    }
                    other => return Err(unexpected(&other)),
                }
            }
            if let Some(place) = executed {
                // It recognises the repeat, and answers what it did.
                return self.attempt(cx, &place, operation).await;
            }
            if let Some(higher) = outranked {
                ballot = self.next_ballot(Some(higher));
                tokio::task::yield_now().await;
                continue;
            }
            let (place, found) = match best {
                Some(Best { place, found, .. }) => (place, found),
                None => {
                    let (place, upsert_id) = match upsert(&places)? {
                        Some((place, id)) => (place, Some(id)),
                        // Nothing matches: any of them can say so.
                        None => (places.first().cloned().expect("a collection has a shard"), None),
                    };
                    let fence =
                        fences.iter().find(|(shard, _)| *shard == place.shard).map(|(_, fence)| *fence);
                    (place, Found { fence, key: None, upsert_id })
                }
            };
            let here = OperationContext { found: Some(found), ..cx.clone() };
            match self.attempt(&here, &place, operation.clone()).await {
                Err(error) if error.code == Code::WRITE_CONFLICT => ballot = self.next_ballot(Some(ballot)),
                done => return done,
            }
        }
    }

    /// An update of many documents matched none: one shard inserts, if it is to.
    pub(crate) async fn upsert_somewhere(
        &self,
        cx: &OperationContext,
        record: &Arc<CollectionRecord>,
        command: &UpdateCommand,
        at: usize,
        reply: &mut WriteReply,
    ) -> Result<()> {
        let Some((place, id)) = self.upsert_place(record, command, at)? else { return Ok(()) };
        let found = Found { fence: None, key: None, upsert_id: Some(id) };
        let here = OperationContext { found: Some(found), ..cx.clone() };
        let operation = Statements::Update(command.clone()).part(&[at]);
        match self.attempt(&here, &place, operation).await? {
            OperationReply::Write(part) => {
                merge(reply, part, &[at]);
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Where a statement inserts, and under which `_id`; `None` when it does not.
    fn upsert_place(
        &self,
        record: &Arc<CollectionRecord>,
        command: &UpdateCommand,
        at: usize,
    ) -> Result<Option<(Place, Bson)>> {
        let statement = command.statements.get(at).expect("a statement of the command");
        if !statement.upsert {
            return Ok(None);
        }
        let variables = parse::variables(command.variables.as_ref());
        let filter = Filter::parse(statement.filter.as_doc(), &variables)?;
        let all = parse::statement_variables(&variables, statement);
        let update = parse::update(&statement.update, &statement.array_filters, &all)?;
        self.upsert_at(record, &Upsert { filter: &filter, update: &update, variables: &variables }).map(Some)
    }

    fn upsert_at(&self, record: &Arc<CollectionRecord>, upsert: &Upsert<'_>) -> Result<(Place, Bson)> {
        let id = self.new_object_id();
        let context = self.eval_context(upsert.variables.clone());
        let document = upsert.update.upsert_document(upsert.filter, id.clone(), &context)?;
        let hash = shard_key(record).hash(document.as_doc())?;
        Ok((place_of(record, hash), id))
    }

    /// A ballot above every one of this router, and above `higher`.
    fn next_ballot(&self, higher: Option<Ballot>) -> Ballot {
        let now = u64::try_from(self.clock.wall_ms()).unwrap_or_default();
        let above = higher.map_or(0, |higher| higher.round + 1);
        let last = self.ballots.fetch_max(now.max(above), std::sync::atomic::Ordering::Relaxed);
        let round = match last < now.max(above) {
            true => now.max(above),
            false => self.ballots.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1,
        };
        Ballot { round, boot: self.boot }
    }

    /// A shard's answer to a seek. Fails as stale when this node's replica does not lead.
    pub(crate) async fn seek_here(
        &self,
        cx: &OperationContext,
        place: &Place,
        command: SeekCommand,
    ) -> Result<SeekReply> {
        let (session, txn) = cx.retry_identity().ok_or_else(|| {
            Error::new(Code::INTERNAL_ERROR, "a write that may be in any shard came without an identity")
        })?;
        let probe = query::evaluate::Probe { session, txn, stmt_id: command.stmt_id, ballot: command.ballot };
        let answer = self.shard_of(place)?.write(ShardCommand::Probe(probe)).await?;
        let fence = match answer {
            ShardReply::Probed(ProbeReply::Executed(_)) => return Ok(SeekReply::Executed),
            ShardReply::Probed(ProbeReply::Outranked(higher)) => return Ok(SeekReply::Outranked(higher)),
            ShardReply::Probed(ProbeReply::Fenced(fence)) => fence,
            other => unreachable!("a shard answers a probe with {other:?}"),
        };
        let variables = parse::variables(command.variables.as_ref());
        let filter = Arc::new(Filter::parse(command.filter.as_doc(), &variables)?);
        let found =
            self.best_match(cx, place, filter, command.sort.as_ref(), command.hint, variables).await?;
        Ok(SeekReply::Fenced { fence, found })
    }

    /// The sort key and the key of the first document that matches.
    async fn best_match(
        &self,
        cx: &OperationContext,
        place: &Place,
        filter: Arc<Filter>,
        sort: Option<&DocBuf>,
        hint: Option<Hint>,
        variables: Variables,
    ) -> Result<Option<(bytes::Bytes, bytes::Bytes)>> {
        let (sort, hint) = order(sort, hint)?;
        let context = self.eval_context(variables);
        let request = ReadRequest {
            filter,
            sort,
            skip: 0,
            limit: Some(1),
            hint,
            context,
            after: None,
            scopes: Vec::new(),
        };
        let Some(mut executor) = self.start_read(cx, place, &request).await? else { return Ok(None) };
        let mut found = Vec::new();
        loop {
            let slice = query::execute::Slice::examining(query::execute::Slice::EXAMINED_DEFAULT);
            let progress = self.step(executor.next_ranked_batch(&slice, &mut found))?;
            if let Some(ranked) = found.pop() {
                return Ok(Some((ranked.sort_key, ranked.document_key)));
            }
            if progress == query::execute::Progress::Done {
                return Ok(None);
            }
            self.breathe(cx).await?;
        }
    }
}

fn record_of(places: &[Place]) -> &Arc<CollectionRecord> {
    &places.first().expect("a collection has a shard").record
}
