//! Evaluation of a shard's writes: from a command to keys and values.
//!
//! Called by the replica's owner loop, on the leader only; followers apply the bytes that come out. Pure given its
//! [`Reader`], which shows the store plus whatever was proposed before. Always holds: document, index entries, counters
//! and retry record of one write are in one batch; a reply that is an error comes with an empty batch unless its
//! statements say otherwise; the same state, context, reader and command give the same evaluation.

mod configure;
mod evaluator;
mod maintain;
mod notes;
mod probe;
mod receive;
mod retry;
mod retry_record;
mod scratch;
mod write;

use std::sync::Arc;

use base::{Epoch, IndexId, Namespace, ReshardId, SessionId, ShardId, Timestamp};
use bson::Bson;
use bytes::Bytes;
use catalog::IndexSpec;
use document::filter::Filter;
use document::update::Update;
use document::{DocBuf, Variables};
use storage::{Direction, Fault, KeyRange, KvBatch, View};

use self::evaluator::Records;
use self::retry_record::RetryRecord;
use crate::encoding::CountChange;
use crate::state::{ShardState, Source};

pub use evaluator::Evaluator;
pub use probe::{Ballot, Fence, Probe, ProbeReply};
pub use receive::Batch;

/// What evaluation reads: one shard's keyspace, with everything in it that was proposed before.
pub trait Reader {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> storage::Result<Option<Bytes>>;

    /// The keys of `range` with their values, in order.
    fn scan<'a>(
        &'a self,
        range: KeyRange,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = storage::Result<(Bytes, Bytes)>> + 'a>;
}

impl Reader for Arc<dyn View> {
    fn get(&self, key: &[u8]) -> storage::Result<Option<Bytes>> {
        View::get(self.as_ref(), key)
    }

    fn scan<'a>(
        &'a self,
        range: KeyRange,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = storage::Result<(Bytes, Bytes)>> + 'a> {
        View::scan(self.as_ref(), range, direction)
    }
}

/// What a shard can be asked to do to its keyspace.
#[derive(Clone, Debug)]
pub enum ShardCommand {
    /// A client's writes.
    Write(WriteRequest),
    /// A change of the shard's state, decided by the catalog.
    Configure(ConfigChange),
    /// Puts the missing entries of an index that is being built.
    Backfill {
        /// The collection's name, for messages.
        namespace: Namespace,
        /// The index.
        index: IndexId,
        /// Keys of the documents to look at; those that are gone by now are passed over.
        document_keys: Vec<Bytes>,
    },
    /// Removes entries of an index that is being dropped, and the index once there are none.
    PurgeIndex {
        /// The index.
        index: IndexId,
        /// Most entries to remove now.
        limit: usize,
    },
    /// Takes documents and retry records of a shard whose place this one is about to take.
    Receive(Batch),
    /// Asks whether a statement was executed here, and keeps later attempts at it from being.
    Probe(Probe),
    /// Removes notes of changes that nobody will read.
    PurgeNotes {
        /// Most notes to remove now.
        limit: usize,
    },
    /// Removes retry records of sessions that have been idle.
    ExpireSessions {
        /// Records whose last write is older than this, in milliseconds since the Unix epoch.
        before_wall_ms: i64,
    },
}

/// One client command's writes for one shard.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// The collection's name, for messages.
    pub namespace: Namespace,
    /// The shard map's version by which the request was routed.
    pub epoch: Epoch,
    /// The session and its transaction number, when the client may send the command again.
    pub session: Option<(SessionId, i64)>,
    /// The writes, in order.
    pub statements: Arc<[Statement]>,
    /// Whether the first failure ends the request.
    pub ordered: bool,
    /// For a request of one statement whose document may be in any shard: what the shard answered to its probe.
    pub fence: Option<Fence>,
    /// The command's `let` variables.
    pub variables: Variables,
}

/// One write of a request.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Its number within the client's command, by which a repeat is recognised.
    pub stmt_id: i32,
    /// What to do.
    pub op: WriteOp,
}

