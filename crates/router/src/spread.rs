//! An operation on a collection of several shards: cut into one for each shard that it is about, and the answers merged.
//!
//! Called by `route`, again and again until it succeeds: a write that was done in part is recognised by its identity where
//! it was done. Always holds: an equality on the shard key is asked of its shards and of nobody else; statements of an
//! ordered command are executed in their order, up to the first that fails; what fails is named by its place in the
//! client's command.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Code, Error, Result, ShardId};
use bson::{Bson, Document};
use catalog::CollectionRecord;
use document::filter::Filter;
use document::path::Path;
use document::{DocBuf, Variables};
use query::execute::Distinct;

use crate::command::{
    CollectionStats, CountCommand, DeleteCommand, DistinctCommand, InsertCommand, UpdateCommand, WriteReply,
};
use crate::gather::{Asked, unexpected};
use crate::peer::{Operation, OperationReply};
use crate::resolve::{Place, all_places, place_of, places_of, shard_key};
use crate::retry::{ends_command, is_refusal};
use crate::{OperationContext, Router, parse};

/// Where a statement goes.
enum Way {
    /// To one shard.
    One(Place),
    /// To all of these.
    Many(Vec<Place>),
    /// To whichever of these has its document.
    Seek(Vec<Place>),
}

/// The statements of a write, whatever it does.
pub(crate) enum Statements {
    Insert(InsertCommand),
    Update(UpdateCommand),
    Delete(DeleteCommand),
}

impl Router {
    /// Executes an operation on the shards that it is about. Fails as stale when one of them has moved on.
    pub(crate) async fn spread(
        &self,
        cx: &OperationContext,
        record: &Arc<CollectionRecord>,
        operation: Operation,
    ) -> Result<OperationReply> {
        match operation {
            Operation::Insert(command) => self.spread_write(cx, record, &Statements::Insert(command)).await,
            Operation::Update(command) => self.spread_write(cx, record, &Statements::Update(command)).await,
            Operation::Delete(command) => self.spread_write(cx, record, &Statements::Delete(command)).await,
            Operation::FindAndModify(command) => self.spread_find_and_modify(cx, record, command).await,
            Operation::Count(command) => self.spread_count(cx, record, command).await,
            Operation::Distinct(command) => self.spread_distinct(cx, record, command).await,
            Operation::Explain(command, verbosity) => {
                self.spread_explain(cx, record, command, verbosity).await
            }
            Operation::CollectionStats(_) => self.spread_statistics(cx, record, operation).await,
            Operation::Validate(_) => self.spread_validate(cx, record, operation).await,
            Operation::Scan(_)
            | Operation::Continue { .. }
            | Operation::Seek(_)
            | Operation::KillCursors { .. }
            | Operation::Reconcile
            | Operation::Receive(_) => unreachable!("{operation:?} is about one shard"),
        }
    }

    /// Asks shards the same, all at once, and fails with the first error.
    pub(crate) async fn ask_all(
        &self,
        cx: &OperationContext,
        places: Vec<Place>,
        operation: &Operation,
    ) -> Result<Vec<OperationReply>> {
        let ask = |place| Asked { place, node: None, operation: operation.clone() };
        let answers = self.attempt_all(cx, places.into_iter().map(ask).collect(), &mut 0).await;
        answers.into_iter().map(|answer| answer.map(|(_, reply)| reply)).collect()
    }

    async fn spread_count(
        &self,
        cx: &OperationContext,
        record: &Arc<CollectionRecord>,
        command: CountCommand,
    ) -> Result<OperationReply> {
        let filter = parse::filter(command.filter.as_ref(), &Variables::default())?;
        let places = places_of(record, &filter);
        let (skip, limit) = (command.skip, command.limit);
        let part = CountCommand { skip: 0, limit: limit.map(|limit| limit.saturating_add(skip)), ..command };
        let mut total = 0_u64;
        for reply in self.ask_all(cx, places, &Operation::Count(part)).await? {
            match reply {
                OperationReply::Count(count) => total += count,
                other => return Err(unexpected(&other)),
            }
        }
        let rest = total.saturating_sub(skip);
        Ok(OperationReply::Count(limit.map_or(rest, |limit| rest.min(limit))))
    }

