//! `moveChunk`: a shard's primary brought to another node.
//!
//! Called by `wire`; `serve` does for other nodes what only the primary's node can. Always holds: the shard has as many replicas
//! during the move as before; who asks again for a move that was made asks for nothing new; what others move meanwhile, the balancer
//! among them, makes a move wait, and never fail.

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

    /// Makes the replica of a shard on `to` its primary. Where there is none, the one on the primary's node moves there first, once
    /// no other replica of the shard is on its way. On return the new primary leads, as this node knows. Fails with
    /// `NodeNotFound` (74), `ShardNotFound` (70), with `IllegalOperation` (20) when the node may have none, and with `Interrupted`
    /// (11601) when a move of the shard is called off meanwhile.
    pub async fn move_shard(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        selector: &ShardSelector,
        to: &str,
    ) -> Result<()> {
        let to = self.node_named(to).await?;
        let record = self.existing_collection(namespace).await?;
        let &ShardPlacement { shard, cancels, .. } = select(&record, selector)?;
        loop {
            let catalog = self.catalog_now().await?;
            let placement = catalog.kept(shard).ok_or_else(|| replaced(shard))?;
            let is_there = is_placed_on(placement, to);
            if !is_there && placement.cancels != cancels {
                return Err(called_off(shard));
            } else if has_to_wait(placement, to) {
                let is_waiting =
                    |now: &ShardPlacement| now.cancels == placement.cancels && has_to_wait(now, to);
                let is_over = |now: &Catalog| (!now.kept(shard).is_some_and(is_waiting)).then_some(());
                self.await_catalog(cx, is_over).await?;
            } else if !is_there {
                self.begin_move(cx, placement, to).await?;
            } else if self.await_primary_on(cx, shard, to).await? {
                return Ok(());
            }
            cx.check(self.clock.monotonic())?;
        }
    }

    /// Has the replica on the primary's node move to another. Does nothing when the shard's replicas turn out to be others by then
    /// than these.
    async fn begin_move(&self, cx: &OperationContext, seen: &ShardPlacement, to: NodeId) -> Result<()> {
        let (shard, cancels_seen) = (seen.shard, seen.cancels);
        let from = self.confirmed_primary(cx, shard).await?;
        let begun = self.change_catalog(Command::MoveReplica { shard, from, to, cancels_seen }).await;
        let Err(refusal) = begun else { return Ok(()) };
        let is_as_seen = self.catalog_now().await?.kept(shard) == Some(seen);
        if is_as_seen { Err(refusal) } else { Ok(()) }
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

    /// Returns once the primary of a shard is on `to`, or the shard has no replica there any more: whether it is.
    async fn await_primary_on(&self, cx: &OperationContext, shard: ShardId, to: NodeId) -> Result<bool> {
        for look in 0_u32.. {
            let catalog = self.catalog_copy();
            let placement = catalog.kept(shard).ok_or_else(|| replaced(shard))?;
            if !is_placed_on(placement, to) {
                return Ok(false);
            }
            let primary = self.expected_primary(placement);
            if primary == Some(to) && self.is_primary_on(cx, shard, to).await {
                return Ok(true);
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
        Ok(false)
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

fn called_off(shard: ShardId) -> Error {
    Error::new(Code::INTERRUPTED, format!("a move of {shard} was called off meanwhile"))
}

/// Whether a replica of a shard is on its way that has to arrive before the primary can be brought to a node: the one on the node,
/// or where there is none, any.
fn has_to_wait(placement: &ShardPlacement, to: NodeId) -> bool {
    match placement.replicas.iter().find(|replica| replica.node == to) {
        Some(there) => {
            placement.leaving.iter().any(|leaving| placement.taker_of(leaving) == Some(there.replica))
        }
        None => !placement.leaving.is_empty(),
    }
}
