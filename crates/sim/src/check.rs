//! What must hold of the answers, and of what a replica holds at the end of a run.
//!
//! Each check adds a sentence to the violations when it fails.

use std::collections::{BTreeMap, BTreeSet};

use base::{LogIndex, NodeId, ReplicaId, ShardId};
use bson::Document;
use bytes::Bytes;
use query::encoding::{decode_document, document_range};
use query::execute::validate;
use query::state::ShardState;
use replica::entry;
use storage::{Direction, KvBatch, RaftLog, Store, View};

use crate::groups::initial_batch;
use crate::history::{History, Holding, NEVER};
use crate::register::is_linearizable;
use crate::request::list_items;
use crate::world::World;

/// The history against itself: reads among each other and with the writes that were answered.
pub(crate) fn check_answers(history: &mut History) {
    let mut found = Vec::new();
    for (name, operations) in &history.registers {
        if !is_linearizable(operations, 0) {
            found.push(format!("{name} is not linearizable: {operations:?}"));
        }
    }
    for (name, read) in &history.counter_reads {
        let increments = history.increments.get(name).map(Vec::as_slice).unwrap_or_default();
        let least = increments.iter().filter(|(_, answered)| *answered < read.invoked).count() as i64;
        let most = increments.iter().filter(|(invoked, _)| *invoked < read.answered).count() as i64;
        if !(least..=most).contains(&read.value) {
            found.push(format!("{name} was read as {}, not between {least} and {most}", read.value));
        }
    }
    check_seats(history, &mut found);
    history.violations.append(&mut found);
}

/// A seat is held by one document at a time, and refused only while one may hold it.
fn check_seats(history: &History, found: &mut Vec<String>) {
    for (seat, holdings) in &history.holdings {
        for (at, one) in holdings.iter().enumerate() {
            let surely = |one: &Holding, other: &Holding| {
                one.insert_answered < other.delete_invoked && other.insert_answered < one.delete_invoked
            };
            for other in holdings.iter().skip(at + 1).filter(|other| surely(one, other)) {
                found.push(format!("seat {seat} was given to {} and {}", one.document, other.document));
            }
        }
    }
    for (seat, invoked, answered) in &history.refusals {
        let holdings = history.holdings.get(seat).map(Vec::as_slice).unwrap_or_default();
        let may_hold =
            |holding: &&Holding| holding.insert_invoked < *answered && *invoked < holding.delete_answered;
        if !holdings.iter().any(|holding| may_hold(&holding)) {
            found.push(format!("seat {seat} was refused, but nobody had it"));
        }
    }
}

/// All documents of the collection that clients share against the answers.
pub(crate) fn check_documents(history: &mut History, all: &[Document]) {
    let mut found = Vec::new();
    let mut documents = BTreeMap::new();
    for document in all {
        let id = document.get_str("_id").unwrap_or("no text").to_owned();
        if documents.insert(id.clone(), document).is_some() {
            found.push(format!("{id} is there twice"));
        }
    }
    for (id, seat) in &history.documents {
        match documents.get(id) {
            Some(document) if document.get_i64("seat").ok() == Some(*seat) => {}
            Some(document) => found.push(format!("{id} is {document}, not on seat {seat}")),
            None => found.push(format!("{id} was acknowledged and is lost")),
        }
    }
    let is_known = |id: &String| history.documents.contains_key(id) || history.doubtful.contains_key(id);
    for id in documents.keys().filter(|id| !is_known(id)) {
        let deleted = history.deleted.contains(id);
        found.push(format!(
            "{id} is there although {}",
            if deleted { "it was deleted" } else { "nobody has it" }
        ));
    }
    for (name, document) in &documents {
        if name.starts_with("counter") {
            let expected = history.increments.get(name).map_or(0, Vec::len) as i64;
            let stored = document.get_i64("n").unwrap_or(-1);
            if stored != expected {
                found.push(format!("{name} is {stored} after {expected} increments"));
            }
        } else if name.starts_with("list") {
            check_list(history, name, &list_items(document), &mut found);
        } else if name.starts_with("many") {
            check_swept(history, name, document.get_i64("n").unwrap_or(-1), &mut found);
        }
    }
    history.violations.append(&mut found);
}

