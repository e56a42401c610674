//! What a filter says about `_id`: the documents it can match, without looking.

use bson::Bson;
use bytes::Bytes;
use document::Value;
use document::filter::{Filter, Node, Predicate};

/// The only values of `_id` that a matching document can have; `None` when the filter does not limit them to a few.
pub(crate) fn ids(filter: &Filter) -> Option<Vec<&Bson>> {
    node_ids(filter.root())
}

/// Keys of the only documents that can match.
pub(crate) fn document_keys(filter: &Filter) -> Option<Vec<Bytes>> {
    let mut keys: Vec<Bytes> =
        ids(filter)?.into_iter().map(|id| query::encoding::document_key(&Value::from(id)).into()).collect();
    keys.sort();
    keys.dedup();
    Some(keys)
}

fn node_ids(node: &Node) -> Option<Vec<&Bson>> {
    match node {
        Node::And(nodes) => nodes.iter().find_map(node_ids),
        Node::Field { path, predicate } if path.parts().len() == 1 && path.to_string() == "_id" => {
            match predicate {
                Predicate::Eq(value) if names_one_document(value) => Some(vec![value]),
                Predicate::In(list)
                    if list.regexes().is_empty() && list.values().iter().all(names_one_document) =>
                {
                    Some(list.values().iter().collect())
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether equality with this value is equality of keys. Null also matches a missing field, and a regular expression
/// also matches strings; an `_id` is never an array.
fn names_one_document(value: &Bson) -> bool {
    !matches!(value, Bson::Null | Bson::Undefined | Bson::RegularExpression(_) | Bson::Array(_))
}
