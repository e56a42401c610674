//! Shard keys: the fields whose values choose the shard of a document.
//!
//! Called by `query` (which shard a written document belongs to, whether a read means it) and `router` (which shards a
//! filter can mean). Pure. Always holds: a filter that a document matches names the document's hash among its hashes, or
//! names none at all; a field that is missing counts as null.

use base::{Code, Error, Result};
use bson::Bson;
use serde::{Deserialize, Serialize};

use crate::filter::{Filter, Node, Predicate};
use crate::key;
use crate::path::{Part, Path};
use crate::value::{DocRef, Value};

/// Fields that a shard key may have, at most.
pub const SHARD_KEY_FIELDS_MAX: usize = 32;
/// Hashes that a filter may name; one that names more is asked of every shard.
const HASHES_MAX: usize = 10_000;

/// The fields that choose the shard, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct ShardKey {
    paths: Vec<Path>,
}

impl ShardKey {
    /// A key of these dotted paths, at least one.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a str>) -> ShardKey {
        let paths: Vec<Path> = paths.into_iter().map(Path::parse).collect();
        assert!(!paths.is_empty(), "a shard key has a field");
        ShardKey { paths }
    }

    /// The key that every collection begins with: `_id`.
    pub fn on_id() -> ShardKey {
        ShardKey::new(["_id"])
    }

    /// Its fields.
    pub fn paths(&self) -> &[Path] {
        &self.paths
    }

    /// Whether it is `_id` alone.
    pub fn is_id(&self) -> bool {
        matches!(self.paths.as_slice(), [path] if is_id(path))
    }

    /// The key hash of a document. Fails with `ShardKeyNotFound` (61) when there is an array in the place of a field or on the
    /// way to it.
    pub fn hash(&self, document: DocRef<'_>) -> Result<u64> {
        let mut encoded = Vec::with_capacity(32);
        for path in &self.paths {
            let value = value_at(document, path.parts()).ok_or_else(|| has_array(path))?;
            key::encode(&canonical(value), &mut encoded);
        }
        Ok(key::hash(&encoded))
    }

    /// The hashes that a document may have which the filter accepts, in order and each once: the filter sets every field
    /// equal to a value or to one of a list. `None` when it does not: the document may be anywhere.
    pub fn hashes(&self, filter: &Filter) -> Option<Vec<u64>> {
        let mut hashes = self.node_hashes(filter.root())?;
        hashes.sort_unstable();
        hashes.dedup();
        Some(hashes)
    }

    fn node_hashes(&self, node: &Node) -> Option<Vec<u64>> {
        match node {
            Node::False => Some(Vec::new()),
            Node::Or(nodes) => {
                let parts: Vec<Vec<u64>> =
                    nodes.iter().map(|node| self.node_hashes(node)).collect::<Option<_>>()?;
                let hashes: Vec<u64> = parts.into_iter().flatten().collect();
                (hashes.len() <= HASHES_MAX).then_some(hashes)
            }
            Node::And(nodes) => {
                let direct = self.hashes_of(nodes);
                direct.or_else(|| nodes.iter().find_map(|node| self.node_hashes(node)))
            }
            Node::Field { .. } => self.hashes_of(std::slice::from_ref(node)),
            Node::True | Node::Nor(_) | Node::Expr(_) => None,
        }
    }

    /// The hashes that conditions on the key's fields among `nodes`, which all hold, leave possible.
    fn hashes_of(&self, nodes: &[Node]) -> Option<Vec<u64>> {
        let mut encoded = vec![Vec::new()];
        for path in &self.paths {
            let values = nodes.iter().find_map(|node| values_of(node, path))?;
            if encoded.len().saturating_mul(values.len()) > HASHES_MAX {
                return None;
            }
            let extended = encoded.iter().flat_map(|before: &Vec<u8>| {
                values.iter().map(move |value| {
                    let mut bytes = before.clone();
                    key::encode(&canonical(Value::from(*value)), &mut bytes);
                    bytes
                })
            });
            encoded = extended.collect();
        }
        Some(encoded.iter().map(|bytes| key::hash(bytes)).collect())
    }
}

impl From<Vec<String>> for ShardKey {
    fn from(paths: Vec<String>) -> ShardKey {
        ShardKey::new(paths.iter().map(String::as_str))
    }
}

impl From<ShardKey> for Vec<String> {
    fn from(key: ShardKey) -> Vec<String> {
        key.paths.iter().map(Path::to_string).collect()
    }
}

/// The only values at `path` that a condition accepts.
fn values_of<'a>(node: &'a Node, path: &Path) -> Option<Vec<&'a Bson>> {
    let Node::Field { path: found, predicate } = node else { return None };
    if found != path {
        return None;
    }
    match predicate {
        Predicate::Eq(value) if names_one(value) => Some(vec![value]),
        Predicate::In(list) if list.regexes().is_empty() && list.values().iter().all(names_one) => {
            Some(list.values().iter().collect())
        }
        _ => None,
    }
}

