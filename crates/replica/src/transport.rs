//! Where a replica's messages to its peers go.
//!
//! Called by owner loops, never blocks. Losing, delaying, doubling or reordering messages is allowed.

use base::ShardId;
use raft::eraftpb::Message;

/// Carries Raft messages to other nodes.
pub trait Transport: Send + Sync + 'static {
    /// Sends messages of one shard's replica; each names the replica that it is for.
    fn send(&self, shard: ShardId, messages: Vec<Message>);
}

/// The transport of a node that is alone.
#[derive(Debug, Default)]
pub struct NoPeers;

impl Transport for NoPeers {
    fn send(&self, shard: ShardId, messages: Vec<Message>) {
        assert!(messages.is_empty(), "the sole voter of {shard} has nobody to write to");
    }
}
