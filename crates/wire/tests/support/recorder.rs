//! A router that writes down what it is asked and answers what little the protocol needs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use async_trait::async_trait;
use base::{Error, Namespace, Result, SessionId};
use bson::{Bson, Document};
use catalog::{BalancerSettings, IndexSpec};
use document::DocBuf;
use parking_lot::Mutex;
use router::command::*;
use router::{NodeProgress, ShardRequest, ShardSelector};
use wire::Backend;

use super::{show, show_buf, show_bufs};

/// What was asked, and what to answer.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) asked: Mutex<Vec<String>>,
    /// The error of the next operation.
    pub(crate) failure: Mutex<Option<Error>>,
    /// What cursors return.
    pub(crate) documents: Mutex<Vec<DocBuf>>,
}

const CURSOR: CursorId = CursorId(42);
/// The session that scripts use.
const SESSION: SessionId = SessionId(0x0011_2233_4455_6677_8899_AABB_CCDD_EEFF_u128.to_be_bytes());

impl Recorder {
    fn note(&self, cx: &OperationContext, mut what: String) -> Result<()> {
        if let Some(session) = cx.session {
            write!(what, " session={session:?}").expect("a string takes any text");
        }
        if let Some(number) = cx.txn_number {
            write!(what, " txn={number}").expect("a string takes any text");
        }
        let reads = &cx.reads;
        if *reads != ReadPreference::default() {
            write!(what, " reads={:?}", reads.mode).expect("a string takes any text");
            write!(what, " tags={:?} stale={:?} causal={}", reads.tags, reads.staleness_max, reads.causal)
                .expect("a string takes any text");
        }
        if let Some(deadline) = cx.deadline {
            write!(what, " deadline={:?}", deadline.0).expect("a string takes any text");
        }
        self.asked.lock().push(what);
        self.failure.lock().take().map_or(Ok(()), Err)
    }

    fn batch(&self, namespace: String, size: Option<u64>) -> CursorReply {
        let mut documents = self.documents.lock();
        let size = size.map_or(documents.len(), |size| usize::try_from(size).expect("a small size"));
        let end = size.min(documents.len());
        let batch: Vec<DocBuf> = documents.drain(..end).collect();
        let cursor = (!documents.is_empty()).then_some(CURSOR);
        CursorReply { cursor, namespace, batch }
    }
}

fn optional(name: &str, document: &Option<DocBuf>) -> String {
    document.as_ref().map(|document| format!(" {name}={}", show_buf(document))).unwrap_or_default()
}

fn hint(hint: &Option<Hint>) -> String {
    match hint {
        None => String::new(),
        Some(Hint::Name(name)) => format!(" hint={name}"),
        Some(Hint::Key(key)) => format!(" hint={}", show_buf(key)),
    }
}

fn update_spec(update: &UpdateSpec) -> String {
    match update {
        UpdateSpec::Document(document) => show_buf(document),
        UpdateSpec::Operators(document) => format!("operators {}", show_buf(document)),
        UpdateSpec::Pipeline(stages) => show_bufs(stages),
    }
}

fn filters(filters: &[DocBuf]) -> String {
    if filters.is_empty() { String::new() } else { format!(" arrayFilters={}", show_bufs(filters)) }
}

fn ids(ids: &[i32]) -> String {
    if ids.is_empty() { String::new() } else { format!(" ids={ids:?}") }
}

fn flag(name: &str, set: bool) -> String {
    if set { format!(" {name}") } else { String::new() }
}

fn describe_find(command: &FindCommand) -> String {
    format!(
        "find {}{}{}{} skip={} limit={:?} batch={:?}{}{}{}",
        command.namespace,
        optional("filter", &command.filter),
        optional("sort", &command.sort),
        optional("projection", &command.projection),
        command.skip,
        command.limit,
        command.batch_size,
        flag("single", command.single_batch),
        hint(&command.hint),
        optional("let", &command.variables),
    )
}

fn describe_update(statement: &UpdateStatement) -> String {
    format!(
        "{{q={} u={}{}{}{}{}{}{}}}",
        show_buf(&statement.filter),
        update_spec(&statement.update),
        flag("multi", statement.multi),
        flag("upsert", statement.upsert),
        filters(&statement.array_filters),
        optional("c", &statement.constants),
        hint(&statement.hint),
        optional("sort", &statement.sort),
    )
}

fn describe_sharding(request: &ShardRequest) -> String {
    format!("{} by {} into {:?}", request.namespace, show(&request.key), request.shards)
}

