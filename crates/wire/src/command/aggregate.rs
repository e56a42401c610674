//! `aggregate`: a pipeline over a collection, as a cursor.

use base::{Code, Error, Namespace, Result};
use bson::Bson;
use document::{DocRef, RawDoc, Value};
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::{AggregateCommand, ExplainCommand, Verbosity};

use super::find::first_batch;
use super::{Spec, Timed};
use crate::call::Call;
use crate::fields::{Accepts, Field, Fields, field, ignored, is_truthy, refused, required};
use crate::reply::Reply;

/// The stage that is about all collections.
const DISTRIBUTION: &str = "$shardedDataDistribution";

const FIELDS: &[Field] = &[
    ignored("allowDiskUse", Accepts::BoolOrNumber, "sorts and groups stay in memory, within their limit"),
    ignored("bypassDocumentValidation", Accepts::BoolOrNumber, "there are no validators yet"),
    refused("collation", Accepts::Object),
    refused("collectionUUID", Accepts::Any),
    field("cursor", Accepts::Object),
    refused("encryptionInformation", Accepts::Object),
    refused("exchange", Accepts::Object),
    field("explain", Accepts::BoolOrNumber),
    ignored("fromMongos", Accepts::BoolOrNumber, "meant for other servers"),
    field("hint", Accepts::StringOrObject),
    field("let", Accepts::Object),
    refused("needsMerge", Accepts::BoolOrNumber),
    required("pipeline", Accepts::Array),
];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    api_v1: true,
    timed: Timed::Read,
    ..Spec::later("aggregate", "A pipeline over a collection.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let explain = call.fields.value("explain").is_some_and(|flag| is_truthy(&flag));
        if !explain && call.fields.element("cursor").is_none() {
            return Err(Error::failed_to_parse(
                "The 'cursor' option is required, except for aggregate with the explain argument",
            ));
        }
        let command = parse(call)?;
        if explain {
            let explained = ExplainCommand::Aggregate(command);
            let answer =
                call.state.backend.explain(&call.context, explained, Verbosity::QueryPlanner).await?;
            return Ok(Reply::from_document(&answer).ok());
        }
        let outcome = call.state.backend.aggregate(&call.context, command).await?;
        Ok(first_batch(&outcome))
    }
    .boxed()
}

/// The typed command.
pub(crate) fn parse(call: &Call<'_>) -> Result<AggregateCommand> {
    const CURSOR: &[Field] = &[field("batchSize", Accepts::Integer)];
    let pipeline = call.values("pipeline");
    check_stages(&pipeline)?;
    if call.target.decode().is_some_and(|target| target.is_number()) {
        check_database_level(call, &pipeline)?;
    }
    let cursor = call.fields.element("cursor").map(|element| RawDoc::new(element.value));
    let batch_size = match cursor {
        Some(cursor) => Fields::read("cursor", CURSOR, cursor)?.non_negative("batchSize")?,
        None => None,
    };
    Ok(AggregateCommand {
        namespace: namespace(call)?,
        pipeline,
        batch_size,
        hint: call.hint(),
        variables: call.variables()?,
    })
}

fn check_stages(pipeline: &[Bson]) -> Result<()> {
    if pipeline.iter().all(|stage| matches!(stage, Bson::Document(_))) {
        return Ok(());
    }
    Err(Error::type_mismatch("Each element of the 'pipeline' array must be an object"))
}

/// The collection; for a pipeline on a whole database the name under which its cursor lives, which is no collection's.
fn namespace(call: &Call<'_>) -> Result<Namespace> {
    match call.target.decode() {
        Some(target) if target.is_number() => {
            Ok(Namespace { database: call.database.to_owned(), collection: "$cmd.aggregate".to_owned() })
        }
        _ => call.namespace(),
    }
}

/// Fails with `InvalidNamespace` (73) unless the pipeline begins with a stage that needs no collection.
fn check_database_level(call: &Call<'_>, pipeline: &[Bson]) -> Result<()> {
    let first = pipeline.first().map(Value::from).and_then(|stage| stage.as_document());
    let stage = first.and_then(|stage: DocRef<'_>| stage.iter().next()).map(|(name, _)| name.to_owned());
    let message = match stage.as_deref() {
        Some(DISTRIBUTION) if call.database == "admin" => return Ok(()),
        Some(DISTRIBUTION) => format!("{DISTRIBUTION} must be run against the admin database"),
        Some(name) => format!("{{aggregate: 1}} is not valid for '{name}'; a collection is required."),
        None => "{aggregate: 1} is not valid for an empty pipeline; a collection is required.".to_owned(),
    };
    Err(Error::new(Code::INVALID_NAMESPACE, message))
}
