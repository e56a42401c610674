//! A node without a network: a router over a real replica host with engines in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{Clock, Entropy, MonoTime, Namespace, NodeId};
use bson::{Bson, Document, doc};
use catalog::{Command, NodeFacts};
use document::DocBuf;
use replica::{CompactionPolicy, Host, HostOptions, NoPeers, ThreadSpawner};
use router::command::{
    AggregateCommand, CreateIndexesCommand, CursorReply, FindCommand, IndexRequest, InsertCommand,
    UpdateCommand, UpdateSpec, UpdateStatement,
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

pub(crate) struct Node {
    pub(crate) disk: MemoryDisk,
    pub(crate) host: Host,
    pub(crate) router: Arc<Router>,
    reconciling: tokio::task::JoinHandle<()>,
    pub(crate) cx: OperationContext,
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
    pub(crate) async fn new() -> Node {
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
    pub(crate) async fn crash_and_reopen(self) -> Node {
        self.reconciling.abort();
        self.host.shutdown().await.expect("stops");
        self.disk.crash(&mut |_| 0);
        Node::open(self.disk).await
    }

    pub(crate) async fn insert(
        &self,
        documents: impl IntoIterator<Item = Document>,
    ) -> router::command::WriteReply {
        let documents = documents.into_iter().map(|document| encode(&document)).collect();
        let command = InsertCommand { namespace: things(), documents, ordered: true, statement_ids: vec![] };
        self.router.insert(&self.cx, command).await.expect("inserts")
    }

    pub(crate) async fn update(&self, statement: UpdateStatement) -> router::command::WriteReply {
        let command = UpdateCommand {
            namespace: things(),
            statements: vec![statement],
            ordered: true,
            variables: None,
            statement_ids: vec![],
        };
        self.router.update(&self.cx, command).await.expect("updates")
    }

    pub(crate) async fn find(&self, command: FindCommand) -> CursorReply {
        self.router.find(&self.cx, command).await.expect("finds")
    }

    pub(crate) async fn all(&self, filter: Document) -> Vec<Document> {
        let command = FindCommand {
            filter: Some(encode(&filter)),
            sort: Some(encode(&doc! { "_id": 1 })),
            batch_size: Some(10_000),
            ..FindCommand::all(things())
        };
        self.find(command).await.batch.iter().map(DocBuf::to_document).collect()
    }

    pub(crate) async fn create_index(
        &self,
        path: &str,
        unique: bool,
    ) -> base::Result<router::command::CreateIndexesReply> {
        let index = IndexRequest { key: doc! { path: 1 }, name: format!("{path}_1"), unique };
        let command = CreateIndexesCommand { namespace: things(), indexes: vec![index] };
        self.router.create_indexes(&self.cx, command).await
    }

    pub(crate) async fn aggregate(&self, pipeline: Vec<Document>) -> Vec<Document> {
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

pub(crate) fn things() -> Namespace {
    Namespace::new("shop", "things").expect("valid")
}

pub(crate) fn encode(document: &Document) -> DocBuf {
    DocBuf::encode(document).expect("encodes")
}

pub(crate) fn set(filter: Document, update: Document) -> UpdateStatement {
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