/// Updates that were answered changed each of their documents once, those that were not at most once.
fn check_swept(history: &History, name: &str, stored: i64, found: &mut Vec<String>) {
    let answered = history.sweeps.iter().filter(|(_, answered)| *answered != NEVER).count() as i64;
    let asked = history.sweeps.len() as i64;
    if !(answered..=asked).contains(&stored) {
        found.push(format!("{name} is {stored} after {answered} to {asked} updates"));
    }
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
    for (_, read) in history.list_reads.iter().filter(|(list, _)| list == name) {
        if !items.starts_with(&read.value) {
            found.push(format!("a read of {name} saw {:?}, which is no prefix of {items:?}", read.value));
        }
        let is_missed =
            |(element, answered): &(&i64, &u64)| **answered < read.invoked && !read.value.contains(element);
        if let Some((element, _)) = appends.iter().find(is_missed) {
            found.push(format!("a read of {name} missed {element}, which was answered before"));
        }
    }
    for ((replica, _, _), seen) in history.behind.iter().filter(|((_, _, list), _)| list == name) {
        if !items.starts_with(seen) {
            found.push(format!("{replica} showed {seen:?} in {name}, which is no prefix of {items:?}"));
        }
    }
}

/// The catalog against the answers.
pub(crate) fn check_collections(history: &mut History, found: &BTreeSet<String>) {
    let lost: Vec<_> = history.collections.difference(found).cloned().collect();
    let invented: Vec<_> = found.difference(&history.doubtful_collections).cloned().collect();
    if !lost.is_empty() || !invented.is_empty() {
        history.violation(format!("the catalog has lost {lost:?} and invented {invented:?}"));
    }
}

/// What a node's disk holds, once no process runs on it: what belongs there, and nothing that was dropped, moved away or begun
/// in vain.
pub(crate) fn check_disk(world: &World, node: NodeId, expected: &BTreeSet<ReplicaId>) {
    let disk = world.node(node).disk();
    let left = disk.open().and_then(|(store, log)| Ok((store.keyspaces()?, log.replicas()?)));
    let Ok((keyspaces, logged)) = left else {
        return world.violation(format!("the disk of {node} cannot be read"));
    };
    let kept: BTreeSet<ReplicaId> = keyspaces.iter().map(|name| name.replica).collect();
    let logged: BTreeSet<ReplicaId> = logged.into_iter().collect();
    if kept != *expected || logged != *expected || keyspaces.len() != expected.len() {
        world.violation(format!(
            "the disk of {node} holds keyspaces {keyspaces:?} and logs of {logged:?} where {expected:?} belong"
        ));
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

/// A store against everything that was ever committed, applied from the start.
pub(crate) fn check_replay(
    history: &mut History,
    shard: ShardId,
    replica: ReplicaId,
    committed: &[(LogIndex, Bytes)],
    stored: &BTreeMap<Bytes, Bytes>,
) {
    let mut model = BTreeMap::new();
    apply(&mut model, initial_batch(shard));
    for (index, data) in committed.iter().filter(|(_, data)| !data.is_empty()) {
        match entry::decode(data) {
            Ok(entry) => apply(&mut model, entry.batch),
            Err(fault) => return history.violation(format!("entry {index} of {replica}: {fault}")),
        }
    }
    if *stored != model {
        let differs = |key: &&Bytes| stored.get(*key) != model.get(*key);
        let first = stored.keys().chain(model.keys()).find(differs);
        history.violation(format!("the store of {replica} is no replay of its log: first at {first:?}"));
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

/// The documents in a store.
pub(crate) fn read_documents(view: &dyn View) -> storage::Result<Vec<Document>> {
    let read = |pair: storage::Result<(Bytes, Bytes)>| {
        let (key, value) = pair?;
        Ok(decode_document(&key, &value)?.document.to_document())
    };
    view.scan(document_range(), Direction::Forward).map(read).collect()
}
