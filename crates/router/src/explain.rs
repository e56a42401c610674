//! `explain`: what a command would do, and what it costs. Changes nothing.

use std::sync::Arc;

use base::{Namespace, Result};
use bson::{Bson, Document, doc};
use document::filter::Node;
use document::pipeline::Pipeline;
use document::{DocBuf, Variables};
use query::execute::{Counters, FindExecutor, Progress, Slice};
use query::explain::{Explained, execution_stats, query_planner};
use query::plan::{Access, Plan};

use crate::aggregate::divide;
use crate::command::{
    AggregateCommand, CountCommand, DeleteCommand, DistinctCommand, ExplainCommand, FindAndModifyCommand,
    FindCommand, Hint, UpdateCommand, Verbosity,
};
use crate::resolve::Place;
use crate::search::{ReadRequest, order};
use crate::{OperationContext, Router, parse};

/// The read that a command contains.
#[derive(Default)]
struct Subject {
    filter: Option<DocBuf>,
    sort: Option<DocBuf>,
    projection: Option<DocBuf>,
    skip: u64,
    limit: Option<u64>,
    hint: Option<Hint>,
    variables: Variables,
}

impl Router {
    /// `explain` on this node's replica.
    pub(crate) async fn explain_here(
        &self,
        cx: &OperationContext,
        place: Option<&Place>,
        command: ExplainCommand,
        verbosity: Verbosity,
    ) -> Result<Document> {
        match command {
            ExplainCommand::Aggregate(command) => self.explain_aggregate(cx, place, command, verbosity).await,
            other => {
                let (namespace, subject) = subject(other);
                let request = self.read_request(&subject)?;
                self.explain_read(cx, (place, &namespace), &subject, request, verbosity).await
            }
        }
    }

    async fn explain_aggregate(
        &self,
        cx: &OperationContext,
        place: Option<&Place>,
        command: AggregateCommand,
        verbosity: Verbosity,
    ) -> Result<Document> {
        let variables = parse::variables(command.variables.as_ref());
        let pipeline = Pipeline::parse(&command.pipeline, &variables)?;
        let divided = divide(pipeline);
        let taken =
            usize::from(!matches!(divided.filter.root(), Node::True)) + usize::from(divided.sort.is_some());
        let request = ReadRequest {
            filter: divided.filter,
            sort: divided.sort,
            skip: 0,
            limit: divided.limit,
            hint: command.hint,
            context: self.eval_context(variables),
            after: None,
            scopes: Vec::new(),
        };
        // Only a first $match and $sort are taken by the shard, and those stand for themselves in the pipeline.
        let subject = Subject {
            filter: stage_argument(&command.pipeline, "$match")?,
            sort: command.pipeline.get(..taken).map_or(Ok(None), |taken| stage_argument(taken, "$sort"))?,
            limit: request.limit,
            ..Subject::default()
        };
        let read = self.explain_read(cx, (place, &command.namespace), &subject, request, verbosity).await?;
        let later: Vec<Bson> = command.pipeline.iter().skip(taken).cloned().collect();
        if later.is_empty() {
            return Ok(read);
        }
        let mut all = vec![Bson::Document(doc! { "$cursor": read })];
        all.extend(later);
        Ok(doc! { "explainVersion": "1", "stages": all })
    }

    async fn explain_read(
        &self,
        cx: &OperationContext,
        (place, namespace): (Option<&Place>, &Namespace),
        subject: &Subject,
        request: ReadRequest,
        verbosity: Verbosity,
    ) -> Result<Document> {
        let [filter, sort, projection] = [&subject.filter, &subject.sort, &subject.projection]
            .map(|part| part.as_ref().map(DocBuf::to_document));
        let explained = Explained {
            namespace,
            filter: &filter.unwrap_or_default(),
            projection: projection.as_ref(),
            sort: sort.as_ref(),
            skip: subject.skip,
            limit: subject.limit,
        };
        let executor = match place {
            Some(place) => self.start_read(cx, place, &request).await?,
            None => None,
        };
        let Some(mut executor) = executor else {
            let plan = Plan { access: Access::Nothing, sort_needed: false, rejected: Vec::new() };
            return Ok(explanation(&plan, &explained, verbosity, Counters::default(), 0));
        };
        let started = self.clock.monotonic();
        let mut bytes = 0;
        if verbosity > Verbosity::QueryPlanner {
            bytes = self.run_to_end(cx, &mut executor).await?;
        }
        let elapsed_ms = u64::try_from(self.clock.monotonic().since(started).as_millis()).unwrap_or(u64::MAX);
        let counters = executor.counters();
        let mut reply = explanation(executor.plan(), &explained, verbosity, counters, elapsed_ms);
        if verbosity > Verbosity::QueryPlanner {
            let rows = i64::try_from(counters.returned).unwrap_or(i64::MAX);
            reply.insert("psdb", doc! { "rows": rows, "bytes": bytes });
        }
        Ok(reply)
    }