fn describe_shard(shard: &ShardSelector) -> String {
    match shard {
        ShardSelector::Shard(id) => format!("{id}"),
        ShardSelector::Owner(values) => format!("the owner of {}", show(values)),
        ShardSelector::Hash(hash) => format!("the owner of hash {hash:#x}"),
        ShardSelector::Span(first, last) => format!("the owner of hashes {first:#x} to {last:#x}"),
        ShardSelector::Begin(hash) => format!("the one from hash {hash:#x}"),
        ShardSelector::End(hash) => format!("the one to hash {hash:#x}"),
    }
}

#[async_trait]
impl Backend for Recorder {
    async fn insert(&self, cx: &OperationContext, command: InsertCommand) -> Result<WriteReply> {
        let text = format!(
            "insert {} {}{}{}",
            command.namespace,
            show_bufs(&command.documents),
            flag("unordered", !command.ordered),
            ids(&command.statement_ids)
        );
        self.note(cx, text)?;
        Ok(WriteReply { n: command.documents.len() as u64, ..WriteReply::default() })
    }

    async fn update(&self, cx: &OperationContext, command: UpdateCommand) -> Result<WriteReply> {
        let statements: Vec<String> = command.statements.iter().map(describe_update).collect();
        let text = format!(
            "update {} {}{}{}{}",
            command.namespace,
            statements.join(" "),
            flag("unordered", !command.ordered),
            optional("let", &command.variables),
            ids(&command.statement_ids)
        );
        self.note(cx, text)?;
        let upserted = command.statements.iter().position(|statement| statement.upsert);
        Ok(WriteReply {
            n: command.statements.len() as u64,
            upserted: upserted.map(|index| (index, Bson::Int32(9))).into_iter().collect(),
            ..WriteReply::default()
        })
    }

    async fn delete(&self, cx: &OperationContext, command: DeleteCommand) -> Result<WriteReply> {
        let statements: Vec<String> = command
            .statements
            .iter()
            .map(|statement| {
                let (filter, hint) = (show_buf(&statement.filter), hint(&statement.hint));
                format!("{{q={filter}{}{hint}}}", flag("multi", statement.multi))
            })
            .collect();
        self.note(cx, format!("delete {} {}", command.namespace, statements.join(" ")))?;
        Ok(WriteReply { n: 1, ..WriteReply::default() })
    }

    async fn find_and_modify(
        &self,
        cx: &OperationContext,
        command: FindAndModifyCommand,
    ) -> Result<FindAndModifyReply> {
        let action = match &command.action {
            FindAndModifyAction::Remove => "remove".to_owned(),
            FindAndModifyAction::Update { update, upsert, return_new } => {
                format!(
                    "update={}{}{}",
                    update_spec(update),
                    flag("upsert", *upsert),
                    flag("new", *return_new)
                )
            }
        };
        let text = format!(
            "findAndModify {} q={} {action}{}{}{}{}",
            command.namespace,
            show_buf(&command.filter),
            optional("sort", &command.sort),
            optional("fields", &command.projection),
            filters(&command.array_filters),
            hint(&command.hint)
        );
        self.note(cx, text)?;
        Ok(FindAndModifyReply { n: 1, updated_existing: Some(true), ..FindAndModifyReply::default() })
    }

    async fn find(&self, cx: &OperationContext, command: FindCommand) -> Result<CursorReply> {
        self.note(cx, describe_find(&command))?;
        Ok(self.batch(command.namespace.to_string(), command.batch_size))
    }

    async fn get_more(&self, cx: &OperationContext, command: GetMoreCommand) -> Result<CursorReply> {
        let text =
            format!("getMore {} {} batch={:?}", command.cursor.0, command.namespace, command.batch_size);
        self.note(cx, text)?;
        Ok(self.batch(command.namespace, command.batch_size))
    }

    async fn kill_cursors(
        &self,
        cx: &OperationContext,
        namespace: &str,
        cursors: &[CursorId],
    ) -> Result<Vec<CursorId>> {
        self.note(cx, format!("killCursors {namespace}"))?;
        Ok(cursors.iter().copied().filter(|cursor| *cursor == CURSOR).collect())
    }

    async fn count(&self, cx: &OperationContext, command: CountCommand) -> Result<u64> {
        let text = format!(
            "count {}{} skip={} limit={:?}{}",
            command.namespace,
            optional("query", &command.filter),
            command.skip,
            command.limit,
            hint(&command.hint)
        );
        self.note(cx, text)?;
        Ok(3)
    }

    async fn distinct(&self, cx: &OperationContext, command: DistinctCommand) -> Result<Vec<Bson>> {
        let text =
            format!("distinct {} {}{}", command.namespace, command.key, optional("query", &command.filter));
        self.note(cx, text)?;
        Ok(vec![Bson::Int32(1), Bson::String("two".to_owned())])
    }

