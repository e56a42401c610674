//! Clients: each runs operations one after the other, and sends every write again, to this node or that, until it is
//! answered.
//!
//! Writes carry a session and a transaction number, so that sending again must be harmless; some are sent again although
//! they were answered, and some twice at once. What clients are told goes into the history.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::id::CATALOG_SHARD;
use base::{Code, Namespace, NodeId, ReplicaId, ShardId};
use bson::{Bson, Document, doc};
use catalog::Command;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use query::encoding::decode_document;
use query::evaluate::{Outcome, ShardCommand, ShardReply, StatementResult, WriteOp, WriteRequest};
use replica::Host;

use crate::groups::{SHARD, initial_state, sole_voter};
use crate::history::{NEVER, RegisterAction};
use crate::request::{deletion, insert, key_of, list_items, request, update};
use crate::rpc::{NoAnswer, call};
use crate::world::World;

/// Documents of each shared kind.
const SHARED: u64 = 3;
/// Seats that inserted documents compete for.
const SEATS: u64 = 12;
/// Seats from here on belong to the document whose name has the number.
const CLAIM_SEATS: i64 = 100_000;
/// Values of the index that is not unique.
const TAGS: u64 = 5;
/// Numbers of administrators' sessions begin here.
const ADMINISTRATOR: u8 = 200;
/// Numbers of those begin here who come with a fault and leave with it; they end where administrators' begin.
const PASSER_BY: u8 = 20;
/// How many of these write to a node at a time.
const CROWD: u8 = 6;
/// How long one waits for a read that need not be answered, in milliseconds.
const GLANCE_MS: u64 = 20;

/// A client with a session of its own.
pub(crate) struct Client {
    world: Arc<World>,
    number: u8,
    txn: i64,
    /// The longest time between two of its operations, in milliseconds.
    pause_ms: u64,
    /// How long it waits for one answer, in milliseconds.
    patience_ms: u64,
    /// Out of a hundred, how often it stays with a node that refused it.
    stubborn_percent: u64,
    /// The node that it talks to.
    node: Mutex<NodeId>,
    /// Documents that it inserted and did not delete.
    own: Vec<String>,
    inserted: u64,
}

/// The names of the registers, counters and lists.
fn shared_names() -> impl Iterator<Item = String> {
    ["register", "counter", "list"]
        .into_iter()
        .flat_map(|kind| (0..SHARED).map(move |at| format!("{kind}-{at}")))
}

/// Whether the documents are there that all clients share.
fn is_set_up(world: &World) -> bool {
    let documents = &world.history.lock().documents;
    shared_names().all(|name| documents.contains_key(&name))
}

/// Writes something to a group that goes through its Raft log, and waits until it is answered.
pub(crate) async fn barrier(world: &Arc<World>, shard: ShardId) {
    let mut client = Client::passing(world, ADMINISTRATOR);
    match shard {
        CATALOG_SHARD => client.create_collection().await,
        _ => client.touch().await,
    }
}

/// Several clients begin, one after the other, to write through one node, until each of them is answered by some.
pub(crate) async fn crowd(world: &Arc<World>, node: NodeId) {
    if !is_set_up(world) {
        return;
    }
    let join = |number: u8| async move {
        tokio::time::sleep(Duration::from_millis(15 * u64::from(number))).await;
        let mut client = Client::passing_by(world);
        *client.node.lock() = node;
        client.increment().await;
    };
    futures::future::join_all((0..CROWD).map(join)).await;
}

/// Writes a register through one node, and looks at once at what another one holds, which may not know of it yet.
pub(crate) async fn write_here_read_there(world: &Arc<World>, here: NodeId, there: NodeId) {
    if !is_set_up(world) {
        return;
    }
    let mut client = Client::passing_by(world);
    *client.node.lock() = here;
    let name = client.write_register().await;
    for _ in 0..3 {
        let invoked = client.now();
        if let Ok(Some(document)) = client.ask(there, GLANCE_MS, &name).await {
            let value = document.get_i64("n").unwrap_or(-1);
            client.world.history.lock().note_register(name.clone(), invoked, RegisterAction::Read(value));
        }
    }
}

impl Client {
    /// One that uses its session for a moment. Those of different moments must not be taken for one another.
    fn passing(world: &Arc<World>, number: u8) -> Client {
        let txn = i64::try_from(world.history.lock().now()).expect("counts up");
        Client { txn, ..Client::new(world.clone(), number) }
    }

