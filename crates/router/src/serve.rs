//! What other nodes ask of this one: operations on shards whose primary is here, and the catalog where it is led.
//!
//! Called by `rpc`, one task for each request. Always holds: an operation is executed only where this node's replica leads
//! as far as it knows; a refusal says who does.

use std::time::Duration;

use base::{Code, Error, LogIndex, NodeId, Result, ShardId};
use catalog::CollectionState;
use futures::future::join_all;
use query::evaluate::{ShardCommand, ShardReply};
use replica::{ReplicaHandle, StateMachine};

use crate::command::ReadSource;
use crate::peer::{
    Behind, Executed, Operation, OperationReply, PeerFailure, PeerReply, PeerRequest, RemoteOperation,
};
use crate::resolve::Place;
use crate::{OperationContext, Router};

/// Connections of other nodes are counted apart from this node's own.
const CONNECTION_BITS: u32 = 40;

impl Router {
    /// Answers a request of another node.
    pub async fn serve_peer(&self, from: NodeId, request: PeerRequest) -> Result<PeerReply, PeerFailure> {
        match request {
            PeerRequest::Operation(operation) => {
                let executed = self.serve_operation(from, *operation).await?;
                Ok(PeerReply::Operation(Box::new(executed)))
            }
            PeerRequest::Operations(operations) => {
                let each = operations.into_iter().map(|operation| self.serve_operation(from, operation));
                Ok(PeerReply::Operations(join_all(each).await))
            }
            PeerRequest::CatalogWrite(command) => {
                let replica = self.catalog_replica();
                self.check_leads(&replica)?;
                let reply =
                    replica.write(*command).await.map_err(|error| refused(&replica, self.node, error))?;
                Ok(PeerReply::CatalogWrite(Box::new(reply)))
            }
            PeerRequest::CatalogIndex => index_of(&self.catalog_replica(), self).await.map(PeerReply::Index),
            PeerRequest::ShardIndex(shard) => self.shard_index_here(shard).await.map(PeerReply::Index),
            PeerRequest::HandOver { shard, to } => {
                let failed = |error| PeerFailure::Refused { error, primary: None };
                self.hand_over_here(shard, to).await.map(PeerReply::Index).map_err(failed)
            }
            PeerRequest::Status => Ok(PeerReply::Status(self.node_status().await)),
            PeerRequest::Loads => Ok(PeerReply::Status(self.loads_here().await)),
        }
    }

    /// What this node's replica of a shard has committed. Fails as stale when it does not lead.
    pub(crate) async fn shard_index_here(&self, shard: ShardId) -> Result<LogIndex, PeerFailure> {
        let replica = self.host.shard(shard).ok_or_else(|| not_here(shard))?;
        let index = index_of(&replica, self).await?;
        // Whoever asks waits for another replica to have that.
        replica.announce_commit();
        Ok(index)
    }

    /// Executes an operation on this node's replica of a shard; `None` where there is no such collection. A write goes to this
    /// shard or nowhere. Fails as stale when the replica does not lead.
    pub(crate) async fn execute(
        &self,
        cx: &OperationContext,
        place: Option<&Place>,
        operation: Operation,
    ) -> Result<OperationReply> {
        Ok(match operation {
            Operation::Insert(command) => OperationReply::Write(self.insert_here(cx, place, command).await?),
            Operation::Update(command) => OperationReply::Write(self.update_here(cx, place, command).await?),
            Operation::Delete(command) => OperationReply::Write(self.delete_here(cx, place, command).await?),
            Operation::FindAndModify(command) => {
                OperationReply::FindAndModify(self.find_and_modify_here(cx, place, command).await?)
            }
            Operation::Scan(command) => OperationReply::Scan(self.scan_here(cx, place, command).await?),
            Operation::Continue { namespace, cursor, size } => {
                OperationReply::Scan(self.continue_scan_here(cx, &namespace, cursor, size).await?)
            }
            Operation::Seek(command) => {
                let place = place.ok_or_else(|| Error::new(Code::STALE_CONFIG, "there is no such shard"))?;
                OperationReply::Seek(self.seek_here(cx, place, command).await?)
            }
            Operation::KillCursors { namespace, cursors } => {
                let killed = cursors.into_iter().filter(|cursor| self.kill_cursor(*cursor, &namespace));
                OperationReply::Killed(killed.collect())
            }
            Operation::Count(command) => OperationReply::Count(self.count_here(cx, place, command).await?),
            Operation::Distinct(command) => {
                OperationReply::Values(self.distinct_here(cx, place, command).await?)
            }
            Operation::Explain(command, verbosity) => {
                OperationReply::Document(self.explain_here(cx, place, command, verbosity).await?)
            }
            Operation::CollectionStats(_) => {
                OperationReply::CollectionStats(self.collection_stats_here(place).await?)
            }
            Operation::Reconcile => {
                if let Some(place) = place {
                    self.apply_index_drops(place).await?;
                }
                OperationReply::Reconciled
            }
            Operation::Validate(namespace) => {
                OperationReply::Document(self.validate_here(place, &namespace).await?)
            }
            Operation::Receive(batch) => {
                let place = place.ok_or_else(|| Error::new(Code::STALE_CONFIG, "there is no such shard"))?;
                match self.shard_of(place)?.write_unasked(ShardCommand::Receive(batch)).await? {
                    ShardReply::Received(source) => OperationReply::Received(source),
                    other => unreachable!("a shard answers what it receives with {other:?}"),
                }
            }
        })
    }

