//! What every updated document must satisfy before it is stored: an unchanged `_id` that is first and of an allowed
//! type, the limits on depth and size, and no `$` at the start of a top-level name.

use base::limits::{DOCUMENT_BYTES_MAX, NESTING_MAX};
use base::{Code, Error, Result};
use bson::{Bson, Document};

use super::operator::kind_name;
use crate::display;
use crate::value::DocBuf;

/// MongoDB's code for a document that an update made too large.
const UPDATED_TOO_LARGE: Code = Code(17419);
/// MongoDB's code for a document that an upsert made too large.
const UPSERTED_TOO_LARGE: Code = Code(17420);

/// Encodes the result of an update.
pub(super) fn updated(document: Document) -> Result<DocBuf> {
    let result = encode(document)?;
    check_size(result.bytes().len())?;
    Ok(result)
}

/// Encodes the document that an upsert inserts.
pub(super) fn upserted(document: Document) -> Result<DocBuf> {
    if let Some(id @ (Bson::Array(_) | Bson::RegularExpression(_) | Bson::Undefined)) = document.get("_id") {
        return Err(Error::new(
            Code::INVALID_ID_FIELD,
            format!("The '_id' value cannot be of type {}", kind_name(id)),
        ));
    }
    let result = encode(document)?;
    if result.bytes().len() > DOCUMENT_BYTES_MAX {
        return Err(Error::new(
            UPSERTED_TOO_LARGE,
            format!("Document to upsert is larger than {DOCUMENT_BYTES_MAX}"),
        ));
    }
    Ok(result)
}

/// Refuses an updated document of this many bytes if that is too many.
pub(super) fn check_size(bytes: usize) -> Result<()> {
    if bytes > DOCUMENT_BYTES_MAX {
        return Err(Error::new(
            UPDATED_TOO_LARGE,
            format!("Resulting document after update is larger than {DOCUMENT_BYTES_MAX}"),
        ));
    }
    Ok(())
}

/// Levels of documents and arrays in a value: 0 for a scalar, 1 for `{}`.
pub(super) fn depth(value: &Bson) -> usize {
    match value {
        Bson::Document(document) => document_depth(document),
        Bson::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        Bson::JavaScriptCodeWithScope(code) => document_depth(&code.scope),
        _ => 0,
    }
}

/// About how many bytes a value takes when it is encoded.
pub(super) fn encoded_bytes(value: &Bson) -> usize {
    match value {
        Bson::String(text) | Bson::Symbol(text) | Bson::JavaScriptCode(text) => text.len() + 5,
        Bson::Binary(binary) => binary.bytes.len() + 5,
        Bson::Document(document) => {
            document.iter().map(|(name, value)| name.len() + 2 + encoded_bytes(value)).sum()
        }
        Bson::Array(elements) => elements.iter().map(|element| 3 + encoded_bytes(element)).sum(),
        _ => 8,
    }
}

/// Refuses a field whose value has this many levels, in a document of one more.
pub(super) fn check_depth(levels: usize) -> Result<()> {
    if levels >= NESTING_MAX { Err(too_deep()) } else { Ok(()) }
}

/// `Overflow` (15).
pub(super) fn too_deep() -> Error {
    Error::new(Code::OVERFLOW, format!("Document exceeds maximum nesting depth of {NESTING_MAX}"))
}

/// `DollarPrefixedFieldName` (52).
pub(super) fn dollar_prefixed(name: &str) -> Error {
    Error::new(
        Code::DOLLAR_PREFIXED_FIELD_NAME,
        format!(
            "The dollar ($) prefixed field '{name}' in '{name}' is not allowed in the context of an update's \
             replacement document. Consider using an aggregation pipeline with $replaceWith."
        ),
    )
}

/// `ImmutableField` (66), where operators wrote to `_id`.
pub(super) fn id_is_immutable(path: &str) -> Error {
    Error::new(
        Code::IMMUTABLE_FIELD,
        format!("Performing an update on the path '{path}' would modify the immutable field '_id'"),
    )
}

/// `ImmutableField` (66), where a new document brought another `_id`.
pub(super) fn id_was_altered(id: &Bson) -> Error {
    let id = display::show_bson(id);
    Error::new(
        Code::IMMUTABLE_FIELD,
        format!(
            "After applying the update, the (immutable) field '_id' was found to have been altered to _id: {id}"
        ),
    )
}

fn document_depth(document: &Document) -> usize {
    1 + document.iter().map(|(_, value)| depth(value)).max().unwrap_or(0)
}

fn encode(document: Document) -> Result<DocBuf> {
    if document_depth(&document) > NESTING_MAX {
        return Err(too_deep());
    }
    DocBuf::encode(&with_id_first(document))
}

fn with_id_first(mut document: Document) -> Document {
    if document.keys().next().is_none_or(|first| first == "_id") {
        return document;
    }
    match document.remove("_id") {
        Some(id) => [("_id".to_owned(), id)].into_iter().chain(document).collect(),
        None => document,
    }
}
