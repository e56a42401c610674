//! The router over a real replica host with engines in memory: what a client's commands do, without the wire protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{Clock, Code, Entropy, MonoTime, Namespace, NodeId, SessionId};
use bson::{Bson, Document, doc};
use catalog::command::NewIndex;
use catalog::{Command, KeyDirection, NodeFacts, NodeState};
use document::DocBuf;
use replica::{CompactionPolicy, Host, HostOptions, NoPeers, ThreadSpawner};
use router::command::{
    AggregateCommand, CountCommand, CreateIndexesCommand, CursorReply, DeleteCommand, DeleteStatement,
    ExplainCommand, FindAndModifyAction, FindAndModifyCommand, FindCommand, GetMoreCommand, IndexRequest,
    IndexSelector, InsertCommand, UpdateCommand, UpdateSpec, UpdateStatement, Verbosity,
};
use router::{OperationContext, Router, RouterOptions, found_cluster, peer};
use storage::memory::{MemoryDisk, MemoryLogWriter};

/// Time that advances with every reading, and numbers that count up: runs are repeatable.
#[derive(Default)]
struct Counting(AtomicU64);

impl Clock for Counting {
    fn monotonic(&self) -> MonoTime {
        MonoTime(Duration::from_micros(self.0.fetch_add(1, Ordering::Relaxed)))
    }

    fn wall_ms(&self) -> i64 {
        1_700_000_000_000
    }
}

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

struct Node {
    disk: MemoryDisk,
    host: Host,
    router: Arc<Router>,
    reconciling: tokio::task::JoinHandle<()>,
    cx: OperationContext,
}

/// The first entry of the catalog.
fn found() -> Command {
    let node = NodeFacts {
        name: "n1".to_owned(),
        listen: "127.0.0.1:27017".to_owned(),
        peer: "127.0.0.1:27117".to_owned(),
        storage: true,
        labels: Default::default(),
    };
    Command::Found { name: "test".to_owned(), replication_factor: 3, node }
}

impl Node {
    async fn new() -> Node {
        Node::open(MemoryDisk::new()).await
    }

    async fn open(disk: MemoryDisk) -> Node {
        let (store, log) = disk.open().expect("the disk opens");
        let (clock, entropy) = (Arc::new(Counting::default()), Arc::new(Counting::default()));
        let log = Arc::new(log);
        let spawner = ThreadSpawner::new(tokio::runtime::Handle::current(), 1).expect("a thread starts");
        let spawner = Arc::new(spawner);
        let options = HostOptions {
            node: NodeId(1),
            store: Arc::new(store),
            raft_log: log.clone(),
            log_writer: Arc::new(MemoryLogWriter::new(log)),
            clock: clock.clone(),
            entropy: entropy.clone(),
            spawner: spawner.clone(),
            transport: Arc::new(NoPeers),
            trace: None,
            compaction: CompactionPolicy::default(),
        };
        let host = Host::start(options).await.expect("the host starts");
        found_cluster(&host, found).await.expect("the cluster is founded");
        let options = RouterOptions {
            node: NodeId(1),
            host: Arc::new(host.clone()),
            peers: Arc::new(peer::NoPeers),
            describe: Arc::new(Document::new),
            clock,
            entropy,
            spawner,
        };
        let router = Router::new(options);
        let reconciling = tokio::spawn(router.clone().keep_reconciled());
        Node { disk, host, router, reconciling, cx: OperationContext::default() }
    }

    /// The process ends without a word; what was not synced is lost.
    async fn crash_and_reopen(self) -> Node {
        self.reconciling.abort();
        self.host.shutdown().await.expect("stops");
        self.disk.crash(&mut |_| 0);
        Node::open(self.disk).await
    }

    async fn insert(&self, documents: impl IntoIterator<Item = Document>) -> router::command::WriteReply {
        let documents = documents.into_iter().map(|document| encode(&document)).collect();
        let command = InsertCommand { namespace: things(), documents, ordered: true, statement_ids: vec![] };
        self.router.insert(&self.cx, command).await.expect("inserts")
    }

    async fn update(&self, statement: UpdateStatement) -> router::command::WriteReply {
        let command = UpdateCommand {
            namespace: things(),
            statements: vec![statement],
            ordered: true,
            variables: None,
            statement_ids: vec![],
        };
        self.router.update(&self.cx, command).await.expect("updates")
    }

