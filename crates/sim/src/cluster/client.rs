//! Clients of a whole cluster, as drivers are: each asks one router at a time, and sends what was not answered again, to this
//! router or another.
//!
//! Retryable writes carry a session and a transaction number. Updates of many documents do not, and are sent once: what became
//! of one that was not answered is not known. What clients are told goes into the history.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{Code, Namespace, NodeId, Result, SessionId};
use bson::{Bson, Document, doc};
use document::DocBuf;
use futures::future::BoxFuture;
use router::command::{
    CountCommand, CreateCommand, CreateIndexesCommand, DeleteCommand, DeleteStatement, FindAndModifyAction,
    FindAndModifyCommand, FindAndModifyReply, FindCommand, IndexRequest, IndexSelector, InsertCommand,
    ReadMode, ReadPreference, UpdateCommand, UpdateSpec, UpdateStatement, WriteReply,
};
use router::{OperationContext, Router};

use super::quiet::QUIET;
use super::shards::{self, Layout};
use crate::history::{NEVER, RegisterAction};
use crate::request::list_items;
use crate::rpc::{NoAnswer, call_router};
use crate::world::World;

/// The collection that all clients share.
pub(super) const THINGS: &str = "things";
/// Documents of each shared kind.
const SHARED: u64 = 3;
/// Documents that are updated together.
const MANY: usize = 6;
/// What marks them.
pub(super) const MANY_TAG: i64 = 100;
/// Seats that inserted documents compete for.
const SEATS: u64 = 12;
/// How long a client waits whose wait may not be in vain, in milliseconds: longer than a router tries.
const PATIENCE_MS_MAX: u64 = 40_000;

/// A client with a session of its own.
pub(super) struct Client {
    pub(super) world: Arc<World>,
    pub(super) layout: Layout,
    pub(super) number: u8,
    txn: i64,
    /// The longest time between two of its operations, in milliseconds.
    pause_ms: u64,
    /// How long it waits for one answer, in milliseconds.
    pub(super) patience_ms: u64,
    /// The node whose router it asks.
    pub(super) node: NodeId,
    /// Documents that it inserted and did not delete.
    pub(super) own: Vec<String>,
    named: u64,
}

/// A write of one document that may be sent again.
#[derive(Clone, Debug)]
enum Write {
    Insert(InsertCommand),
    Update(UpdateCommand),
    Delete(DeleteCommand),
    Modify(FindAndModifyCommand),
}

impl Write {
    fn namespace(&self) -> &Namespace {
        match self {
            Write::Insert(command) => &command.namespace,
            Write::Update(command) => &command.namespace,
            Write::Delete(command) => &command.namespace,
            Write::Modify(command) => &command.namespace,
        }
    }

    /// Gives the statement a number, as drivers do in a batch.
    fn number(&mut self, stmt_id: i32) {
        match self {
            Write::Insert(command) => command.statement_ids = vec![stmt_id],
            Write::Update(command) => command.statement_ids = vec![stmt_id],
            Write::Delete(command) => command.statement_ids = vec![stmt_id],
            Write::Modify(_) => {}
        }
    }

    async fn send(self, router: &Router, cx: &OperationContext) -> Result<Written> {
        let (reply, value) = match self {
            Write::Insert(command) => (router.insert(cx, command).await?, None),
            Write::Update(command) => (router.update(cx, command).await?, None),
            Write::Delete(command) => (router.delete(cx, command).await?, None),
            Write::Modify(command) => {
                let FindAndModifyReply { value, n, updated_existing, .. } =
                    router.find_and_modify(cx, command).await?;
                let n_modified = u64::from(updated_existing == Some(true));
                (WriteReply { n, n_modified, ..WriteReply::default() }, value)
            }
        };
        Ok(Written { reply, value: value.map(|value| value.to_document()) })
    }
}

/// What a write was answered.
#[derive(Debug)]
struct Written {
    reply: WriteReply,
    /// The document, where one was asked for.
    value: Option<Document>,
}

fn shared_names() -> impl Iterator<Item = String> {
    ["register", "counter", "list"]
        .into_iter()
        .flat_map(|kind| (0..SHARED).map(move |at| format!("{kind}-{at}")))
}

