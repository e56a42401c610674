//! What a host does with what comes from other nodes: messages for its replicas, and snapshots.
//!
//! Called by whatever receives from the network. Always holds: a replica that is not here takes part in nothing; it
//! comes into being only as a snapshot that was installed whole.

use std::sync::Arc;

use base::id::CATALOG_SHARD;
use base::{Generation, LogIndex, NodeId, ReplicaId, ShardId};
use raft::eraftpb::{Message, MessageType};
use storage::{Fault, KeyspaceName};

use crate::host::HostOf;
use crate::machine::StateMachine;
use crate::node::Node;
use crate::open;
use crate::snapshot::{Chunk, NotInstalled, SnapshotHeader};

/// A snapshot on its way into a new generation of its replica's keyspace. Dropping it leaves an orphan, which the next
/// attempt or the next start removes.
pub struct SnapshotReceiver {
    node: Arc<Node>,
    header: SnapshotHeader,
    name: KeyspaceName,
}

impl SnapshotReceiver {
    /// Takes the next chunk. Fails with `Damaged` when its checksum is wrong.
    pub async fn add(&mut self, chunk: Chunk) -> Result<(), NotInstalled> {
        let name = self.name;
        let batch = chunk.into_batch().ok_or(NotInstalled::Damaged)?;
        let filled = self.node.blocking(move |store| store.fill(name, &batch)).await;
        filled.map_err(|fault| stop(&self.node, fault))
    }
}

/// What a replica on this node is and how far it is.
struct Present {
    replica: ReplicaId,
    generation: Generation,
    commit: LogIndex,
}

impl<S: StateMachine, C: StateMachine> HostOf<S, C> {
    /// Takes a message of a peer on node `from`. For a replica that is not here, an append is answered with the wish for a
    /// snapshot: the leader learns that there is nothing yet. A heartbeat is answered, too, but proves nothing: an append
    /// or its answer may have been lost, and a leader tries again only when it hears something.
    pub fn receive(&self, from: NodeId, shard: ShardId, message: Message) {
        let to = ReplicaId(message.to);
        let here = match shard {
            CATALOG_SHARD => match self.catalog() {
                Some(handle) if handle.replica() == to => return handle.receive(message),
                other => other.map(|handle| handle.replica()),
            },
            _ => match self.shard(shard) {
                Some(handle) if handle.replica() == to => return handle.receive(message),
                other => other.map(|handle| handle.replica()),
            },
        };
        // A replica with a lower id than the one here was replaced by it.
        if here.is_some_and(|replica| replica > to) {
            return;
        }
        if let Some(answer) = answer_of_one_that_is_not_here(&message) {
            self.inner.node.options.transport.send(from, shard, vec![answer]);
        }
    }

    /// Begins to receive a snapshot.
    pub async fn begin_snapshot(&self, header: SnapshotHeader) -> Result<SnapshotReceiver, NotInstalled> {
        let present = self.present(header.shard);
        let generation = match &present {
            Some(present) if present.replica == header.to => {
                check_needed(&header, present.commit)?;
                present.generation.next()
            }
            Some(present) if present.replica > header.to => return Err(NotInstalled::Damaged),
            _ => open::FIRST_GENERATION,
        };
        let name = KeyspaceName { shard: header.shard, replica: header.to, generation };
        let node = self.inner.node.clone();
        node.blocking(move |store| {
            // What an earlier attempt left.
            store.drop_keyspace(name)?;
            store.create_keyspace(name)
        })
        .await
        .map_err(|fault| stop(&node, fault))?;
        Ok(SnapshotReceiver { node, header, name })
    }

    /// Puts a snapshot that came whole in the place of whatever the replica had. On return: fsynced and running. The
    /// message tells the sender's replica how far this one is.
    pub async fn install_snapshot(&self, receiver: SnapshotReceiver) -> Result<Message, NotInstalled> {
        let SnapshotReceiver { header, name, .. } = receiver;
        let _changing = self.inner.changing.lock().await;
        if let Some(present) = self.present(header.shard) {
            if present.replica == header.to {
                check_needed(&header, present.commit)?;
                if present.generation.next() != name.generation {
                    return Err(NotInstalled::Damaged);
                }
            }
            self.stop_replica(header.shard).await;
        }
        self.replace(name, &header).await.map_err(|fault| stop(&self.inner.node, fault))?;
        Ok(header.acknowledgement(header.index))
    }

    async fn replace(&self, name: KeyspaceName, header: &SnapshotHeader) -> storage::Result<()> {
        let node = &self.inner.node;
        let state = open::replace(node, name, header).await?;
        match header.shard {
            CATALOG_SHARD => self.list_catalog(open::open(node, header.to, &state, true)?),
            shard => self.list_shard(shard, open::open(node, header.to, &state, true)?),
        }
        Ok(())
    }

    fn present(&self, shard: ShardId) -> Option<Present> {
        let status = self.replicas().into_iter().find(|status| status.name.shard == shard)?;
        let name = status.name;
        Some(Present { replica: name.replica, generation: name.generation, commit: status.commit })
    }
}

fn answer_of_one_that_is_not_here(message: &Message) -> Option<Message> {
    let answer = |msg_type| Message {
        msg_type,
        from: message.to,
        to: message.from,
        term: message.term,
        ..Message::default()
    };
    match message.get_msg_type() {
        MessageType::MsgAppend => {
            Some(Message { index: message.index, reject: true, ..answer(MessageType::MsgAppendResponse) })
        }
        MessageType::MsgHeartbeat => Some(answer(MessageType::MsgHeartbeatResponse)),
        _ => None,
    }
}

/// A fault of the storage stops the node.
fn stop(node: &Node, fault: Fault) -> NotInstalled {
    node.latch.set(fault.clone());
    NotInstalled::Fault(fault)
}

fn check_needed(header: &SnapshotHeader, commit: LogIndex) -> Result<(), NotInstalled> {
    match commit >= header.index {
        true => Err(NotInstalled::NotNeeded(Box::new(header.acknowledgement(commit)))),
        false => Ok(()),
    }
}
