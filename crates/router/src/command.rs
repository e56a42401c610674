//! The typed form of every command that reaches data: what `wire` parses into and the router executes.
//!
//! Documents in here are already validated BSON; whether a filter or an update *means* something is found out by the
//! router, which answers with MongoDB's codes. Nothing here knows the wire protocol.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::{Code, Error, LogIndex, MonoTime, Namespace, RequestId, Result, SessionId};
use bson::{Bson, Document};
use bytes::Bytes;
use document::DocBuf;
use query::evaluate::{Ballot, Fence};

/// Which replica a read asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// The primary: linearizable.
    #[default]
    Primary,
    /// The primary; a secondary while there is none.
    PrimaryPreferred,
    /// A secondary.
    Secondary,
    /// A secondary; the primary where there is none.
    SecondaryPreferred,
    /// The replica that is closest to the router.
    Nearest,
}

/// What a read asks of the replica that answers it (`$readPreference`, `readConcern`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadPreference {
    /// Which replica.
    pub mode: ReadMode,
    /// Sets of labels, in the order of preference; a node of a set has all of its labels. Empty for any node.
    pub tags: Vec<BTreeMap<String, String>>,
    /// How far behind a secondary may be (`maxStalenessSeconds`).
    pub staleness_max: Option<Duration>,
    /// Whether the read follows others in a causal session (`afterClusterTime`): it sees whatever was acknowledged before.
    pub causal: bool,
}

/// Where this node executes a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadSource {
    /// On its replica when that leads.
    #[default]
    Primary,
    /// On its replica, whatever its role, once that has applied the index.
    Replica(LogIndex),
}

/// What surrounds one operation: who asks, until when, and whether anybody still waits.
#[derive(Clone, Debug, Default)]
pub struct OperationContext {
    /// When the operation must have ended (`maxTimeMS`); `None` for no limit.
    pub deadline: Option<MonoTime>,
    /// The logical session of the command (`lsid`).
    pub session: Option<SessionId>,
    /// The retryable write's number within the session (`txnNumber`).
    pub txn_number: Option<i64>,
    /// By which a repeat of a write is recognised when the client gave no number.
    pub identity: Option<RequestId>,
    /// What is known of the document, if it is a write of one that may be in any shard.
    pub found: Option<Found>,
    /// Which replica answers, if it is a read.
    pub reads: ReadPreference,
    /// Where this node executes it, if it is a read.
    pub source: ReadSource,
    /// The connection it came by; its cursors die with it only when asked to.
    pub connection: u64,
    /// Set when the client has gone or the operation was killed.
    pub cancelled: Arc<AtomicBool>,
}

impl OperationContext {
    /// By which a repeat of this write is recognised: what the client said, or what the router drew.
    pub(crate) fn retry_identity(&self) -> Option<(SessionId, i64)> {
        let said = self.session.zip(self.txn_number);
        said.or_else(|| self.identity.map(|identity| (identity.as_session(), 0)))
    }

    /// Fails with `Interrupted` (11601) once the operation was cancelled, with `MaxTimeMSExpired` (50) past its deadline.
    pub fn check(&self, now: MonoTime) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::new(Code::INTERRUPTED, "operation was interrupted"));
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(Error::new(Code::MAX_TIME_MS_EXPIRED, "operation exceeded time limit"));
        }
        Ok(())
    }
}

/// Which index a command insists on.
#[derive(Clone, Debug, PartialEq)]
pub enum Hint {
    /// By name.
    Name(String),
    /// By key pattern; `{$natural: ±1}` for a collection scan.
    Key(DocBuf),
}

/// `insert`. Every document has an `_id` (the caller adds what is missing, first in the document).
#[derive(Clone, Debug)]
pub struct InsertCommand {
    /// Where to.
    pub namespace: Namespace,
    /// What; at least one and at most `WRITE_BATCH_MAX`.
    pub documents: Vec<DocBuf>,
    /// Whether to stop at the first error.
    pub ordered: bool,
    /// Statement ids for retries; empty means 0, 1, 2, ...
    pub statement_ids: Vec<i32>,
}

/// The `u` of an update.
#[derive(Clone, Debug)]
pub enum UpdateSpec {
    /// Operators, or a whole new document.
    Document(DocBuf),
    /// Operators only: what an update of many documents takes.
    Operators(DocBuf),
    /// An aggregation pipeline.
    Pipeline(Vec<DocBuf>),
}

