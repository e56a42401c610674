//! One shard on a store in memory, driven as its owner loop would: every evaluation is applied at once.

use std::sync::Arc;

use base::{CollectionId, Epoch, Generation, IndexId, LogIndex, Namespace, ReplicaId, ShardId, Timestamp};
use bson::{Bson, Document};
use bytes::Bytes;
use catalog::{IndexSpec, KeyDirection};
use document::filter::Filter;
use document::sort::SortSpec;
use document::update::Update;
use document::{DocBuf, DocRef, Value, Variables};
use query::encoding;
use query::evaluate::{
    Candidates, ConfigChange, Evaluator, ReturnDocument, ShardCommand, ShardReply, Statement,
    StatementResult, WriteContext, WriteOp, WriteRequest,
};
use query::execute::{
    Counters, FindExecutor, FindRequest, HashScope, Progress, Slice, ValidationReport, validate,
};
use query::plan::{Access, Hint, Plan, PlanRequest, plan};
use query::position::Position;
use query::state::ShardState;
use storage::memory::{MemoryDisk, MemoryStore};
use storage::{Direction, KeyspaceName, KvBatch, Store, View};

use crate::support::context;

const NAME: KeyspaceName =
    KeyspaceName { shard: ShardId(2), replica: ReplicaId(1), generation: Generation(1) };

/// A shard of the collection `db.coll`.
pub(crate) struct Shard {
    store: MemoryStore,
    evaluator: Evaluator,
    applied: LogIndex,
    clock: u32,
    next_index: IndexId,
}

/// What came out of evaluating one command.
pub(crate) struct Evaluation {
    pub(crate) batch: KvBatch,
    pub(crate) reply: base::Result<ShardReply>,
}

/// What a read asks for beside its filter.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) sort: Option<Document>,
    pub(crate) skip: u64,
    pub(crate) limit: Option<u64>,
    pub(crate) hint: Option<Bson>,
    pub(crate) after: Position,
    pub(crate) scopes: Vec<HashScope>,
}

impl Shard {
    pub(crate) fn new() -> Shard {
        Shard::with_state(ShardState::new(CollectionId(1), Epoch(1)))
    }

    pub(crate) fn with_state(state: ShardState) -> Shard {
        let (store, _) = MemoryDisk::new().open().expect("an empty disk opens");
        store.create_keyspace(NAME).expect("created");
        store.apply(NAME, &state.initial_batch(), LogIndex(1)).expect("applies");
        let evaluator =
            Evaluator::load(&store.view(NAME).expect("the keyspace exists")).expect("has a state");
        Shard { store, evaluator, applied: LogIndex(1), clock: 0, next_index: IndexId(1) }
    }

    pub(crate) fn view(&self) -> Arc<dyn View> {
        self.store.view(NAME).expect("the keyspace exists")
    }

    /// Evaluates and applies.
    pub(crate) fn run(&mut self, command: &ShardCommand) -> Evaluation {
        let (batch, mut replies) = self.run_together(std::slice::from_ref(command));
        Evaluation { batch, reply: replies.pop().expect("one command has one reply") }
    }

    /// Evaluates commands that share an entry, and applies it. None of them reads what another wrote.
    pub(crate) fn run_together(
        &mut self,
        commands: &[ShardCommand],
    ) -> (KvBatch, Vec<base::Result<ShardReply>>) {
        self.clock += 1;
        let now = bson::DateTime::from_millis(1_700_000_000_000 + i64::from(self.clock));
        let commit_timestamp = Timestamp { seconds: 1_700_000_000, counter: self.clock };
        let cx = WriteContext { now, commit_timestamp };
        let view = self.view();
        let (mut entry, mut replies) = (KvBatch::default(), Vec::new());
        for command in commands {
            let (batch, reply) = self.evaluator.evaluate(&cx, &view, command).expect("no fault");
            entry.ops.extend(batch.ops);
            replies.push(reply);
        }
        self.evaluator.complete(&mut entry);
        if !entry.is_empty() {
            self.apply(&entry);
        }
        let stored = ShardState::load(&self.view()).expect("intact").expect("present");
        assert_eq!(&stored, self.state(), "the state that evaluation goes on with is the one that it stores");
        (entry, replies)
    }

    /// Goes on as a new leader would: with what the store has.
    pub(crate) fn forget(&mut self) {
        self.evaluator = Evaluator::load(&self.view()).expect("has a state");
    }

    /// The shard's state.
    pub(crate) fn state(&self) -> &ShardState {
        self.evaluator.state()
    }

    /// Applies a batch that no evaluation made.
    pub(crate) fn apply(&mut self, batch: &storage::KvBatch) {
        self.applied = self.applied.next();
        self.store.apply(NAME, batch, self.applied).expect("applies");
    }

