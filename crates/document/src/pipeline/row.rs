//! A document on its way through a pipeline.

use base::{Code, Error, Result, limits};
use bson::{Bson, Document};

use crate::expression::memory_bytes;
use crate::value::{DocBuf, DocRef};

/// A document: as it was stored, or as a stage made it.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// Validated bytes.
    Raw(DocBuf),
    /// A tree.
    Tree(Document),
}

impl Row {
    /// The document for reading.
    pub fn as_doc(&self) -> DocRef<'_> {
        match self {
            Row::Raw(bytes) => bytes.as_doc(),
            Row::Tree(tree) => DocRef::Tree(tree),
        }
    }

    /// The document's bytes, for a reply.
    ///
    /// Errors: `BSONObjectTooLarge` (10334) past the size of an internal document.
    pub fn into_docbuf(self) -> Result<DocBuf> {
        let bytes = match self {
            Row::Raw(bytes) => bytes,
            Row::Tree(tree) => DocBuf::encode(&tree)?,
        };
        let (size, limit) = (bytes.bytes().len(), limits::DOCUMENT_INTERNAL_BYTES_MAX);
        if size > limit {
            let message = format!(
                "BSONObj size: {size} (0x{size:X}) is invalid. Size must be between 0 and {limit}({}MB)",
                limit / 1024 / 1024
            );
            return Err(Error::new(Code::BSON_OBJECT_TOO_LARGE, message));
        }
        Ok(bytes)
    }

    /// The document as an owned tree.
    pub fn into_tree(self) -> Document {
        match self {
            Row::Raw(bytes) => bytes.to_document(),
            Row::Tree(tree) => tree,
        }
    }

    /// What the row takes in memory, in bytes, about.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Row>()
            + match self {
                Row::Raw(bytes) => bytes.bytes().len(),
                Row::Tree(tree) => {
                    tree.iter().map(|(name, value)| 2 * name.len() + 40 + memory_bytes(value)).sum()
                }
            }
    }
}

impl From<DocBuf> for Row {
    fn from(bytes: DocBuf) -> Row {
        Row::Raw(bytes)
    }
}

impl From<Document> for Row {
    fn from(tree: Document) -> Row {
        Row::Tree(tree)
    }
}

/// Puts `value` at a dotted path, making documents on the way out of whatever else is there.
pub(crate) fn set_path(document: &mut Document, parts: &[crate::path::Part], value: Bson) {
    let Some((first, rest)) = parts.split_first() else {
        return;
    };
    if rest.is_empty() {
        document.insert(first.name.clone(), value);
        return;
    }
    if !matches!(document.get(&first.name), Some(Bson::Document(_))) {
        document.insert(first.name.clone(), Document::new());
    }
    if let Some(Bson::Document(inner)) = document.get_mut(&first.name) {
        set_path(inner, rest, value);
    }
}

/// Removes what is at a dotted path.
pub(crate) fn remove_path(document: &mut Document, parts: &[crate::path::Part]) {
    let Some((first, rest)) = parts.split_first() else {
        return;
    };
    if rest.is_empty() {
        document.remove(&first.name);
    } else if let Some(Bson::Document(inner)) = document.get_mut(&first.name) {
        remove_path(inner, rest);
    }
}
