//! `insert`: adds documents. Gives every document an `_id`, first among its fields, and the time to its empty timestamps;
//! refuses those that may not be stored, each as a write error of its own.

use base::limits::DOCUMENT_BYTES_MAX;
use base::{Code, Error, Result};
use bytes::{BufMut, BytesMut};
use document::validate::validate;
use document::value::RawElement;
use document::{DocBuf, DocRef, Value};
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::{InsertCommand, WriteReply};

use super::writes::{check_batch_size, write_reply};
use super::{Counts, Spec, Timed};
use crate::call::Call;
use crate::fields::{Accepts, Field, field, ignored, refused, required};
use crate::reply::Reply;
use crate::state::State;

const FIELDS: &[Field] = &[
    ignored("bypassDocumentValidation", Accepts::BoolOrNumber, "there are no validators yet"),
    refused("collectionUUID", Accepts::Any),
    required("documents", Accepts::Array),
    refused("encryptionInformation", Accepts::Object),
    field("ordered", Accepts::Bool),
    field("stmtId", Accepts::Integer),
    field("stmtIds", Accepts::Array),
];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    writes: true,
    retryable: true,
    api_v1: true,
    counts: Counts::ByStatement,
    timed: Timed::Write,
    ..Spec::later("insert", "Adds documents to a collection.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let prepared = prepare(call)?;
        call.state.metrics.operations.insert.add(prepared.command.documents.len() as u64);
        let Prepared { command, positions, refusals } = prepared;
        let ordered = command.ordered;
        let outcome = if command.documents.is_empty() {
            WriteReply::default()
        } else {
            call.state.backend.insert(&call.context, command).await?
        };
        Ok(write_reply(&merge(outcome, ordered, &positions, refusals), false))
    }
    .boxed()
}

/// An insert without the documents that may not be stored.
struct Prepared {
    command: InsertCommand,
    /// Where each document stood in the request; empty while none was left out.
    positions: Vec<usize>,
    /// The documents left out, with their place in the request.
    refusals: Vec<(usize, Error)>,
}

fn prepare(call: &Call<'_>) -> Result<Prepared> {
    let namespace = call.namespace()?;
    let documents = call.documents("documents")?;
    check_batch_size(documents.len())?;
    let statement_ids = call.statement_ids(documents.len())?;
    let ordered = call.fields.bool("ordered").unwrap_or(true);
    // A sequence's documents were checked one by one; those inside a body only as deep as the body may be.
    let check_depth = !call.is_sequence("documents");
    let mut kept = Vec::with_capacity(documents.len());
    let mut positions = Vec::new();
    let mut refusals = Vec::new();
    for (position, document) in documents.into_iter().enumerate() {
        let depth = if check_depth { validate(document.bytes()) } else { Ok(()) };
        match depth.and_then(|()| storable(call.state, document)) {
            Ok(document) => {
                if !refusals.is_empty() {
                    positions.push(position);
                }
                kept.push(document);
            }
            Err(error) => {
                if refusals.is_empty() {
                    positions = (0..position).collect();
                }
                refusals.push((position, error));
                if ordered {
                    break;
                }
            }
        }
    }
    let statement_ids = match refusals.is_empty() {
        true => statement_ids,
        false => positions.iter().map(|position| statement_id(&statement_ids, *position)).collect(),
    };
    let command = InsertCommand { namespace, documents: kept, ordered, statement_ids };
    Ok(Prepared { command, positions, refusals })
}

/// The statement's id: its own, or its place in the request.
fn statement_id(ids: &[i32], position: usize) -> i32 {
    let by_place = i32::try_from(position).expect("batches are far below 2^31");
    ids.get(position).copied().unwrap_or(by_place)
}

/// Puts the errors of both halves in the request's order.
fn merge(
    mut outcome: WriteReply,
    ordered: bool,
    positions: &[usize],
    refusals: Vec<(usize, Error)>,
) -> WriteReply {
    if refusals.is_empty() {
        return outcome;
    }
    for (index, _) in &mut outcome.write_errors {
        *index = positions.get(*index).copied().unwrap_or(*index);
    }
    // An ordered insert that failed earlier never reached the document that was left out.
    if !ordered || outcome.write_errors.is_empty() {
        outcome.write_errors.extend(refusals);
        outcome.write_errors.sort_by_key(|(index, _)| *index);
    }
    outcome
}