    async fn find(&self, command: FindCommand) -> CursorReply {
        self.router.find(&self.cx, command).await.expect("finds")
    }

    async fn all(&self, filter: Document) -> Vec<Document> {
        let command = FindCommand {
            filter: Some(encode(&filter)),
            sort: Some(encode(&doc! { "_id": 1 })),
            batch_size: Some(10_000),
            ..FindCommand::all(things())
        };
        self.find(command).await.batch.iter().map(DocBuf::to_document).collect()
    }

    async fn create_index(
        &self,
        path: &str,
        unique: bool,
    ) -> base::Result<router::command::CreateIndexesReply> {
        let index = IndexRequest { key: doc! { path: 1 }, name: format!("{path}_1"), unique };
        let command = CreateIndexesCommand { namespace: things(), indexes: vec![index] };
        self.router.create_indexes(&self.cx, command).await
    }

    async fn aggregate(&self, pipeline: Vec<Document>) -> Vec<Document> {
        let command = AggregateCommand {
            namespace: things(),
            pipeline: pipeline.into_iter().map(Bson::Document).collect(),
            batch_size: Some(10_000),
            hint: None,
            variables: None,
        };
        let reply = self.router.aggregate(&self.cx, command).await.expect("aggregates");
        reply.batch.iter().map(DocBuf::to_document).collect()
    }
}

fn things() -> Namespace {
    Namespace::new("shop", "things").expect("valid")
}

fn encode(document: &Document) -> DocBuf {
    DocBuf::encode(document).expect("encodes")
}

fn set(filter: Document, update: Document) -> UpdateStatement {
    UpdateStatement {
        filter: encode(&filter),
        update: UpdateSpec::Document(encode(&update)),
        multi: false,
        upsert: false,
        array_filters: vec![],
        constants: None,
        hint: None,
        sort: None,
    }
}

#[tokio::test]
async fn the_first_insert_creates_the_collection_and_absence_reads_as_empty() {
    let node = Node::new().await;
    assert!(node.all(doc! {}).await.is_empty());
    assert_eq!(node.insert([doc! { "_id": 1 }, doc! { "_id": 2 }]).await.n, 2);
    assert_eq!(node.all(doc! {}).await, [doc! { "_id": 1 }, doc! { "_id": 2 }]);
    let names = node.router.list_collections(&node.cx, "shop").await.expect("lists");
    assert_eq!(names.len(), 1);
}

