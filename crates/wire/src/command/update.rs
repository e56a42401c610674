//! `update`: changes documents.

use base::{Code, Error, Result};
use bytes::Bytes;
use document::{DocBuf, RawDoc, Value};
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::{UpdateCommand, UpdateSpec, UpdateStatement};
use router::config_database::CONFIG_DATABASE;

use super::config_writes;
use super::writes::{check_batch_size, check_retryable, write_reply};
use super::{Counts, Spec, Timed};
use crate::call::{Call, share};
use crate::fields::{Accepts, Field, Fields, field, ignored, refused, required};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    ignored("bypassDocumentValidation", Accepts::BoolOrNumber, "there are no validators yet"),
    refused("collectionUUID", Accepts::Any),
    refused("encryptionInformation", Accepts::Object),
    field("let", Accepts::Object),
    field("ordered", Accepts::Bool),
    field("stmtId", Accepts::Integer),
    field("stmtIds", Accepts::Array),
    required("updates", Accepts::Array),
];

pub(crate) const STATEMENT: &[Field] = &[
    field("arrayFilters", Accepts::Array),
    field("c", Accepts::Object),
    refused("collation", Accepts::Object),
    field("hint", Accepts::StringOrObject),
    field("multi", Accepts::Bool),
    required("q", Accepts::Object),
    ignored("sampleId", Accepts::Any, "meant for other servers"),
    field("sort", Accepts::Object),
    required("u", Accepts::ObjectOrArray),
    field("upsert", Accepts::Bool),
    ignored("upsertSupplied", Accepts::Bool, "the document that an upsert inserts comes from `u`"),
];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    writes: true,
    retryable: true,
    api_v1: true,
    counts: Counts::ByStatement,
    timed: Timed::Write,
    ..Spec::later("update", "Changes documents of a collection.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let command = parse(call)?;
        check_retryable(call, command.statements.iter().any(|statement| statement.multi), "multi=true")?;
        call.state.metrics.operations.update.add(command.statements.len() as u64);
        let outcome = match command.namespace.database == CONFIG_DATABASE {
            true => config_writes::run(call, &command).await?,
            false => call.state.backend.update(&call.context, command).await?,
        };
        Ok(write_reply(&outcome, true))
    }
    .boxed()
}

/// The typed command.
pub(crate) fn parse(call: &Call<'_>) -> Result<UpdateCommand> {
    let documents = call.documents("updates")?;
    check_batch_size(documents.len())?;
    Ok(UpdateCommand {
        namespace: call.namespace()?,
        statement_ids: call.statement_ids(documents.len())?,
        statements: documents.iter().map(|document| statement(call, document)).collect::<Result<_>>()?,
        ordered: call.fields.bool("ordered").unwrap_or(true),
        variables: call.variables()?,
    })
}

fn statement(call: &Call<'_>, document: &DocBuf) -> Result<UpdateStatement> {
    let fields = Fields::read("update.updates", STATEMENT, document.as_raw())?;
    let share = |name: &str| fields.element(name).map(|element| share(document.bytes(), element.value));
    let multi = fields.bool("multi").unwrap_or(false);
    let statement = UpdateStatement {
        filter: share("q").expect("a required field is there"),
        update: match update_spec(document.bytes(), &fields, "u").expect("a required field is there")? {
            UpdateSpec::Document(document) if multi => UpdateSpec::Operators(document),
            other => other,
        },
        multi,
        upsert: fields.bool("upsert").unwrap_or(false),
        array_filters: array_filters(document.bytes(), &fields, "update.updates")?,
        constants: share("c"),
        hint: call.hint_of(fields.element("hint")),
        sort: share("sort"),
    };
    if multi && statement.sort.is_some() {
        return Err(Error::failed_to_parse("Cannot specify sort with multi=true"));
    }
    if statement.constants.is_some() && !matches!(statement.update, UpdateSpec::Pipeline(_)) {
        return Err(Error::failed_to_parse("Constant values may only be specified for pipeline updates"));
    }
    Ok(statement)
}

/// An update that is the field `name`: a document or a pipeline.
pub(crate) fn update_spec(body: &Bytes, fields: &Fields<'_>, name: &str) -> Option<Result<UpdateSpec>> {
    let element = fields.element(name)?;
    Some(match element.decode()? {
        Value::Array(_) => documents(body, fields.owner, name, element.value).map(UpdateSpec::Pipeline),
        _ => Ok(UpdateSpec::Document(share(body, element.value))),
    })
}

/// The documents of `arrayFilters`.
pub(crate) fn array_filters(body: &Bytes, fields: &Fields<'_>, owner: &str) -> Result<Vec<DocBuf>> {
    match fields.element("arrayFilters") {
        Some(element) => documents(body, owner, "arrayFilters", element.value),
        None => Ok(Vec::new()),
    }
}

fn documents(body: &Bytes, owner: &str, name: &str, array: &[u8]) -> Result<Vec<DocBuf>> {
    let mut found = Vec::new();
    let mut elements = RawDoc::new(array).iter();
    while let Some(element) = elements.next_element() {
        if element.tag != 0x03 {
            let kind = element.decode().map_or(document::Kind(0), |value| value.kind()).name();
            let message = format!(
                "BSON field '{owner}.{name}.{}' is the wrong type '{kind}', expected type 'object'",
                found.len()
            );
            return Err(Error::new(Code::TYPE_MISMATCH, message));
        }
        found.push(share(body, element.value));
    }
    Ok(found)
}