/// The document with its `_id` in front. Fails with what MongoDB says about documents that may not be stored.
fn storable(state: &State, document: DocBuf) -> Result<DocBuf> {
    let bytes_len = document.bytes().len();
    if bytes_len > DOCUMENT_BYTES_MAX {
        return Err(Error::bad_value(format!(
            "object to insert too large. size in bytes: {bytes_len}, max size: {DOCUMENT_BYTES_MAX}"
        )));
    }
    let survey = Survey::of(&document)?;
    let id = document.as_raw().get("_id");
    check_id(id)?;
    if survey.id_first && !survey.empty_timestamps {
        return Ok(document);
    }
    let id_document = match id {
        Some(id) => bson::doc! { "_id": id.to_bson() },
        None => bson::doc! { "_id": state.new_object_id() },
    };
    with_id_first(state, &DocBuf::encode(&id_document)?, &document)
}

/// What decides whether a document is stored as it came.
struct Survey {
    /// Whether its first field is `_id`.
    id_first: bool,
    /// Whether a field other than `_id` is the timestamp that stands for the time of the insert.
    empty_timestamps: bool,
}

impl Survey {
    /// Fails on a document with two `_id`: it would be found by one and stored under the other.
    fn of(document: &DocBuf) -> Result<Survey> {
        let mut survey = Survey { id_first: false, empty_timestamps: false };
        let mut elements = document.as_raw().iter();
        let mut ids = 0;
        for position in 0.. {
            let Some(element) = elements.next_element() else { break };
            if element.name == b"_id" {
                ids += 1;
                survey.id_first |= position == 0;
            }
            survey.empty_timestamps |= is_empty_timestamp(&element);
        }
        if ids > 1 {
            return Err(Error::bad_value("can't have multiple _id fields in one document"));
        }
        Ok(survey)
    }
}

fn is_empty_timestamp(element: &RawElement<'_>) -> bool {
    element.tag == 0x11 && element.value == [0; 8] && element.name != b"_id"
}

/// Puts the only field of `id_document` before the others of `document`, among which empty timestamps become the time.
fn with_id_first(state: &State, id_document: &DocBuf, document: &DocBuf) -> Result<DocBuf> {
    let mut out = BytesMut::with_capacity(document.bytes().len() + id_document.bytes().len());
    out.put_i32_le(0);
    let id_end = id_document.bytes().len().saturating_sub(1);
    out.extend_from_slice(id_document.bytes().get(4..id_end).unwrap_or_default());
    let mut elements = document.as_raw().iter();
    while let Some(element) = elements.next_element() {
        if element.name != b"_id" {
            out.put_u8(element.tag);
            out.extend_from_slice(element.name);
            out.put_u8(0);
            match is_empty_timestamp(&element) {
                true => out.put_u64_le(state.new_timestamp().to_u64()),
                false => out.extend_from_slice(element.value),
            }
        }
    }
    out.put_u8(0);
    let len = i32::try_from(out.len()).map_err(|_| Error::bad_value("object to insert too large"))?;
    let prefix = out.first_chunk_mut::<4>().expect("the length was written first");
    *prefix = len.to_le_bytes();
    if out.len() > DOCUMENT_BYTES_MAX {
        return Err(Error::bad_value(format!(
            "object to insert too large. size in bytes: {}, max size: {DOCUMENT_BYTES_MAX}",
            out.len()
        )));
    }
    Ok(DocBuf::from_validated(out.freeze()))
}

fn check_id(id: Option<Value<'_>>) -> Result<()> {
    let kind = match id {
        Some(Value::Array(_)) => "array",
        Some(Value::Undefined) => "undefined",
        Some(Value::Regex { .. }) => "regex",
        Some(Value::Document(inner)) => return check_id_document(inner),
        _ => return Ok(()),
    };
    Err(Error::bad_value(format!("The '_id' value cannot be of type {kind}")))
}

fn check_id_document(id: DocRef<'_>) -> Result<()> {
    match id.iter().find(|(name, _)| name.starts_with('$')) {
        Some((name, _)) => {
            let message =
                format!("_id fields may not contain '$'-prefixed fields: {name} is not valid for storage.");
            Err(Error::new(Code::DOLLAR_PREFIXED_FIELD_NAME, message))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_one_id_at_most() {
        let field: &[u8] = b"\x10_id\0\x01\0\0\0";
        for (copies, allowed) in [(1, true), (2, false)] {
            let mut bytes = BytesMut::new();
            bytes.put_i32_le(5 + (copies * field.len()) as i32);
            bytes.extend_from_slice(&field.repeat(copies));
            bytes.put_u8(0);
            let document = DocBuf::from_validated(bytes.freeze());
            assert_eq!(Survey::of(&document).is_ok(), allowed, "{copies} fields _id");
        }
    }
}
