//! Where a replica's messages to its peers go.
//!
//! Called by owner loops, never blocks. Losing, delaying, doubling or reordering messages is allowed; changing them is
//! not. Snapshots go a way of their own, since they are large: see [`crate::snapshot`].

use base::{NodeId, ShardId};
use raft::eraftpb::Message;
use tokio::time::Instant;

use crate::snapshot::SnapshotOffer;

/// When messages have to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// At once.
    Now,
    /// Then, or together with whatever leaves before: nobody waits for them, and others may share their way. When that is now
    /// already, whatever else is about to be sent gets the chance to come along.
    By(Instant),
}

/// Carries Raft messages to other nodes.
pub trait Transport: Send + Sync + 'static {
    /// Sends messages of one shard's replica; all are for one replica, which is on node `to`. Later ones do not overtake
    /// them.
    fn send(&self, to: NodeId, shard: ShardId, messages: Vec<Message>, haste: Haste);

    /// Brings a snapshot to the replica that it is for, on node `to`, in the background. At most one at a time is offered
    /// for a replica; dropping the offer ends the attempt.
    fn send_snapshot(&self, to: NodeId, offer: SnapshotOffer);
}

/// The transport of a node that is alone.
#[derive(Debug, Default)]
pub struct NoPeers;

impl Transport for NoPeers {
    fn send(&self, to: NodeId, shard: ShardId, _messages: Vec<Message>, _haste: Haste) {
        panic!("the sole voter of {shard} has nobody on {to} to write to");
    }

    fn send_snapshot(&self, to: NodeId, offer: SnapshotOffer) {
        panic!("the sole voter of {} has nobody on {to} to send a snapshot to", offer.header.shard);
    }
}