    /// Evaluates one request and gives its results.
    pub(crate) fn write(&mut self, request: WriteRequest) -> Vec<StatementResult> {
        match self.run(&ShardCommand::Write(request)).reply.expect("the request is not refused") {
            ShardReply::Write(results) => results,
            other => panic!("not an answer to a write: {other:?}"),
        }
    }

    /// Builds an index as the cluster does: maintained, filled, ready.
    pub(crate) fn create_index(&mut self, key: &Document, unique: bool) -> base::Result<()> {
        let spec = index_spec(self.next_index, key, unique);
        let id = spec.id;
        self.next_index = id.next();
        self.run(&ShardCommand::Configure(ConfigChange::AddIndex(spec)));
        let document_keys = self.keys(encoding::document_range());
        let fill = ShardCommand::Backfill { namespace: namespace(), index: id, document_keys };
        if let Err(error) = self.run(&fill).reply {
            self.drop_index(id);
            return Err(error);
        }
        self.run(&ShardCommand::Configure(ConfigChange::MarkReady(id)));
        Ok(())
    }

    fn drop_index(&mut self, id: IndexId) {
        self.run(&ShardCommand::Configure(ConfigChange::DropIndex(id)));
        let purge = ShardCommand::PurgeIndex { index: id, limit: 2 };
        while let Ok(ShardReply::Purged { done: false, .. }) = self.run(&purge).reply {}
        assert!(self.state().index(id).is_none(), "an index without entries is gone");
    }

    pub(crate) fn drop_index_by_name(&mut self, name: &str) {
        let id = self.state().indexes.iter().find(|index| index.spec.name == name).map(|index| index.spec.id);
        self.drop_index(id.expect("the index exists"));
    }

    pub(crate) fn keys(&self, range: storage::KeyRange) -> Vec<Bytes> {
        let pairs = self.view().scan(range, Direction::Forward);
        pairs.map(|pair| pair.expect("readable").0).collect()
    }

    pub(crate) fn plan(&self, filter: &Filter, options: &Options) -> base::Result<Plan> {
        let sort = options.sort.as_ref().map(|sort| SortSpec::parse(DocRef::Tree(sort))).transpose()?;
        let hint = options.hint.as_ref().map(|hint| Hint::parse(&Value::from(hint))).transpose()?.flatten();
        let request = PlanRequest {
            filter,
            sort: sort.as_ref(),
            hint: hint.as_ref(),
            limit: options.limit.map(|limit| limit + options.skip),
            after: Some(&options.after),
        };
        match plan(self.state(), self.view().as_ref(), &request) {
            Ok(plan) => Ok(plan),
            Err(query::Failure::Error(error)) => Err(error),
            Err(query::Failure::Fault(fault)) => panic!("{fault}"),
        }
    }

    /// Starts a plan.
    pub(crate) fn start(&self, plan: Plan, filter: Arc<Filter>, options: &Options) -> FindExecutor {
        let sort = options.sort.as_ref().map(|sort| SortSpec::parse(DocRef::Tree(sort)).expect("valid"));
        let request = FindRequest {
            filter,
            sort: sort.map(Arc::new),
            skip: options.skip,
            limit: options.limit,
            scopes: options.scopes.clone(),
            context: context(),
        };
        FindExecutor::new_after(Arc::new(plan), request, self.view(), options.after.clone())
    }

    /// Runs a plan in small slices, giving the view back between them.
    pub(crate) fn execute(
        &self,
        plan: Plan,
        filter: Arc<Filter>,
        options: &Options,
    ) -> (Vec<DocBuf>, Counters) {
        let mut executor = self.start(plan, filter, options);
        let slice = Slice { documents_max: 2, bytes_max: 1_000, examined_max: 3 };
        let mut documents = Vec::new();
        while executor.next_batch(&slice, &mut documents).expect("runs") != Progress::Done {
            executor.release_view();
            if !executor.is_ready() {
                executor.resume(self.view());
            }
        }
        (documents, executor.counters())
    }

    pub(crate) fn find(&self, filter: &Document, options: &Options) -> base::Result<Vec<Document>> {
        let filter = Arc::new(Filter::parse(DocRef::Tree(filter), &Variables::default())?);
        let plan = self.plan(&filter, options)?;
        let (documents, _) = self.execute(plan, filter, options);
        Ok(documents.iter().map(DocBuf::to_document).collect())
    }

    /// Counts in small slices, giving the view back between them.
    pub(crate) fn count(&self, plan: Plan, filter: Arc<Filter>, options: &Options) -> u64 {
        let mut executor = self.start(plan, filter, options);
        let mut total = 0;
        loop {
            let (counted, progress) = executor.count_batch(2).expect("runs");
            total += counted;
            if progress == Progress::Done {
                return total;
            }
            executor.release_view();
            executor.resume(self.view());
        }
    }

