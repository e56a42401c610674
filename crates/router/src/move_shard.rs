//! `moveChunk`: a shard's primary brought to another node.
//!
//! Called by `wire`; `serve` does for other nodes what only the primary's node can. Always holds: the shard has as many replicas
//! during the move as before; who asks again for a move that was made asks for nothing new.

use std::time::Duration;

use base::{Code, Error, LogIndex, Namespace, NodeId, Result, ShardId};
use catalog::{Catalog, Command, ReplicaPlacement, ShardPlacement};
use tokio::time::timeout;

use crate::catalog_access::unanswered;
use crate::config_database::name_of;
use crate::peer::PeerRequest;
use crate::retry::Attempts;
use crate::route::no_primary;
use crate::sharding::select;
use crate::{OperationContext, Router, ShardSelector};

/// How long the primary's node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a wait for a primary looks, and asks again.
const POLL: Duration = Duration::from_millis(50);
/// How long a hand-over that was asked for may take before it is asked for again, in looks.
const LOOKS_PER_REQUEST: u32 = 20;

impl Router {
    /// The node of this name. Fails with `NodeNotFound` (74).
    pub async fn node_named(&self, name: &str) -> Result<NodeId> {
        let catalog = self.catalog_now().await?;
        let found = catalog.nodes().find(|node| node.is_member() && node.facts.name == name);
        found.map(|node| node.id).ok_or_else(|| {
            Error::new(Code::NODE_NOT_FOUND, format!("the cluster has no node named '{name}'"))
        })
    }

    /// Makes the replica of a shard on `to` its primary. Where there is none, the one on the primary's node moves there first. On
    /// return the new primary leads, as this node knows. Fails with `NodeNotFound` (74), `ShardNotFound` (70), and as the
    /// catalog's `MoveReplica` does.
    pub async fn move_shard(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        selector: &ShardSelector,
        to: &str,
    ) -> Result<()> {
        let to = self.node_named(to).await?;
        let record = self.existing_collection(namespace).await?;
        let placement = select(&record, selector)?.clone();
        if placement.replicas.iter().all(|replica| replica.node != to) {
            let from = self.confirmed_primary(cx, placement.shard).await?;
            let (shard, cancels_seen) = (placement.shard, placement.cancels);
            self.change_catalog(Command::MoveReplica { shard, from, to, cancels_seen }).await?;
            self.await_catalog(cx, |catalog| outcome(catalog, shard, from, to)).await??;
        }
        self.await_primary_on(cx, placement.shard, to).await
    }

    /// Calls off the move of a shard's replica that is under way: the replica stays where it is. Returns the name of its node.
    /// Fails with `ShardNotFound` (70), and with `IllegalOperation` (20) when none is under way, or when the node is to keep
    /// none.
    pub async fn cancel_move(&self, namespace: &Namespace, selector: &ShardSelector) -> Result<String> {
        let record = self.existing_collection(namespace).await?;
        let placement = select(&record, selector)?;
        let catalog = self.catalog_copy();
        let moving = placement.leaving.iter().filter(|leaving| placement.taker_of(leaving).is_some());
        // What a dead node has moves beside what somebody asked for.
        let can_stay =
            |leaving: &&ReplicaPlacement| catalog.node(leaving.node).is_some_and(|node| !node.dead);
        let kept = moving.max_by_key(can_stay);
        let Some(kept) = kept else {
            let message = format!("no replica of {} is on its way to another node", placement.shard);
            return Err(Error::new(Code::ILLEGAL_OPERATION, message));
        };
        let (shard, replica, cancels_seen) = (placement.shard, kept.replica, placement.cancels);
        self.change_catalog(Command::CancelMove { shard, replica, cancels_seen }).await?;
        Ok(name_of(&catalog, kept.node))
    }

    /// Asks the primary of a shard, on whichever node it is, to hand its role to the replica on `to`.
    pub(crate) async fn transfer_primary(&self, shard: ShardId, primary: NodeId, to: NodeId) -> Result<()> {
        if primary == self.node {
            return self.hand_over_here(shard, to).await.map(drop);
        }
        let request = PeerRequest::HandOver { shard, to };
        self.peers.call(primary, request, ANSWER_TIMEOUT).await.map(drop).map_err(unanswered)
    }