    async fn aggregate(&self, cx: &OperationContext, command: AggregateCommand) -> Result<CursorReply> {
        let stages = super::json::show(&Bson::Array(command.pipeline));
        self.note(cx, format!("aggregate {} {stages} batch={:?}", command.namespace, command.batch_size))?;
        Ok(self.batch(command.namespace.to_string(), command.batch_size))
    }

    async fn explain(
        &self,
        cx: &OperationContext,
        command: ExplainCommand,
        verbosity: Verbosity,
    ) -> Result<Document> {
        let what = match command {
            ExplainCommand::Find(command) => describe_find(&command),
            ExplainCommand::Aggregate(command) => format!("aggregate {}", command.namespace),
            ExplainCommand::Count(command) => format!("count {}", command.namespace),
            ExplainCommand::Distinct(command) => format!("distinct {}", command.namespace),
            ExplainCommand::Update(command) => format!("update {}", command.namespace),
            ExplainCommand::Delete(command) => format!("delete {}", command.namespace),
            ExplainCommand::FindAndModify(command) => format!("findAndModify {}", command.namespace),
        };
        self.note(cx, format!("explain {verbosity:?} {what}"))?;
        Ok(bson::doc! { "queryPlanner": {} })
    }

    async fn create(&self, cx: &OperationContext, command: CreateCommand) -> Result<()> {
        self.note(cx, format!("create {} {}", command.namespace, show(&command.options)))
    }

    async fn drop_collection(&self, cx: &OperationContext, namespace: Namespace) -> Result<usize> {
        self.note(cx, format!("drop {namespace}"))?;
        Ok(2)
    }

    async fn drop_database(&self, cx: &OperationContext, database: &str) -> Result<()> {
        self.note(cx, format!("dropDatabase {database}"))
    }

    async fn list_collections(&self, cx: &OperationContext, database: &str) -> Result<Vec<CollectionInfo>> {
        self.note(cx, format!("listCollections {database}"))?;
        let info =
            |name: &str| CollectionInfo { name: name.to_owned(), uuid: [7; 16], options: Document::new() };
        Ok(vec![info("cities"), info("users")])
    }

    async fn list_databases(&self, cx: &OperationContext) -> Result<Vec<DatabaseInfo>> {
        self.note(cx, "listDatabases".to_owned())?;
        let info =
            |name: &str, size_on_disk_bytes| DatabaseInfo { name: name.to_owned(), size_on_disk_bytes };
        Ok(vec![info("shop", 3 << 20), info("test", 1 << 20)])
    }

    async fn create_indexes(
        &self,
        cx: &OperationContext,
        command: CreateIndexesCommand,
    ) -> Result<CreateIndexesReply> {
        let indexes: Vec<String> = command
            .indexes
            .iter()
            .map(|index| format!("{{{} {}{}}}", index.name, show(&index.key), flag("unique", index.unique)))
            .collect();
        self.note(cx, format!("createIndexes {} {}", command.namespace, indexes.join(" ")))?;
        let num_indexes_after = 1 + indexes.len();
        Ok(CreateIndexesReply { num_indexes_before: 1, num_indexes_after, created_collection: false })
    }

    async fn list_indexes(&self, cx: &OperationContext, namespace: Namespace) -> Result<Vec<IndexSpec>> {
        self.note(cx, format!("listIndexes {namespace}"))?;
        Ok(vec![IndexSpec::id_index()])
    }

    async fn drop_indexes(
        &self,
        cx: &OperationContext,
        namespace: Namespace,
        selector: IndexSelector,
    ) -> Result<usize> {
        self.note(cx, format!("dropIndexes {namespace} {selector:?}"))?;
        Ok(2)
    }

    async fn collection_stats(&self, cx: &OperationContext, namespace: Namespace) -> Result<CollectionStats> {
        self.note(cx, format!("stats {namespace}"))?;
        let indexes = vec![("_id_".to_owned(), 100)];
        Ok(CollectionStats { documents: 10, data_bytes: 1000, storage_bytes: 2000, indexes, shards: 1 })
    }

    async fn statistics_by_node(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
    ) -> Result<Option<BTreeMap<String, CollectionStats>>> {
        if namespace.collection != "sharded" {
            return Ok(None);
        }
        self.note(cx, format!("statistics by node {namespace}"))?;
        let part = |documents: u64| CollectionStats {
            documents,
            data_bytes: documents * 100,
            storage_bytes: documents * 200,
            indexes: vec![("_id_".to_owned(), 100)],
            shards: 2,
        };
        Ok(Some([("n1".to_owned(), part(10)), ("n2".to_owned(), part(20))].into()))
    }

