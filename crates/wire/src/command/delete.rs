//! `delete`: removes documents.

use base::{Error, Result};
use document::DocBuf;
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::{DeleteCommand, DeleteStatement};

use super::writes::{check_batch_size, check_retryable, write_reply};
use super::{Counts, Spec, Timed};
use crate::call::{Call, share};
use crate::fields::{Accepts, Field, Fields, field, ignored, refused, required};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    refused("collectionUUID", Accepts::Any),
    required("deletes", Accepts::Array),
    refused("encryptionInformation", Accepts::Object),
    field("let", Accepts::Object),
    field("ordered", Accepts::Bool),
    field("stmtId", Accepts::Integer),
    field("stmtIds", Accepts::Array),
];

pub(crate) const STATEMENT: &[Field] = &[
    refused("collation", Accepts::Object),
    field("hint", Accepts::StringOrObject),
    required("limit", Accepts::Integer),
    required("q", Accepts::Object),
    ignored("sampleId", Accepts::Any, "meant for other servers"),
];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    writes: true,
    retryable: true,
    api_v1: true,
    counts: Counts::ByStatement,
    timed: Timed::Write,
    ..Spec::later("delete", "Removes documents from a collection.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let command = parse(call)?;
        check_retryable(call, command.statements.iter().any(|statement| statement.multi), "limit=0")?;
        call.state.metrics.operations.delete.add(command.statements.len() as u64);
        let outcome = call.state.backend.delete(&call.context, command).await?;
        Ok(write_reply(&outcome, false))
    }
    .boxed()
}

/// The typed command.
pub(crate) fn parse(call: &Call<'_>) -> Result<DeleteCommand> {
    let documents = call.documents("deletes")?;
    check_batch_size(documents.len())?;
    Ok(DeleteCommand {
        namespace: call.namespace()?,
        statement_ids: call.statement_ids(documents.len())?,
        statements: documents.iter().map(|document| statement(call, document)).collect::<Result<_>>()?,
        ordered: call.fields.bool("ordered").unwrap_or(true),
        variables: call.variables()?,
    })
}

fn statement(call: &Call<'_>, document: &DocBuf) -> Result<DeleteStatement> {
    let fields = Fields::read("delete.deletes", STATEMENT, document.as_raw())?;
    let filter = fields.element("q").map(|element| share(document.bytes(), element.value));
    let multi = match fields.integer("limit")? {
        Some(0) => true,
        Some(1) => false,
        other => {
            let given = other.unwrap_or_default();
            let message = format!("The limit field in delete objects must be 0 or 1. Got {given}");
            return Err(Error::failed_to_parse(message));
        }
    };
    Ok(DeleteStatement {
        filter: filter.expect("a required field is there"),
        multi,
        hint: call.hint_of(fields.element("hint")),
    })
}
