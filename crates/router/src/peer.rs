//! What a router asks of the routers of other nodes, and the way there.
//!
//! Implemented by `rpc` over gRPC and by tests in memory; called by the router for whatever this node cannot do itself: its
//! replica of the shard, or of the catalog, does not lead. Always holds: a request that may write carries an identity, so
//! that sending it again, to whichever node, writes once.

use std::time::Duration;

use async_trait::async_trait;
use base::{Error, LogIndex, NodeId, RequestId, SessionId, ShardId};
use bson::{Bson, Document};

use crate::command::{
    CollectionStats, CountCommand, CursorId, DeleteCommand, DistinctCommand, ExplainCommand,
    FindAndModifyCommand, FindAndModifyReply, Found, InsertCommand, ScanCommand, ScanReply, ScanSize,
    SeekCommand, SeekReply, UpdateCommand, Verbosity, WriteReply,
};

/// A request from one node to another.
#[derive(Clone, Debug)]
pub enum PeerRequest {
    /// A command on the documents of one shard, for the node of its primary.
    Operation(Box<RemoteOperation>),
    /// Several of them, which the node executes at the same time.
    Operations(Vec<RemoteOperation>),
    /// A change of the catalog, for the node of the catalog's leader.
    CatalogWrite(Box<catalog::Command>),
    /// Asks the catalog's leader for an index: who has applied it knows everything that was committed before.
    CatalogIndex,
    /// Asks the node of a shard's primary for an index: who has applied it knows every write answered before.
    ShardIndex(ShardId),
    /// How far the node's replicas are.
    Status,
    /// What the shards weigh that the node leads, for the balancer.
    Loads,
    /// Asks the node of a shard's primary to make the replica on another node the primary.
    HandOver {
        /// The shard.
        shard: ShardId,
        /// The other node.
        to: NodeId,
    },
}

/// A command with what surrounds it.
#[derive(Clone, Debug)]
pub struct RemoteOperation {
    /// The shard that it is about.
    pub shard: ShardId,
    /// Milliseconds from now after which nobody waits for the answer.
    pub timeout_ms: u64,
    /// The client's logical session.
    pub session: Option<SessionId>,
    /// The number of the client's retryable write.
    pub txn_number: Option<i64>,
    /// By which a repeat is recognised when the client gave no number.
    pub identity: RequestId,
    /// The connection, on the sender, that it came by.
    pub connection: u64,
    /// For a write of one document that may be in any shard: what the router found out before.
    pub found: Option<Found>,
    /// For a read that any replica may answer: what the replica must have. `None` asks the primary.
    pub behind: Option<Behind>,
    /// What to do.
    pub operation: Operation,
}

/// What a replica that is not the primary must have to answer a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The index that it has applied.
    pub at_least: LogIndex,
    /// How long ago, in milliseconds, it had everything at most; `None` for any time.
    pub staleness_ms_max: Option<u64>,
}

/// A command that the node of a shard's primary executes.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum Operation {
    Insert(InsertCommand),
    Update(UpdateCommand),
    Delete(DeleteCommand),
    FindAndModify(FindAndModifyCommand),
    Scan(ScanCommand),
    /// The next batch of a scan.
    Continue {
        namespace: String,
        cursor: CursorId,
        size: ScanSize,
    },
    Seek(SeekCommand),
    KillCursors {
        namespace: String,
        cursors: Vec<CursorId>,
    },
    Count(CountCommand),
    Distinct(DistinctCommand),
    Explain(ExplainCommand, Verbosity),
    CollectionStats(base::Namespace),
    Validate(base::Namespace),
    /// Brings the shard in line with the catalog as of now: on return no index that was dropped is in use.
    Reconcile,
    /// A piece of a shard whose place this one is about to take.
    Receive(query::evaluate::Batch),
}

impl Operation {
    /// Whether it writes documents.
    pub(crate) fn is_write(&self) -> bool {
        matches!(
            self,
            Operation::Insert(_) | Operation::Update(_) | Operation::Delete(_) | Operation::FindAndModify(_)
        )
    }
}

/// An answer to a [`PeerRequest`].
#[derive(Clone, Debug)]
pub enum PeerReply {
    /// To `Operation`.
    Operation(Box<Executed>),
    /// To `Operations`, in their order.
    Operations(Vec<Result<Executed, PeerFailure>>),
    /// To `CatalogWrite`.
    CatalogWrite(Box<catalog::Reply>),
    /// To `CatalogIndex` and `ShardIndex`; to `HandOver`, what was committed before.
    Index(LogIndex),
    /// To `Status`: a document as `psdb status --json` has it for one node. To `Loads`: see `balancing`.
    Status(Document),
}

/// An answer to an [`Operation`], and who gave it.
#[derive(Clone, Debug)]
pub struct Executed {
    /// The answer.
    pub reply: OperationReply,
    /// What the replica that gave it had applied by then.
    pub applied: LogIndex,
}

/// An answer to an [`Operation`].
#[derive(Clone, Debug)]
pub enum OperationReply {
    /// To `Insert`, `Update`, `Delete`.
    Write(WriteReply),
    /// To `FindAndModify`.
    FindAndModify(FindAndModifyReply),
    /// To `Scan` and `Continue`.
    Scan(ScanReply),
    /// To `Seek`.
    Seek(SeekReply),
    /// To `Receive`: how far copying has come.
    Received(query::state::Source),
    /// To `KillCursors`: those that were open.
    Killed(Vec<CursorId>),
    /// To `Count`.
    Count(u64),
    /// To `Distinct`.
    Values(Vec<Bson>),
    /// To `Explain` and `Validate`.
    Document(Document),
    /// To `CollectionStats`.
    CollectionStats(CollectionStats),
    /// To `Reconcile`.
    Reconciled,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerFailure {
    /// The other node did not answer: nobody knows whether it did what it was asked.
    Unreachable(String),
    /// It answered with an error.
    Refused {
        /// The error.
        error: Error,
        /// The node of the primary (of the catalog's leader), where the refusing node is not it and knows.
        primary: Option<NodeId>,
    },
}

/// Carries requests to other nodes.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Sends a request and waits for its answer, at most `timeout`. A peer that stops answering altogether fails its
    /// requests before that.
    async fn call(
        &self,
        to: NodeId,
        request: PeerRequest,
        timeout: Duration,
    ) -> Result<PeerReply, PeerFailure>;
}

/// The way to other nodes of a node that is alone.
#[derive(Debug, Default)]
pub struct NoPeers;

#[async_trait]
impl Peers for NoPeers {
    async fn call(&self, to: NodeId, _: PeerRequest, _: Duration) -> Result<PeerReply, PeerFailure> {
        Err(PeerFailure::Unreachable(format!("this node knows no way to {to}")))
    }
}