    async fn spread_distinct(
        &self,
        cx: &OperationContext,
        record: &Arc<CollectionRecord>,
        command: DistinctCommand,
    ) -> Result<OperationReply> {
        let filter = parse::filter(command.filter.as_ref(), &Variables::default())?;
        let places = places_of(record, &filter);
        let mut distinct = Distinct::new(Path::parse_bounded(&command.key)?);
        for reply in self.ask_all(cx, places, &Operation::Distinct(command)).await? {
            let OperationReply::Values(found) = reply else { return Err(unexpected(&reply)) };
            found.iter().try_for_each(|value| distinct.add_value(value))?;
        }
        Ok(OperationReply::Values(distinct.into_values()))
    }

    async fn spread_statistics(
        &self,
        cx: &OperationContext,
        record: &Arc<CollectionRecord>,
        operation: Operation,
    ) -> Result<OperationReply> {
        let mut total = CollectionStats::default();
        for reply in self.ask_all(cx, all_places(record), &operation).await? {
            let OperationReply::CollectionStats(part) = reply else { return Err(unexpected(&reply)) };
            total.add(part);
        }
        Ok(OperationReply::CollectionStats(total))
    }

    async fn spread_validate(
        &self,
        cx: &OperationContext,
        record: &Arc<CollectionRecord>,
        operation: Operation,
    ) -> Result<OperationReply> {
        let places = all_places(record);
        let shards: Vec<ShardId> = places.iter().map(|place| place.shard).collect();
        let replies = self.ask_all(cx, places, &operation).await?;
        let mut total: Option<Document> = None;
        for (shard, reply) in shards.into_iter().zip(replies) {
            let OperationReply::Document(part) = reply else { return Err(unexpected(&reply)) };
            match &mut total {
                None => total = Some(part),
                Some(total) => add_validation(total, &part, shard),
            }
        }
        Ok(OperationReply::Document(total.unwrap_or_default()))
    }

    async fn spread_write(
        &self,
        cx: &OperationContext,
        record: &Arc<CollectionRecord>,
        command: &Statements,
    ) -> Result<OperationReply> {
        let mut reply = WriteReply::default();
        let ways = (0..command.len()).map(|at| (at, self.way(record, command, at)));
        let done = match command.is_ordered() {
            true => self.run_in_order(cx, command, ways, &mut reply).await,
            false => self.run_at_once(cx, command, ways, &mut reply).await,
        };
        done.map_err(|error| not_as_refused(error, &reply))?;
        reply.write_errors.sort_by_key(|(index, _)| *index);
        reply.upserted.sort_by_key(|(index, _)| *index);
        // Several shards may have found that they had executed the same statement.
        reply.retried_statement_ids.sort_unstable();
        reply.retried_statement_ids.dedup();
        Ok(OperationReply::Write(reply))
    }

    /// Neighbours of the same shard travel together.
    async fn run_in_order(
        &self,
        cx: &OperationContext,
        command: &Statements,
        ways: impl Iterator<Item = (usize, Result<Way>)>,
        reply: &mut WriteReply,
    ) -> Result<()> {
        let mut together: Option<(Place, Vec<usize>)> = None;
        for (at, way) in ways {
            if let (Ok(Way::One(place)), Some((shard, run))) = (&way, &mut together)
                && place.shard == shard.shard
            {
                run.push(at);
                continue;
            }
            if let Some((place, run)) = together.take() {
                self.send_runs(cx, command, vec![(place, run)], reply).await?;
            }
            if !reply.write_errors.is_empty() {
                return Ok(());
            }
            match way {
                Ok(Way::One(place)) => together = Some((place, vec![at])),
                Ok(way) => self.run_alone(cx, command, at, way, reply).await?,
                Err(error) => reply.write_errors.push((at, error)),
            }
            if !reply.write_errors.is_empty() {
                return Ok(());
            }
        }
        match together {
            Some(run) => self.send_runs(cx, command, vec![run], reply).await,
            None => Ok(()),
        }
    }

    async fn run_at_once(
        &self,
        cx: &OperationContext,
        command: &Statements,
        ways: impl Iterator<Item = (usize, Result<Way>)>,
        reply: &mut WriteReply,
    ) -> Result<()> {
        let mut runs: BTreeMap<ShardId, (Place, Vec<usize>)> = BTreeMap::new();
        let mut alone = Vec::new();
        for (at, way) in ways {
            match way {
                Ok(Way::One(place)) => {
                    runs.entry(place.shard).or_insert_with(|| (place, Vec::new())).1.push(at);
                }
                Ok(way) => alone.push((at, way)),
                Err(error) => reply.write_errors.push((at, error)),
            }
        }
        self.send_runs(cx, command, runs.into_values().collect(), reply).await?;
        for (at, way) in alone {
            self.run_alone(cx, command, at, way, reply).await?;
        }
        Ok(())
    }

