//! A part of the documents: those whose key hash lies in a range.
//!
//! Made by the router when it reads a shard that holds other documents than those it asks for: of a read that began before
//! shards were cut or joined, or while documents move. Called by the executor for each document, before the filter.

use std::sync::Arc;

use document::{DocRef, ShardKey};

use crate::state::HashRange;

/// The documents whose hash under a key lies in a range.
#[derive(Clone, Debug)]
pub struct HashScope {
    /// The collection's shard key.
    pub key: Arc<ShardKey>,
    /// The hashes.
    pub range: HashRange,
}

impl HashScope {
    /// Whether the document is one of them. No document of a collection has an array in its shard key; one that had would
    /// count as if it lacked the key's fields, so that it is in exactly one of the scopes that make up the whole.
    pub fn contains(&self, document: DocRef<'_>) -> bool {
        let without_fields = || self.key.hash(DocRef::Tree(&bson::Document::new())).unwrap_or_default();
        self.range == HashRange::WHOLE
            || self.range.contains(self.key.hash(document).unwrap_or_else(|_| without_fields()))
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn every_document_is_in_one_of_two_halves_also_with_an_array_in_its_key() {
        let half = u64::MAX / 2;
        let key = Arc::new(ShardKey::new(["a"]));
        let scope = |first, last| HashScope { key: Arc::clone(&key), range: HashRange { first, last } };
        for document in [doc! {}, doc! { "a": [1, 2] }, doc! { "a": 5 }, doc! { "a": "x" }] {
            let tree = DocRef::Tree(&document);
            assert_ne!(scope(0, half).contains(tree), scope(half + 1, u64::MAX).contains(tree));
        }
        let is_low = |document| scope(0, half).contains(DocRef::Tree(&document));
        assert_eq!(is_low(doc! { "a": [1, 2] }), is_low(doc! {}));
    }
}
