//! `$size $elemMatch`: conditions on an array as a whole.
//!
//! Called by `matching` for each array at the end of a path.

use bson::Bson;

use super::{Node, Predicate, matching};
use crate::context::EvalContext;
use crate::value::{ArrayRef, DocRef, RawDoc, Value};

/// Whether the array satisfies the predicate; for `$elemMatch` with the index of the first element that does.
/// `None`: it does not. Other predicates than those of this file hold for no array.
pub(super) fn matches(
    predicate: &Predicate,
    array: ArrayRef<'_>,
    cx: &EvalContext,
) -> base::Result<Option<Option<u32>>> {
    match predicate {
        Predicate::Size(size) => Ok((i64::try_from(array.len()) == Ok(*size)).then_some(None)),
        Predicate::ElemMatchDocument(node) => {
            first(array, |element| element_document_matches(node, element, cx))
        }
        Predicate::ElemMatchValue(predicates) => {
            first(array, |element| matching::value_matches_all(predicates, Some(element), cx))
        }
        _ => Ok(None),
    }
}

fn first(
    array: ArrayRef<'_>,
    mut matches: impl FnMut(&Value<'_>) -> base::Result<bool>,
) -> base::Result<Option<Option<u32>>> {
    for (index, element) in (0..).zip(array.iter()) {
        if matches(&element)? {
            return Ok(Some(Some(index)));
        }
    }
    Ok(None)
}

/// An element that is an array counts as a document whose fields are named by their indexes.
fn element_document_matches(node: &Node, element: &Value<'_>, cx: &EvalContext) -> base::Result<bool> {
    match element {
        Value::Document(document) => node.matches(*document, cx),
        Value::Array(ArrayRef::Raw(raw)) => node.matches(DocRef::Raw(RawDoc::new(raw.bytes())), cx),
        Value::Array(ArrayRef::Tree(elements)) => {
            let named = |(index, element): (usize, &Bson)| (index.to_string(), element.clone());
            let document: bson::Document = elements.iter().enumerate().map(named).collect();
            node.matches(DocRef::Tree(&document), cx)
        }
        _ => Ok(false),
    }
}