pub(super) fn many_names() -> impl Iterator<Item = String> {
    (0..MANY).map(|at| format!("many-{at}"))
}

pub(super) fn namespace(collection: &str) -> Namespace {
    Namespace::new("shop", collection).expect("a valid name")
}

pub(super) fn encode(document: &Document) -> DocBuf {
    DocBuf::encode(document).expect("small")
}

impl Client {
    pub(super) fn new(world: Arc<World>, layout: Layout, number: u8) -> Client {
        Client {
            layout,
            number,
            txn: 0,
            pause_ms: world.pick(&[10, 60, 300]),
            patience_ms: world.pick(&[200, 2_000, PATIENCE_MS_MAX]),
            node: world.pick(&world.members()),
            own: Vec::new(),
            named: 0,
            world,
        }
    }

    /// Makes the collection, its indexes, and the documents that all clients share.
    pub(super) async fn set_up(&mut self) {
        {
            let mut history = self.world.history.lock();
            for name in [THINGS, QUIET] {
                history.collections.insert(name.to_owned());
                history.doubtful_collections.insert(name.to_owned());
            }
        }
        let (Written { reply, .. }, _) = self.write(insert(QUIET, &doc! { "_id": "first" })).await;
        self.expect_one(&reply, "insert into the quiet collection");
        self.create_index(THINGS, "tag", false).await;
        self.create_index(THINGS, "seat", self.layout.unique_seats).await;
        let shared = shared_names().map(|name| (name, 0)).chain(many_names().map(|name| (name, MANY_TAG)));
        for (seat, (name, tag)) in (1_000_i64..).zip(shared) {
            let document =
                doc! { "_id": &name, "alias": &name, "n": 0_i64, "items": [], "seat": seat, "tag": tag };
            let (Written { reply, .. }, _) = self.write(insert(THINGS, &document)).await;
            self.expect_one(&reply, &format!("insert {name}"));
            self.world.history.lock().documents.insert(name, seat);
        }
    }

    /// Runs operations drawn at random until the faults are over, and at least a few.
    pub(super) async fn run(&mut self) {
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
        match self.world.choose(30) {
            0..=3 => self.write_register().await,
            4..=7 => self.read_register().await,
            8..=9 => self.increment().await,
            10 => self.read_counter().await,
            26..=27 => self.increment_and_see().await,
            28..=29 => self.read_own().await,
            11..=12 => self.append().await,
            13 => self.read_list().await,
            14..=15 => self.read_list_behind().await,
            16..=17 => self.insert().await,
            18 => self.delete().await,
            19..=20 => self.sweep().await,
            21..=22 => self.read_many().await,
            23 => self.count_many().await,
            _ => self.use_a_collection_and_drop_it().await,
        }
    }

    fn now(&self) -> u64 {
        self.world.history.lock().now()
    }

    async fn write_register(&mut self) {
        let name = self.pick("register");
        let value = i64::from(self.number) * 1_000_000 + self.txn + 1;
        let invoked = self.now();
        let (Written { reply, .. }, _) =
            self.write(self.update(&name, doc! { "$set": { "n": value } })).await;
        self.expect_one(&reply, &format!("write {name}"));
        self.world.history.lock().note_register(name, invoked, RegisterAction::Write(value));
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
        let (Written { reply, .. }, _) =
            self.write(self.update(&name, doc! { "$inc": { "n": 1_i64 } })).await;
        self.expect_one(&reply, &format!("increment {name}"));
        self.world.history.lock().end_increment(&name, at);
    }

