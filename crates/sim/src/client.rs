//! Clients: each runs a number of operations one after the other, and sends every write again until it is answered.
//!
//! Writes carry a session and a transaction number, so that sending again must be harmless; some are sent again although
//! they were answered, and some twice at once. What clients are told goes into the history.

use std::sync::Arc;

use base::{Code, Namespace, NodeId, ReplicaId, SessionId, ShardId};
use bson::{Bson, Document, doc};
use bytes::Bytes;
use catalog::Command;
use document::filter::Filter;
use document::update::Update;
use document::{DocBuf, Value, Variables};
use query::encoding::{decode_document, document_key};
use query::evaluate::{
    Candidates, Outcome, ReturnDocument, ShardCommand, ShardReply, Statement, StatementResult, WriteOp,
    WriteRequest,
};

use crate::history::{RegisterAction, RegisterOp};
use crate::node::{EPOCH, SHARD, initial_state, sole_voter};
use crate::register::OPERATIONS_MAX;
use crate::world::World;

/// Documents of each shared kind.
const SHARED: u64 = 3;
/// Seats that inserted documents compete for.
const SEATS: u64 = 40;
/// Values of the index that is not unique.
const TAGS: u64 = 5;

/// A client with a session of its own.
pub(crate) struct Client {
    world: Arc<World>,
    number: u8,
    txn: i64,
    /// The longest time between two of its operations, in microseconds.
    pause_us: u64,
    /// Documents that it inserted and did not delete.
    own: Vec<String>,
    inserted: u64,
}

/// The names of the registers, counters and lists.
pub(crate) fn shared_names() -> impl Iterator<Item = String> {
    ["register", "counter", "list"]
        .into_iter()
        .flat_map(|kind| (0..SHARED).map(move |at| format!("{kind}-{at}")))
}

impl Client {
    pub(crate) fn new(world: Arc<World>, number: u8) -> Client {
        let pause_us = [1, 1_000, 20_000][usize::try_from(world.choose(3)).expect("three")];
        Client { world, number, txn: 0, pause_us, own: Vec::new(), inserted: 0 }
    }

    /// Inserts the documents that all clients share.
    pub(crate) async fn set_up(&mut self) {
        for name in shared_names() {
            let seat = i64::try_from(name.bytes().map(u64::from).sum::<u64>()).expect("small") + 1_000;
            let document = doc! { "_id": &name, "n": 0_i64, "items": [], "seat": seat, "tag": 0 };
            let result = self.write(insert(&document)).await;
            self.expect(&result, |outcome| *outcome == Outcome::Inserted, &format!("insert {name}"));
            self.world.history.lock().documents.insert(name, seat);
        }
    }

    /// Runs `operations` operations drawn at random.
    pub(crate) async fn run(&mut self, operations: u64) {
        for _ in 0..operations {
            self.world.pause(self.pause_us).await;
            match self.world.choose(16) {
                0..=2 => self.write_register().await,
                3..=5 => self.read_register().await,
                6..=8 => self.increment().await,
                9..=10 => self.append().await,
                11 => self.read_list().await,
                12..=13 => self.insert().await,
                14 => self.delete().await,
                _ if self.world.chance(50) => self.create_collection().await,
                _ => self.use_a_shard_and_drop_it().await,
            }
            self.world.history.lock().answered += 1;
        }
    }

    async fn write_register(&mut self) {
        let name = self.pick("register");
        let value = i64::from(self.number) * 1_000_000 + self.txn + 1;
        let invoked = self.world.history.lock().now();
        let result = self.write(update(&name, doc! { "$set": { "n": value } })).await;
        self.expect(&result, is_single_update, &format!("write {name}"));
        self.note_register(name, invoked, RegisterAction::Write(value));
    }

    async fn read_register(&mut self) {
        let name = self.pick("register");
        let invoked = self.world.history.lock().now();
        let document = self.read(&name).await;
        match document.get("n") {
            Some(Bson::Int64(value)) => self.note_register(name, invoked, RegisterAction::Read(*value)),
            other => self.world.history.lock().violation(format!("{name} holds {other:?}")),
        }
    }

    async fn increment(&mut self) {
        let name = self.pick("counter");
        let result = self.write(update(&name, doc! { "$inc": { "n": 1_i64 } })).await;
        self.expect(&result, is_single_update, &format!("increment {name}"));
        *self.world.history.lock().increments.entry(name).or_default() += 1;
    }

    async fn append(&mut self) {
        let name = self.pick("list");
        let element = i64::from(self.number) * 1_000_000 + self.txn + 1;
        let result = self.write(update(&name, doc! { "$push": { "items": element } })).await;
        self.expect(&result, is_single_update, &format!("append to {name}"));
        let mut history = self.world.history.lock();
        let answered = history.now();
        history.appends.entry(name).or_default().insert(element, answered);
    }