/// Where the documents of a filter were found before the request came here.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// Keys of documents, in the order in which to try them.
    pub keys: Vec<Bytes>,
    /// Whether no other document can match, as with a filter on `_id`: then a candidate that is gone means that nothing
    /// matches, and the request need not be sent again.
    pub exact: bool,
    /// Whether more candidates of the same statement follow in a later request. The keys of all of them ascend.
    pub more: bool,
}

/// A write.
#[derive(Clone, Debug)]
pub enum WriteOp {
    /// Inserts a document, which has its `_id` already.
    Insert {
        /// The document.
        document: DocBuf,
    },
    /// Updates or replaces documents.
    Update {
        /// Where to look.
        candidates: Candidates,
        /// Which of the candidates.
        filter: Arc<Filter>,
        /// The change.
        update: Arc<Update>,
        /// When nothing matches, insert; with this `_id` unless filter or update say one.
        upsert: Option<Bson>,
        /// All candidates that match, or the first.
        multi: bool,
        /// Which document the reply carries.
        return_document: ReturnDocument,
    },
    /// Deletes documents.
    Delete {
        /// Where to look.
        candidates: Candidates,
        /// Which of the candidates.
        filter: Arc<Filter>,
        /// All candidates that match, or the first.
        multi: bool,
        /// Which document the reply carries; `After` is as `None`.
        return_document: ReturnDocument,
    },
}

/// Which image of a written document a reply carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReturnDocument {
    /// None.
    #[default]
    None,
    /// As it was before the write.
    Before,
    /// As it is after the write.
    After,
}

/// A change of a shard's state.
#[derive(Clone, Debug)]
pub enum ConfigChange {
    /// Writes keep this index up from now on. No effect when the index is there.
    AddIndex(IndexSpec),
    /// The index is complete and may be read.
    MarkReady(IndexId),
    /// The index is neither kept up nor read from now on; `PurgeIndex` removes its entries.
    DropIndex(IndexId),
    /// Notes from now on what changes, for this reshard. No effect while it does.
    Note(ReshardId),
    /// Serves no more, until told otherwise. Fails unless changes are noted for this reshard.
    Seal(ReshardId),
    /// Serves on, and notes nothing: this reshard was given up. No effect when another one is under way.
    Reopen(ReshardId),
}

/// What the caller knows that evaluation must not find out for itself.
#[derive(Clone, Copy, Debug)]
pub struct WriteContext {
    /// The leader's wall clock: `$$NOW`, and the age of retry records.
    pub now: bson::DateTime,
    /// The commit timestamp of everything this evaluation writes; above every earlier one of the shard.
    pub commit_timestamp: Timestamp,
    /// Whether to evaluate whatever comes, by whatever shard map it was routed: a bug that the simulator must find.
    #[cfg(feature = "bugs")]
    pub route_unchecked: bool,
}

/// What comes out of an evaluation.
struct Evaluation {
    /// The changes, without those of the counters; empty when there is nothing to propose.
    batch: KvBatch,
    /// The answer, to be given once the batch is committed.
    reply: base::Result<ShardReply>,
    /// The shard's state from here on, when it changed; the batch carries it too.
    new_state: Option<ShardState>,
    /// What the batch does to the counters.
    counted: CountChange,
    /// The retry record that the batch puts, with those of the session that were taken over.
    record: Option<(SessionId, RetryRecord, TakenRecords)>,
}

/// Retry records of one session that were taken over from other shards.
type TakenRecords = Arc<[(ShardId, RetryRecord)]>;