    /// Runs a read. Returns the bytes of what it gave.
    async fn run_to_end(&self, cx: &OperationContext, executor: &mut FindExecutor) -> Result<i64> {
        let mut documents = Vec::new();
        let mut bytes = 0;
        loop {
            let progress =
                self.step(executor.next_batch(&Slice::examining(Slice::EXAMINED_DEFAULT), &mut documents))?;
            bytes += documents.drain(..).map(|document: DocBuf| document.bytes().len() as i64).sum::<i64>();
            if progress == Progress::Done {
                return Ok(bytes);
            }
            self.breathe(cx).await?;
        }
    }

    fn read_request(&self, subject: &Subject) -> Result<ReadRequest> {
        let (sort, hint) = order(subject.sort.as_ref(), subject.hint.clone())?;
        Ok(ReadRequest {
            filter: Arc::new(parse::filter(subject.filter.as_ref(), &subject.variables)?),
            sort,
            skip: subject.skip,
            limit: subject.limit,
            hint,
            context: self.eval_context(subject.variables.clone()),
            after: None,
            scopes: Vec::new(),
        })
    }
}

fn explanation(
    plan: &Plan,
    explained: &Explained<'_>,
    verbosity: Verbosity,
    counters: Counters,
    elapsed_ms: u64,
) -> Document {
    let mut reply = doc! { "explainVersion": "1", "queryPlanner": query_planner(plan, explained) };
    if verbosity > Verbosity::QueryPlanner {
        reply.insert("executionStats", execution_stats(plan, explained, &counters, elapsed_ms));
    }
    reply
}

/// The read inside a command other than `aggregate`.
fn subject(command: ExplainCommand) -> (Namespace, Subject) {
    match command {
        ExplainCommand::Find(command) => of_find(command),
        ExplainCommand::Count(command) => of_count(command),
        ExplainCommand::Distinct(command) => of_distinct(command),
        ExplainCommand::Update(command) => of_update(command),
        ExplainCommand::Delete(command) => of_delete(command),
        ExplainCommand::FindAndModify(command) => of_find_and_modify(command),
        ExplainCommand::Aggregate(_) => unreachable!("an aggregation is explained by its own function"),
    }
}

fn of_find(command: FindCommand) -> (Namespace, Subject) {
    let subject = Subject {
        filter: command.filter,
        sort: command.sort,
        projection: command.projection,
        skip: command.skip,
        limit: command.limit,
        hint: command.hint,
        variables: parse::variables(command.variables.as_ref()),
    };
    (command.namespace, subject)
}

fn of_count(command: CountCommand) -> (Namespace, Subject) {
    let subject = Subject {
        filter: command.filter,
        skip: command.skip,
        limit: command.limit,
        hint: command.hint,
        ..Subject::default()
    };
    (command.namespace, subject)
}

fn of_distinct(command: DistinctCommand) -> (Namespace, Subject) {
    (command.namespace, Subject { filter: command.filter, hint: command.hint, ..Subject::default() })
}

fn of_update(command: UpdateCommand) -> (Namespace, Subject) {
    let variables = parse::variables(command.variables.as_ref());
    let statement = command.statements.into_iter().next();
    let subject = statement.map(|statement| Subject {
        filter: Some(statement.filter),
        sort: statement.sort,
        limit: (!statement.multi).then_some(1),
        hint: statement.hint,
        variables,
        ..Subject::default()
    });
    (command.namespace, subject.unwrap_or_default())
}

fn of_delete(command: DeleteCommand) -> (Namespace, Subject) {
    let variables = parse::variables(command.variables.as_ref());
    let statement = command.statements.into_iter().next();
    let subject = statement.map(|statement| Subject {
        filter: Some(statement.filter),
        limit: (!statement.multi).then_some(1),
        hint: statement.hint,
        variables,
        ..Subject::default()
    });
    (command.namespace, subject.unwrap_or_default())
}

fn of_find_and_modify(command: FindAndModifyCommand) -> (Namespace, Subject) {
    let subject = Subject {
        filter: Some(command.filter),
        sort: command.sort,
        limit: Some(1),
        hint: command.hint,
        variables: parse::variables(command.variables.as_ref()),
        ..Subject::default()
    };
    (command.namespace, subject)
}

/// The argument of the first stage called `name` among the first two.
fn stage_argument(pipeline: &[Bson], name: &str) -> Result<Option<DocBuf>> {
    let argument = |stage: &Bson| stage.as_document()?.get_document(name).ok().cloned();
    pipeline.iter().take(2).find_map(argument).map(|document| DocBuf::encode(&document)).transpose()
}
