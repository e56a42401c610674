//! Requests between nodes and their answers.

use base::{BootId, Error, LogIndex, NodeId, RequestId, Result, SessionId, ShardId};
use bytes::Bytes;
use router::command::CursorId;
use router::peer::{Behind, Operation, PeerFailure, PeerReply, PeerRequest, RemoteOperation};

use super::command::Explained;
use super::{Wire, required};
use crate::v1;

/// Reads a request.
pub(crate) fn request_from_wire(request: v1::Request) -> Result<PeerRequest> {
    required(request.request, "a request")
}

/// An answer with the number of its request. What cannot be encoded becomes an error about that.
pub(crate) fn answer_to_wire(sequence: u64, answer: Result<PeerReply, PeerFailure>) -> v1::Answer {
    let answer = answer.into_wire().unwrap_or_else(|error| {
        let message = Some(v1::Error { code: error.code.0, message: error.message, details: None });
        v1::answer::Answer::Refusal(v1::Refusal { error: message, primary: None })
    });
    v1::Answer { sequence, answer: Some(answer) }
}

impl Wire for PeerRequest {
    type Message = v1::request::Request;

    fn into_wire(self) -> Result<v1::request::Request> {
        use v1::request::Request;
        Ok(match self {
            PeerRequest::Operation(operation) => Request::Operation(operation.into_wire()?),
            PeerRequest::CatalogWrite(command) => Request::CatalogWrite(command.into_wire()?),
            PeerRequest::CatalogIndex => Request::CatalogIndex(v1::CatalogIndex {}),
            PeerRequest::ShardIndex(shard) => Request::ShardIndex(v1::ShardIndex { shard: shard.get() }),
            PeerRequest::Status => Request::Status(v1::NodeStatus {}),
        })
    }

    fn from_wire(message: v1::request::Request) -> Result<PeerRequest> {
        use v1::request::Request;
        Ok(match message {
            Request::Operation(operation) => PeerRequest::Operation(Box::new(Wire::from_wire(operation)?)),
            Request::CatalogWrite(command) => PeerRequest::CatalogWrite(Box::new(Wire::from_wire(command)?)),
            Request::CatalogIndex(v1::CatalogIndex {}) => PeerRequest::CatalogIndex,
            Request::ShardIndex(v1::ShardIndex { shard }) => PeerRequest::ShardIndex(ShardId(shard)),
            Request::Status(v1::NodeStatus {}) => PeerRequest::Status,
        })
    }
}

impl Wire for RemoteOperation {
    type Message = v1::RemoteOperation;

    fn into_wire(self) -> Result<v1::RemoteOperation> {
        Ok(v1::RemoteOperation {
            shard: self.shard.get(),
            timeout_ms: self.timeout_ms,
            session: self.session.map(|session| Bytes::copy_from_slice(&session.0)),
            txn_number: self.txn_number,
            identity_boot: self.identity.boot.get(),
            identity_sequence: self.identity.sequence,
            connection: self.connection,
            behind: self.behind.map(|behind| v1::Behind {
                at_least: behind.at_least.get(),
                staleness_ms_max: behind.staleness_ms_max,
            }),
            operation: Some(self.operation.into_wire()?),
        })
    }

    fn from_wire(message: v1::RemoteOperation) -> Result<RemoteOperation> {
        let session = message.session.map(|session| match session.as_ref().try_into() {
            Ok(uuid) => Ok(SessionId(uuid)),
            Err(_) => Err(Error::failed_to_parse("a session does not have 16 bytes")),
        });
        Ok(RemoteOperation {
            shard: ShardId(message.shard),
            timeout_ms: message.timeout_ms,
            session: session.transpose()?,
            txn_number: message.txn_number,
            identity: RequestId { boot: BootId(message.identity_boot), sequence: message.identity_sequence },
            connection: message.connection,
            behind: message.behind.map(|behind| Behind {
                at_least: LogIndex(behind.at_least),
                staleness_ms_max: behind.staleness_ms_max,
            }),
            operation: required(message.operation, "an operation")?,
        })
    }
}

impl Wire for Operation {
    type Message = v1::remote_operation::Operation;

