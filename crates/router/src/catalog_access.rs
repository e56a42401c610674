//! The catalog, from any node: read as of now, and changed, wherever its leader is.
//!
//! Called by everything that resolves or defines. Always holds: what is read as of now contains every change that was
//! acknowledged before; a change may be sent more than once, which the catalog's commands allow.

use std::sync::Arc;
use std::time::Duration;

use base::{Code, Error, LogIndex, NodeId, Result};
use catalog::{Catalog, Command, Reply};
use replica::CatalogHandle;

use crate::peer::{PeerFailure, PeerReply, PeerRequest};
use crate::retry::Attempts;
use crate::{OperationContext, Router};

/// How long one attempt at another node may take.
const ATTEMPT_MS_MAX: u64 = 5_000;

impl Router {
    /// This node's copy of the catalog, perhaps behind.
    pub(crate) fn catalog_copy(&self) -> Arc<Catalog> {
        self.host.catalog_state().expect("a node has a replica of the catalog before it has a router")
    }

    /// This node's replica of the catalog.
    pub(crate) fn catalog_replica(&self) -> CatalogHandle {
        self.host.catalog().expect("a node has a replica of the catalog before it has a router")
    }

    /// The catalog as of now: linearizable.
    pub(crate) async fn catalog_now(&self) -> Result<Arc<Catalog>> {
        let mut attempts = Attempts::new(self);
        let cx = OperationContext::default();
        loop {
            let replica = self.catalog_replica();
            let error = if self.is_here(&replica) {
                match replica.read().await {
                    Ok((_, catalog)) => return Ok(catalog),
                    Err(error) => error,
                }
            } else {
                match self.catalog_index(&replica).await {
                    Ok(index) => {
                        replica.applied(index).await;
                        if !replica.is_stopped() {
                            return Ok(replica.state());
                        }
                        Error::new(Code::STALE_CONFIG, "the catalog's replica was replaced")
                    }
                    Err(failure) => unanswered(failure),
                }
            };
            attempts.again(self, &cx, error).await?;
        }
    }

    /// Changes the catalog. On return: fsynced on a majority of its voters. This node's copy may be behind.
    pub(crate) async fn change_catalog(&self, command: Command) -> Result<Reply> {
        let mut attempts = Attempts::new(self);
        let cx = OperationContext::default();
        loop {
            let replica = self.catalog_replica();
            let error = if self.is_here(&replica) {
                match replica.write(command.clone()).await {
                    Ok(reply) => return Ok(reply),
                    Err(error) => error,
                }
            } else {
                let request = PeerRequest::CatalogWrite(Box::new(command.clone()));
                match self.ask_catalog_leader(&replica, request).await {
                    Ok(PeerReply::CatalogWrite(reply)) => return Ok(*reply),
                    Ok(other) => return Err(unexpected(&other)),
                    Err(failure) => unanswered(failure),
                }
            };
            attempts.again(self, &cx, error).await?;
        }
    }

    /// Whether this node's replica leads, or nobody knows who does and this node must wait to hear.
    pub(crate) fn is_here<M: replica::StateMachine>(&self, replica: &replica::ReplicaHandle<M>) -> bool {
        replica.leader_node().is_some_and(|node| node == self.node)
    }

    async fn catalog_index(&self, replica: &CatalogHandle) -> Result<LogIndex, PeerFailure> {
        match self.ask_catalog_leader(replica, PeerRequest::CatalogIndex).await? {
            PeerReply::Index(index) => Ok(index),
            other => Err(PeerFailure::Refused { error: unexpected(&other), primary: None }),
        }
    }

    async fn ask_catalog_leader(
        &self,
        replica: &CatalogHandle,
        request: PeerRequest,
    ) -> Result<PeerReply, PeerFailure> {
        let Some(leader) = replica.leader_node().or_else(|| self.other_voter(replica)) else {
            let error =
                Error::new(Code::NOT_WRITABLE_PRIMARY, "the catalog has no leader that this node knows of");
            return Err(PeerFailure::Refused { error, primary: None });
        };
        let timeout = Duration::from_millis(ATTEMPT_MS_MAX);
        let call = self.peers.call(leader, request, timeout);
        tokio::select! {
            biased;
            answer = call => answer,
            // Whoever was asked leads no more, or never did.
            () = replica.leader_changed(replica.leader()) => {
                Err(PeerFailure::Unreachable("the catalog's leader has changed".to_owned()))
            }
        }
    }

    /// A voter to ask who leads, drawn anew each time.
    fn other_voter(&self, replica: &CatalogHandle) -> Option<NodeId> {
        let membership = replica.membership();
        let voters = membership.voters.iter().filter_map(|voter| membership.nodes.get(voter));
        let others: Vec<NodeId> = voters.copied().filter(|node| *node != self.node).collect();
        let drawn = usize::try_from(self.entropy.below(others.len().max(1) as u64)).unwrap_or(0);
        others.get(drawn).copied()
    }
}

/// A failed call as the error that its operation ends with, unless it is tried again.
pub(crate) fn unanswered(failure: PeerFailure) -> Error {
    match failure {
        PeerFailure::Unreachable(reason) => Error::new(Code::HOST_UNREACHABLE, reason),
        PeerFailure::Refused { error, .. } => error,
    }
}

fn unexpected(reply: &PeerReply) -> Error {
    Error::new(
        Code::INTERNAL_ERROR,
        format!("another node answered something else than it was asked: {reply:?}"),
    )
}
