//! Requests between nodes and their answers.

use base::{BootId, Error, LogIndex, NodeId, RequestId, Result, SessionId, ShardId};
use bytes::Bytes;
use router::command::CursorId;
use router::peer::{Behind, Executed, Operation, PeerFailure, PeerReply, PeerRequest, RemoteOperation};

use super::command::Explained;
use super::scan::Continued;
use super::{Wire, all_from, all_into, missing, required};
use crate::v1;

/// Operations in one request, at most: more than a collection has shards.
pub(super) const OPERATIONS_MAX: usize = 16_384;

/// Reads a request.
pub(crate) fn request_from_wire(request: v1::Request) -> Result<PeerRequest> {
    required(request.request, "a request")
}

/// An answer with the number of its request. What cannot be encoded becomes an error about that.
pub(crate) fn answer_to_wire(sequence: u64, answer: Result<PeerReply, PeerFailure>) -> v1::Answer {
    let answer = answer.into_wire().unwrap_or_else(|error| v1::answer::Answer::Refusal(not_encoded(error)));
    v1::Answer { sequence, answer: Some(answer) }
}

/// Says that an answer cannot be encoded.
fn not_encoded(error: Error) -> v1::Refusal {
    let message = Some(v1::Error { code: error.code.0, message: error.message, details: None });
    v1::Refusal { error: message, primary: None }
}

/// Reads what there is one of for each operation of a request.
fn for_each_operation<T: Wire>(messages: Vec<T::Message>) -> Result<Vec<T>> {
    match messages.len() {
        0..=OPERATIONS_MAX => all_from(messages),
        more => Err(Error::failed_to_parse(format!(
            "a request has at most {OPERATIONS_MAX} operations, not {more}"
        ))),
    }
}

impl Wire for PeerRequest {
    type Message = v1::request::Request;

    fn into_wire(self) -> Result<v1::request::Request> {
        use v1::request::Request;
        Ok(match self {
            PeerRequest::Operation(operation) => Request::Operation(operation.into_wire()?),
            PeerRequest::Operations(operations) => {
                let operations = all_into(operations)?;
                Request::Operations(v1::RemoteOperations { operations })
            }
            PeerRequest::CatalogWrite(command) => Request::CatalogWrite(command.into_wire()?),
            PeerRequest::CatalogIndex => Request::CatalogIndex(v1::CatalogIndex {}),
            PeerRequest::ShardIndex(shard) => Request::ShardIndex(v1::ShardIndex { shard: shard.get() }),
            PeerRequest::Status => Request::Status(v1::NodeStatus {}),
            PeerRequest::Loads => Request::Loads(v1::NodeLoads {}),
            PeerRequest::HandOver { shard, to } => {
                Request::HandOver(v1::HandOver { shard: shard.get(), to: to.get() })
            }
        })
    }

    fn from_wire(message: v1::request::Request) -> Result<PeerRequest> {
        use v1::request::Request;
        Ok(match message {
            Request::Operation(operation) => PeerRequest::Operation(Box::new(Wire::from_wire(operation)?)),
            Request::Operations(v1::RemoteOperations { operations }) => {
                PeerRequest::Operations(for_each_operation(operations)?)
            }
            Request::CatalogWrite(command) => PeerRequest::CatalogWrite(Box::new(Wire::from_wire(command)?)),
            Request::CatalogIndex(v1::CatalogIndex {}) => PeerRequest::CatalogIndex,
            Request::ShardIndex(v1::ShardIndex { shard }) => PeerRequest::ShardIndex(ShardId(shard)),
            Request::Status(v1::NodeStatus {}) => PeerRequest::Status,
            Request::Loads(v1::NodeLoads {}) => PeerRequest::Loads,
            Request::HandOver(v1::HandOver { shard, to }) => {
                PeerRequest::HandOver { shard: ShardId(shard), to: NodeId(to) }
            }
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
            found: self.found.into_wire()?,
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
            found: Wire::from_wire(message.found)?,
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
            Operation::Scan(command) => Message::Scan(command.into_wire()?),
            Operation::Continue { namespace, cursor, size } => {
                Message::ContinueScan(Continued { namespace, cursor, size }.into_wire()?)
            }
            Operation::Seek(command) => Message::Seek(command.into_wire()?),
            Operation::KillCursors { namespace, cursors } => {
                let cursors = cursors.into_iter().map(|cursor| cursor.0).collect();
                Message::KillCursors(v1::KillCursors { namespace, cursors })
            }
            Operation::Count(command) => Message::Count(command.into_wire()?),
            Operation::Distinct(command) => Message::Distinct(command.into_wire()?),
            Operation::Explain(command, verbosity) => {
                Message::Explain(Explained(command, verbosity).into_wire()?)
            }
            Operation::CollectionStats(namespace) => Message::CollectionStats(namespace.into_wire()?),
            Operation::Validate(namespace) => Message::Validate(namespace.into_wire()?),
            Operation::Reconcile => Message::Reconcile(v1::Reconcile {}),
            Operation::Receive(batch) => Message::Receive(batch.into_wire()?),
        })
    }