    fn into_wire(self) -> Result<v1::remote_operation::Operation> {
        use v1::remote_operation::Operation as Message;
        Ok(match self {
            Operation::Insert(command) => Message::Insert(command.into_wire()?),
            Operation::Update(command) => Message::Update(command.into_wire()?),
            Operation::Delete(command) => Message::Delete(command.into_wire()?),
            Operation::FindAndModify(command) => Message::FindAndModify(command.into_wire()?),
            Operation::Find(command) => Message::Find(command.into_wire()?),
            Operation::GetMore(command) => Message::GetMore(command.into_wire()?),
            Operation::KillCursors { namespace, cursors } => {
                let cursors = cursors.into_iter().map(|cursor| cursor.0).collect();
                Message::KillCursors(v1::KillCursors { namespace, cursors })
            }
            Operation::Count(command) => Message::Count(command.into_wire()?),
            Operation::Distinct(command) => Message::Distinct(command.into_wire()?),
            Operation::Aggregate(command) => Message::Aggregate(command.into_wire()?),
            Operation::Explain(command, verbosity) => {
                Message::Explain(Explained(command, verbosity).into_wire()?)
            }
            Operation::CollectionStats(namespace) => Message::CollectionStats(namespace.into_wire()?),
            Operation::Validate(namespace) => Message::Validate(namespace.into_wire()?),
            Operation::Reconcile => Message::Reconcile(v1::Reconcile {}),
        })
    }

    fn from_wire(message: v1::remote_operation::Operation) -> Result<Operation> {
        use v1::remote_operation::Operation as Message;
        Ok(match message {
            Message::Insert(command) => Operation::Insert(Wire::from_wire(command)?),
            Message::Update(command) => Operation::Update(Wire::from_wire(command)?),
            Message::Delete(command) => Operation::Delete(Wire::from_wire(command)?),
            Message::FindAndModify(command) => Operation::FindAndModify(Wire::from_wire(command)?),
            Message::Find(command) => Operation::Find(Wire::from_wire(command)?),
            Message::GetMore(command) => Operation::GetMore(Wire::from_wire(command)?),
            Message::KillCursors(v1::KillCursors { namespace, cursors }) => {
                let cursors = cursors.into_iter().map(CursorId).collect();
                Operation::KillCursors { namespace, cursors }
            }
            Message::Count(command) => Operation::Count(Wire::from_wire(command)?),
            Message::Distinct(command) => Operation::Distinct(Wire::from_wire(command)?),
            Message::Aggregate(command) => Operation::Aggregate(Wire::from_wire(command)?),
            Message::Explain(explain) => {
                let Explained(command, verbosity) = Wire::from_wire(explain)?;
                Operation::Explain(command, verbosity)
            }
            Message::CollectionStats(namespace) => Operation::CollectionStats(Wire::from_wire(namespace)?),
            Message::Validate(namespace) => Operation::Validate(Wire::from_wire(namespace)?),
            Message::Reconcile(v1::Reconcile {}) => Operation::Reconcile,
        })
    }
}

impl Wire for Result<PeerReply, PeerFailure> {
    type Message = v1::answer::Answer;

    fn into_wire(self) -> Result<v1::answer::Answer> {
        use v1::answer::Answer;
        Ok(match self {
            Ok(PeerReply::Operation { reply, applied }) => {
                let reply = reply.into_wire()?;
                Answer::Operation(v1::OperationReply { applied: applied.get(), ..reply })
            }
            Ok(PeerReply::CatalogWrite(reply)) => Answer::CatalogWrite(reply.into_wire()?),
            Ok(PeerReply::Index(index)) => Answer::Index(index.get()),
            Ok(PeerReply::Status(status)) => Answer::Status(status.into_wire()?),
            Err(PeerFailure::Unreachable(reason)) => Answer::Unreachable(reason),
            Err(PeerFailure::Refused { error, primary }) => Answer::Refusal(v1::Refusal {
                error: Some(error.into_wire()?),
                primary: primary.map(NodeId::get),
            }),
        })
    }

    fn from_wire(message: v1::answer::Answer) -> Result<Self> {
        use v1::answer::Answer;
        Ok(match message {
            Answer::Operation(reply) => {
                let applied = LogIndex(reply.applied);
                Ok(PeerReply::Operation { reply: Box::new(Wire::from_wire(reply)?), applied })
            }
            Answer::CatalogWrite(reply) => Ok(PeerReply::CatalogWrite(Box::new(Wire::from_wire(reply)?))),
            Answer::Index(index) => Ok(PeerReply::Index(LogIndex(index))),
            Answer::Status(status) => Ok(PeerReply::Status(Wire::from_wire(status)?)),
            Answer::Unreachable(reason) => Err(PeerFailure::Unreachable(reason)),
            Answer::Refusal(refusal) => Err(PeerFailure::Refused {
                error: required(refusal.error, "an error")?,
                primary: refusal.primary.map(NodeId),
            }),
        })
    }
}
