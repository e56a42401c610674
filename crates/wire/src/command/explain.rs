//! `explain`: how a command would be answered, and what that costs.

use base::{Code, Error, Result};
use document::{DocRef, RawDoc, Value};
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::{ExplainCommand, Verbosity};

use super::find::not_an_enumerator;
use super::{Spec, aggregate, count, delete, distinct, find, find_and_modify, update};
use crate::call::Call;
use crate::dispatch;
use crate::fields::{Accepts, Field, field};
use crate::reply::Reply;

const FIELDS: &[Field] = &[field("verbosity", Accepts::String)];

pub(crate) const SPEC: Spec =
    Spec { fields: FIELDS, api_v1: true, ..Spec::later("explain", "How a command would be answered.", run) };

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let verbosity = match call.fields.str("verbosity") {
            Some("queryPlanner") => Verbosity::QueryPlanner,
            Some("executionStats") => Verbosity::ExecutionStats,
            None | Some("allPlansExecution") => Verbosity::AllPlansExecution,
            Some(other) => return Err(not_an_enumerator(other, "explain.verbosity")),
        };
        let explained = parse(call)?;
        let answer = call.state.backend.explain(&call.context, explained, verbosity).await?;
        Ok(Reply::from_document(&answer).ok())
    }
    .boxed()
}

fn parse(call: &Call<'_>) -> Result<ExplainCommand> {
    let Some(Value::Document(DocRef::Raw(inner))) = call.target.decode() else {
        return Err(Error::type_mismatch("explain command requires a nested object"));
    };
    let spec = dispatch::find(call.state, inner).map_err(|_| {
        let message = format!("Explain failed due to unknown command: {}", name_of(inner));
        Error::new(Code::COMMAND_NOT_FOUND, message)
    })?;
    let inner = call.nested(spec, inner)?;
    match spec.name {
        "aggregate" => aggregate::parse(&inner).map(ExplainCommand::Aggregate),
        "count" => count::parse(&inner).map(ExplainCommand::Count),
        "delete" => delete::parse(&inner).map(ExplainCommand::Delete),
        "distinct" => distinct::parse(&inner).map(ExplainCommand::Distinct),
        "find" => find::parse(&inner).map(ExplainCommand::Find),
        "findAndModify" => find_and_modify::parse(&inner).map(ExplainCommand::FindAndModify),
        "update" => update::parse(&inner).map(ExplainCommand::Update),
        other => Err(Error::new(Code::ILLEGAL_OPERATION, format!("Cannot explain cmd: {other}"))),
    }
}

fn name_of(command: RawDoc<'_>) -> String {
    command.iter().next().map(|(name, _)| name.to_owned()).unwrap_or_default()
}