    fn from_wire(message: v1::remote_operation::Operation) -> Result<Operation> {
        use v1::remote_operation::Operation as Message;
        Ok(match message {
            Message::Insert(command) => Operation::Insert(Wire::from_wire(command)?),
            Message::Update(command) => Operation::Update(Wire::from_wire(command)?),
            Message::Delete(command) => Operation::Delete(Wire::from_wire(command)?),
            Message::FindAndModify(command) => Operation::FindAndModify(Wire::from_wire(command)?),
            Message::Scan(command) => Operation::Scan(Wire::from_wire(command)?),
            Message::ContinueScan(continued) => {
                let Continued { namespace, cursor, size } = Wire::from_wire(continued)?;
                Operation::Continue { namespace, cursor, size }
            }
            Message::Seek(command) => Operation::Seek(Wire::from_wire(command)?),
            Message::KillCursors(v1::KillCursors { namespace, cursors }) => {
                let cursors = cursors.into_iter().map(CursorId).collect();
                Operation::KillCursors { namespace, cursors }
            }
            Message::Count(command) => Operation::Count(Wire::from_wire(command)?),
            Message::Distinct(command) => Operation::Distinct(Wire::from_wire(command)?),
            Message::Explain(explain) => {
                let Explained(command, verbosity) = Wire::from_wire(explain)?;
                Operation::Explain(command, verbosity)
            }
            Message::CollectionStats(namespace) => Operation::CollectionStats(Wire::from_wire(namespace)?),
            Message::Validate(namespace) => Operation::Validate(Wire::from_wire(namespace)?),
            Message::Reconcile(v1::Reconcile {}) => Operation::Reconcile,
            Message::Receive(batch) => Operation::Receive(Wire::from_wire(batch)?),
        })
    }
}

impl Wire for Result<PeerReply, PeerFailure> {
    type Message = v1::answer::Answer;

    fn into_wire(self) -> Result<v1::answer::Answer> {
        use v1::answer::Answer;
        Ok(match self {
            Ok(PeerReply::Operation(executed)) => Answer::Operation(executed.into_wire()?),
            Ok(PeerReply::Operations(outcomes)) => {
                let outcomes = all_into(outcomes)?;
                Answer::Operations(v1::OperationOutcomes { outcomes })
            }
            Ok(PeerReply::CatalogWrite(reply)) => Answer::CatalogWrite(reply.into_wire()?),
            Ok(PeerReply::Index(index)) => Answer::Index(index.get()),
            Ok(PeerReply::Status(status)) => Answer::Status(status.into_wire()?),
            Err(PeerFailure::Unreachable(reason)) => Answer::Unreachable(reason),
            Err(PeerFailure::Refused { error, primary }) => {
                Answer::Refusal(Refused { error, primary }.into_wire()?)
            }
        })
    }

    fn from_wire(message: v1::answer::Answer) -> Result<Self> {
        use v1::answer::Answer;
        Ok(match message {
            Answer::Operation(reply) => Ok(PeerReply::Operation(Box::new(Wire::from_wire(reply)?))),
            Answer::Operations(v1::OperationOutcomes { outcomes }) => {
                Ok(PeerReply::Operations(for_each_operation(outcomes)?))
            }
            Answer::CatalogWrite(reply) => Ok(PeerReply::CatalogWrite(Box::new(Wire::from_wire(reply)?))),
            Answer::Index(index) => Ok(PeerReply::Index(LogIndex(index))),
            Answer::Status(status) => Ok(PeerReply::Status(Wire::from_wire(status)?)),
            Answer::Unreachable(reason) => Err(PeerFailure::Unreachable(reason)),
            Answer::Refusal(refusal) => Err(Refused::from_wire(refusal)?.into()),
        })
    }
}

impl Wire for Result<Executed, PeerFailure> {
    type Message = v1::OperationOutcome;

    /// What cannot be encoded becomes an error about that: the other operations have their answers.
    fn into_wire(self) -> Result<v1::OperationOutcome> {
        use v1::operation_outcome::Outcome;
        let outcome = match self {
            Ok(executed) => executed.into_wire().map(Outcome::Reply),
            Err(PeerFailure::Unreachable(reason)) => Ok(Outcome::Unreachable(reason)),
            Err(PeerFailure::Refused { error, primary }) => {
                Refused { error, primary }.into_wire().map(Outcome::Refusal)
            }
        };
        let outcome = outcome.unwrap_or_else(|error| Outcome::Refusal(not_encoded(error)));
        Ok(v1::OperationOutcome { outcome: Some(outcome) })
    }

    fn from_wire(message: v1::OperationOutcome) -> Result<Self> {
        use v1::operation_outcome::Outcome;
        Ok(match message.outcome.ok_or_else(|| missing("an outcome"))? {
            Outcome::Reply(reply) => Ok(Wire::from_wire(reply)?),
            Outcome::Unreachable(reason) => Err(PeerFailure::Unreachable(reason)),
            Outcome::Refusal(refusal) => Err(Refused::from_wire(refusal)?.into()),
        })
    }
}

/// [`PeerFailure::Refused`].
struct Refused {
    error: Error,
    primary: Option<NodeId>,
}

impl From<Refused> for PeerFailure {
    fn from(Refused { error, primary }: Refused) -> PeerFailure {
        PeerFailure::Refused { error, primary }
    }
}

impl Wire for Refused {
    type Message = v1::Refusal;

    fn into_wire(self) -> Result<v1::Refusal> {
        Ok(v1::Refusal { error: Some(self.error.into_wire()?), primary: self.primary.map(NodeId::get) })
    }

    fn from_wire(message: v1::Refusal) -> Result<Refused> {
        Ok(Refused { error: required(message.error, "an error")?, primary: message.primary.map(NodeId) })
    }
}
