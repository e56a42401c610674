//! `explain` of what several shards do: each explains its part, and the router says whom it asked and what that cost.

use std::sync::Arc;

use base::Result;
use bson::{Bson, Document, doc};
use catalog::CollectionRecord;
use document::filter::Filter;
use document::pipeline::Pipeline;

use crate::aggregate::divide;
use crate::command::{ExplainCommand, Verbosity};
use crate::gather::{Asked, unexpected};
use crate::peer::{Operation, OperationReply};
use crate::resolve::{Place, places_of};
use crate::{OperationContext, Router, parse};

impl Router {
    /// Asks every shard that the command is about, and puts their plans together.
    pub(crate) async fn spread_explain(
        &self,
        cx: &OperationContext,
        record: &Arc<CollectionRecord>,
        command: ExplainCommand,
        verbosity: Verbosity,
    ) -> Result<OperationReply> {
        let places = places_of(record, &filter_of(&command)?);
        let is_sorted = is_sorted(&command);
        let operation = Operation::Explain(part_of(command), verbosity);
        let ask = |place: &Place| Asked { place: place.clone(), node: None, operation: operation.clone() };
        let mut calls = 0;
        let answers = self.attempt_all(cx, places.iter().map(ask).collect(), &mut calls).await;
        let mut shards = Vec::new();
        for (place, answer) in places.iter().zip(answers) {
            match answer? {
                (node, OperationReply::Document(document)) => {
                    let node = self.node_name(node).unwrap_or_else(|| node.to_string());
                    shards.push((place.shard.to_string(), node, document));
                }
                (_, other) => return Err(unexpected(&other)),
            }
        }
        let stage = match (shards.len(), is_sorted) {
            (1, _) => "SINGLE_SHARD",
            (_, true) => "SHARD_MERGE_SORT",
            (_, false) => "SHARD_MERGE",
        };
        Ok(OperationReply::Document(together(stage, &shards, calls)))
    }
}

/// One explanation of all shards' explanations, each with its name and its node.
fn together(stage: &str, shards: &[(String, String, Document)], calls: u64) -> Document {
    let plans: Vec<Bson> = shards
        .iter()
        .map(|(shard, node, document)| {
            let mut plan = doc! { "shardName": shard, "node": node };
            plan.extend(read_of(document).get_document("queryPlanner").cloned().unwrap_or_default());
            plan.into()
        })
        .collect();
    let mut reply = doc! {
        "explainVersion": "1",
        "queryPlanner": { "mongosPlannerVersion": 1, "winningPlan": { "stage": stage, "shards": plans } },
    };
    let stats: Vec<(&str, &Document)> = shards
        .iter()
        .filter_map(|(shard, _, document)| {
            Some((shard.as_str(), read_of(document).get_document("executionStats").ok()?))
        })
        .collect();
    if !stats.is_empty() {
        reply.insert("executionStats", executed(stage, &stats));
    }
    let (mut asked, mut rows, mut bytes) = (Vec::new(), 0, 0);
    for (shard, node, document) in shards {
        let sent = read_of(document).get_document("psdb").cloned().unwrap_or_default();
        rows += sent.get_i64("rows").unwrap_or_default();
        bytes += sent.get_i64("bytes").unwrap_or_default();
        let mut one = doc! { "shard": shard, "node": node };
        one.extend(sent);
        asked.push(Bson::from(one));
    }
    let calls = i64::try_from(calls).unwrap_or(i64::MAX);
    reply.insert(
        "psdb",
        doc! { "shardsAsked": asked, "roundTrips": 1, "calls": calls, "rows": rows, "bytes": bytes },
    );
    reply
}

/// The part of an explanation that is about reading: an aggregation has more.
fn read_of(document: &Document) -> &Document {
    let stages = document.get_array("stages").ok();
    let cursor = stages.and_then(|stages| stages.first()?.as_document()?.get_document("$cursor").ok());
    cursor.unwrap_or(document)
}

fn executed(stage: &str, stats: &[(&str, &Document)]) -> Document {
    let sum = |field: &str| -> i64 { stats.iter().map(|(_, stats)| number(stats.get(field))).sum() };
    let slowest = stats.iter().map(|(_, stats)| number(stats.get("executionTimeMillis"))).max();
    let each: Vec<Bson> = stats
        .iter()
        .map(|(shard, stats)| {
            let mut one = doc! { "shardName": *shard };
            one.extend((*stats).clone());
            one.into()
        })
        .collect();
    doc! {
        "executionSuccess": true,
        "nReturned": sum("nReturned"),
        "executionTimeMillis": slowest.unwrap_or_default(),
        "totalKeysExamined": sum("totalKeysExamined"),
        "totalDocsExamined": sum("totalDocsExamined"),
        "executionStages": { "stage": stage, "shards": each },
    }
}

fn number(value: Option<&Bson>) -> i64 {
    match value {
        Some(Bson::Int32(number)) => i64::from(*number),
        Some(Bson::Int64(number)) => *number,
        _ => 0,
    }
}

/// What a command finds its documents by.
fn filter_of(command: &ExplainCommand) -> Result<Filter> {
    let (filter, variables) = match command {
        ExplainCommand::Find(command) => (command.filter.as_ref(), command.variables.as_ref()),
        ExplainCommand::Count(command) => (command.filter.as_ref(), None),
        ExplainCommand::Distinct(command) => (command.filter.as_ref(), None),
        ExplainCommand::Update(command) => {
            (command.statements.first().map(|statement| &statement.filter), command.variables.as_ref())
        }
        ExplainCommand::Delete(command) => {
            (command.statements.first().map(|statement| &statement.filter), command.variables.as_ref())
        }
        ExplainCommand::FindAndModify(command) => (Some(&command.filter), command.variables.as_ref()),
        ExplainCommand::Aggregate(command) => {
            let variables = parse::variables(command.variables.as_ref());
            let divided = divide(Pipeline::parse(&command.pipeline, &variables)?);
            return Ok(divided.filter.as_ref().clone());
        }
    };
    parse::filter(filter, &parse::variables(variables))
}

fn is_sorted(command: &ExplainCommand) -> bool {
    match command {
        ExplainCommand::Find(command) => command.sort.is_some(),
        ExplainCommand::FindAndModify(command) => command.sort.is_some(),
        _ => false,
    }
}

/// What one of several shards does: what is left out comes from any of them.
fn part_of(command: ExplainCommand) -> ExplainCommand {
    match command {
        ExplainCommand::Find(mut find) => {
            find.limit = find.limit.map(|limit| limit.saturating_add(find.skip));
            find.skip = 0;
            ExplainCommand::Find(find)
        }
        other => other,
    }
}
