//! What must hold at the end of a run, when the last process has started after the last crash.
//!
//! Each check adds a sentence to the violations when it fails.

use std::collections::BTreeMap;

use base::{LogIndex, ReplicaId};
use bson::Document;
use bytes::Bytes;
use query::encoding::{decode_document, document_range};
use query::execute::validate;
use query::state::ShardState;
use replica::entry;
use storage::{Direction, KeyRange, KvBatch, View};

use crate::client::list_items;
use crate::history::History;
use crate::node::initial_state;
use crate::register::is_linearizable;

/// The history against itself: reads among each other and with the writes that were answered.
pub(crate) fn check_answers(history: &mut History) {
    let mut found = Vec::new();
    for (name, operations) in &history.registers {
        if !is_linearizable(operations, 0) {
            found.push(format!("{name} is not linearizable: {operations:?}"));
        }
    }
    for seat in history.refused_seats.difference(&history.taken_seats) {
        found.push(format!("seat {seat} was refused as a duplicate, but nobody ever had it"));
    }
    history.violations.append(&mut found);
}

/// The documents in the store against the answers.
pub(crate) fn check_documents(history: &mut History, view: &dyn View) {
    let documents = match read_documents(view) {
        Ok(documents) => documents,
        Err(fault) => return history.violation(format!("reading all documents: {fault}")),
    };
    let mut found = Vec::new();
    for (id, seat) in &history.documents {
        match documents.get(id) {
            Some(document) if document.get_i64("seat").ok() == Some(*seat) => {}
            Some(document) => found.push(format!("{id} is {document}, not on seat {seat}")),
            None => found.push(format!("{id} was acknowledged and is lost")),
        }
    }
    for id in documents.keys().filter(|id| !history.documents.contains_key(*id)) {
        let deleted = history.deleted.contains(id);
        found.push(format!(
            "{id} is there although {}",
            if deleted { "it was deleted" } else { "nobody has it" }
        ));
    }
    for (name, document) in &documents {
        if name.starts_with("counter") {
            let expected = history.increments.get(name).copied().unwrap_or(0);
            let stored = document.get_i64("n").unwrap_or(-1);
            if u64::try_from(stored) != Ok(expected) {
                found.push(format!("{name} is {stored} after {expected} increments"));
            }
        } else if name.starts_with("list") {
            check_list(history, name, &list_items(document), &mut found);
        }
    }
    history.violations.append(&mut found);
}

/// Every answered element once, and every read a prefix that has whatever was answered before it began.
fn check_list(history: &History, name: &str, items: &[i64], found: &mut Vec<String>) {
    let none = BTreeMap::new();
    let appends = history.appends.get(name).unwrap_or(&none);
    let mut sorted = items.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().eq(appends.keys()) {
        found.push(format!("{name} holds {items:?}; appended were {:?}", appends.keys()));
    }
    for (_, began, read) in history.list_reads.iter().filter(|(list, _, _)| list == name) {
        if !items.starts_with(read) {
            found.push(format!("a read of {name} saw {read:?}, which is no prefix of {items:?}"));
        }
        let missed = appends.iter().find(|(element, answered)| *answered < began && !read.contains(element));
        if let Some((element, _)) = missed {
            found.push(format!("a read of {name} missed {element}, which was answered before"));
        }
    }
}

/// Index entries and counters against documents.
pub(crate) fn check_indexes(history: &mut History, state: &ShardState, view: &dyn View) {
    match validate(state, view) {
        Ok(report) if report.is_valid() => {}
        Ok(report) => history.violation(format!("indexes and documents disagree: {report:?}")),
        Err(fault) => history.violation(format!("validating: {fault}")),
    }
}

/// The store against everything that was ever logged, applied from the start.
pub(crate) fn check_replay(
    history: &mut History,
    replica: ReplicaId,
    logged: &BTreeMap<u64, Bytes>,
    applied: LogIndex,
    view: &dyn View,
) {
    let mut model = BTreeMap::new();
    if replica == crate::node::REPLICA {
        apply(&mut model, initial_state().initial_batch());
    }
    for (index, data) in logged.iter().filter(|(index, data)| **index <= applied.get() && !data.is_empty()) {
        match entry::decode(data) {
            Ok(entry) => apply(&mut model, entry.batch),
            Err(fault) => return history.violation(format!("entry {index} of {replica}: {fault}")),
        }
    }
    let everything = view.scan(KeyRange::prefix(Bytes::new()), Direction::Forward);
    let stored: storage::Result<BTreeMap<Bytes, Bytes>> = everything.collect();
    match stored {
        Ok(stored) if stored == model => {}
        Ok(stored) => {
            let differs = |key: &&Bytes| stored.get(*key) != model.get(*key);
            let first = stored.keys().chain(model.keys()).find(differs);
            history.violation(format!("the store of {replica} is no replay of its log: first at {first:?}"));
        }
        Err(fault) => history.violation(format!("reading the store of {replica}: {fault}")),
    }
}

fn apply(model: &mut BTreeMap<Bytes, Bytes>, batch: KvBatch) {
    for op in batch.ops {
        match op.value() {
            Some(value) => model.insert(op.key().clone(), value.clone()),
            None => model.remove(op.key()),
        };
    }
}

fn read_documents(view: &dyn View) -> storage::Result<BTreeMap<String, Document>> {
    let read = |pair: storage::Result<(Bytes, Bytes)>| {
        let (key, value) = pair?;
        let document = decode_document(&key, &value)?.document.to_document();
        let id = document.get_str("_id").unwrap_or("no text").to_owned();
        Ok((id, document))
    };
    view.scan(document_range(), Direction::Forward).map(read).collect()
}
