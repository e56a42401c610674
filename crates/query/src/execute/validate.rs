//! Checks that a shard's documents and indexes say the same.
//!
//! Called by the router for `validate` and by tests after crashes. Always holds: a valid report means that every document
//! and entry has a right checksum, every document has exactly its entries in every complete index, and the counters
//! are right.

use base::IndexId;
use bytes::Bytes;
use document::DocRef;
use storage::{Direction, Fault, View};

use crate::encoding::{self, Count};
use crate::index;
use crate::state::{IndexStatus, ShardIndex, ShardState};

/// Most errors that a report lists.
const ERRORS_MAX: usize = 100;

/// What a validation found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValidationReport {
    /// Documents.
    pub documents: u64,
    /// Documents that do not decode.
    pub invalid_documents: u64,
    /// Entries of each complete index, by name, the one on `_id` first.
    pub keys_per_index: Vec<(String, u64)>,
    /// What is wrong, as sentences; at most a hundred.
    pub errors: Vec<String>,
}

impl ValidationReport {
    /// Whether nothing is wrong.
    pub fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }

    fn error(&mut self, message: String) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(message);
        }
    }
}

/// Reads the whole shard: takes as long as a collection scan and a scan of every index. Damage is reported, not a fault,
/// unless the view itself cannot be read.
pub fn validate(state: &ShardState, view: &dyn View) -> Result<ValidationReport, Fault> {
    let mut report = ValidationReport::default();
    let ready: Vec<&ShardIndex> =
        state.indexes.iter().filter(|index| index.status == IndexStatus::Ready).collect();
    let mut expected = vec![0_u64; ready.len()];
    let mut found = Count::default();
    for pair in view.scan(encoding::document_range(), Direction::Forward) {
        let (key, value) = pair?;
        let Some(bytes) = check_document(&mut report, &key, &value) else { continue };
        found.documents += 1;
        found.bytes += bytes.len() as u64;
        let document = DocRef::Raw(document::RawDoc::new(&bytes));
        for (index, expected) in ready.iter().zip(&mut expected) {
            *expected += check_entries(&mut report, view, index, &key, document)?;
        }
    }
    report.documents = found.documents;
    report.keys_per_index.push(("_id_".to_owned(), found.documents));
    for (index, expected) in ready.iter().zip(expected) {
        let entries = check_index(&mut report, view, index, expected)?;
        report.keys_per_index.push((index.spec.name.clone(), entries));
    }
    check_count(&mut report, view, found)?;
    Ok(report)
}

/// The document's bytes, if it is intact and stands under its own key.
fn check_document(report: &mut ValidationReport, key: &[u8], value: &Bytes) -> Option<Bytes> {
    let stored = match encoding::decode_document(key, value) {
        Ok(stored) => stored.document,
        Err(fault) => {
            report.invalid_documents += 1;
            report.error(fault.message);
            return None;
        }
    };
    if let Err(error) = document::validate::validate(stored.bytes()) {
        report.invalid_documents += 1;
        report.error(encoding::damaged(key, &format!("is not valid BSON: {}", error.message)).message);
        return None;
    }
    let own_key = stored.as_doc().get("_id").map(|id| encoding::document_key(&id));
    if own_key.as_deref() != Some(key) {
        report.error(encoding::damaged(key, "is a document with another _id").message);
    }
    Some(stored.into_bytes())
}

/// Counts the entries that a document must have, and reports those that are missing.
fn check_entries(
    report: &mut ValidationReport,
    view: &dyn View,
    index: &ShardIndex,
    document_key: &[u8],
    document: DocRef<'_>,
) -> Result<u64, Fault> {
    let name = &index.spec.name;
    let keys = match index::keys(&index.spec, document) {
        Ok(keys) => keys,
        Err(error) => {
            report.error(format!("index {name}: a document cannot be indexed: {}", error.message));
            return Ok(0);
        }
    };
    for &(field, component) in &keys.arrays {
        if !index.multikey.get(usize::from(field)).is_some_and(|met| met.contains(&component)) {
            report.error(format!("index {name} is not marked as multikey where a document has an array"));
        }
    }
    for fields in &keys.keys {
        let entry_key = encoding::index_entry_key(index.spec.id, fields, document_key);
        if view.get(&entry_key)?.is_none() {
            report.error(encoding::damaged(document_key, &format!("lacks an entry in index {name}")).message);
        }
    }
    Ok(keys.keys.len() as u64)
}

/// Counts an index's entries; when there are others than documents need, finds out which.
fn check_index(
    report: &mut ValidationReport,
    view: &dyn View,
    index: &ShardIndex,
    expected: u64,
) -> Result<u64, Fault> {
    let name = &index.spec.name;
    let mut entries = 0;
    let mut last_fields: Option<Vec<u8>> = None;
    for pair in view.scan(encoding::index_range(index.spec.id), Direction::Forward) {
        let (key, value) = pair?;
        entries += 1;
        match encoding::decode_index_entry(&key, &value) {
            Ok(entry) => {
                let repeated = last_fields.as_deref() == Some(entry.fields);
                if index.spec.unique && repeated {
                    report.error(
                        encoding::damaged(&key, &format!("is a duplicate in unique index {name}")).message,
                    );
                }
                last_fields = Some(entry.fields.to_vec());
            }
            Err(fault) => report.error(fault.message),
        }
    }
    if entries != expected {
        report.error(format!("index {name} has {entries} entries, the documents need {expected}"));
        report_strays(report, view, index)?;
    }
    Ok(entries)
}

fn report_strays(report: &mut ValidationReport, view: &dyn View, index: &ShardIndex) -> Result<(), Fault> {
    for pair in view.scan(encoding::index_range(index.spec.id), Direction::Forward) {
        let (key, value) = pair?;
        if !has_document(view, index.spec.id, &key, &value, index)? {
            let message = format!("is an entry of index {} that no document needs", index.spec.name);
            report.error(encoding::damaged(&key, &message).message);
        }
    }
    Ok(())
}

fn has_document(
    view: &dyn View,
    id: IndexId,
    key: &[u8],
    value: &Bytes,
    index: &ShardIndex,
) -> Result<bool, Fault> {
    let Ok(entry) = encoding::decode_index_entry(key, value) else { return Ok(false) };
    let document_key = entry.document_key();
    let Some(stored) = view.get(&document_key)? else { return Ok(false) };
    let Ok(stored) = encoding::decode_document(&document_key, &stored) else { return Ok(false) };
    let keys = index::keys(&index.spec, stored.document.as_doc()).unwrap_or_default();
    Ok(keys.keys.iter().any(|fields| encoding::index_entry_key(id, fields, &document_key) == key))
}

fn check_count(report: &mut ValidationReport, view: &dyn View, found: Count) -> Result<(), Fault> {
    let counted = Count::decode(view.get(encoding::COUNT_KEY)?.as_deref())?;
    if counted != found {
        report.error(format!(
            "the counters say {} documents of {} bytes; there are {} of {} bytes",
            counted.documents, counted.bytes, found.documents, found.bytes
        ));
    }
    Ok(())
}