/// One statement of `update`.
#[derive(Clone, Debug)]
pub struct UpdateStatement {
    /// `q`.
    pub filter: DocBuf,
    /// `u`.
    pub update: UpdateSpec,
    /// `multi`.
    pub multi: bool,
    /// `upsert`.
    pub upsert: bool,
    /// `arrayFilters`.
    pub array_filters: Vec<DocBuf>,
    /// `c`: constants for a pipeline.
    pub constants: Option<DocBuf>,
    /// `hint`.
    pub hint: Option<Hint>,
    /// `sort`: which document a non-multi update takes.
    pub sort: Option<DocBuf>,
}

/// `update`.
#[derive(Clone, Debug)]
pub struct UpdateCommand {
    /// Where.
    pub namespace: Namespace,
    /// The statements, in order.
    pub statements: Vec<UpdateStatement>,
    /// Whether to stop at the first error.
    pub ordered: bool,
    /// `let`.
    pub variables: Option<DocBuf>,
    /// Statement ids for retries; empty means 0, 1, 2, ...
    pub statement_ids: Vec<i32>,
}

/// One statement of `delete`.
#[derive(Clone, Debug)]
pub struct DeleteStatement {
    /// `q`.
    pub filter: DocBuf,
    /// `limit: 0` deletes all matches, `limit: 1` one.
    pub multi: bool,
    /// `hint`.
    pub hint: Option<Hint>,
}

/// `delete`.
#[derive(Clone, Debug)]
pub struct DeleteCommand {
    /// Where.
    pub namespace: Namespace,
    /// The statements, in order.
    pub statements: Vec<DeleteStatement>,
    /// Whether to stop at the first error.
    pub ordered: bool,
    /// `let`.
    pub variables: Option<DocBuf>,
    /// Statement ids for retries; empty means 0, 1, 2, ...
    pub statement_ids: Vec<i32>,
}

/// What `insert`, `update` and `delete` answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteReply {
    /// Documents inserted, matched (upserts included) or deleted.
    pub n: u64,
    /// Documents that an update changed.
    pub n_modified: u64,
    /// Statement index and `_id` of each upserted document.
    pub upserted: Vec<(usize, Bson)>,
    /// Statement index and error of each statement that failed.
    pub write_errors: Vec<(usize, Error)>,
    /// Statement ids whose recorded outcome was returned (`retriedStmtIds`).
    pub retried_statement_ids: Vec<i32>,
}

/// `findAndModify`.
#[derive(Clone, Debug)]
pub struct FindAndModifyCommand {
    /// Where.
    pub namespace: Namespace,
    /// `query`.
    pub filter: DocBuf,
    /// `sort`: which of several matches.
    pub sort: Option<DocBuf>,
    /// What to do with it.
    pub action: FindAndModifyAction,
    /// `fields`: projection of the returned document.
    pub projection: Option<DocBuf>,
    /// `arrayFilters`.
    pub array_filters: Vec<DocBuf>,
    /// `hint`.
    pub hint: Option<Hint>,
    /// `let`.
    pub variables: Option<DocBuf>,
}

/// What `findAndModify` does with its document.
#[derive(Clone, Debug)]
pub enum FindAndModifyAction {
    /// `remove: true`.
    Remove,
    /// `update`.
    Update {
        /// The update.
        update: UpdateSpec,
        /// `upsert`.
        upsert: bool,
        /// `new`: return the document after the update.
        return_new: bool,
    },
}

/// What `findAndModify` answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FindAndModifyReply {
    /// The document before or after, projected; `None` for null.
    pub value: Option<DocBuf>,
    /// Documents matched, or inserted by the upsert, or removed: 0 or 1.
    pub n: u64,
    /// Whether an existing document was updated; `None` for a remove.
    pub updated_existing: Option<bool>,
    /// `_id` of the upserted document.
    pub upserted: Option<Bson>,
    /// Whether the recorded outcome of an earlier attempt was returned.
    pub retried: bool,
}

/// `find`.
#[derive(Clone, Debug)]
pub struct FindCommand {
    /// Where.
    pub namespace: Namespace,
    /// `filter`; `None` for all documents.
    pub filter: Option<DocBuf>,
    /// `sort`.
    pub sort: Option<DocBuf>,
    /// `projection`.
    pub projection: Option<DocBuf>,
    /// `skip`.
    pub skip: u64,
    /// `limit`; `None` for no limit.
    pub limit: Option<u64>,
    /// `batchSize`; `None` for the default of the first batch.
    pub batch_size: Option<u64>,
    /// `singleBatch`: close the cursor after the first batch.
    pub single_batch: bool,
    /// `hint`.
    pub hint: Option<Hint>,
    /// `let`.
    pub variables: Option<DocBuf>,
}

