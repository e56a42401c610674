//! `findAndModify`: changes or removes one document and returns it.

use base::{Error, Result};
use document::DocBuf;
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::{FindAndModifyAction, FindAndModifyCommand, FindAndModifyReply};

use super::update::{array_filters, update_spec};
use super::{Spec, Timed};
use crate::call::Call;
use crate::fields::{Accepts, Field, field, ignored, refused};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    field("arrayFilters", Accepts::Array),
    ignored("bypassDocumentValidation", Accepts::BoolOrNumber, "there are no validators yet"),
    refused("collation", Accepts::Object),
    refused("encryptionInformation", Accepts::Object),
    field("fields", Accepts::Object),
    field("hint", Accepts::StringOrObject),
    field("let", Accepts::Object),
    field("new", Accepts::BoolOrNumber),
    field("query", Accepts::Object),
    field("remove", Accepts::BoolOrNumber),
    ignored("sampleId", Accepts::Any, "meant for other servers"),
    field("sort", Accepts::Object),
    field("stmtId", Accepts::Integer),
    field("update", Accepts::ObjectOrArray),
    field("upsert", Accepts::BoolOrNumber),
];

pub(crate) const SPEC: Spec = Spec {
    aliases: &["findandmodify"],
    fields: FIELDS,
    writes: true,
    retryable: true,
    api_v1: true,
    timed: Timed::Write,
    ..Spec::later("findAndModify", "Changes or removes one document and returns it.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let outcome = call.state.backend.find_and_modify(&call.context, parse(call)?).await?;
        Ok(reply(call, &outcome))
    }
    .boxed()
}

/// The typed command.
pub(crate) fn parse(call: &Call<'_>) -> Result<FindAndModifyCommand> {
    Ok(FindAndModifyCommand {
        namespace: call.namespace()?,
        filter: call.document("query").unwrap_or_else(empty_document),
        sort: call.document("sort"),
        action: action(call)?,
        projection: call.document("fields"),
        array_filters: array_filters(call.message(), &call.fields, call.spec.name)?,
        hint: call.hint(),
        variables: call.variables()?,
    })
}

fn action(call: &Call<'_>) -> Result<FindAndModifyAction> {
    let flag = |name| call.fields.bool(name).unwrap_or(false);
    let (remove, upsert, return_new) = (flag("remove"), flag("upsert"), flag("new"));
    let update = update_spec(call.message(), &call.fields, "update").transpose()?;
    let contradiction = |message: &str| Err(Error::failed_to_parse(message));
    match update {
        Some(_) if remove => contradiction("Cannot specify both an update and remove=true"),
        None if !remove => contradiction("Either an update or remove=true must be specified"),
        None if upsert => contradiction("Cannot specify both upsert=true and remove=true"),
        None if return_new => contradiction(
            "Cannot specify both new=true and remove=true; 'remove' always returns the deleted document",
        ),
        None => Ok(FindAndModifyAction::Remove),
        Some(update) => Ok(FindAndModifyAction::Update { update, upsert, return_new }),
    }
}

fn reply(call: &Call<'_>, outcome: &FindAndModifyReply) -> Reply {
    let mut reply = Reply::with_capacity(outcome.value.as_ref().map_or(0, |value| value.bytes().len()) + 256);
    reply.begin_document("lastErrorObject");
    reply.count("n", outcome.n);
    if let Some(updated_existing) = outcome.updated_existing {
        reply.bool("updatedExisting", updated_existing);
    }
    if let Some(id) = &outcome.upserted {
        reply.value("upserted", id);
    }
    reply.end();
    match &outcome.value {
        Some(document) => reply.document("value", document),
        None => reply.null("value"),
    }
    if outcome.retried {
        let statement = call.fields.integer("stmtId").ok().flatten().unwrap_or(0);
        reply.i32("retriedStmtId", i32::try_from(statement).unwrap_or(0));
    }
    reply.ok()
}

/// `{}`
pub(crate) fn empty_document() -> DocBuf {
    DocBuf::from_validated(bytes::Bytes::from_static(&[5, 0, 0, 0, 0]))
}
