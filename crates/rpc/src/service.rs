//! What a node does with what other nodes send it.

use async_trait::async_trait;
use base::{NodeId, ShardId};
use raft::eraftpb::Message;
use replica::SnapshotReceiver;
use replica::snapshot::{NotInstalled, SnapshotHeader};
use router::peer::{PeerFailure, PeerReply, PeerRequest};
use storage::Fault;

use crate::member::{Greeting, JoinReply, JoinRequest};

/// Implemented by `server`. Called by [`crate::serve`] for everything that comes in, and by [`crate::Network`] for what a
/// snapshot that it sent leads to.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Takes messages for a replica of a shard on this node, in the order in which `from` sent them. Must not block:
    /// everything behind them waits.
    fn receive(&self, from: NodeId, shard: ShardId, messages: Vec<Message>);

    /// Does what another node asks. Runs in a task of its own, and to its end also when nobody waits for it any more.
    async fn handle(&self, from: NodeId, request: PeerRequest) -> Result<PeerReply, PeerFailure>;

    /// Begins to receive a snapshot.
    async fn begin_snapshot(
        &self,
        from: NodeId,
        header: SnapshotHeader,
    ) -> Result<SnapshotReceiver, NotInstalled>;

    /// Installs a snapshot that came whole; the message is for the replica that sent it.
    async fn install_snapshot(&self, receiver: SnapshotReceiver) -> Result<Message, NotInstalled>;

    /// Reads and commands that clients had executed on this node's replicas since it started: snapshots are sent faster where
    /// there are none.
    fn operations(&self) -> u64;

    /// This node's store failed while a snapshot was read from it: the node must stop.
    fn fault(&self, fault: Fault);

    /// Takes a node into the cluster.
    async fn join(&self, request: JoinRequest) -> base::Result<JoinReply>;

    /// Says who this node is, also while it belongs to no cluster.
    async fn greet(&self) -> Greeting;
}