    /// One that comes with a fault. Nobody else uses its session meanwhile.
    fn passing_by(world: &Arc<World>) -> Client {
        let passed = {
            let mut history = world.history.lock();
            history.passers_by += 1;
            history.passers_by % u64::from(ADMINISTRATOR - PASSER_BY)
        };
        Client::passing(world, PASSER_BY + u8::try_from(passed).expect("below the numbers of administrators"))
    }

    pub(crate) fn new(world: Arc<World>, number: u8) -> Client {
        let nodes: Vec<NodeId> = world.nodes.keys().copied().collect();
        Client {
            number,
            txn: 0,
            pause_ms: world.pick(&[10, 60, 300]),
            patience_ms: world.pick(&[100, 1_000, 4_000]),
            stubborn_percent: world.pick(&[0, 50, 95]),
            node: Mutex::new(world.pick(&nodes)),
            own: Vec::new(),
            inserted: 0,
            world,
        }
    }

    /// Inserts the documents that all clients share.
    pub(crate) async fn set_up(&mut self) {
        for name in shared_names() {
            let seat = i64::try_from(name.bytes().map(u64::from).sum::<u64>()).expect("small") + 1_000;
            let document = doc! { "_id": &name, "n": 0_i64, "items": [], "seat": seat, "tag": 0 };
            let (result, _) = self.write(insert(&document)).await;
            self.expect(&result, |outcome| *outcome == Outcome::Inserted, &format!("insert {name}"));
            self.world.history.lock().documents.insert(name, seat);
        }
    }

    /// Runs operations drawn at random until the faults are over, and at least a few.
    pub(crate) async fn run(&mut self) {
        for done in 0.. {
            if done >= self.world.options.operations && !self.world.is_faulting.load(Ordering::SeqCst) {
                return;
            }
            self.world.pause(self.pause_ms).await;
            self.step().await;
            self.world.history.lock().answered += 1;
        }
    }

    async fn step(&mut self) {
        if self.world.is_lull.load(Ordering::SeqCst) {
            return self.read_register().await;
        }
        match self.world.choose(24) {
            0..=3 => drop(self.write_register().await),
            4..=8 => self.read_register().await,
            9..=10 => self.increment().await,
            11 => self.read_counter().await,
            12..=13 => self.append().await,
            14 => self.read_list().await,
            15 => self.read_list_behind().await,
            16..=17 => self.insert().await,
            18 => self.delete().await,
            19..=22 => self.claim().await,
            _ if self.world.chance(60) => self.create_collection().await,
            _ => self.use_a_shard_and_drop_it().await,
        }
    }

    fn now(&self) -> u64 {
        self.world.history.lock().now()
    }

    async fn write_register(&mut self) -> String {
        let name = self.pick("register");
        let value = i64::from(self.number) * 1_000_000 + self.txn + 1;
        let invoked = self.now();
        let (result, _) = self.write(update(&name, doc! { "$set": { "n": value } })).await;
        self.expect(&result, is_single_update, &format!("write {name}"));
        self.world.history.lock().note_register(name.clone(), invoked, RegisterAction::Write(value));
        name
    }

    async fn read_register(&mut self) {
        let name = self.pick("register");
        let invoked = self.now();
        if let Some(value) = self.read_number(&name).await {
            self.world.history.lock().note_register(name, invoked, RegisterAction::Read(value));
        }
    }

    async fn increment(&mut self) {
        let name = self.pick("counter");
        let at = self.world.history.lock().begin_increment(&name);
        let (result, _) = self.write(update(&name, doc! { "$inc": { "n": 1_i64 } })).await;
        self.expect(&result, is_single_update, &format!("increment {name}"));
        self.world.history.lock().end_increment(&name, at);
    }

    async fn read_counter(&mut self) {
        let name = self.pick("counter");
        let invoked = self.now();
        if let Some(value) = self.read_number(&name).await {
            self.world.history.lock().note_counter(name, invoked, value);
        }
    }

    async fn append(&mut self) {
        let name = self.pick("list");
        let element = i64::from(self.number) * 1_000_000 + self.txn + 1;
        let (result, _) = self.write(update(&name, doc! { "$push": { "items": element } })).await;
        self.expect(&result, is_single_update, &format!("append to {name}"));
        self.world.history.lock().note_append(name, element);
    }