/// Whether equality with this value is equality of keys. A regular expression also matches strings, and an array what it
/// holds.
fn names_one(value: &Bson) -> bool {
    !matches!(value, Bson::RegularExpression(_) | Bson::Array(_))
}

/// What stands for a value in the key: a field that is not there, or undefined, is null.
fn canonical(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Undefined => Value::Null,
        value => value,
    }
}

/// The value at a path through documents alone; `None` when an array is in the way.
fn value_at<'a>(document: DocRef<'a>, parts: &[Part]) -> Option<Value<'a>> {
    let Some((part, rest)) = parts.split_first() else { return Some(Value::Null) };
    match (document.get(&part.name), rest.is_empty()) {
        (Some(Value::Array(_)), _) => None,
        (Some(value), true) => Some(value),
        (Some(Value::Document(inner)), false) => value_at(inner, rest),
        _ => Some(Value::Null),
    }
}

fn is_id(path: &Path) -> bool {
    path.parts().len() == 1 && path.first() == "_id"
}

fn has_array(path: &Path) -> Error {
    let message = format!(
        "Shard key cannot contain array values or array descendants: '{path}' of the document has one"
    );
    Error::new(Code::SHARD_KEY_NOT_FOUND, message)
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc};

    use super::*;
    use crate::{DocBuf, Variables};

    fn buf(document: &Document) -> DocBuf {
        DocBuf::encode(document).expect("encodes")
    }

    fn hash(key: &ShardKey, document: &Document) -> u64 {
        key.hash(buf(document).as_doc()).expect("no arrays")
    }

    fn hashes(key: &ShardKey, filter: Document) -> Option<Vec<u64>> {
        let filter = Filter::parse(buf(&filter).as_doc(), &Variables::default()).expect("parses");
        key.hashes(&filter)
    }

    #[test]
    fn equal_numbers_of_different_types_have_one_hash() {
        let key = ShardKey::on_id();
        let one = hash(&key, &doc! { "_id": 1 });
        assert_eq!(hash(&key, &doc! { "_id": 1.0, "a": 2 }), one);
        assert_eq!(hash(&key, &doc! { "_id": 1_i64 }), one);
        assert_ne!(hash(&key, &doc! { "_id": 2 }), one);
    }

    #[test]
    fn the_hash_of_a_value_never_changes() {
        let key = ShardKey::on_id();
        assert_eq!(hash(&key, &doc! { "_id": "order-1" }), 0x9136_8ac5_bde3_a219);
        let compound = ShardKey::new(["customer", "place.zip"]);
        let document = doc! { "customer": 7, "place": { "zip": "8000" } };
        assert_eq!(hash(&compound, &document), 0x2be9_aa96_0e66_b241);
    }

    #[test]
    fn a_missing_field_counts_as_null() {
        let key = ShardKey::new(["a.b"]);
        let null = hash(&key, &doc! { "a": { "b": null } });
        for document in [doc! {}, doc! { "a": 5 }, doc! { "a": {} }, doc! { "a": { "b": Bson::Undefined } }] {
            assert_eq!(hash(&key, &document), null);
        }
        assert_eq!(hashes(&key, doc! { "a.b": null }), Some(vec![null]));
    }

    #[test]
    fn an_array_in_the_key_is_refused() {
        let key = ShardKey::new(["a.b"]);
        for document in [doc! { "a": [1] }, doc! { "a": { "b": [1] } }, doc! { "a": [{ "b": 1 }] }] {
            let refused = key.hash(buf(&document).as_doc()).expect_err("refused");
            assert_eq!(refused.code, Code::SHARD_KEY_NOT_FOUND);
        }
    }

    #[test]
    fn equality_on_every_field_names_hashes_and_anything_less_does_not() {
        let key = ShardKey::new(["a", "b"]);
        let one = hash(&key, &doc! { "a": 1, "b": 2 });
        let other = hash(&key, &doc! { "a": 1, "b": 3 });
        let both = Some(std::collections::BTreeSet::from([one, other]).into_iter().collect::<Vec<_>>());
        assert_eq!(hashes(&key, doc! { "a": 1, "b": 2, "c": { "$gt": 5 } }), Some(vec![one]));
        assert_eq!(hashes(&key, doc! { "a": 1, "b": { "$in": [2, 3] } }), both);
        assert_eq!(hashes(&key, doc! { "$or": [{ "a": 1, "b": 2 }, { "b": 3, "a": 1 }] }), both);
        assert_eq!(hashes(&key, doc! { "$or": [{ "a": 1, "b": 2 }, { "a": 1 }] }), None);
        assert_eq!(hashes(&key, doc! { "a": 1 }), None);
        assert_eq!(hashes(&key, doc! { "a": 1, "b": { "$gt": 2 } }), None);
        assert_eq!(hashes(&key, doc! { "a": 1, "b": [2] }), None);
        assert_eq!(
            hashes(
                &key,
                doc! { "a": 1, "b": { "$in": [Bson::RegularExpression(bson::Regex { pattern: "x".try_into().expect("a pattern"), options: "".try_into().expect("options") })] } }
            ),
            None
        );
    }
}