    /// Keys of the documents that match, by a collection scan.
    pub(crate) fn candidates(&self, filter: &Filter) -> Candidates {
        let documents = self.view().scan(encoding::document_range(), Direction::Forward);
        let keys = documents.map(|pair| pair.expect("readable")).filter(|(key, value)| {
            let stored = encoding::decode_document(key, value).expect("intact");
            filter.matches(stored.document.as_doc(), &context()).expect("matches")
        });
        Candidates { keys: keys.map(|(key, _)| key).collect(), exact: false, more: false }
    }

    pub(crate) fn documents(&self) -> Vec<Document> {
        let documents = self.view().scan(encoding::document_range(), Direction::Forward);
        let stored = documents.map(|pair| pair.expect("readable"));
        stored
            .map(|(key, value)| {
                encoding::decode_document(&key, &value).expect("intact").document.to_document()
            })
            .collect()
    }

    pub(crate) fn validate(&self) -> ValidationReport {
        validate(self.state(), self.view().as_ref()).expect("readable")
    }

    /// An update of what the filter finds now.
    pub(crate) fn update_op(
        &self,
        filter: &Document,
        update: &Document,
        multi: bool,
        upsert: Option<Bson>,
        return_document: ReturnDocument,
    ) -> base::Result<WriteOp> {
        let filter = Filter::parse(DocRef::Tree(filter), &Variables::default())?;
        let update = Update::parse(Value::Document(DocRef::Tree(update)), &[], &Variables::default())?;
        Ok(WriteOp::Update {
            candidates: self.candidates(&filter),
            filter: Arc::new(filter),
            update: Arc::new(update),
            upsert,
            multi,
            return_document,
        })
    }

    /// A delete of what the filter finds now.
    pub(crate) fn delete_op(
        &self,
        filter: &Document,
        multi: bool,
        return_document: ReturnDocument,
    ) -> base::Result<WriteOp> {
        let filter = Filter::parse(DocRef::Tree(filter), &Variables::default())?;
        let candidates = self.candidates(&filter);
        Ok(WriteOp::Delete { candidates, filter: Arc::new(filter), multi, return_document })
    }
}

pub(crate) fn namespace() -> Namespace {
    Namespace::new("db", "coll").expect("valid")
}

/// An index named as drivers name it: `a_1_b_-1`.
pub(crate) fn index_spec(id: IndexId, key: &Document, unique: bool) -> IndexSpec {
    let fields: Vec<(String, KeyDirection)> = key
        .iter()
        .map(|(path, order)| {
            let descending = matches!(order, Bson::Int32(-1));
            (path.clone(), if descending { KeyDirection::Descending } else { KeyDirection::Ascending })
        })
        .collect();
    let name: Vec<String> = key.iter().map(|(path, order)| format!("{path}_{order}")).collect();
    IndexSpec { id, name: name.join("_"), key: fields, unique }
}

pub(crate) fn request(ops: Vec<WriteOp>) -> WriteRequest {
    let statements = ops.into_iter().zip(0..).map(|(op, stmt_id)| Statement { stmt_id, op }).collect();
    WriteRequest {
        namespace: namespace(),
        epoch: Epoch(1),
        session: None,
        statements,
        ordered: true,
        fence: None,
        variables: Variables::default(),
    }
}

pub(crate) fn insert_op(document: &Document) -> WriteOp {
    WriteOp::Insert { document: DocBuf::encode(document).expect("encodes") }
}

/// What a plan scans, in a few words.
pub(crate) fn describe(plan: &Plan) -> String {
    let sort = if plan.sort_needed { "sort of " } else { "" };
    format!("{sort}{}", describe_access(&plan.access))
}

fn describe_access(access: &Access) -> String {
    match access {
        Access::Nothing => "nothing".to_owned(),
        Access::Document { .. } => "document by _id".to_owned(),
        Access::Collection { direction: Direction::Forward } => "collection".to_owned(),
        Access::Collection { direction: Direction::Reverse } => "collection backward".to_owned(),
        Access::Index(access) => describe_index(access),
        Access::Union { accesses, .. } => {
            let parts: Vec<String> = accesses.iter().map(describe_index).collect();
            parts.join(" or ")
        }
    }
}

fn describe_index(access: &query::plan::IndexAccess) -> String {
    let fields = access.index.spec.key.iter().zip(&access.bounds).map(|((path, order), bounds)| {
        let texts = query::explain::bounds_text(bounds, *order, access.direction);
        format!("{path}: {}", texts.join(" "))
    });
    let fields: Vec<String> = fields.collect();
    let direction = if access.direction == Direction::Reverse { " backward" } else { "" };
    format!("{}{direction} {{{}}}", access.index.spec.name, fields.join(", "))
}
