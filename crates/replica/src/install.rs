//! What a host does with what comes from other nodes: messages for its replicas, and snapshots.
//!
//! Called by whatever receives from the network. Always holds: a replica that is not here takes part in nothing; it
//! comes into being only as a snapshot that was installed whole.

use std::sync::Arc;

use base::id::CATALOG_SHARD;
use base::{LogIndex, NodeId, ReplicaId, ShardId};
use raft::eraftpb::{Message, MessageType};
use storage::{Fault, KeyspaceName, ReplicaLogState};

use crate::host::HostOf;
use crate::machine::StateMachine;
use crate::node::Node;
use crate::open;
use crate::snapshot::{Chunk, NotInstalled, SnapshotHeader};

/// A snapshot on its way into a generation of its replica's keyspace that no other attempt fills: leaders change, and the
/// attempt of an earlier one may still be under way. Dropping it removes what it filled.
pub struct SnapshotReceiver {
    node: Arc<Node>,
    header: SnapshotHeader,
    name: KeyspaceName,
    installed: bool,
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

impl Drop for SnapshotReceiver {
    fn drop(&mut self) {
        if self.installed {
            return;
        }
        let (node, name) = (self.node.clone(), self.name);
        self.node.options.spawner.blocking(Box::new(move || {
            if let Err(fault) = node.options.store.drop_keyspace(name) {
                node.latch.set(fault.context("removing an unfinished snapshot"));
            }
        }));
    }
}

/// What a replica on this node is and how far it is.
struct Present {
    name: KeyspaceName,
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
                Some(handle) if handle.replica() == to => return handle.receive(from, message),
                other => other.map(|handle| handle.replica()),
            },
            _ => match self.shard(shard) {
                Some(handle) if handle.replica() == to => return handle.receive(from, message),
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
        let current = match self.present(header.shard) {
            Some(present) if present.name.replica == header.to => {
                check_needed(&header, present.commit)?;
                present.name.generation
            }
            Some(present) if present.name.replica > header.to => return Err(NotInstalled::Damaged),
            // The first one belongs to whoever may be creating the replica right now.
            _ => open::FIRST_GENERATION,
        };
        let generation = self.inner.new_generation(header.to, current);
        let name = KeyspaceName { shard: header.shard, replica: header.to, generation };
        let node = self.inner.node.clone();
        let receiver = SnapshotReceiver { node: node.clone(), header, name, installed: false };
        node.blocking(move |store| store.create_keyspace(name)).await.map_err(|fault| stop(&node, fault))?;
        Ok(receiver)
    }

    /// Puts a snapshot that came whole in the place of whatever the replica had, or of an older replica of the shard. On
    /// return: fsynced and running. The message tells the sender's replica how far this one is.
    pub async fn install_snapshot(&self, mut receiver: SnapshotReceiver) -> Result<Message, NotInstalled> {
        let (header, name) = (receiver.header.clone(), receiver.name);
        let _changing = self.inner.changing.lock().await;
        let present = self.present(header.shard);
        let older = match present.map(|present| (present.name, present.commit)) {
            Some((here, _)) if here.replica > header.to => return Err(NotInstalled::Damaged),
            Some((here, commit)) if here.replica == header.to => {
                check_needed(&header, commit)?;
                if here.generation >= name.generation {
                    return Err(NotInstalled::Damaged);
                }
                None
            }
            Some((here, _)) => Some(here),
            None => None,
        };
        self.stop_replica(header.shard).await;
        let node = &self.inner.node;
        if older.is_none() && self.goes_on(&header).map_err(|fault| stop(node, fault))? {
            return Err(NotInstalled::NotNeeded(Box::new(header.acknowledgement(header.index))));
        }
        receiver.installed = true;
        self.replace(name, &header, older).await.map_err(|fault| stop(node, fault))?;
        Ok(header.acknowledgement(header.index))
    }

    /// Opens the replica, which was stopped, as it was when its log has the last entry that the snapshot covers: it may have
    /// acknowledged entries after that, which the snapshot would take away.
    fn goes_on(&self, header: &SnapshotHeader) -> storage::Result<bool> {
        let node = &self.inner.node;
        let Some(state) = node.options.raft_log.state(header.to)? else { return Ok(false) };
        let bounds = node.options.raft_log.bounds(header.to)?;
        if bounds.is_none_or(|(first, last)| header.index < first || header.index > last) {
            return Ok(false);
        }
        let entries = node.options.raft_log.entries(header.to, header.index, header.index.next(), 1)?;
        if entries.first().is_none_or(|entry| entry.term != header.index_term) {
            return Ok(false);
        }
        self.open_and_list(header.shard, header.to, &state)?;
        Ok(true)
    }

    fn open_and_list(
        &self,
        shard: ShardId,
        replica: ReplicaId,
        state: &ReplicaLogState,
    ) -> storage::Result<()> {
        let node = &self.inner.node;
        match shard {
            CATALOG_SHARD => self.list_catalog(open::open(node, replica, state, true)?),
            shard => self.list_shard(shard, open::open(node, replica, state, true)?),
        }
        Ok(())
    }

    async fn replace(
        &self,
        name: KeyspaceName,
        header: &SnapshotHeader,
        older: Option<KeyspaceName>,
    ) -> storage::Result<()> {
        let node = &self.inner.node;
        let state = open::replace(node, name, header).await?;
        self.open_and_list(header.shard, header.to, &state)?;
        match older {
            Some(older) => open::remove(node, older).await,
            None => Ok(()),
        }
    }

    fn present(&self, shard: ShardId) -> Option<Present> {
        let status = self.replicas().into_iter().find(|status| status.name.shard == shard)?;
        Some(Present { name: status.name, commit: status.commit })
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
