//! Nodes drained and taken out of the cluster, and how far that is.
//!
//! Called by `wire` for whoever administers the cluster, on any node. Always holds: what is asked for is an entry of the
//! catalog; the nodes do the rest (`reconcile`), and whoever asks again after a crash asks for nothing new.

use base::{Code, Error, NodeId, Result, ShardId};
use catalog::{Catalog, Command, NodeRecord, NodeState, ReplicaPlacement};
use futures::{StreamExt, TryStreamExt};

use crate::{OperationContext, Router};

/// Shards that are asked for their primary at a time.
const SHARDS_AT_A_TIME: usize = 64;

/// How far a node is on its way out, or that it is not on one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeProgress {
    /// What the operator wants of it.
    pub state: NodeState,
    /// Whether it has been gone for so long that its replicas are rebuilt elsewhere.
    pub is_dead: bool,
    /// Replicas of shards that it still has, those included that others are taking over now.
    pub replicas: usize,
    /// How many it had when it was to be drained; as many as now when it is not.
    pub replicas_total: usize,
    /// Whether it has a vote in the catalog, as the answering node knows.
    pub votes_in_catalog: bool,
}

impl Router {
    /// Has a node's replicas move to others, which goes on after this returns. Fails with `NodeNotFound` (74), and with
    /// `IllegalOperation` (20) when the others are too few.
    pub async fn drain_node(&self, node: NodeId) -> Result<()> {
        self.administer(Command::DrainNode { node }).await
    }

    /// Takes a node back into use that was to be drained. Fails with `NodeNotFound`.
    pub async fn cancel_drain(&self, node: NodeId) -> Result<()> {
        self.administer(Command::CancelDrain { node }).await
    }

    /// Takes a node out of the cluster that is empty or dead. On return it belongs to no group and may be switched off. Fails
    /// with `NodeNotFound`, with `IllegalOperation` when it holds replicas that others do not do without, or is the node that was
    /// asked, and with `ConflictingOperationInProgress` (117) until another node has taken over its vote in the catalog.
    pub async fn remove_node(&self, cx: &OperationContext, node: NodeId) -> Result<()> {
        if node == self.node {
            let message = "a node does not remove itself: ask another one to do it";
            return Err(Error::new(Code::ILLEGAL_OPERATION, message));
        }
        let catalog = self.catalog_now().await?;
        if let Some(record) = catalog.node(node).filter(|record| record.is_member()) {
            match record.dead {
                true => self.check_done_without(cx, &catalog, record).await?,
                false => self.check_vote_taken_over(&catalog, record)?,
            }
        }
        self.administer(Command::RemoveNode { node }).await?;
        let has_left = |catalog: &Catalog| {
            let leaving = catalog.cluster().leaving.iter();
            leaving.into_iter().all(|placed| placed.node != node).then_some(())
        };
        self.await_catalog(cx, has_left).await
    }

    /// How far a node is on its way out. Fails with `NodeNotFound` when there never was such a node.
    pub async fn node_progress(&self, node: NodeId) -> Result<NodeProgress> {
        let catalog = self.catalog_now().await?;
        let missing = || Error::new(Code::NODE_NOT_FOUND, format!("the cluster has no node {node}"));
        let record = catalog.node(node).ok_or_else(missing)?;
        let replicas = catalog.replicas_on(node).count();
        let replicas_total = match record.state {
            NodeState::InUse => replicas,
            NodeState::Draining | NodeState::Removed => {
                replicas.max(usize::try_from(record.drain_total).unwrap_or(usize::MAX))
            }
        };
        Ok(NodeProgress {
            state: record.state,
            is_dead: record.dead,
            replicas,
            replicas_total,
            votes_in_catalog: self.votes_in_catalog(node),
        })
    }

    async fn administer(&self, command: Command) -> Result<()> {
        self.change_catalog(command).await?;
        self.unreconciled.notify_one();
        Ok(())
    }

    /// Fails while the node votes in the catalog though another one could that does not.
    fn check_vote_taken_over(&self, catalog: &Catalog, record: &NodeRecord) -> Result<()> {
        let could_vote = |placed: &ReplicaPlacement| {
            let is_fit = catalog.node(placed.node).is_some_and(|other| other.may_vote());
            is_fit && placed.node != record.id && !self.votes_in_catalog(placed.node)
        };
        if !self.votes_in_catalog(record.id) || !catalog.cluster().catalog.iter().any(could_vote) {
            return Ok(());
        }
        let message = format!(
            "no other node has taken over the vote of {} in the catalog yet: drain it, and try again",
            record.facts.name
        );
        Err(Error::new(Code::CONFLICTING_OPERATION_IN_PROGRESS, message))
    }

    /// Fails when a shard of which a dead node has a replica has no primary: the others may have nothing yet, or no majority
    /// without this one.
    async fn check_done_without(
        &self,
        cx: &OperationContext,
        catalog: &Catalog,
        dead: &NodeRecord,
    ) -> Result<()> {
        let held = catalog.replicas_on(dead.id).map(|(shard, _)| shard);
        let kept: Vec<ShardId> = held.filter(|shard| catalog.kept(*shard).is_some()).collect();
        let check = async |shard: ShardId| match self.confirmed_primary(cx, shard).await {
            Ok(_) => Ok(()),
            Err(error) if error.code == Code::SHARD_NOT_FOUND => Ok(()),
            Err(error) if error.code == Code::NOT_WRITABLE_PRIMARY => {
                Err(Error::new(Code::ILLEGAL_OPERATION, without_primary(catalog, dead, shard)))
            }
            Err(error) => Err(error),
        };
        let asked = futures::stream::iter(kept.into_iter().map(check)).buffer_unordered(SHARDS_AT_A_TIME);
        asked.try_for_each(|()| std::future::ready(Ok(()))).await
    }

    fn votes_in_catalog(&self, node: NodeId) -> bool {
        let membership = self.catalog_replica().membership();
        membership.voters.iter().any(|voter| membership.nodes.get(voter) == Some(&node))
    }
}

fn without_primary(catalog: &Catalog, dead: &NodeRecord, shard: ShardId) -> String {
    let namespace = catalog.placement(shard).map(|(record, _)| record.namespace.to_string());
    format!(
        "shard {shard} of {} has no primary without {name}, which may have data that no other node has: start {name} again, or \
         drop the collection",
        namespace.unwrap_or_default(),
        name = dead.facts.name
    )
}
