//! The router as the backend of the commands: each method hands on to the router's own.

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
use router::{NodeProgress, Router, ShardRequest, ShardSelector};

use crate::backend::Backend;

#[async_trait]
impl Backend for Router {
    async fn insert(&self, cx: &OperationContext, command: InsertCommand) -> Result<WriteReply> {
        Router::insert(self, cx, command).await
    }

    async fn update(&self, cx: &OperationContext, command: UpdateCommand) -> Result<WriteReply> {
        Router::update(self, cx, command).await
    }

    async fn delete(&self, cx: &OperationContext, command: DeleteCommand) -> Result<WriteReply> {
        Router::delete(self, cx, command).await
    }

    async fn find_and_modify(
        &self,
        cx: &OperationContext,
        command: FindAndModifyCommand,
    ) -> Result<FindAndModifyReply> {
        Router::find_and_modify(self, cx, command).await
    }

    async fn find(&self, cx: &OperationContext, command: FindCommand) -> Result<CursorReply> {
        Router::find(self, cx, command).await
    }

    async fn get_more(&self, cx: &OperationContext, command: GetMoreCommand) -> Result<CursorReply> {
        Router::get_more(self, cx, command).await
    }

    async fn kill_cursors(
        &self,
        cx: &OperationContext,
        namespace: &str,
        cursors: &[CursorId],
    ) -> Result<Vec<CursorId>> {
        Router::kill_cursors(self, cx, namespace, cursors).await
    }

    async fn count(&self, cx: &OperationContext, command: CountCommand) -> Result<u64> {
        Router::count(self, cx, command).await
    }

    async fn distinct(&self, cx: &OperationContext, command: DistinctCommand) -> Result<Vec<Bson>> {
        Router::distinct(self, cx, command).await
    }

    async fn aggregate(&self, cx: &OperationContext, command: AggregateCommand) -> Result<CursorReply> {
        Router::aggregate(self, cx, command).await
    }

    async fn explain(
        &self,
        cx: &OperationContext,
        command: ExplainCommand,
        verbosity: Verbosity,
    ) -> Result<Document> {
        Router::explain(self, cx, command, verbosity).await
    }

    async fn create(&self, cx: &OperationContext, command: CreateCommand) -> Result<()> {
        Router::create(self, cx, command).await
    }

    async fn drop_collection(&self, cx: &OperationContext, namespace: Namespace) -> Result<usize> {
        Router::drop_collection(self, cx, namespace).await
    }

    async fn drop_database(&self, cx: &OperationContext, database: &str) -> Result<()> {
        Router::drop_database(self, cx, database).await
    }

    async fn list_collections(&self, cx: &OperationContext, database: &str) -> Result<Vec<CollectionInfo>> {
        Router::list_collections(self, cx, database).await
    }

    async fn list_databases(&self, cx: &OperationContext) -> Result<Vec<DatabaseInfo>> {
        Router::list_databases(self, cx).await
    }

    async fn create_indexes(
        &self,
        cx: &OperationContext,
        command: CreateIndexesCommand,
    ) -> Result<CreateIndexesReply> {
        Router::create_indexes(self, cx, command).await
    }

    async fn list_indexes(&self, cx: &OperationContext, namespace: Namespace) -> Result<Vec<IndexSpec>> {
        Router::list_indexes(self, cx, namespace).await
    }

    async fn drop_indexes(
        &self,
        cx: &OperationContext,
        namespace: Namespace,
        selector: IndexSelector,
    ) -> Result<usize> {
        Router::drop_indexes(self, cx, namespace, selector).await
    }

    async fn collection_stats(&self, cx: &OperationContext, namespace: Namespace) -> Result<CollectionStats> {
        Router::collection_stats(self, cx, namespace).await
    }

    async fn statistics_by_node(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
    ) -> Result<Option<BTreeMap<String, CollectionStats>>> {
        Router::statistics_by_node(self, cx, namespace).await
    }

    async fn shard_collection(&self, cx: &OperationContext, request: ShardRequest) -> Result<()> {
        Router::shard_collection(self, cx, request).await
    }

    async fn reshard_collection(&self, cx: &OperationContext, request: ShardRequest) -> Result<()> {
        Router::reshard_collection(self, cx, request).await
    }

    async fn abort_reshard(&self, cx: &OperationContext, namespace: &Namespace) -> Result<()> {
        Router::abort_reshard(self, cx, namespace).await
    }

    async fn pause_reshard(&self, cx: &OperationContext, namespace: &Namespace, paused: bool) -> Result<()> {
        Router::pause_reshard(self, cx, namespace, paused).await
    }

    async fn split_shard(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        shard: &ShardSelector,
        into: u32,
    ) -> Result<()> {
        Router::split_shard(self, cx, namespace, shard, into).await
    }

    async fn merge_shards(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        first: &ShardSelector,
        last: &ShardSelector,
    ) -> Result<()> {
        Router::merge_shards(self, cx, namespace, first, last).await
    }

    async fn move_shard(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        shard: &ShardSelector,
        to: &str,
    ) -> Result<()> {
        Router::move_shard(self, cx, namespace, shard, to).await
    }

    async fn cancel_move(&self, namespace: &Namespace, shard: &ShardSelector) -> Result<String> {
        Router::cancel_move(self, namespace, shard).await
    }

    async fn balancer_settings(&self) -> Result<BalancerSettings> {
        Router::balancer_settings(self).await
    }

    async fn change_balancer_settings(&self, settings: BalancerSettings) -> Result<()> {
        Router::change_balancer_settings(self, settings).await
    }

    async fn set_balancer(&self, enabled: bool) -> Result<()> {
        Router::set_balancer(self, enabled).await
    }

    async fn explain_balancer(&self) -> Result<Vec<String>> {
        Router::explain_balancer(self).await
    }

    async fn drain_node(&self, node: &str) -> Result<()> {
        Router::drain_node(self, self.node_named(node).await?).await
    }

    async fn cancel_drain(&self, node: &str) -> Result<()> {
        Router::cancel_drain(self, self.node_named(node).await?).await
    }

    async fn remove_node(&self, cx: &OperationContext, node: &str) -> Result<()> {
        Router::remove_node(self, cx, self.node_named(node).await?).await
    }

    async fn node_progress(&self, node: &str) -> Result<NodeProgress> {
        Router::node_progress(self, self.node_named(node).await?).await
    }

    async fn validate(&self, cx: &OperationContext, namespace: Namespace) -> Result<Document> {
        Router::validate(self, cx, namespace).await
    }

    async fn cluster_status(&self) -> Document {
        Router::cluster_status(self).await
    }

    fn operation_time(&self) -> Timestamp {
        Router::operation_time(self)
    }

    fn observe_cluster_time(&self, time: Timestamp) {
        Router::observe_cluster_time(self, time);
    }

    fn end_sessions(&self, ended: &dyn Fn(SessionId) -> bool) {
        Router::end_sessions(self, ended);
    }

    fn data_nodes(&self) -> usize {
        Router::data_nodes(self)
    }

    fn open_cursors(&self) -> usize {
        Router::open_cursors(self)
    }
}