    async fn read_list(&mut self) {
        let name = self.pick("list");
        let began = self.world.history.lock().now();
        let items = list_items(&self.read(&name).await);
        self.world.history.lock().list_reads.push((name, began, items));
    }

    async fn insert(&mut self) {
        let id = format!("own-{}-{}", self.number, self.inserted);
        self.inserted += 1;
        let seat = i64::try_from(self.world.choose(SEATS)).expect("few seats");
        let tag = i64::try_from(self.world.choose(TAGS)).expect("few tags");
        let result = self.write(insert(&doc! { "_id": &id, "tag": tag, "seat": seat })).await;
        let mut history = self.world.history.lock();
        match result.outcome {
            Ok(Outcome::Inserted) => {
                history.taken_seats.insert(seat);
                history.documents.insert(id.clone(), seat);
                self.own.push(id);
            }
            Err(error) if error.code == Code::DUPLICATE_KEY && error.message.contains("seat") => {
                history.refused_seats.insert(seat);
            }
            other => history.violation(format!("insert {id}: {other:?}")),
        }
    }

    async fn delete(&mut self) {
        let Some(id) = self.own.pop() else { return };
        let filter = Arc::new(id_filter(&id));
        let candidates = candidates(&id);
        let op = WriteOp::Delete { candidates, filter, multi: false, return_document: ReturnDocument::None };
        let result = self.write(op).await;
        let is_one = |outcome: &Outcome| matches!(outcome, Outcome::Deleted { deleted: 1, .. });
        self.expect(&result, is_one, &format!("delete {id}"));
        let mut history = self.world.history.lock();
        history.documents.remove(&id);
        history.deleted.insert(id);
    }

    async fn create_collection(&mut self) {
        self.txn += 1;
        let name = format!("collection-{}-{}", self.number, self.txn);
        let command = Command::CreateCollection {
            namespace: Namespace::new("shop", &name).expect("a valid name"),
            uuid: [self.number; 16],
            options: Document::new(),
        };
        loop {
            let Some(catalog) = self.world.process().and_then(|process| process.host.catalog()) else {
                self.world.pause(10_000).await;
                continue;
            };
            match catalog.write(command.clone()).await {
                Ok(_) => break,
                // The answer to an earlier sending was lost.
                Err(error) if error.code == Code::NAMESPACE_EXISTS => break,
                Err(error) => self.wait_after(&error).await,
            }
        }
        self.world.history.lock().collections.insert(name);
    }

    /// Creates a shard, writes to it and drops it, each until it is answered.
    async fn use_a_shard_and_drop_it(&mut self) {
        self.txn += 1;
        let number = 1_000 * (1 + u64::from(self.number)) + u64::try_from(self.txn).expect("counts up");
        let (shard, replica) = (ShardId(number), ReplicaId(number));
        let op = insert(&doc! { "_id": 1, "seat": 1_i64, "tag": 1_i64 });
        let write = ShardCommand::Write(self.request(op));
        loop {
            let Some(process) = self.world.process() else {
                self.world.pause(10_000).await;
                continue;
            };
            let batch = initial_state().initial_batch();
            let written = match process.host.create_replica(shard, replica, &sole_voter(replica), batch).await
            {
                Ok(handle) => handle.write(write.clone()).await,
                Err(error) => Err(error),
            };
            match written {
                Ok(_) => break,
                Err(error) => self.wait_after(&error).await,
            }
        }
        loop {
            let Some(process) = self.world.process() else {
                self.world.pause(10_000).await;
                continue;
            };
            match process.host.drop_replica(shard).await {
                Ok(()) => return,
                Err(error) => self.wait_after(&error).await,
            }
        }
    }

    /// Sends a write until it is answered; now and then twice at once, or once more after the answer.
    async fn write(&mut self, op: WriteOp) -> StatementResult {
        self.txn += 1;
        let request = self.request(op);
        self.world.trace(&format!("client {} asks {}", self.number, self.txn));
        let result = match self.world.chance(10) {
            true => {
                let (one, other) = futures::join!(self.send(&request), self.send(&request));
                // A refusal leaves no record: one copy may be refused and the other, after a crash, find the seat
                // free. The write has happened then, once.
                if one.outcome.is_ok() { one } else { other }
            }
            false => self.send(&request).await,
        };
        self.world.trace(&format!("client {} is answered {}", self.number, self.txn));
        if self.world.chance(10) && result.outcome.is_ok() {
            let again = self.send(&request).await;
            if again.outcome != result.outcome || !again.repeated {
                let what = format!("{:?} was answered {:?} when it was sent again", result.outcome, again);
                self.world.history.lock().violation(what);
            }
        }
        result
    }