    /// Hands over the role of primary that this node's replica has. Answers with what it had committed by then. Fails as stale when
    /// it has not, or when the other node has no replica that votes.
    pub(crate) async fn hand_over_here(&self, shard: ShardId, to: NodeId) -> Result<LogIndex> {
        let stale = |message: String| Error::new(Code::STALE_CONFIG, message);
        let replica = self.host.shard(shard).ok_or_else(|| stale(format!("{shard} is not here")))?;
        if !self.is_here(&replica) {
            return Err(stale(format!("the primary of {shard} is not here")));
        }
        let membership = replica.membership();
        let successor = membership.voters.iter().find(|voter| membership.nodes.get(voter) == Some(&to));
        let successor =
            successor.ok_or_else(|| stale(format!("{shard} has no replica on {to} that votes")))?;
        replica.transfer_to(*successor).await;
        Ok(replica.commit_index())
    }

    /// Where the primary of a shard should be, which may be a guess.
    fn expected_primary(&self, placement: &ShardPlacement) -> Option<NodeId> {
        self.primary_node(placement, self.host.shard(placement.shard).as_ref())
    }

    /// The node of a shard's primary, as it says itself. Fails with `NotWritablePrimary` (10107) when there is none for as long
    /// as commands are tried again, and with `ShardNotFound` (70).
    pub(crate) async fn confirmed_primary(&self, cx: &OperationContext, shard: ShardId) -> Result<NodeId> {
        let mut attempts = Attempts::new(self);
        loop {
            let catalog = self.catalog_copy();
            let placement = catalog.kept(shard).ok_or_else(|| replaced(shard))?;
            match self.expected_primary(placement) {
                Some(node) if self.is_primary_on(cx, shard, node).await => return Ok(node),
                _ => self.primaries.lock().remove(&shard),
            };
            attempts.again(self, cx, no_primary(shard)).await?;
        }
    }

    async fn await_primary_on(&self, cx: &OperationContext, shard: ShardId, to: NodeId) -> Result<()> {
        for look in 0_u32.. {
            let catalog = self.catalog_copy();
            let placement = catalog.kept(shard).ok_or_else(|| replaced(shard))?;
            if !is_placed_on(placement, to) {
                return Err(not_any_more(&catalog, shard, to));
            }
            let primary = self.expected_primary(placement);
            if primary == Some(to) && self.is_primary_on(cx, shard, to).await {
                return Ok(());
            }
            if let Some(primary) = primary.filter(|_| look % LOOKS_PER_REQUEST == 0) {
                // One that cannot is asked again: it may not have heard yet that it leads, or that it leads no more.
                if let Err(error) = self.transfer_primary(shard, primary, to).await {
                    tracing::debug!(%shard, %error, to = name_of(&catalog, to), "a hand-over has to wait");
                    self.primaries.lock().remove(&shard);
                }
            }
            cx.check(self.clock.monotonic())?;
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Whether a node answers as the primary of a shard. A group that sleeps wakes up for that.
    async fn is_primary_on(&self, cx: &OperationContext, shard: ShardId, node: NodeId) -> bool {
        let wait = ANSWER_TIMEOUT.min(Duration::from_millis(self.time_left_ms(cx)));
        if node == self.node {
            return timeout(wait, self.shard_index_here(shard)).await.is_ok_and(|index| index.is_ok());
        }
        self.peers.call(node, PeerRequest::ShardIndex(shard), wait).await.is_ok()
    }
}

fn is_placed_on(placement: &ShardPlacement, node: NodeId) -> bool {
    placement.replicas.iter().any(|replica| replica.node == node)
}

fn replaced(shard: ShardId) -> Error {
    let message = format!("{shard} is not there any more: it was split, merged or dropped meanwhile");
    Error::new(Code::SHARD_NOT_FOUND, message)
}

/// A move has been called off, or goes to another node because this one is gone.
fn not_any_more(catalog: &Catalog, shard: ShardId, to: NodeId) -> Error {
    let name = name_of(catalog, to);
    let message =
        format!("{shard} is not to move to {name} any more: that was called off, or the node is gone");
    Error::new(Code::INTERRUPTED, message)
}

/// What has become of a move, once it is over: a node's replica of a shard has been replaced by one on another, or there shall
/// be none on that one any more.
fn outcome(catalog: &Catalog, shard: ShardId, from: NodeId, to: NodeId) -> Option<Result<()>> {
    let Some(placement) = catalog.kept(shard) else { return Some(Err(replaced(shard))) };
    if placement.members().all(|replica| replica.node != from) {
        return Some(Ok(()));
    }
    (!is_placed_on(placement, to)).then(|| Err(not_any_more(catalog, shard, to)))
}