    /// Sends statements to their shards, to all of these at the same time.
    async fn send_runs(
        &self,
        cx: &OperationContext,
        command: &Statements,
        runs: Vec<(Place, Vec<usize>)>,
        reply: &mut WriteReply,
    ) -> Result<()> {
        let ask = |(place, run): &(Place, Vec<usize>)| Asked {
            place: place.clone(),
            node: None,
            operation: command.part(run),
        };
        let answers = self.attempt_all(cx, runs.iter().map(ask).collect(), &mut 0).await;
        let mut failed = None;
        for ((_, run), answer) in runs.iter().zip(answers) {
            match answer {
                Ok((_, OperationReply::Write(part))) => merge(reply, part, run),
                Ok((_, other)) => return Err(unexpected(&other)),
                // The others are heard too, and one that may have done something says more than one that has not.
                Err(error) => failed = failed.filter(|known| !is_refusal(known)).or(Some(error)),
            }
        }
        failed.map_or(Ok(()), |error| Err(not_as_refused(error, reply)))
    }

    /// Executes a statement that may be about several shards.
    async fn run_alone(
        &self,
        cx: &OperationContext,
        command: &Statements,
        at: usize,
        way: Way,
        reply: &mut WriteReply,
    ) -> Result<()> {
        let done = match way {
            Way::One(place) => return self.send_runs(cx, command, vec![(place, vec![at])], reply).await,
            Way::Many(places) => self.run_everywhere(cx, command, at, places, reply).await,
            Way::Seek(places) => self.seek_statement(cx, command, at, places, reply).await,
        };
        match done {
            Err(error) if !ends_command(&error) => {
                reply.write_errors.push((at, error));
                Ok(())
            }
            done => done,
        }
    }

    /// A statement of many documents: each shard does its own, and where none matches, one may insert.
    async fn run_everywhere(
        &self,
        cx: &OperationContext,
        command: &Statements,
        at: usize,
        places: Vec<Place>,
        reply: &mut WriteReply,
    ) -> Result<()> {
        let record = places.first().map(|place| Arc::clone(&place.record));
        let runs = places.into_iter().map(|place| (place, vec![at])).collect();
        let mut all = WriteReply::default();
        self.send_runs(cx, &command.without_upsert(at), runs, &mut all).await?;
        all.write_errors.truncate(1);
        let nothing = all.n == 0 && all.write_errors.is_empty();
        merge_whole(reply, all);
        match (record, command) {
            (Some(record), Statements::Update(update)) if nothing => {
                self.upsert_somewhere(cx, &record, update, at, reply).await
            }
            _ => Ok(()),
        }
    }

    fn way(&self, record: &Arc<CollectionRecord>, command: &Statements, at: usize) -> Result<Way> {
        let filtered = |filter: &DocBuf, variables: &Option<DocBuf>, multi: bool| {
            let variables = parse::variables(variables.as_ref());
            let filter = Filter::parse(filter.as_doc(), &variables)?;
            let mut places = places_of(record, &filter);
            Ok(match (places.len(), multi) {
                (1, _) => Way::One(places.remove(0)),
                (_, true) => Way::Many(places),
                (_, false) => Way::Seek(places),
            })
        };
        match command {
            Statements::Insert(insert) => {
                let document = insert.documents.get(at).expect("a statement of the command");
                let hash = shard_key(record).hash(document.as_doc())?;
                Ok(Way::One(place_of(record, hash)))
            }
            Statements::Update(update) => {
                let statement = update.statements.get(at).expect("a statement of the command");
                filtered(&statement.filter, &update.variables, statement.multi)
            }
            Statements::Delete(delete) => {
                let statement = delete.statements.get(at).expect("a statement of the command");
                filtered(&statement.filter, &delete.variables, statement.multi)
            }
        }
    }
}

impl Statements {
    fn len(&self) -> usize {
        match self {
            Statements::Insert(command) => command.documents.len(),
            Statements::Update(command) => command.statements.len(),
            Statements::Delete(command) => command.statements.len(),
        }
    }