impl FindCommand {
    /// A find of all documents, to be narrowed.
    pub fn all(namespace: Namespace) -> FindCommand {
        FindCommand {
            namespace,
            filter: None,
            sort: None,
            projection: None,
            skip: 0,
            limit: None,
            batch_size: None,
            single_batch: false,
            hint: None,
            variables: None,
        }
    }
}

/// A cursor's number; 0 stands for "exhausted" on the wire and is never a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CursorId(pub i64);

/// One batch of a cursor.
#[derive(Clone, Debug)]
pub struct CursorReply {
    /// The cursor to ask for more; `None` when this batch is the last.
    pub cursor: Option<CursorId>,
    /// The namespace that `getMore` must name.
    pub namespace: String,
    /// The documents.
    pub batch: Vec<DocBuf>,
}

/// `getMore`.
#[derive(Clone, Debug)]
pub struct GetMoreCommand {
    /// The cursor.
    pub cursor: CursorId,
    /// The namespace it belongs to, checked.
    pub namespace: String,
    /// `batchSize`; `None` for as much as fits a batch.
    pub batch_size: Option<u64>,
}

/// One shard's part of a read: what the shard finds, sorts, limits and projects by itself.
#[derive(Clone, Debug)]
pub struct ScanCommand {
    /// The collection's name, for messages and cursors.
    pub namespace: Namespace,
    /// `filter`; `None` for all documents.
    pub filter: Option<DocBuf>,
    /// `sort`.
    pub sort: Option<DocBuf>,
    /// `projection`, after the sort.
    pub projection: Option<DocBuf>,
    /// Documents to leave out first.
    pub skip: u64,
    /// Documents to give at most, in all batches together.
    pub limit: Option<u64>,
    /// `hint`.
    pub hint: Option<Hint>,
    /// `let`.
    pub variables: Option<DocBuf>,
    /// For an aggregation, all its stages: the shard does its part of them, in the place of `filter` and `sort`. Empty for a
    /// find.
    pub pipeline: Vec<Bson>,
    /// Whether each document comes with its sort key, by which shards' parts are merged.
    pub ranked: bool,
    /// Behind which position of an earlier scan, perhaps of another shard, to go on: `query::position`.
    pub after: Option<Bytes>,
    /// Only documents that are in all of these.
    pub scopes: Vec<ScanScope>,
    /// How much of it the first batch carries.
    pub size: ScanSize,
    /// Whether what does not fit the first batch waits in a cursor.
    pub keep: bool,
}

/// The documents whose hash under a shard key lies in a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanScope {
    /// The fields of the key.
    pub shard_key: Vec<String>,
    /// First hash.
    pub first: u64,
    /// Last hash, inclusive.
    pub last: u64,
}

/// How much one batch of a scan carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanSize {
    /// Most documents.
    pub documents_max: u64,
    /// Most bytes of documents; the first may exceed it.
    pub bytes_max: u64,
}

/// One batch of a scan.
#[derive(Clone, Debug, Default)]
pub struct ScanReply {
    /// The documents.
    pub documents: Vec<DocBuf>,
    /// Their sort keys, if they were asked for.
    pub sort_keys: Vec<Bytes>,
    /// Behind which position the scan goes on after them.
    pub position: Bytes,
    /// Where the rest waits, on the node that answered.
    pub cursor: Option<CursorId>,
    /// Whether there is no rest.
    pub is_done: bool,
}

/// For a write of one document that may be in any shard: what the router found out before.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Lets the shard execute it. `None` where a repeat is recognised otherwise.
    pub fence: Option<Fence>,
    /// The document's key; `None` when no document matches.
    pub key: Option<Bytes>,
    /// The `_id` of the document that an upsert inserts.
    pub upsert_id: Option<Bson>,
}

/// Asks a shard for the document that a statement means, and for the right to execute it there.
#[derive(Clone, Debug)]
pub struct SeekCommand {
    /// The collection's name, for messages.
    pub namespace: Namespace,
    /// Which documents.
    pub filter: DocBuf,
    /// Which of several.
    pub sort: Option<DocBuf>,
    /// `hint`.
    pub hint: Option<Hint>,
    /// `let`.
    pub variables: Option<DocBuf>,
    /// The statement's number.
    pub stmt_id: i32,
    /// The attempt.
    pub ballot: Ballot,
}

/// What a shard answers to a [`SeekCommand`].
#[derive(Clone, Debug, PartialEq)]
pub enum SeekReply {
    /// The statement was executed here before.
    Executed,
    /// The attempt may go on here.
    Fenced {
        /// With this.
        fence: Fence,
        /// The best of the documents here that match: its sort key and its key.
        found: Option<(Bytes, Bytes)>,
    },
    /// An attempt of this higher ballot is under way.
    Outranked(Ballot),
}