    /// Increments a counter with `findAndModify`, whose answer is a read too.
    async fn increment_and_see(&mut self) {
        let name = self.pick("counter");
        let at = self.world.history.lock().begin_increment(&name);
        let invoked = self.now();
        let update = UpdateSpec::Document(encode(&doc! { "$inc": { "n": 1_i64 } }));
        let command = FindAndModifyCommand {
            namespace: namespace(THINGS),
            filter: encode(&self.filter(&name)),
            sort: None,
            action: FindAndModifyAction::Update { update, upsert: false, return_new: true },
            projection: None,
            array_filters: vec![],
            hint: None,
            variables: None,
        };
        let (Written { reply, value }, _) = self.write(Write::Modify(command)).await;
        self.expect_one(&reply, &format!("increment and see {name}"));
        let mut history = self.world.history.lock();
        history.end_increment(&name, at);
        match value.as_ref().and_then(|document| document.get_i64("n").ok()) {
            Some(seen) => history.note_counter(name, invoked, seen),
            None => history.violation(format!("{name} was incremented and is {value:?}")),
        }
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
        let push = self.update(&name, doc! { "$push": { "items": element } });
        let (Written { reply, .. }, _) = self.write(push).await;
        self.expect_one(&reply, &format!("append to {name}"));
        self.world.history.lock().note_append(name, element);
    }

    async fn read_list(&mut self) {
        let name = self.pick("list");
        let invoked = self.now();
        let Some(document) = self.read(THINGS, &name, ReadMode::Primary).await else {
            return self.world.violation(format!("{name} is gone"));
        };
        self.world.history.lock().note_list(name, invoked, list_items(&document));
    }

    /// Reads a list from a replica that may be behind. Through one router, what one client sees never goes backwards.
    async fn read_list_behind(&mut self) {
        let name = self.pick("list");
        let mode = self.world.pick(&[ReadMode::Secondary, ReadMode::SecondaryPreferred, ReadMode::Nearest]);
        let node = self.node;
        let Some(boot) = self.world.node(node).process().map(|process| process.boot) else { return };
        let Ok(found) = self.find_once(THINGS, self.filter(&name), mode).await else { return };
        if self.world.node(node).process().is_none_or(|process| process.boot != boot) {
            return;
        }
        // The replica may be so far behind that the document is not there yet.
        let items = found.first().map(list_items).unwrap_or_default();
        let shown_by = format!("the router of {node} to client {}", self.number);
        self.world.note_behind(&shown_by, boot, name, items);
    }

    async fn insert(&mut self) {
        let id = self.new_name("own");
        let seat = match self.layout.unique_seats {
            true => i64::try_from(self.world.choose(SEATS)).expect("few seats"),
            // Shards that know their own documents only could not keep it to one.
            false => i64::from(self.number) * 1_000_000 + self.txn,
        };
        let invoked = self.now();
        let document =
            doc! { "_id": &id, "alias": &id, "tag": 1, "seat": seat, "owner": i32::from(self.number) };
        let (Written { reply, .. }, sent) = self.write(insert(THINGS, &document)).await;
        let mut history = self.world.history.lock();
        let answered = history.now();
        match reply.write_errors.first() {
            None if reply.n == 1 => {
                history.note_holding(&id, seat, invoked, answered);
                history.documents.insert(id.clone(), seat);
                self.own.push(id);
            }
            Some((_, error)) if error.code == Code::DUPLICATE_KEY && error.message.contains("seat") => {
                history.refusals.push((seat, invoked, answered));
                if sent > 1 {
                    history.note_holding(&id, seat, invoked, NEVER);
                    history.doubtful.insert(id, seat);
                }
            }
            _ => history.violation(format!("insert {id}: {reply:?}")),
        }
    }

    async fn delete(&mut self) {
        let Some(id) = self.own.pop() else { return };
        let invoked = self.now();
        let statement = DeleteStatement { filter: encode(&self.filter(&id)), multi: false, hint: None };
        let command = DeleteCommand {
            namespace: namespace(THINGS),
            statements: vec![statement],
            ordered: true,
            variables: None,
            statement_ids: vec![],
        };
        let (Written { reply, .. }, _) = self.write(Write::Delete(command)).await;
        self.expect_one(&reply, &format!("delete {id}"));
        let mut history = self.world.history.lock();
        let answered = history.now();
        history.note_release(&id, invoked, answered);
    }