#[tokio::test]
async fn an_ordered_insert_stops_at_a_duplicate_and_an_unordered_one_goes_on() {
    let node = Node::new().await;
    let reply = node.insert([doc! { "_id": 1 }, doc! { "_id": 1 }, doc! { "_id": 2 }]).await;
    assert_eq!((reply.n, reply.write_errors.len()), (1, 1));
    assert_eq!((reply.write_errors[0].0, reply.write_errors[0].1.code), (1, Code::DUPLICATE_KEY));
    let documents = [1, 1, 2].map(|id| encode(&doc! { "_id": id })).to_vec();
    let command = InsertCommand { namespace: things(), documents, ordered: false, statement_ids: vec![] };
    let reply = node.router.insert(&node.cx, command).await.expect("inserts");
    assert_eq!(reply.n, 1);
    assert_eq!(reply.write_errors.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test]
async fn a_cursor_gives_every_document_once_and_ends() {
    let node = Node::new().await;
    node.insert((0..1_000).map(|id| doc! { "_id": id })).await;
    let first = node.find(FindCommand { batch_size: Some(7), ..FindCommand::all(things()) }).await;
    let mut seen: Vec<Document> = first.batch.iter().map(DocBuf::to_document).collect();
    let mut cursor = first.cursor;
    while let Some(id) = cursor {
        let command = GetMoreCommand { cursor: id, namespace: "shop.things".into(), batch_size: Some(100) };
        let next = node.router.get_more(&node.cx, command).await.expect("goes on");
        seen.extend(next.batch.iter().map(DocBuf::to_document));
        cursor = next.cursor;
    }
    assert_eq!(seen, (0..1_000).map(|id| doc! { "_id": id }).collect::<Vec<_>>());
    assert_eq!(node.router.open_cursors(), 0);
}

#[tokio::test]
async fn a_killed_cursor_is_not_found() {
    let node = Node::new().await;
    node.insert((0..10).map(|id| doc! { "_id": id })).await;
    let reply = node.find(FindCommand { batch_size: Some(2), ..FindCommand::all(things()) }).await;
    let cursor = reply.cursor.expect("there is more");
    let killed = node.router.kill_cursors(&node.cx, "shop.things", &[cursor]).await.expect("kills");
    assert_eq!(killed, [cursor]);
    let command = GetMoreCommand { cursor, namespace: "shop.things".into(), batch_size: None };
    let error = node.router.get_more(&node.cx, command).await.expect_err("it is gone");
    assert_eq!(error.code, Code::CURSOR_NOT_FOUND);
}

#[tokio::test]
async fn updates_find_their_documents_by_any_field() {
    let node = Node::new().await;
    node.insert((0..10).map(|id| doc! { "_id": id, "group": id % 2, "n": 0 })).await;
    let one = node.update(set(doc! { "group": 1 }, doc! { "$inc": { "n": 1 } })).await;
    assert_eq!((one.n, one.n_modified), (1, 1));
    let many = UpdateStatement { multi: true, ..set(doc! { "group": 0 }, doc! { "$inc": { "n": 5 } }) };
    let reply = node.update(many).await;
    assert_eq!((reply.n, reply.n_modified), (5, 5));
    assert_eq!(node.all(doc! { "n": { "$gt": 0 } }).await.len(), 6);
    let missing = node.update(set(doc! { "group": 9 }, doc! { "$set": { "n": 1 } })).await;
    assert_eq!((missing.n, missing.n_modified), (0, 0));
}

#[tokio::test]
async fn a_whole_document_never_replaces_many() {
    let node = Node::new().await;
    node.insert((0..3).map(|id| doc! { "_id": id, "n": id })).await;
    let operators = UpdateSpec::Operators(encode(&doc! { "n": 7 }));
    let many = UpdateStatement { multi: true, update: operators, ..set(doc! {}, doc! {}) };
    let reply = node.update(many).await;
    assert_eq!((reply.n, reply.write_errors.len()), (0, 1));
    assert_eq!(reply.write_errors[0].1.code, Code::FAILED_TO_PARSE);
    assert!(node.all(doc! { "n": 7 }).await.is_empty());
}

#[tokio::test]
async fn a_sort_by_natural_order_is_a_collection_scan_in_that_direction() {
    let node = Node::new().await;
    node.insert((0..5).map(|id| doc! { "_id": id })).await;
    let sorted = |sort: Document| FindCommand { sort: Some(encode(&sort)), ..FindCommand::all(things()) };
    let last = FindCommand { limit: Some(2), ..sorted(doc! { "$natural": -1 }) };
    let found: Vec<Document> = node.find(last).await.batch.iter().map(DocBuf::to_document).collect();
    assert_eq!(found, [doc! { "_id": 4 }, doc! { "_id": 3 }]);
    let hint = Some(router::command::Hint::Name("_id_".to_owned()));
    let refused = [
        sorted(doc! { "$natural": 2 }),
        sorted(doc! { "$natural": 1, "_id": 1 }),
        FindCommand { hint, ..sorted(doc! { "$natural": 1 }) },
    ];
    for command in refused {
        let error = node.router.find(&node.cx, command).await.expect_err("contradicts itself");
        assert_eq!(error.code, Code::BAD_VALUE);
    }
}

#[tokio::test]
async fn an_upsert_inserts_what_the_filter_says_and_creates_the_collection() {
    let node = Node::new().await;
    let upsert = UpdateStatement { upsert: true, ..set(doc! { "name": "Ada" }, doc! { "$set": { "n": 1 } }) };
    let reply = node.update(upsert.clone()).await;
    assert_eq!((reply.n, reply.n_modified, reply.upserted.len()), (1, 0, 1));
    let again = node.update(upsert).await;
    assert_eq!((again.n, again.n_modified, again.upserted.len()), (1, 0, 0));
    let found = node.all(doc! { "name": "Ada", "n": 1 }).await;
    assert_eq!(found[0].get("_id"), Some(&reply.upserted[0].1));
}

#[tokio::test]
async fn find_and_modify_takes_the_first_in_its_order() {
    let node = Node::new().await;
    node.insert((0..5).map(|id| doc! { "_id": id, "rank": 10 - id })).await;
    let mut command = FindAndModifyCommand {
        namespace: things(),
        filter: encode(&doc! {}),
        sort: Some(encode(&doc! { "rank": 1 })),
        action: FindAndModifyAction::Update {
            update: UpdateSpec::Document(encode(&doc! { "$set": { "taken": true } })),
            upsert: false,
            return_new: true,
        },
        projection: Some(encode(&doc! { "rank": 0 })),
        array_filters: vec![],
        hint: None,
        variables: None,
    };
    let reply = node.router.find_and_modify(&node.cx, command.clone()).await.expect("updates");
    assert_eq!(reply.value.map(|value| value.to_document()), Some(doc! { "_id": 4, "taken": true }));
    command.action = FindAndModifyAction::Remove;
    let reply = node.router.find_and_modify(&node.cx, command).await.expect("removes");
    assert_eq!((reply.n, reply.updated_existing), (1, None));
    assert_eq!(node.all(doc! {}).await.len(), 4);
}

#[tokio::test]
async fn a_repeated_transaction_number_changes_nothing_also_after_a_crash() {
    let mut node = Node::new().await;
    node.insert([doc! { "_id": 1, "n": 0 }]).await;
    node.cx.session = Some(SessionId([7; 16]));
    node.cx.txn_number = Some(1);
    let increment = set(doc! { "n": { "$gte": 0 } }, doc! { "$inc": { "n": 1 } });
    let first = node.update(increment.clone()).await;
    let cx = node.cx.clone();
    let mut node = node.crash_and_reopen().await;
    node.cx = cx;
    let second = node.update(increment).await;
    assert_eq!((first.n_modified, second.n_modified), (1, 1));
    assert_eq!(second.retried_statement_ids, [0]);
    assert_eq!(node.all(doc! {}).await, [doc! { "_id": 1, "n": 1 }]);
}

#[tokio::test]
async fn an_index_covers_documents_from_before_and_after_it_and_a_restart_keeps_it() {
    let node = Node::new().await;
    node.insert((0..2_000).map(|id| doc! { "_id": id, "v": id % 10 })).await;
    let reply = node.create_index("v", false).await.expect("builds");
    assert_eq!((reply.num_indexes_before, reply.num_indexes_after), (1, 2));
    node.insert([doc! { "_id": 5_000, "v": 3 }]).await;
    let node = node.crash_and_reopen().await;
    let hint = Some(router::command::Hint::Name("v_1".into()));
    let count = CountCommand {
        namespace: things(),
        filter: Some(encode(&doc! { "v": 3 })),
        skip: 0,
        limit: None,
        hint,
    };
    assert_eq!(node.router.count(&node.cx, count).await.expect("counts"), 201);
    let report = node.router.validate(&node.cx, things()).await.expect("validates");
    assert_eq!(report.get_bool("valid").ok(), Some(true), "{report}");
}

#[tokio::test]
async fn a_unique_index_over_duplicates_fails_and_leaves_nothing_behind() {
    let node = Node::new().await;
    node.insert([doc! { "_id": 1, "v": 1 }, doc! { "_id": 2, "v": 1 }]).await;
    let error = node.create_index("v", true).await.expect_err("two documents share a key");
    assert_eq!(error.code, Code::DUPLICATE_KEY);
    let indexes = node.router.list_indexes(&node.cx, things()).await.expect("lists");
    assert_eq!(indexes.len(), 1);
    assert_eq!(node.insert([doc! { "_id": 3, "v": 1 }]).await.n, 1);
}

#[tokio::test]
async fn explain_runs_the_read_and_counts_what_it_touched() {
    let node = Node::new().await;
    node.insert((0..100).map(|id| doc! { "_id": id, "v": id % 10 })).await;
    node.create_index("v", false).await.expect("builds");
    let find = FindCommand { filter: Some(encode(&doc! { "v": 3 })), ..FindCommand::all(things()) };
    let explained =
        node.router.explain(&node.cx, ExplainCommand::Find(find), Verbosity::ExecutionStats).await;
    let explained = explained.expect("explains");
    let stats = explained.get_document("executionStats").expect("asked for");
    for field in ["nReturned", "totalKeysExamined", "totalDocsExamined"] {
        assert_eq!(stats.get_i32(field).ok(), Some(10), "{field}: {explained}");
    }
}

#[tokio::test]
async fn a_dropped_index_is_neither_used_nor_enforced() {
    let node = Node::new().await;
    node.create_index("v", true).await.expect("builds");
    node.insert([doc! { "_id": 1, "v": 1 }]).await;
    assert_eq!(node.insert([doc! { "_id": 2, "v": 1 }]).await.n, 0);
    let before = node.router.drop_indexes(&node.cx, things(), IndexSelector::All).await.expect("drops");
    assert_eq!(before, 2);
    assert_eq!(node.insert([doc! { "_id": 2, "v": 1 }]).await.n, 1);
    let error = node.router.drop_indexes(&node.cx, things(), IndexSelector::Names(vec!["v_1".into()])).await;
    assert_eq!(error.expect_err("it is gone").code, Code::INDEX_NOT_FOUND);
}

#[tokio::test]
async fn an_index_build_that_a_crash_interrupted_is_finished_after_the_restart() {
    let node = Node::new().await;
    node.insert((0..700).map(|id| doc! { "_id": id, "v": id })).await;
    // Only the catalog's entry is there: the crash comes before any shard heard of the index.
    let catalog = node.host.catalog().expect("serves");
    let collection = catalog.state().find(&things()).expect("exists").id;
    let index =
        NewIndex { name: "v_1".into(), key: vec![("v".into(), KeyDirection::Ascending)], unique: false };
    catalog
        .write(Command::AddIndexes { collection, drops_seen: 0, indexes: vec![index] })
        .await
        .expect("commits");
    let node = node.crash_and_reopen().await;
    let reply = node.create_index("v", false).await.expect("waits for the build that goes on");
    assert_eq!(reply.num_indexes_after, 2);
    let report = node.router.validate(&node.cx, things()).await.expect("validates");
    assert_eq!(report.get_document("keysPerIndex").expect("present").get_i32("v_1").ok(), Some(700));
}

#[tokio::test]
async fn a_dropped_collection_is_empty_when_it_comes_back() {
    let node = Node::new().await;
    node.insert([doc! { "_id": 1 }]).await;
    node.create_index("v", false).await.expect("builds");
    assert_eq!(node.router.drop_collection(&node.cx, things()).await.expect("drops"), 2);
    assert!(node.all(doc! {}).await.is_empty());
    let error = node.router.drop_collection(&node.cx, things()).await.expect_err("it is gone");
    assert_eq!(error.code, Code::NAMESPACE_NOT_FOUND);
    node.insert([doc! { "_id": 1, "new": true }]).await;
    let node = node.crash_and_reopen().await;
    assert_eq!(node.all(doc! {}).await, [doc! { "_id": 1, "new": true }]);
    assert_eq!(node.host.replicas().len(), 2, "the catalog and one shard");
}

#[tokio::test]
async fn a_pipeline_groups_joins_and_limits() {
    let node = Node::new().await;
    node.insert((0..3_000).map(|id| doc! { "_id": id, "parent": id / 10, "n": id % 3 })).await;
    let groups = node
        .aggregate(vec![
            doc! { "$match": { "_id": { "$lt": 300 } } },
            doc! { "$group": { "_id": "$n", "count": { "$sum": 1 } } },
            doc! { "$sort": { "_id": -1 } },
            doc! { "$limit": 2 },
        ])
        .await;
    assert_eq!(groups, [doc! { "_id": 2, "count": 100 }, doc! { "_id": 1, "count": 100 }]);
    let joined = node
        .aggregate(vec![
            doc! { "$match": { "_id": { "$in": [7, 42] } } },
            doc! { "$lookup": { "from": "things", "localField": "_id", "foreignField": "parent", "as": "children" } },
            doc! { "$unwind": "$children" },
            doc! { "$count": "children" },
        ])
        .await;
    assert_eq!(joined, [doc! { "children": 20 }]);
    let absent = node.aggregate(vec![doc! { "$match": { "_id": -1 } }, doc! { "$count": "none" }]).await;
    assert!(absent.is_empty());
}

#[tokio::test]
async fn collection_statistics_come_as_a_row_that_later_stages_see() {
    let node = Node::new().await;
    node.insert((0..50).map(|id| doc! { "_id": id })).await;
    let row =
        node.aggregate(vec![doc! { "$collStats": { "storageStats": {}, "count": {} } }]).await.remove(0);
    assert_eq!(row.get_i32("count").ok(), Some(50));
    assert_eq!(row.get_document("storageStats").expect("asked for").get_i32("nindexes").ok(), Some(1));
    let projected = node
        .aggregate(vec![
            doc! { "$collStats": { "count": {} } },
            doc! { "$project": { "count": 1, "_id": 0 } },
        ])
        .await;
    assert_eq!(projected, [doc! { "count": 50 }]);
}

#[tokio::test]
async fn a_join_that_finds_more_than_a_document_may_hold_is_refused() {
    let node = Node::new().await;
    let pad = "p".repeat(1 << 20);
    node.insert((0..18).map(|id| doc! { "_id": id, "pad": &pad })).await;
    let join = |foreign: &str| AggregateCommand {
        namespace: things(),
        pipeline: vec![Bson::Document(doc! {
            "$lookup": { "from": "things", "localField": "absent", "foreignField": foreign, "as": "all" },
        })],
        batch_size: None,
        hint: None,
        variables: None,
    };
    let refusal = node.router.aggregate(&node.cx, join("absent")).await.expect_err("every document matches");
    assert_eq!(refusal.code, Code(4_568));
    assert!(node.router.aggregate(&node.cx, join("_id")).await.is_ok(), "no document matches");
}

#[tokio::test]
async fn the_last_node_is_neither_drained_nor_removed() {
    let node = Node::new().await;
    node.insert([doc! { "_id": 1 }]).await;
    let first = NodeId(1);
    let refused = node.router.drain_node(first).await.expect_err("nobody could take over");
    assert_eq!(refused.code, Code::ILLEGAL_OPERATION);
    let refused = node.router.remove_node(&node.cx, first).await.expect_err("it is the one that is asked");
    assert_eq!(refused.code, Code::ILLEGAL_OPERATION);
    let missing = node.router.drain_node(NodeId(7)).await.expect_err("there is none");
    assert_eq!(missing.code, Code::NODE_NOT_FOUND);
    node.router.cancel_drain(first).await.expect("there is nothing to call off");
    let progress = node.router.node_progress(first).await.expect("known");
    assert_eq!((progress.state, progress.replicas, progress.replicas_total), (NodeState::InUse, 1, 1));
    assert!(progress.votes_in_catalog && !progress.is_dead);
}

#[tokio::test]
async fn a_node_that_stops_fails_the_command_and_not_a_statement_of_it() {
    let node = Node::new().await;
    node.insert([doc! { "_id": 1, "v": 1 }]).await;
    node.host.shutdown().await.expect("stops");
    for filter in [doc! { "_id": 1 }, doc! { "v": 1 }] {
        let command = UpdateCommand {
            namespace: things(),
            statements: vec![set(filter.clone(), doc! { "$set": { "v": 2 } })],
            ordered: true,
            variables: None,
            statement_ids: vec![],
        };
        let error = node.router.update(&node.cx, command).await.expect_err("the node has stopped");
        assert_ne!(error.code, Code::BAD_VALUE, "{filter}");
    }
}

#[tokio::test]
async fn a_delete_takes_one_or_all_that_match() {
    let node = Node::new().await;
    node.insert((0..2_500).map(|id| doc! { "_id": id, "v": id % 2 })).await;
    let delete = |filter: Document, multi| DeleteCommand {
        namespace: things(),
        statements: vec![DeleteStatement { filter: encode(&filter), multi, hint: None }],
        ordered: true,
        variables: None,
        statement_ids: vec![],
    };
    assert_eq!(node.router.delete(&node.cx, delete(doc! { "v": 1 }, false)).await.expect("deletes").n, 1);
    assert_eq!(node.router.delete(&node.cx, delete(doc! { "v": 1 }, true)).await.expect("deletes").n, 1_249);
    assert_eq!(node.all(doc! {}).await.len(), 1_250);
}

#[tokio::test]
async fn a_cancelled_operation_ends() {
    let node = Node::new().await;
    node.insert((0..5_000).map(|id| doc! { "_id": id })).await;
    node.cx.cancelled.store(true, Ordering::Relaxed);
    let filter = Some(encode(&doc! { "v": 1 }));
    let error = node.router.find(&node.cx, FindCommand { filter, ..FindCommand::all(things()) }).await;
    assert_eq!(error.expect_err("nobody waits").code, Code::INTERRUPTED);
}
