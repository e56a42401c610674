//! What the wire protocol needs from the rest of the node: the router's operations and facts about the process.
//!
//! `server` connects the real ones; tests of this crate bring a recording one. Nothing here knows messages.

use std::collections::BTreeMap;

use async_trait::async_trait;
use base::{Namespace, Result, SessionId, Timestamp};
use bson::{Bson, Document};
use catalog::{BalancerSettings, IndexSpec};
use router::command::{
    AggregateCommand, CollectionInfo, CollectionStats, CountCommand, CreateCommand, CreateIndexesCommand,
    CreateIndexesReply, CursorId, CursorReply, DatabaseInfo, DeleteCommand, DistinctCommand, ExplainCommand,
    FindAndModifyCommand, FindAndModifyReply, FindCommand, GetMoreCommand, IndexSelector, InsertCommand,
    OperationContext, UpdateCommand, Verbosity, WriteReply,
};
use router::{NodeProgress, ShardRequest, ShardSelector};

/// The router, as the commands see it. Errors are for the client.
#[async_trait]
#[expect(missing_docs, reason = "each method is the command of its name")]
pub trait Backend: Send + Sync + 'static {
    async fn insert(&self, cx: &OperationContext, command: InsertCommand) -> Result<WriteReply>;
    async fn update(&self, cx: &OperationContext, command: UpdateCommand) -> Result<WriteReply>;
    async fn delete(&self, cx: &OperationContext, command: DeleteCommand) -> Result<WriteReply>;
    async fn find_and_modify(
        &self,
        cx: &OperationContext,
        command: FindAndModifyCommand,
    ) -> Result<FindAndModifyReply>;
    async fn find(&self, cx: &OperationContext, command: FindCommand) -> Result<CursorReply>;
    async fn get_more(&self, cx: &OperationContext, command: GetMoreCommand) -> Result<CursorReply>;
    /// The cursors that were there and are closed now.
    async fn kill_cursors(
        &self,
        cx: &OperationContext,
        namespace: &str,
        cursors: &[CursorId],
    ) -> Result<Vec<CursorId>>;
    async fn count(&self, cx: &OperationContext, command: CountCommand) -> Result<u64>;
    async fn distinct(&self, cx: &OperationContext, command: DistinctCommand) -> Result<Vec<Bson>>;
    async fn aggregate(&self, cx: &OperationContext, command: AggregateCommand) -> Result<CursorReply>;
    async fn explain(
        &self,
        cx: &OperationContext,
        command: ExplainCommand,
        verbosity: Verbosity,
    ) -> Result<Document>;
    async fn create(&self, cx: &OperationContext, command: CreateCommand) -> Result<()>;
    /// The number of indexes that went with it.
    async fn drop_collection(&self, cx: &OperationContext, namespace: Namespace) -> Result<usize>;
    async fn drop_database(&self, cx: &OperationContext, database: &str) -> Result<()>;
    async fn list_collections(&self, cx: &OperationContext, database: &str) -> Result<Vec<CollectionInfo>>;
    async fn list_databases(&self, cx: &OperationContext) -> Result<Vec<DatabaseInfo>>;
    async fn create_indexes(
        &self,
        cx: &OperationContext,
        command: CreateIndexesCommand,
    ) -> Result<CreateIndexesReply>;
    async fn list_indexes(&self, cx: &OperationContext, namespace: Namespace) -> Result<Vec<IndexSpec>>;
    /// The number of indexes before.
    async fn drop_indexes(
        &self,
        cx: &OperationContext,
        namespace: Namespace,
        selector: IndexSelector,
    ) -> Result<usize>;
    async fn collection_stats(&self, cx: &OperationContext, namespace: Namespace) -> Result<CollectionStats>;
    async fn statistics_by_node(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
    ) -> Result<Option<BTreeMap<String, CollectionStats>>>;
    async fn shard_collection(&self, cx: &OperationContext, request: ShardRequest) -> Result<()>;
    async fn reshard_collection(&self, cx: &OperationContext, request: ShardRequest) -> Result<()>;
    async fn abort_reshard(&self, cx: &OperationContext, namespace: &Namespace) -> Result<()>;
    async fn pause_reshard(&self, cx: &OperationContext, namespace: &Namespace, paused: bool) -> Result<()>;
    async fn split_shard(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        shard: &ShardSelector,
        into: u32,
    ) -> Result<()>;
    async fn merge_shards(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        first: &ShardSelector,
        last: &ShardSelector,
    ) -> Result<()>;
    /// `to` is the name of a node.
    async fn move_shard(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        shard: &ShardSelector,
        to: &str,
    ) -> Result<()>;
    /// Returns the name of the node that keeps its replica.
    async fn cancel_move(&self, namespace: &Namespace, shard: &ShardSelector) -> Result<String>;
    async fn balancer_settings(&self) -> Result<BalancerSettings>;
    async fn change_balancer_settings(&self, settings: BalancerSettings) -> Result<()>;
    async fn set_balancer(&self, enabled: bool) -> Result<()>;
    /// A sentence for each change that the balancer would make.
    async fn explain_balancer(&self) -> Result<Vec<String>>;
    /// Nodes are known by their names here.
    async fn drain_node(&self, node: &str) -> Result<()>;
    async fn cancel_drain(&self, node: &str) -> Result<()>;
    async fn remove_node(&self, cx: &OperationContext, node: &str) -> Result<()>;
    async fn node_progress(&self, node: &str) -> Result<NodeProgress>;
    async fn validate(&self, cx: &OperationContext, namespace: Namespace) -> Result<Document>;
    /// The cluster's nodes and shards, as [`Router::cluster_status`] describes them.
    ///
    /// [`Router::cluster_status`]: router::Router::cluster_status
    async fn cluster_status(&self) -> Document;
    /// The time of an operation that ends now; increases with every call.
    fn operation_time(&self) -> Timestamp;
    /// A client was told this time by another node.
    fn observe_cluster_time(&self, time: Timestamp);
    /// The sessions that `ended` selects have ended: their cursors are closed.
    fn end_sessions(&self, ended: &dyn Fn(SessionId) -> bool);
    /// How many nodes hold data: what a write concern's `w` is checked against.
    fn data_nodes(&self) -> usize;
    /// Open cursors of all connections.
    fn open_cursors(&self) -> usize;
}

/// Facts about the process and its machine.
pub trait Facts: Send + Sync + 'static {
    /// The machine's name.
    fn host_name(&self) -> String;
    /// Memory of this process in bytes: resident and virtual.
    fn memory(&self) -> (u64, u64);
    /// The machine: total memory in bytes, cores, operating system's name and version.
    fn machine(&self) -> Machine;
    /// The command line, word by word.
    fn arguments(&self) -> Vec<String>;
    /// The options in force, as `getCmdLineOpts` shows them.
    fn parsed_options(&self) -> Document;
    /// The newest lines of the log, oldest first.
    fn recent_log(&self) -> Vec<String>;
    /// What `serverStatus` says in its `psdb` section about storage and replication.
    fn status(&self) -> Document;
}

/// The machine that the process runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Processor cores.
    pub cores: usize,
    /// Name of the operating system.
    pub os_name: String,
    /// Version of the operating system's kernel.
    pub os_version: String,
}