    async fn read_list(&mut self) {
        let name = self.pick("list");
        let invoked = self.now();
        let Some(document) = self.read_shared(&name).await else { return };
        self.world.history.lock().note_list(name, invoked, list_items(&document));
    }

    /// Reads a list from any replica, which may be behind but never goes backwards.
    async fn read_list_behind(&mut self) {
        let name = self.pick("list");
        let nodes: Vec<NodeId> = self.world.nodes.keys().copied().collect();
        let node = self.world.pick(&nodes);
        let (world, key) = (self.world.clone(), key_of(&name));
        let boot = world.node(node).process().map_or(0, |process| process.boot);
        let read = |host: Host| -> BoxFuture<'static, _> {
            Box::pin(async move {
                let Some(shard) = host.shard(SHARD) else { return Ok(()) };
                let (view, _) = shard.read_behind().await?;
                if let Ok(Some(value)) = view.get(&key) {
                    let stored = decode_document(&key, &value).map_err(|fault| shard.report(fault))?;
                    let items = list_items(&stored.document.to_document());
                    world.note_behind(&shard.replica().to_string(), boot, name, items);
                }
                Ok(())
            })
        };
        // Nobody there, nothing seen.
        let _ = call(&self.world, node, Some(self.patience_ms), read).await;
    }

    async fn insert(&mut self) {
        let id = format!("own-{}-{}", self.number, self.inserted);
        self.inserted += 1;
        let seat = i64::try_from(self.world.choose(SEATS)).expect("few seats");
        let tag = i64::try_from(self.world.choose(TAGS)).expect("few tags");
        let invoked = self.now();
        let (result, sent) = self.write(insert(&doc! { "_id": &id, "tag": tag, "seat": seat })).await;
        let mut history = self.world.history.lock();
        let answered = history.now();
        match result.outcome {
            Ok(Outcome::Inserted) => {
                history.note_holding(&id, seat, invoked, answered);
                history.documents.insert(id.clone(), seat);
                self.own.push(id);
            }
            Err(error) if error.code == Code::DUPLICATE_KEY && error.message.contains("seat") => {
                history.refusals.push((seat, invoked, answered));
                if sent > 1 {
                    history.note_holding(&id, seat, invoked, NEVER);
                    history.doubtful.insert(id, seat);
                }
            }
            other => history.violation(format!("insert {id}: {other:?}")),
        }
    }

    async fn delete(&mut self) {
        let Some(id) = self.own.pop() else { return };
        let invoked = self.now();
        let (result, _) = self.write(deletion(&id)).await;
        let is_one = |outcome: &Outcome| matches!(outcome, Outcome::Deleted { deleted: 1, .. });
        self.expect(&result, is_one, &format!("delete {id}"));
        let mut history = self.world.history.lock();
        let answered = history.now();
        history.note_release(&id, invoked, answered);
    }

    /// Races others to insert a document that nobody deletes. Whoever is refused must find it.
    async fn claim(&mut self) {
        if self.world.chance(40) {
            self.world.history.lock().claim += 1;
        }
        let number = self.world.history.lock().claim;
        let (id, seat) = (format!("claim-{number}"), CLAIM_SEATS + i64::try_from(number).expect("small"));
        let (result, sent) = self.write(insert(&doc! { "_id": &id, "seat": seat, "tag": 0_i64 })).await;
        match result.outcome {
            Ok(Outcome::Inserted) => {
                let before = self.world.history.lock().documents.insert(id.clone(), seat);
                if before.is_some() {
                    self.world.violation(format!("{id} was inserted twice"));
                }
            }
            Err(error) if error.code == Code::DUPLICATE_KEY => {
                if self.read(&id).await.is_none() {
                    self.world.violation(format!("{id} was refused as a duplicate and is not there"));
                }
                if sent > 1 {
                    self.world.history.lock().doubtful.insert(id, seat);
                }
            }
            other => self.world.violation(format!("insert {id}: {other:?}")),
        }
    }

    /// Changes a document that only administrators change.
    async fn touch(&mut self) {
        let id = format!("touched-{}", self.txn);
        let seat = 2 * CLAIM_SEATS + self.txn;
        self.world.history.lock().doubtful.insert(id.clone(), seat);
        let (result, _) = self.write(insert(&doc! { "_id": &id, "seat": seat, "tag": 1_i64 })).await;
        self.expect(&result, |outcome| *outcome == Outcome::Inserted, &format!("insert {id}"));
        self.world.history.lock().documents.insert(id, seat);
    }

    async fn create_collection(&mut self) {
        self.txn += 1;
        let name = format!("collection-{}-{}", self.number, self.txn);
        let command = Command::CreateCollection {
            namespace: Namespace::new("shop", &name).expect("a valid name"),
            uuid: [self.number; 16],
            options: Document::new(),
            drops_seen: 0,
        };
        self.world.history.lock().doubtful_collections.insert(name.clone());
        loop {
            let (node, command) = (*self.node.lock(), command.clone());
            let create = |host: Host| -> BoxFuture<'static, _> {
                Box::pin(async move {
                    let catalog = host.catalog().ok_or_else(not_here)?;
                    catalog.write(command).await
                })
            };
            match call(&self.world, node, Some(self.patience_ms), create).await {
                Ok(_) => break,
                // The answer to an earlier sending was lost.
                Err(NoAnswer::Refused(error)) if error.code == Code::NAMESPACE_EXISTS => break,
                Err(failure) => self.wait_after(&failure, CATALOG_SHARD).await,
            }
        }
        self.world.history.lock().collections.insert(name);
    }

    /// Creates a shard on one node, writes to it and drops it, each until it is answered.
    async fn use_a_shard_and_drop_it(&mut self) {
        self.txn += 1;
        let number = 10_000 * (1 + u64::from(self.number)) + u64::try_from(self.txn).expect("counts up");
        let (shard, replica) = (ShardId(number), ReplicaId(number));
        let node = *self.node.lock();
        let op = insert(&doc! { "_id": 1, "seat": 1_i64, "tag": 1_i64 });
        let write = ShardCommand::Write(request(self.number, self.txn, op));
        loop {
            let write = write.clone();
            let use_it = |host: Host| -> BoxFuture<'static, _> {
                Box::pin(async move {
                    let batch = initial_state().initial_batch();
                    let membership = sole_voter(replica, node);
                    host.create_replica(shard, replica, &membership, batch).await?.write(write).await
                })
            };
            match call(&self.world, node, None, use_it).await {
                Ok(_) => break,
                Err(failure) => self.wait_here(&failure).await,
            }
        }
        loop {
            let drop_it = |host: Host| -> BoxFuture<'static, _> {
                Box::pin(async move { host.drop_replica(shard).await })
            };
            match call(&self.world, node, None, drop_it).await {
                Ok(()) => return,
                Err(failure) => self.wait_here(&failure).await,
            }
        }
    }

    /// Sends a write until it is answered; now and then twice at once, or once more after the answer. Returns the answer
    /// and how often the write was sent.
    async fn write(&mut self, op: WriteOp) -> (StatementResult, u64) {
        self.txn += 1;
        let request = request(self.number, self.txn, op);
        self.world.trace(&format!("client {} asks {}", self.number, self.txn));
        let (result, sent) = match self.world.chance(5) {
            true => {
                let ((one, sent), (other, others)) = futures::join!(self.send(&request), self.send(&request));
                // A refusal leaves no record: one copy may be refused and the other, after a crash, find the seat
                // free. The write has happened then, once.
                (if one.outcome.is_ok() { one } else { other }, sent + others)
            }
            false => self.send(&request).await,
        };
        self.world.trace(&format!("client {} is answered {}", self.number, self.txn));
        if self.world.chance(10) && result.outcome.is_ok() {
            let (again, _) = self.send(&request).await;
            if again.outcome != result.outcome || !again.repeated {
                let what = format!("{:?} was answered {:?} when it was sent again", result.outcome, again);
                self.world.violation(what);
            }
        }
        (result, sent)
    }

    async fn send(&self, request: &WriteRequest) -> (StatementResult, u64) {
        for sent in 1.. {
            let (node, command) = (*self.node.lock(), ShardCommand::Write(request.clone()));
            let write = |host: Host| -> BoxFuture<'static, _> {
                Box::pin(async move {
                    let shard = host.shard(SHARD).ok_or_else(not_here)?;
                    shard.write(command).await
                })
            };
            match call(&self.world, node, Some(self.patience_ms), write).await {
                Ok(ShardReply::Write(results)) => match <[StatementResult; 1]>::try_from(results) {
                    Ok([result]) => return (result, sent),
                    Err(results) => panic!("one statement has one result, not {results:?}"),
                },
                Ok(other) => panic!("a write is not answered {other:?}"),
                Err(failure) => self.wait_after(&failure, SHARD).await,
            }
        }
        unreachable!("the loop has no end")
    }

    async fn read_number(&self, id: &str) -> Option<i64> {
        match self.read_shared(id).await?.get("n") {
            Some(Bson::Int64(value)) => Some(*value),
            other => {
                self.world.violation(format!("{id} holds {other:?}"));
                None
            }
        }
    }

    /// Reads one of the shared documents, which nobody deletes.
    async fn read_shared(&self, id: &str) -> Option<Document> {
        let document = self.read(id).await;
        if document.is_none() {
            self.world.violation(format!("{id} is gone"));
        }
        document
    }

    /// Reads a document as linearizable reads do.
    async fn read(&self, id: &str) -> Option<Document> {
        loop {
            let node = *self.node.lock();
            match self.ask(node, self.patience_ms, id).await {
                Ok(document) => return document,
                Err(failure) => self.wait_after(&failure, SHARD).await,
            }
        }
    }

    /// Asks one node once for a document.
    async fn ask(&self, node: NodeId, patience_ms: u64, id: &str) -> Result<Option<Document>, NoAnswer> {
        let key = key_of(id);
        let read = |host: Host| -> BoxFuture<'static, _> {
            Box::pin(async move {
                let shard = host.shard(SHARD).ok_or_else(not_here)?;
                let (view, _) = shard.read().await?;
                let Some(value) = view.get(&key).map_err(|fault| shard.report(fault))? else {
                    return Ok(None);
                };
                let stored = decode_document(&key, &value).map_err(|fault| shard.report(fault))?;
                Ok(Some(stored.document.to_document()))
            })
        };
        call(&self.world, node, Some(patience_ms), read).await
    }

    /// After a failure that a router would hide, waits a little and perhaps turns to another node. Any other failure is a
    /// violation.
    async fn wait_after(&self, failure: &NoAnswer, shard: ShardId) {
        let node = *self.node.lock();
        self.wait_here(failure).await;
        let hint = match failure {
            NoAnswer::Refused(_) => self.world.node(node).process().and_then(|process| match shard {
                CATALOG_SHARD => process.host.catalog()?.leader_node(),
                _ => process.host.shard(shard)?.leader_node(),
            }),
            _ => None,
        };
        if self.world.chance(self.stubborn_percent) {
            return;
        }
        let nodes: Vec<NodeId> = self.world.nodes.keys().copied().collect();
        let random = self.world.pick(&nodes);
        *self.node.lock() = hint.filter(|hint| *hint != node).unwrap_or(random);
    }

    async fn wait_here(&self, failure: &NoAnswer) {
        let retried = [
            Code::SHUTDOWN_IN_PROGRESS,
            Code::INTERRUPTED_AT_SHUTDOWN,
            Code::INTERRUPTED_DUE_TO_REPL_STATE_CHANGE,
            Code::NOT_WRITABLE_PRIMARY,
            Code::STALE_CONFIG,
        ];
        self.world.history.lock().resent += 1;
        if let NoAnswer::Refused(error) = failure
            && !retried.contains(&error.code)
        {
            self.world.violation(format!("client {} was answered {error}", self.number));
        }
        self.world.pause(20).await;
    }

    fn expect(&self, result: &StatementResult, is_expected: impl Fn(&Outcome) -> bool, what: &str) {
        if !result.outcome.as_ref().is_ok_and(is_expected) {
            self.world.violation(format!("{what}: {:?}", result.outcome));
        }
    }

    fn pick(&self, kind: &str) -> String {
        format!("{kind}-{}", self.world.choose(SHARED))
    }
}

/// What a node answers that has no replica of the shard.
fn not_here() -> base::Error {
    base::Error::new(Code::STALE_CONFIG, "the shard is not on this node")
}

fn is_single_update(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Updated { matched: 1, modified: 1, .. })
}