    async fn serve_operation(&self, from: NodeId, request: RemoteOperation) -> Result<Executed, PeerFailure> {
        let goes_by_cursor =
            matches!(request.operation, Operation::Continue { .. } | Operation::KillCursors { .. });
        let replica = self.host.shard(request.shard);
        let catalog = self.catalog_copy();
        let placed = catalog.placement(request.shard);
        let placed = placed.filter(|(record, _)| record.state == CollectionState::Active);
        let place = placed.map(|(record, placement)| Place::of_placement(record, placement));
        if !goes_by_cursor {
            let replica = replica.as_ref().filter(|_| place.is_some());
            let replica = replica.ok_or_else(|| not_here(request.shard))?;
            match &request.behind {
                None => self.check_leads(replica)?,
                Some(behind) => check_fresh(replica, behind, self.node)?,
            }
        }
        let source =
            request.behind.map_or(ReadSource::Primary, |behind| ReadSource::Replica(behind.at_least));
        let deadline = self.clock.monotonic() + Duration::from_millis(request.timeout_ms);
        let cx = OperationContext {
            deadline: Some(deadline),
            session: request.session,
            txn_number: request.txn_number,
            identity: Some(request.identity),
            found: request.found,
            source,
            connection: (u64::from(from.get()) << CONNECTION_BITS) | request.connection,
            ..OperationContext::default()
        };
        match self.execute(&cx, place.as_ref(), request.operation).await {
            Ok(reply) => {
                let applied = replica.map_or(LogIndex(0), |replica| replica.applied_index());
                Ok(Executed { reply, applied })
            }
            Err(error) => Err(match &replica {
                Some(replica) => refused(replica, self.node, error),
                None => PeerFailure::Refused { error, primary: None },
            }),
        }
    }

    pub(crate) fn check_leads<M: StateMachine>(&self, replica: &ReplicaHandle<M>) -> Result<(), PeerFailure> {
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

/// An index that covers everything committed before: the read waited until this replica has applied that.
async fn index_of<M: StateMachine>(
    replica: &ReplicaHandle<M>,
    router: &Router,
) -> Result<LogIndex, PeerFailure> {
    router.check_leads(replica)?;
    // It is no read of this replica.
    replica.read_unasked().await.map_err(|error| refused(replica, router.node, error))?;
    Ok(replica.applied_index())
}

fn not_here(shard: ShardId) -> PeerFailure {
    let error = Error::new(Code::STALE_CONFIG, format!("{shard} has no replica here"));
    PeerFailure::Refused { error, primary: None }
}

/// Refuses a read when the replica has been out of touch for longer than the client allows.
pub(crate) fn check_fresh<M: StateMachine>(
    replica: &ReplicaHandle<M>,
    behind: &Behind,
    own: NodeId,
) -> Result<(), PeerFailure> {
    let Some(limit_ms) = behind.staleness_ms_max else { return Ok(()) };
    let staleness_ms = replica.staleness().as_millis();
    if staleness_ms <= u128::from(limit_ms) {
        return Ok(());
    }
    let message = format!(
        "the replica of {} on {own} had everything {staleness_ms} ms ago, and {limit_ms} ms are allowed",
        replica.shard()
    );
    Err(refused(replica, own, Error::new(Code::STALE_CONFIG, message)))
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