    /// Updates many documents at once. Each must be changed once, whatever becomes of the primary meanwhile.
    async fn sweep(&mut self) {
        let at = {
            let mut history = self.world.history.lock();
            let invoked = history.now();
            history.sweeps.push((invoked, NEVER));
            history.sweeps.len() - 1
        };
        let command = update_command(doc! { "tag": MANY_TAG }, doc! { "$inc": { "n": 1_i64 } }, true);
        let sweep = |router: Arc<Router>| -> BoxFuture<'static, _> {
            Box::pin(async move { router.update(&OperationContext::default(), command).await })
        };
        match call_router(&self.world, self.node, self.patience_ms, sweep).await {
            Ok(reply) => {
                let all = u64::try_from(MANY).expect("a few");
                if reply.n != all || reply.n_modified != all || !reply.write_errors.is_empty() {
                    self.world.violation(format!("an update of {MANY} documents was answered {reply:?}"));
                }
                let mut history = self.world.history.lock();
                let answered = history.now();
                history.sweeps.get_mut(at).expect("pushed above").1 = answered;
            }
            Err(failure) => self.wait_after(&failure).await,
        }
    }

    async fn count_many(&mut self) {
        let command = CountCommand {
            namespace: namespace(THINGS),
            filter: Some(encode(&doc! { "tag": MANY_TAG })),
            skip: 0,
            limit: None,
            hint: None,
        };
        let count = |router: Arc<Router>| -> BoxFuture<'static, _> {
            Box::pin(async move { router.count(&OperationContext::default(), command).await })
        };
        match call_router(&self.world, self.node, self.patience_ms, count).await {
            Ok(counted) if counted == MANY as u64 => {}
            Ok(counted) => self.world.violation(format!("{counted} documents were counted, not {MANY}")),
            Err(failure) => self.wait_after(&failure).await,
        }
    }

    /// A collection of its own, from its creation to its end.
    async fn use_a_collection_and_drop_it(&mut self) {
        let name = self.new_name("extra");
        self.world.history.lock().doubtful_collections.insert(name.clone());
        if self.world.chance(50) {
            let command = CreateCommand { namespace: namespace(&name), options: Document::new() };
            self.until_done(&format!("creates {name}"), move |router| {
                let command = command.clone();
                Box::pin(async move { router.create(&OperationContext::default(), command).await })
            })
            .await;
        }
        let (Written { reply, .. }, _) = self.write(insert(&name, &doc! { "_id": "first", "v": 1 })).await;
        self.expect_one(&reply, &format!("insert into {name}"));
        self.world.history.lock().collections.insert(name.clone());
        if self.world.chance(50) {
            self.index_and_refuse(&name).await;
        }
        if self.world.chance(40) {
            // Its shards may be on their way when it is dropped.
            shards::cut_for_a_while(&self.world, self.node, &name).await;
        }
        if self.read(&name, "first", ReadMode::Primary).await.is_none() {
            self.world.violation(format!("what was inserted into {name} is not there"));
        }
        self.world.history.lock().collections.remove(&name);
        self.drop_collection(&name).await;
        self.world.history.lock().doubtful_collections.remove(&name);
        if self.read(&name, "first", ReadMode::Primary).await.is_some() {
            self.world.violation(format!("{name} was dropped and is read"));
        }
    }

    /// A unique index refuses what is there, until it is dropped.
    async fn index_and_refuse(&mut self, name: &str) {
        self.create_index(name, "v", true).await;
        let (Written { reply: refused, .. }, _) =
            self.write(insert(name, &doc! { "_id": "second", "v": 1 })).await;
        if !refused.write_errors.iter().any(|(_, error)| error.code == Code::DUPLICATE_KEY) {
            self.world.violation(format!("a unique index of {name} let pass: {refused:?}"));
        }
        let namespace = namespace(name);
        self.until_done(&format!("drops an index of {name}"), move |router| {
            let (namespace, index) = (namespace.clone(), IndexSelector::Names(vec!["v_1".to_owned()]));
            Box::pin(async move {
                match router.drop_indexes(&OperationContext::default(), namespace, index).await {
                    // It was dropped by an earlier sending.
                    Err(error) if error.code == Code::INDEX_NOT_FOUND => Ok(()),
                    other => other.map(drop),
                }
            })
        })
        .await;
        let (Written { reply, .. }, _) = self.write(insert(name, &doc! { "_id": "third", "v": 1 })).await;
        self.expect_one(&reply, &format!("insert into {name} without its index"));
    }

    async fn create_index(&mut self, collection: &str, field: &str, unique: bool) {
        let index = IndexRequest { key: doc! { field: 1 }, name: format!("{field}_1"), unique };
        let command = CreateIndexesCommand { namespace: namespace(collection), indexes: vec![index] };
        self.until_done(&format!("indexes {field} of {collection}"), move |router| {
            let command = command.clone();
            Box::pin(
                async move { router.create_indexes(&OperationContext::default(), command).await.map(drop) },
            )
        })
        .await;
    }

    async fn drop_collection(&mut self, name: &str) {
        let namespace = namespace(name);
        self.until_done(&format!("drops {name}"), move |router| {
            let namespace = namespace.clone();
            Box::pin(async move {
                match router.drop_collection(&OperationContext::default(), namespace).await {
                    // It was dropped by an earlier sending.
                    Err(error) if error.code == Code::NAMESPACE_NOT_FOUND => Ok(()),
                    other => other.map(drop),
                }
            })
        })
        .await;
    }

    /// Asks for something that may be asked for again, until it is done.
    async fn until_done(&mut self, what: &str, ask: impl Fn(Arc<Router>) -> BoxFuture<'static, Result<()>>) {
        loop {
            let done = call_router(&self.world, self.node, PATIENCE_MS_MAX, &ask).await;
            self.world.trace(&format!(
                "client {} {what} through {}: {}",
                self.number,
                self.node,
                outcome(&done)
            ));
            match done {
                Ok(()) => return,
                Err(failure) => self.wait_after(&failure).await,
            }
        }
    }

    /// Sends a write until it is answered; now and then once more after the answer. Returns the answer and how often the
    /// write was sent.
    async fn write(&mut self, mut write: Write) -> (Written, u64) {
        self.txn += 1;
        // Numbers of large batches too, whose outcomes are kept in another place than those of small ones.
        write.number(i32::try_from(self.txn % 5).expect("below five") * 700);
        self.world.trace(&format!("client {} asks {}: {write:?}", self.number, self.txn));
        let (written, sent) = self.send(&write).await;
        self.world.trace(&format!("client {} is answered {}", self.number, self.txn));
        let reply = &written.reply;
        if self.world.chance(10) && reply.write_errors.is_empty() {
            let (Written { reply: again, value }, _) = self.send(&write).await;
            let is_same = (again.n, again.n_modified) == (reply.n, reply.n_modified);
            if !is_same || !again.write_errors.is_empty() || value != written.value {
                self.world.violation(format!("{written:?} was answered {again:?} when it was sent again"));
            }
        }
        (written, sent)
    }

    async fn send(&mut self, write: &Write) -> (Written, u64) {
        let cx = OperationContext {
            session: Some(SessionId([self.number; 16])),
            txn_number: Some(self.txn),
            ..OperationContext::default()
        };
        // A router that nobody waits for may still make a collection that was dropped meanwhile. Drivers do not give up either,
        // unless they are told to.
        let patience_ms =
            if write.namespace().collection == THINGS { self.patience_ms } else { PATIENCE_MS_MAX };
        for sent in 1.. {
            let (cx, write) = (cx.clone(), write.clone());
            let work = |router: Arc<Router>| -> BoxFuture<'static, _> {
                Box::pin(async move { write.send(&router, &cx).await })
            };
            match call_router(&self.world, self.node, patience_ms, work).await {
                Ok(written) => return (written, sent),
                Err(failure) => self.wait_after(&failure).await,
            }
        }
        unreachable!("the loop has no end")
    }

    async fn read_number(&mut self, id: &str) -> Option<i64> {
        match self.read(THINGS, id, ReadMode::Primary).await?.get("n") {
            Some(Bson::Int64(value)) => Some(*value),
            other => {
                self.world.violation(format!("{id} holds {other:?}"));
                None
            }
        }
    }

    /// Reads a document until somebody says what it is.
    async fn read(&mut self, collection: &str, id: &str, mode: ReadMode) -> Option<Document> {
        loop {
            let filter = match collection == THINGS {
                true => self.filter(id),
                false => doc! { "_id": id },
            };
            match self.find_once(collection, filter, mode).await {
                Ok(found) => return found.into_iter().next(),
                Err(failure) => self.wait_after(&failure).await,
            }
        }
    }

    async fn find_once(
        &self,
        collection: &str,
        filter: Document,
        mode: ReadMode,
    ) -> std::result::Result<Vec<Document>, NoAnswer> {
        let command =
            FindCommand { filter: Some(encode(&filter)), ..FindCommand::all(namespace(collection)) };
        let reads = ReadPreference { mode, ..ReadPreference::default() };
        let cx = OperationContext { reads, ..OperationContext::default() };
        let find = |router: Arc<Router>| -> BoxFuture<'static, _> {
            Box::pin(async move { router.find(&cx, command).await })
        };
        let what = format!("client {} reads {filter} of {collection} through {}", self.number, self.node);
        self.world.trace(&what);
        let found = call_router(&self.world, self.node, self.patience_ms, find).await;
        self.world.trace(&format!("{what}: {}", outcome(&found)));
        let reply = found?;
        Ok(reply.batch.iter().map(DocBuf::to_document).collect())
    }

    /// After a failure that a driver would hide, waits a little and turns to another node. Any other failure is a violation.
    pub(super) async fn wait_after(&mut self, failure: &NoAnswer) {
        let retried = [
            Code::SHUTDOWN_IN_PROGRESS,
            Code::INTERRUPTED_AT_SHUTDOWN,
            Code::INTERRUPTED_DUE_TO_REPL_STATE_CHANGE,
            Code::NOT_WRITABLE_PRIMARY,
            Code::STALE_CONFIG,
            Code::HOST_UNREACHABLE,
            Code::FAILED_TO_SATISFY_READ_PREFERENCE,
        ];
        self.world.history.lock().resent += 1;
        if let NoAnswer::Refused(error) = failure
            && !retried.contains(&error.code)
        {
            self.world.violation(format!("client {} was answered {error}", self.number));
        }
        self.world.pause(20).await;
        self.node = self.world.pick(&self.world.members());
    }

    /// What means a document of the shared collection: often without its shard key.
    fn filter(&self, id: &str) -> Document {
        match self.world.choose(4) {
            0..=1 => doc! { "_id": id },
            2 => doc! { "alias": id },
            _ => doc! { "alias": id, "_id": { "$in": [id] } },
        }
    }

    fn update(&self, id: &str, change: Document) -> Write {
        Write::Update(update_command(self.filter(id), change, false))
    }

    fn expect_one(&self, reply: &WriteReply, what: &str) {
        if reply.n != 1 || !reply.write_errors.is_empty() {
            self.world.violation(format!("{what}: {reply:?}"));
        }
    }

    fn pick(&self, kind: &str) -> String {
        format!("{kind}-{}", self.world.choose(SHARED))
    }

    fn new_name(&mut self, kind: &str) -> String {
        self.named += 1;
        format!("{kind}-{}-{}", self.number, self.named)
    }
}

/// Whether there was an answer, for the trace.
fn outcome<T>(answer: &std::result::Result<T, NoAnswer>) -> String {
    answer.as_ref().map_or_else(|failure| format!("{failure:?}"), |_| "answered".to_owned())
}

fn insert(collection: &str, document: &Document) -> Write {
    Write::Insert(InsertCommand {
        namespace: namespace(collection),
        documents: vec![encode(document)],
        ordered: true,
        statement_ids: vec![],
    })
}

fn update_command(filter: Document, change: Document, multi: bool) -> UpdateCommand {
    let update = match multi {
        true => UpdateSpec::Operators(encode(&change)),
        false => UpdateSpec::Document(encode(&change)),
    };
    let statement = UpdateStatement {
        filter: encode(&filter),
        update,
        multi,
        upsert: false,
        array_filters: vec![],
        constants: None,
        hint: None,
        sort: None,
    };
    UpdateCommand {
        namespace: namespace(THINGS),
        statements: vec![statement],
        ordered: true,
        variables: None,
        statement_ids: vec![],
    }
}
