//! What other nodes ask of this one: operations on shards whose primary is here, and the catalog where it is led.
//!
//! Called by `rpc`, one task for each request. Always holds: an operation is executed only where this node's replica leads
//! as far as it knows; a refusal says who does.

use std::time::Duration;

use base::{Code, Error, LogIndex, NodeId, Result};
use replica::{ReplicaHandle, StateMachine};

use crate::peer::{Operation, OperationReply, PeerFailure, PeerReply, PeerRequest, RemoteOperation};
use crate::{OperationContext, Router};

/// Connections of other nodes are counted apart from this node's own.
const CONNECTION_BITS: u32 = 40;

impl Router {
    /// Answers a request of another node.
    pub async fn serve_peer(&self, from: NodeId, request: PeerRequest) -> Result<PeerReply, PeerFailure> {
        match request {
            PeerRequest::Operation(operation) => self.serve_operation(from, *operation).await,
            PeerRequest::CatalogWrite(command) => {
                let replica = self.catalog_replica();
                self.check_leads(&replica)?;
                let reply =
                    replica.write(*command).await.map_err(|error| refused(&replica, self.node, error))?;
                Ok(PeerReply::CatalogWrite(Box::new(reply)))
            }
            PeerRequest::CatalogIndex => self.serve_catalog_index().await.map(PeerReply::CatalogIndex),
            PeerRequest::Status => Ok(PeerReply::Status(self.node_status().await)),
        }
    }

    /// Executes an operation on this node's replica. Fails as stale when that does not lead.
    pub(crate) async fn execute(
        &self,
        cx: &OperationContext,
        operation: Operation,
    ) -> Result<OperationReply> {
        Ok(match operation {
            Operation::Insert(command) => OperationReply::Write(self.insert_here(cx, command).await?),
            Operation::Update(command) => OperationReply::Write(self.update_here(cx, command).await?),
            Operation::Delete(command) => OperationReply::Write(self.delete_here(cx, command).await?),
            Operation::FindAndModify(command) => {
                OperationReply::FindAndModify(self.find_and_modify_here(cx, command).await?)
            }
            Operation::Find(command) => OperationReply::Cursor(self.find_here(cx, command).await?),
            Operation::GetMore(command) => OperationReply::Cursor(self.get_more_here(cx, command).await?),
            Operation::KillCursors { namespace, cursors } => {
                let killed = cursors.into_iter().filter(|cursor| self.kill_cursor(*cursor, &namespace));
                OperationReply::Killed(killed.collect())
            }
            Operation::Count(command) => OperationReply::Count(self.count_here(cx, command).await?),
            Operation::Distinct(command) => OperationReply::Values(self.distinct_here(cx, command).await?),
            Operation::Aggregate(command) => OperationReply::Cursor(self.aggregate_here(cx, command).await?),
            Operation::Explain(command, verbosity) => {
                OperationReply::Document(self.explain_here(cx, command, verbosity).await?)
            }
            Operation::CollectionStats(namespace) => {
                OperationReply::CollectionStats(self.collection_stats_here(namespace).await?)
            }
            Operation::Reconcile => {
                self.catalog_now().await?;
                self.reconcile().await?;
                OperationReply::Reconciled
            }
            Operation::Validate(namespace) => OperationReply::Document(self.validate_here(namespace).await?),
        })
    }

    async fn serve_operation(
        &self,
        from: NodeId,
        request: RemoteOperation,
    ) -> Result<PeerReply, PeerFailure> {
        let goes_by_cursor =
            matches!(request.operation, Operation::GetMore(_) | Operation::KillCursors { .. });
        let replica = self.host.shard(request.shard);
        if !goes_by_cursor {
            let replica = replica.as_ref().ok_or_else(|| {
                let error = Error::new(Code::STALE_CONFIG, format!("{} has no replica here", request.shard));
                PeerFailure::Refused { error, primary: None }
            })?;
            self.check_leads(replica)?;
        }
        let deadline = self.clock.monotonic() + Duration::from_millis(request.timeout_ms);
        let cx = OperationContext {
            deadline: Some(deadline),
            session: request.session,
            txn_number: request.txn_number,
            identity: Some(request.identity),
            connection: (u64::from(from.get()) << CONNECTION_BITS) | request.connection,
            ..OperationContext::default()
        };
        match self.execute(&cx, request.operation).await {
            Ok(reply) => Ok(PeerReply::Operation(Box::new(reply))),
            Err(error) => Err(match &replica {
                Some(replica) => refused(replica, self.node, error),
                None => PeerFailure::Refused { error, primary: None },
            }),
        }
    }

    /// An index that covers everything committed before: the read waited until this replica has applied that.
    async fn serve_catalog_index(&self) -> Result<LogIndex, PeerFailure> {
        let replica = self.catalog_replica();
        self.check_leads(&replica)?;
        replica.read().await.map_err(|error| refused(&replica, self.node, error))?;
        Ok(replica.applied_index())
    }

    fn check_leads<M: StateMachine>(&self, replica: &ReplicaHandle<M>) -> Result<(), PeerFailure> {
        if self.is_here(replica) {
            return Ok(());
        }
        let error = Error::new(
            Code::NOT_WRITABLE_PRIMARY,
            format!("the replica of {} on {} is not the primary", replica.shard(), self.node),
        );
        Err(refused(replica, self.node, error))
    }
}

/// A refusal, with where the primary is when this node knows that it is another.
fn refused<M: StateMachine>(replica: &ReplicaHandle<M>, own: NodeId, error: Error) -> PeerFailure {
    // A node that stops has done nothing, or nobody knows; either way another node goes on.
    let error = match error.code {
        Code::SHUTDOWN_IN_PROGRESS | Code::INTERRUPTED_AT_SHUTDOWN => {
            Error::new(Code::INTERRUPTED_DUE_TO_REPL_STATE_CHANGE, error.message)
        }
        _ => error,
    };
    PeerFailure::Refused { error, primary: replica.leader_node().filter(|node| *node != own) }
}