/// `count`.
#[derive(Clone, Debug)]
pub struct CountCommand {
    /// Where.
    pub namespace: Namespace,
    /// `query`.
    pub filter: Option<DocBuf>,
    /// `skip`.
    pub skip: u64,
    /// `limit`.
    pub limit: Option<u64>,
    /// `hint`.
    pub hint: Option<Hint>,
}

/// `distinct`.
#[derive(Clone, Debug)]
pub struct DistinctCommand {
    /// Where.
    pub namespace: Namespace,
    /// `key`: the path whose values are wanted.
    pub key: String,
    /// `query`.
    pub filter: Option<DocBuf>,
    /// `hint`.
    pub hint: Option<Hint>,
}

/// `aggregate` on a collection.
#[derive(Clone, Debug)]
pub struct AggregateCommand {
    /// Where.
    pub namespace: Namespace,
    /// The stages.
    pub pipeline: Vec<Bson>,
    /// `cursor.batchSize`; `None` for the default of the first batch.
    pub batch_size: Option<u64>,
    /// `hint`.
    pub hint: Option<Hint>,
    /// `let`.
    pub variables: Option<DocBuf>,
}

/// How much `explain` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// The plan only.
    QueryPlanner,
    /// Also runs it and counts.
    ExecutionStats,
    /// Also what the other plans did.
    AllPlansExecution,
}

/// What `explain` explains.
#[derive(Clone, Debug)]
pub enum ExplainCommand {
    /// A find.
    Find(FindCommand),
    /// An aggregate.
    Aggregate(AggregateCommand),
    /// A count.
    Count(CountCommand),
    /// A distinct.
    Distinct(DistinctCommand),
    /// An update's search for its document; changes nothing.
    Update(UpdateCommand),
    /// A delete's search for its document; changes nothing.
    Delete(DeleteCommand),
    /// A findAndModify's search for its document; changes nothing.
    FindAndModify(FindAndModifyCommand),
}

impl ExplainCommand {
    /// The collection that it is about.
    pub fn namespace(&self) -> &Namespace {
        match self {
            ExplainCommand::Find(command) => &command.namespace,
            ExplainCommand::Aggregate(command) => &command.namespace,
            ExplainCommand::Count(command) => &command.namespace,
            ExplainCommand::Distinct(command) => &command.namespace,
            ExplainCommand::Update(command) => &command.namespace,
            ExplainCommand::Delete(command) => &command.namespace,
            ExplainCommand::FindAndModify(command) => &command.namespace,
        }
    }
}

/// `create`.
#[derive(Clone, Debug)]
pub struct CreateCommand {
    /// The new collection.
    pub namespace: Namespace,
    /// Options to keep and list, as given (without those that the caller refused).
    pub options: Document,
}

/// One index to create.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexRequest {
    /// The key pattern as given: path to 1 or -1.
    pub key: Document,
    /// The name.
    pub name: String,
    /// Whether two documents may share a key.
    pub unique: bool,
}

/// `createIndexes`.
#[derive(Clone, Debug)]
pub struct CreateIndexesCommand {
    /// Where; created when absent.
    pub namespace: Namespace,
    /// The indexes.
    pub indexes: Vec<IndexRequest>,
}

/// What `createIndexes` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateIndexesReply {
    /// Indexes before.
    pub num_indexes_before: usize,
    /// Indexes after.
    pub num_indexes_after: usize,
    /// Whether the command created the collection.
    pub created_collection: bool,
}

/// Which indexes `dropIndexes` means.
#[derive(Clone, Debug, PartialEq)]
pub enum IndexSelector {
    /// `"*"`: all but `_id`.
    All,
    /// By name, one or several.
    Names(Vec<String>),
    /// By key pattern.
    Key(Document),
}

/// One collection in `listCollections`.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionInfo {
    /// Its name without the database.
    pub name: String,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Its options as given to `create`.
    pub options: Document,
}

/// One database in `listDatabases`.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseInfo {
    /// Its name.
    pub name: String,
    /// Bytes on disk.
    pub size_on_disk_bytes: u64,
}

/// Sizes of a collection, in bytes and counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CollectionStats {
    /// Documents.
    pub documents: u64,
    /// Bytes of documents.
    pub data_bytes: u64,
    /// Bytes on disk of documents and indexes together.
    pub storage_bytes: u64,
    /// Name and estimated bytes of each index.
    pub indexes: Vec<(String, u64)>,
    /// Shards.
    pub shards: usize,
}
