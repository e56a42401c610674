//! What the client does: appends to lists, reads them and counts, at random, on keys that all clients of a round share.
//!
//! Called by `main`. Always holds: no two appends of all processes have the same value.

use std::collections::BTreeSet;
use std::io;

use mongodb::bson::doc;
use mongodb::error::Result;
use mongodb::options::ReturnDocument;
use mongodb::sync::{Collection, Database};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::history::{History, Kind, Question};

/// These are as in `workload.py`: the keys are the same there.
const LIST_LENGTH_MAX: u32 = 60;
const LISTS: u32 = 3;
const COUNTERS: u32 = 5;
const VALUES_OF_A_PROCESS: i64 = 10_000_000;
/// Of all operations, so many are appends; so many are appends or reads.
const APPENDS: f64 = 0.45;
const APPENDS_AND_READS: f64 = 0.85;

/// A list, as far as it is of interest.
#[derive(Debug, Deserialize)]
struct List {
    v: Vec<i64>,
}

/// A counter, as far as it is of interest.
#[derive(Debug, Deserialize)]
struct Counter {
    n: i64,
}

/// One sequence of operations.
#[derive(Debug)]
pub(crate) struct Workload {
    lists: Collection<List>,
    counters: Collection<Counter>,
    history: History,
    draw: fastrand::Rng,
    prefix: String,
    value: i64,
    /// Lists grow until so many appends were made; then come new ones.
    generation: u32,
    appended: u32,
    written: BTreeSet<String>,
}

impl Workload {
    pub(crate) fn new(database: &Database, history: History, process: i64, prefix: &str) -> Workload {
        Workload {
            lists: database.collection("lists"),
            counters: database.collection("counters"),
            history,
            draw: fastrand::Rng::with_seed(process.unsigned_abs()),
            prefix: prefix.to_owned(),
            value: process * VALUES_OF_A_PROCESS,
            generation: 0,
            appended: 0,
            written: BTreeSet::new(),
        }
    }

    /// One operation.
    pub(crate) fn step(&mut self) -> io::Result<()> {
        let choice = self.draw.f64();
        if choice < APPENDS {
            self.append()
        } else if choice < APPENDS_AND_READS {
            let key = self.list();
            self.read(key)
        } else {
            self.count()
        }
    }

    /// Reads every list once more, so that the last appends are seen as well.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        for key in std::mem::take(&mut self.written) {
            self.read(key)?;
        }
        self.history.close()
    }

    fn append(&mut self) -> io::Result<()> {
        let key = self.list();
        self.written.insert(key.clone());
        self.value += 1;
        let question = Question { kind: Kind::Append, key, value: Some(self.value) };
        self.history.note(&question, |asked| append(&self.lists, asked))?;
        self.appended += 1;
        if self.appended >= LIST_LENGTH_MAX {
            (self.appended, self.generation) = (0, self.generation + 1);
        }
        Ok(())
    }

    fn read(&mut self, key: String) -> io::Result<()> {
        let question = Question { kind: Kind::Read, key, value: None };
        self.history.note(&question, |asked| read(&self.lists, &asked.key))
    }

    fn count(&mut self) -> io::Result<()> {
        let key = format!("{}-{}", self.prefix, self.draw.u32(..COUNTERS));
        let question = Question { kind: Kind::Count, key, value: None };
        self.history.note(&question, |asked| count(&self.counters, &asked.key))
    }

    fn list(&mut self) -> String {
        format!("{}-{}-{}", self.prefix, self.generation, self.draw.u32(..LISTS))
    }
}

fn append(lists: &Collection<List>, asked: &Question) -> Result<Option<Value>> {
    let change = doc! { "$push": { "v": asked.value } };
    lists.update_one(doc! { "_id": &asked.key }, change).upsert(true).run()?;
    Ok(None)
}

fn read(lists: &Collection<List>, key: &str) -> Result<Option<Value>> {
    let found = lists.find_one(doc! { "_id": key }).run()?;
    Ok(Some(json!(found.map_or_else(Vec::new, |list| list.v))))
}

fn count(counters: &Collection<Counter>, key: &str) -> Result<Option<Value>> {
    let found = counters
        .find_one_and_update(doc! { "_id": key }, doc! { "$inc": { "n": 1 } })
        .upsert(true)
        .return_document(ReturnDocument::After)
        .run()?;
    // No document in place of the new one is an answer that the checker must refuse.
    Ok(Some(json!(found.map_or(0, |counter| counter.n))))
}
