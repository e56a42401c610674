//! The requests that clients send: writes of single documents, found by their `_id`.

use std::sync::Arc;

use base::{Namespace, SessionId};
use bson::{Bson, Document, doc};
use bytes::Bytes;
use document::filter::Filter;
use document::update::Update;
use document::{DocBuf, Value, Variables};
use query::encoding::document_key;
use query::evaluate::{Candidates, ReturnDocument, Statement, WriteOp, WriteRequest};

use crate::groups::EPOCH;

/// A client's request with one write in it, which carries the client's session.
pub(crate) fn request(client: u8, txn: i64, op: WriteOp) -> WriteRequest {
    WriteRequest {
        namespace: Namespace::new("shop", "things").expect("a valid name"),
        epoch: EPOCH,
        session: Some((SessionId([client; 16]), txn)),
        statements: Arc::new([Statement { stmt_id: 0, op }]),
        ordered: true,
        fence: None,
        variables: Variables::default(),
    }
}

/// Inserts a document.
pub(crate) fn insert(document: &Document) -> WriteOp {
    WriteOp::Insert { document: DocBuf::encode(document).expect("small") }
}

/// Changes the document with this `_id`.
pub(crate) fn update(id: &str, change: Document) -> WriteOp {
    let change = DocBuf::encode(&change).expect("small");
    let update = Update::parse(Value::Document(change.as_doc()), &[], &Variables::default());
    WriteOp::Update {
        candidates: candidates(id),
        filter: Arc::new(id_filter(id)),
        update: Arc::new(update.expect("a valid update")),
        upsert: None,
        multi: false,
        return_document: ReturnDocument::None,
    }
}

/// Deletes the document with this `_id`.
pub(crate) fn deletion(id: &str) -> WriteOp {
    WriteOp::Delete {
        candidates: candidates(id),
        filter: Arc::new(id_filter(id)),
        multi: false,
        return_document: ReturnDocument::None,
    }
}

/// The key of the document with this `_id`.
pub(crate) fn key_of(id: &str) -> Vec<u8> {
    document_key(&Value::String(id))
}

/// The elements of a list.
pub(crate) fn list_items(document: &Document) -> Vec<i64> {
    let items = document.get_array("items").map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Bson::as_i64).collect()
}

fn candidates(id: &str) -> Candidates {
    Candidates { keys: vec![Bytes::from(key_of(id))], exact: true, more: false }
}

fn id_filter(id: &str) -> Filter {
    let document = DocBuf::encode(&doc! { "_id": id }).expect("small");
    Filter::parse(document.as_doc(), &Variables::default()).expect("a valid filter")
}