/// A shard's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum ShardReply {
    /// To `Write`: a result for every statement that was tried, in order.
    Write(Vec<StatementResult>),
    /// To `Configure`.
    Configured,
    /// To `Backfill`.
    Backfilled {
        /// Entries that were missing.
        entries: u64,
    },
    /// To `PurgeIndex`.
    Purged {
        /// Entries that were removed.
        entries: u64,
        /// Whether none is left and the index is gone.
        done: bool,
    },
    /// To `Receive`: how far the source is known to be copied.
    Received(Source),
    /// To `Probe`.
    Probed(ProbeReply),
    /// To `PurgeNotes`.
    NotesPurged {
        /// Whether none is left.
        done: bool,
    },
    /// To `ExpireSessions`.
    Expired {
        /// Records that were removed.
        sessions: u64,
        /// Whether none is left that is old enough.
        done: bool,
    },
}

/// What became of one statement.
#[derive(Clone, Debug, PartialEq)]
pub struct StatementResult {
    /// The statement's place in the request.
    pub statement: usize,
    /// What it did, or why it did nothing. An error in a `multi` statement leaves in place what it did before.
    pub outcome: base::Result<Outcome>,
    /// Whether this is the recorded outcome of an earlier execution. The outcome of a `multi` statement that comes in
    /// several requests counts what the earlier ones did.
    pub repeated: bool,
}

/// What a statement did.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The document was inserted.
    Inserted,
    /// Documents were updated, or one was upserted.
    Updated {
        /// Documents that matched.
        matched: u64,
        /// Documents that changed.
        modified: u64,
        /// The `_id` of the document that was inserted because nothing matched.
        upserted: Option<Bson>,
        /// The document that the statement asked to have returned.
        document: Option<DocBuf>,
    },
    /// Documents were deleted.
    Deleted {
        /// How many.
        deleted: u64,
        /// The document that the statement asked to have returned.
        document: Option<DocBuf>,
    },
    /// None of the candidates matches any more, and others may: look for candidates again. Nothing was done, and an
    /// ordered request ends here.
    LostCandidate,
}

fn evaluate(
    state: &ShardState,
    records: &mut Records,
    cx: &WriteContext,
    reader: &dyn Reader,
    command: &ShardCommand,
) -> Result<Evaluation, Fault> {
    match command {
        ShardCommand::Write(request) => write::evaluate(state, records, cx, reader, request),
        ShardCommand::Configure(change) => Ok(configure::change(state, change)),
        ShardCommand::Backfill { namespace, index, document_keys } => {
            configure::backfill(state, reader, namespace, *index, document_keys)
        }
        ShardCommand::PurgeIndex { index, limit } => configure::purge(state, reader, *index, *limit),
        ShardCommand::ExpireSessions { before_wall_ms } => retry::expire(state, reader, *before_wall_ms),
        ShardCommand::Receive(batch) => receive::evaluate(state, reader, batch),
        ShardCommand::Probe(probe) => probe::evaluate(state, records, cx, reader, probe),
        ShardCommand::PurgeNotes { limit } => notes::purge(state, reader, *limit),
    }
}

impl Evaluation {
    /// An evaluation that touches neither the shard's state nor its counters.
    fn new(batch: KvBatch, reply: base::Result<ShardReply>) -> Evaluation {
        Evaluation { batch, reply, new_state: None, counted: CountChange::default(), record: None }
    }

    /// An evaluation that changes nothing.
    fn refused(error: base::Error) -> Evaluation {
        Evaluation::new(KvBatch::default(), Err(error))
    }
}

/// Why a step of an evaluation stopped.
pub(crate) enum Stop {
    /// The user's doing.
    Error(base::Error),
    /// The user's doing: a key is taken by the document under `document_key`.
    Duplicate {
        /// The error for the reply.
        error: base::Error,
        /// Who has the key.
        document_key: Vec<u8>,
    },
    /// The store's.
    Fault(Fault),
}

impl From<base::Error> for Stop {
    fn from(error: base::Error) -> Stop {
        Stop::Error(error)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault)
    }
}

/// Separates the user's errors, which become replies, from faults, which stop the node.
pub(crate) fn split<T>(result: Result<T, Stop>) -> Result<base::Result<T>, Fault> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Stop::Error(error) | Stop::Duplicate { error, .. }) => Ok(Err(error)),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}
