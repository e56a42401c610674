//! Where a replica's messages to its peers go.
//!
//! Called by owner loops, never blocks. Losing, delaying, doubling or reordering messages is allowed; changing them is
//! not. Snapshots go a way of their own, since they are large: see [`crate::snapshot`].

use base::{NodeId, ShardId};
use raft::eraftpb::Message;

use crate::snapshot::SnapshotOffer;

/// Carries Raft messages to other nodes.
pub trait Transport: Send + Sync + 'static {
    /// Sends messages of one shard's replica; all are for one replica, which is on node `to`.
    fn send(&self, to: NodeId, shard: ShardId, messages: Vec<Message>);

    /// Brings a snapshot to the replica that it is for, on node `to`, in the background. At most one at a time is offered
    /// for a replica; dropping the offer ends the attempt.
    fn send_snapshot(&self, to: NodeId, offer: SnapshotOffer);
}

/// The transport of a node that is alone.
#[derive(Debug, Default)]
pub struct NoPeers;

impl Transport for NoPeers {
    fn send(&self, to: NodeId, shard: ShardId, _messages: Vec<Message>) {
        panic!("the sole voter of {shard} has nobody on {to} to write to");
    }

    fn send_snapshot(&self, to: NodeId, offer: SnapshotOffer) {
        panic!("the sole voter of {} has nobody on {to} to send a snapshot to", offer.header.shard);
    }
}
