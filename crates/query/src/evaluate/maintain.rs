//! Keeps documents, index entries and counters together as one document is written.
//!
//! Called by the evaluation of writes and by backfill. Always holds: after a step is kept, every maintained index has
//! exactly the entries of the document's current version (those of older documents, while it is being built, once
//! backfill has passed).

use base::limits::KEY_BYTES_MAX;
use base::{Code, Error, Namespace, Timestamp};
use bson::{Bson, Document};
use catalog::IndexSpec;
use document::display::show_document;
use document::update::Update;
use document::{DocBuf, DocRef};
use smallvec::SmallVec;

use super::Stop;
use super::scratch::{Scratch, Staged};
use crate::encoding;
use crate::index::{self, IndexKeys};
use crate::state::{ShardIndex, ShardState};

/// Writes documents of one shard under one commit timestamp.
pub(super) struct Maintainer<'a> {
    pub(super) state: &'a ShardState,
    pub(super) namespace: &'a Namespace,
    pub(super) commit: Timestamp,
    /// Whether unique keys are looked for. What another shard has checked need not be, and may come out of order.
    pub(super) checks_unique: bool,
}

impl Maintainer<'_> {
    /// Puts a new document. Stops with a duplicate when its `_id` or a unique key is taken.
    pub(super) fn insert(
        &self,
        scratch: &mut Scratch<'_>,
        document_key: &[u8],
        document: &DocBuf,
    ) -> Result<(), Stop> {
        check_key_length(document_key)?;
        if scratch.get(document_key)?.is_some() {
            return Err(self.duplicate_id(document_key, document));
        }
        let mut staged = Staged::default();
        staged.put(document_key.to_vec(), encoding::encode_document(document.bytes(), self.commit));
        staged.count(None, Some(document.bytes().len()));
        for index in self.maintained() {
            let new = index::keys(&index.spec, document.as_doc())?;
            self.change_entries(scratch, &mut staged, index, document_key, None, (&new, document))?;
        }
        scratch.keep(staged);
        Ok(())
    }

    /// The indexes whose keys an update can change.
    pub(super) fn touched(&self, update: &Update) -> SmallVec<[&ShardIndex; 4]> {
        self.maintained().filter(|index| touches(update, &index.spec)).collect()
    }

    /// Puts a document in the place of its older version; `touched` are the indexes whose keys can differ.
    pub(super) fn replace(
        &self,
        scratch: &mut Scratch<'_>,
        document_key: &[u8],
        old: &DocBuf,
        new: &DocBuf,
        touched: &[&ShardIndex],
    ) -> Result<(), Stop> {
        let mut staged = Staged::default();
        staged.put(document_key.to_vec(), encoding::encode_document(new.bytes(), self.commit));
        staged.count(Some(old.bytes().len()), Some(new.bytes().len()));
        for &index in touched {
            let old_keys = index::keys(&index.spec, old.as_doc()).unwrap_or_default();
            let new_keys = index::keys(&index.spec, new.as_doc())?;
            self.change_entries(
                scratch,
                &mut staged,
                index,
                document_key,
                Some(&old_keys),
                (&new_keys, new),
            )?;
        }
        scratch.keep(staged);
        Ok(())
    }

    /// Removes a document.
    pub(super) fn remove(&self, scratch: &mut Scratch<'_>, document_key: &[u8], old: &DocBuf) {
        let mut staged = Staged::default();
        staged.delete(document_key.to_vec());
        staged.count(Some(old.bytes().len()), None);
        for index in self.maintained() {
            // A document that is older than the index may have no valid keys in it; then it has no entries either.
            let keys = index::keys(&index.spec, old.as_doc()).unwrap_or_default();
            for fields in &keys.keys {
                staged.delete(encoding::index_entry_key(index.spec.id, fields, document_key));
            }
        }
        scratch.keep(staged);
    }

    /// Puts those of the document's entries in `index` that are missing. Gives their number.
    pub(super) fn fill(
        &self,
        scratch: &mut Scratch<'_>,
        index: &ShardIndex,
        document_key: &[u8],
        document: &DocBuf,
    ) -> Result<u64, Stop> {
        let mut keys = index::keys(&index.spec, document.as_doc())?;
        let mut missing = SmallVec::new();
        for fields in keys.keys.drain(..) {
            let entry_key = encoding::index_entry_key(index.spec.id, &fields, document_key);
            if scratch.get(&entry_key)?.is_none() {
                missing.push(fields);
            }
        }
        keys.keys = missing;
        let mut staged = Staged::default();
        self.change_entries(scratch, &mut staged, index, document_key, None, (&keys, document))?;
        scratch.keep(staged);
        Ok(keys.keys.len() as u64)
    }

    fn maintained(&self) -> impl Iterator<Item = &ShardIndex> {
        self.state.indexes.iter().filter(|index| index.is_maintained())
    }

    /// Stages the difference between a document's old and new entries. Both key lists are sorted.
    fn change_entries(
        &self,
        scratch: &Scratch<'_>,
        staged: &mut Staged,
        index: &ShardIndex,
        document_key: &[u8],
        old: Option<&IndexKeys>,
        (new, document): (&IndexKeys, &DocBuf),
    ) -> Result<(), Stop> {
        let id = index.spec.id;
        let old_keys = old.map_or(&[][..], |old| &old.keys[..]);
        for fields in old_keys.iter().filter(|fields| new.keys.binary_search(fields).is_err()) {
            staged.delete(encoding::index_entry_key(id, fields, document_key));
        }
        for fields in new.keys.iter().filter(|fields| old_keys.binary_search(fields).is_err()) {
            if index.spec.unique && self.checks_unique {
                self.check_unique(scratch, &index.spec, fields, document_key, document)?;
            }
            let entry_key = encoding::index_entry_key(id, fields, document_key);
            check_key_length(&entry_key)?;
            let value = encoding::index_entry_value(&entry_key, fields.len());
            staged.put(entry_key, value);
        }
        for &(field, component) in &new.arrays {
            let known = index.multikey.get(usize::from(field)).is_some_and(|met| met.contains(&component));
            if !known {
                staged.met_array(id, field, component);
            }
        }
        Ok(())
    }

    fn check_unique(
        &self,
        scratch: &Scratch<'_>,
        spec: &IndexSpec,
        fields: &[u8],
        document_key: &[u8],
        document: &DocBuf,
    ) -> Result<(), Stop> {
        let mut prefix = encoding::index_prefix(spec.id);
        prefix.extend_from_slice(fields);
        let mut owner = Vec::new();
        let taken = scratch.find_entry(prefix, &mut |key, value| {
            let entry = encoding::decode_index_entry(key, value)?;
            owner = entry.document_key();
            Ok(owner != document_key)
        })?;
        if taken.is_none() {
            return Ok(());
        }
        let values = index::values_of_key(spec, document.as_doc(), fields).unwrap_or_default();
        let values = spec.key.iter().map(|(path, _)| path.clone()).zip(values).collect();
        let error = self.duplicate_key(&spec.name, spec.key_document(), values);
        Err(Stop::Duplicate { error, document_key: owner })
    }

    fn duplicate_id(&self, document_key: &[u8], document: &DocBuf) -> Stop {
        let id = document.as_doc().get("_id").map_or(Bson::Null, |id| id.to_bson());
        let error = self.duplicate_key("_id_", bson::doc! { "_id": 1 }, bson::doc! { "_id": id });
        Stop::Duplicate { error, document_key: document_key.to_vec() }
    }

    fn duplicate_key(&self, index: &str, pattern: Document, values: Document) -> Error {
        let message = format!(
            "E11000 duplicate key error collection: {} index: {index} dup key: {}",
            self.namespace,
            show_document(DocRef::Tree(&values))
        );
        let details = bson::doc! { "keyPattern": pattern, "keyValue": values };
        let details = DocBuf::encode(&details).map(|details| details.bytes().to_vec()).unwrap_or_default();
        Error::new(Code::DUPLICATE_KEY, message).with_details(details)
    }
}

/// Keys go to an engine with 16-bit key lengths.
fn check_key_length(key: &[u8]) -> Result<(), Error> {
    if key.len() <= KEY_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "The key of a document or an index entry takes {} bytes, at most {KEY_BYTES_MAX} fit",
        key.len()
    );
    Err(Error::new(Code::KEY_TOO_LONG, message))
}

fn touches(update: &Update, spec: &IndexSpec) -> bool {
    spec.key.iter().any(|(path, _)| update.touches(&document::path::Path::parse(path)))
}