    async fn shard_collection(&self, cx: &OperationContext, request: ShardRequest) -> Result<()> {
        self.note(cx, format!("shardCollection {}", describe_sharding(&request)))
    }

    async fn reshard_collection(&self, cx: &OperationContext, request: ShardRequest) -> Result<()> {
        self.note(cx, format!("reshardCollection {}", describe_sharding(&request)))
    }

    async fn abort_reshard(&self, cx: &OperationContext, namespace: &Namespace) -> Result<()> {
        self.note(cx, format!("abort reshard {namespace}"))
    }

    async fn pause_reshard(&self, cx: &OperationContext, namespace: &Namespace, paused: bool) -> Result<()> {
        self.note(cx, format!("pause reshard {namespace} {paused}"))
    }

    async fn split_shard(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        shard: &ShardSelector,
        into: u32,
    ) -> Result<()> {
        self.note(cx, format!("split {namespace} {} into {into}", describe_shard(shard)))
    }

    async fn merge_shards(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        first: &ShardSelector,
        last: &ShardSelector,
    ) -> Result<()> {
        let (first, last) = (describe_shard(first), describe_shard(last));
        self.note(cx, format!("merge {namespace} {first} to {last}"))
    }

    async fn move_shard(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        shard: &ShardSelector,
        to: &str,
    ) -> Result<()> {
        self.note(cx, format!("move {namespace} {} to {to}", describe_shard(shard)))
    }

    async fn cancel_move(&self, namespace: &Namespace, shard: &ShardSelector) -> Result<String> {
        let what = format!("call off the move of {namespace} {}", describe_shard(shard));
        self.note(&OperationContext::default(), what)?;
        Ok("n1".to_owned())
    }

    async fn balancer_settings(&self) -> Result<BalancerSettings> {
        Ok(BalancerSettings::default())
    }

    async fn change_balancer_settings(&self, settings: BalancerSettings) -> Result<()> {
        self.note(&OperationContext::default(), format!("change {settings:?}"))
    }

    async fn set_balancer(&self, enabled: bool) -> Result<()> {
        self.note(&OperationContext::default(), format!("balancer {enabled}"))
    }

    async fn explain_balancer(&self) -> Result<Vec<String>> {
        Ok(vec!["n2 has fewer replicas: shard 3 of a.b moves from n1 to n2".to_owned()])
    }

    async fn drain_node(&self, node: &str) -> Result<()> {
        self.note(&OperationContext::default(), format!("drain {node}"))
    }

    async fn cancel_drain(&self, node: &str) -> Result<()> {
        self.note(&OperationContext::default(), format!("cancel the drain of {node}"))
    }

    async fn remove_node(&self, cx: &OperationContext, node: &str) -> Result<()> {
        self.note(cx, format!("remove {node}"))
    }

    async fn node_progress(&self, _: &str) -> Result<NodeProgress> {
        let state = catalog::NodeState::Draining;
        Ok(NodeProgress { state, is_dead: false, replicas: 2, replicas_total: 5, votes_in_catalog: true })
    }

    async fn validate(&self, cx: &OperationContext, namespace: Namespace) -> Result<Document> {
        self.note(cx, format!("validate {namespace}"))?;
        Ok(bson::doc! { "valid": true })
    }

    fn end_sessions(&self, ended: &dyn Fn(SessionId) -> bool) {
        let of = |session| if ended(session) { "ends" } else { "stays" };
        let (known, unknown) = (of(SESSION), of(SessionId([0; 16])));
        self.asked.lock().push(format!("session {SESSION:?} {known}, any other {unknown}"));
    }

    fn data_nodes(&self) -> usize {
        1
    }

    fn operation_time(&self) -> base::Timestamp {
        base::Timestamp { seconds: 1_700_000_000, counter: 1 }
    }

    fn observe_cluster_time(&self, _: base::Timestamp) {}

    async fn cluster_status(&self) -> Document {
        bson::doc! {
            "cluster": "test",
            "replicationFactor": 3_i64,
            "answeredBy": 1_i64,
            "nodes": [
                {
                    "node": 1_i64, "listen": "127.0.0.1:27017", "health": "up", "uptimeSeconds": 7_i64,
                    "replicas": [{ "shard": 1_i64, "role": "primary" }],
                },
                { "node": 2_i64, "listen": "127.0.0.1:27018", "health": "down", "reason": "no answer" },
            ],
            "shards": [],
        }
    }

    fn open_cursors(&self) -> usize {
        0
    }
}