    fn request(&self, op: WriteOp) -> WriteRequest {
        WriteRequest {
            namespace: Namespace::new("shop", "things").expect("a valid name"),
            epoch: EPOCH,
            session: Some((SessionId([self.number; 16]), self.txn)),
            statements: Arc::new([Statement { stmt_id: 0, op }]),
            ordered: true,
            variables: Variables::default(),
        }
    }

    async fn send(&self, request: &WriteRequest) -> StatementResult {
        loop {
            let Some(shard) = self.world.process().and_then(|process| process.host.shard(SHARD)) else {
                self.world.pause(10_000).await;
                continue;
            };
            match shard.write(ShardCommand::Write(request.clone())).await {
                Ok(ShardReply::Write(results)) => match <[StatementResult; 1]>::try_from(results) {
                    Ok([result]) => return result,
                    Err(results) => panic!("one statement has one result, not {results:?}"),
                },
                Ok(other) => panic!("a write is not answered {other:?}"),
                Err(error) => self.wait_after(&error).await,
            }
        }
    }

    /// Reads one of the shared documents.
    async fn read(&self, id: &str) -> Document {
        let key = key_of(id);
        loop {
            let Some(shard) = self.world.process().and_then(|process| process.host.shard(SHARD)) else {
                self.world.pause(10_000).await;
                continue;
            };
            match shard.read().await {
                Ok((view, _)) => match view.get(&key) {
                    Ok(Some(value)) => {
                        let stored = decode_document(&key, &value).expect("the simulator flips no bits");
                        return stored.document.to_document();
                    }
                    Ok(None) => {
                        self.world.history.lock().violation(format!("{id} is gone"));
                        return Document::new();
                    }
                    // The process ended between the two calls.
                    Err(_) => self.world.pause(10_000).await,
                },
                Err(error) => self.wait_after(&error).await,
            }
        }
    }

    /// After an error that a driver would retry, waits a little. Any other is a violation.
    async fn wait_after(&self, error: &base::Error) {
        let retried = [
            Code::SHUTDOWN_IN_PROGRESS,
            Code::INTERRUPTED_AT_SHUTDOWN,
            Code::INTERRUPTED_DUE_TO_REPL_STATE_CHANGE,
            Code::NOT_WRITABLE_PRIMARY,
            Code::STALE_CONFIG,
        ];
        {
            let mut history = self.world.history.lock();
            history.resent += 1;
            if !retried.contains(&error.code) {
                history.violation(format!("client {} was answered {error}", self.number));
            }
        }
        self.world.pause(10_000).await;
    }

    fn expect(&self, result: &StatementResult, is_expected: impl Fn(&Outcome) -> bool, what: &str) {
        if !result.outcome.as_ref().is_ok_and(is_expected) {
            self.world.history.lock().violation(format!("{what}: {:?}", result.outcome));
        }
    }

    fn note_register(&self, name: String, invoked: u64, action: RegisterAction) {
        let mut history = self.world.history.lock();
        let answered = history.now();
        let operations = history.registers.entry(name).or_default();
        if operations.len() < OPERATIONS_MAX {
            operations.push(RegisterOp { invoked, answered, action });
        }
    }

    fn pick(&self, kind: &str) -> String {
        format!("{kind}-{}", self.world.choose(SHARED))
    }
}

/// The key of the document with this `_id`.
pub(crate) fn key_of(id: &str) -> Vec<u8> {
    document_key(&Value::String(id))
}

/// The elements of a list.
pub(crate) fn list_items(document: &Document) -> Vec<i64> {
    let items = document.get_array("items").map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Bson::as_i64).collect()
}

fn candidates(id: &str) -> Candidates {
    Candidates { keys: vec![Bytes::from(key_of(id))], exact: true }
}

fn id_filter(id: &str) -> Filter {
    let document = DocBuf::encode(&doc! { "_id": id }).expect("small");
    Filter::parse(document.as_doc(), &Variables::default()).expect("a valid filter")
}

fn insert(document: &Document) -> WriteOp {
    WriteOp::Insert { document: DocBuf::encode(document).expect("small") }
}

fn update(id: &str, change: Document) -> WriteOp {
    let change = DocBuf::encode(&change).expect("small");
    let update = Update::parse(Value::Document(change.as_doc()), &[], &Variables::default());
    WriteOp::Update {
        candidates: candidates(id),
        filter: Arc::new(id_filter(id)),
        update: Arc::new(update.expect("a valid update")),
        upsert: None,
        multi: false,
        return_document: ReturnDocument::None,
    }
}

fn is_single_update(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Updated { matched: 1, modified: 1, .. })
}