    fn is_ordered(&self) -> bool {
        match self {
            Statements::Insert(InsertCommand { ordered, .. })
            | Statements::Update(UpdateCommand { ordered, .. })
            | Statements::Delete(DeleteCommand { ordered, .. }) => *ordered,
        }
    }

    /// The number of a statement, by which a repeat is recognised.
    pub(crate) fn stmt_id(&self, at: usize) -> i32 {
        let ids = match self {
            Statements::Insert(InsertCommand { statement_ids, .. })
            | Statements::Update(UpdateCommand { statement_ids, .. })
            | Statements::Delete(DeleteCommand { statement_ids, .. }) => statement_ids,
        };
        crate::write::stmt_id(ids, at)
    }

    /// The command with some of its statements, which keep their numbers.
    pub(crate) fn part(&self, run: &[usize]) -> Operation {
        let statement_ids = run.iter().map(|at| self.stmt_id(*at)).collect();
        match self {
            Statements::Insert(command) => Operation::Insert(InsertCommand {
                namespace: command.namespace.clone(),
                documents: chosen(&command.documents, run),
                ordered: command.ordered,
                statement_ids,
            }),
            Statements::Update(command) => Operation::Update(UpdateCommand {
                namespace: command.namespace.clone(),
                statements: chosen(&command.statements, run),
                ordered: command.ordered,
                variables: command.variables.clone(),
                statement_ids,
            }),
            Statements::Delete(command) => Operation::Delete(DeleteCommand {
                namespace: command.namespace.clone(),
                statements: chosen(&command.statements, run),
                ordered: command.ordered,
                variables: command.variables.clone(),
                statement_ids,
            }),
        }
    }

    /// The command with a statement that inserts nothing.
    fn without_upsert(&self, at: usize) -> Statements {
        match self {
            Statements::Insert(command) => Statements::Insert(command.clone()),
            Statements::Delete(command) => Statements::Delete(command.clone()),
            Statements::Update(command) => {
                let mut command = command.clone();
                if let Some(statement) = command.statements.get_mut(at) {
                    statement.upsert = false;
                }
                Statements::Update(command)
            }
        }
    }
}

fn chosen<T: Clone>(all: &[T], run: &[usize]) -> Vec<T> {
    run.iter().filter_map(|at| all.get(*at)).cloned().collect()
}

/// Adds what the statements of a run did, under their places in the client's command.
pub(crate) fn merge(reply: &mut WriteReply, part: WriteReply, run: &[usize]) {
    let place = |at: usize| run.get(at).copied().unwrap_or(at);
    let upserted = part.upserted.into_iter().map(|(at, id)| (place(at), id)).collect();
    let write_errors: Vec<(usize, Error)> =
        part.write_errors.into_iter().map(|(at, error)| (place(at), error)).collect();
    merge_whole(reply, WriteReply { upserted, write_errors, ..part });
}

fn merge_whole(reply: &mut WriteReply, part: WriteReply) {
    reply.n += part.n;
    reply.n_modified += part.n_modified;
    reply.upserted.extend(part.upserted);
    reply.write_errors.extend(part.write_errors);
    reply.retried_statement_ids.extend(part.retried_statement_ids);
}

/// A refusal by one shard is none of the whole when others have done their parts: it goes on in this collection or nowhere.
fn not_as_refused(error: Error, reply: &WriteReply) -> Error {
    match is_refusal(&error) && (reply.n > 0 || !reply.write_errors.is_empty()) {
        true => Error::new(Code::INTERRUPTED_DUE_TO_REPL_STATE_CHANGE, error.message),
        false => error,
    }
}

/// Adds what `validate` found in one more shard.
fn add_validation(total: &mut Document, part: &Document, shard: ShardId) {
    for (name, value) in part {
        match (total.get_mut(name), value) {
            (Some(Bson::Int32(sum)), Bson::Int32(more)) if name != "nIndexes" => *sum += more,
            (Some(Bson::Boolean(all)), Bson::Boolean(valid)) if name == "valid" => *all &= valid,
            (Some(Bson::Array(all)), Bson::Array(more)) => {
                all.extend(more.iter().map(|text| Bson::String(format!("{shard}: {text}"))));
            }
            (Some(Bson::Document(all)), Bson::Document(more)) => add_validation(all, more, shard),
            _ => {}
        }
    }
}
