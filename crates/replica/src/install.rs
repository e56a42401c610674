//! What a host does with what comes from other nodes: messages for its replicas, and snapshots.
//!
//! Called by whatever receives from the network. Always holds: a replica that is not here takes part in nothing; it
//! comes into being only as a snapshot that was installed whole.

use std::sync::Arc;

use base::id::CATALOG_SHARD;
use base::{LogIndex, NodeId, ReplicaId, ShardId};
use raft::eraftpb::{Message, MessageType};
use storage::{Fault, KeyspaceName, LogBatch, RaftLog, ReplicaLogState};
use tokio::sync::oneshot;

use crate::host::HostOf;
use crate::machine::StateMachine;
use crate::metrics::count;
use crate::node::Node;
use crate::open;
use crate::snapshot::{Chunk, NotInstalled, SnapshotHeader};
use crate::transport::Haste;

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
        let bytes: usize = chunk.pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
        let batch = chunk.into_batch().ok_or(NotInstalled::Damaged)?;
        *self.node.receiving.lock().entry(name).or_default() += bytes as u64;
        let filled = self.node.blocking(move |store| store.fill(name, &batch)).await;
        filled.map_err(|fault| stop(&self.node, fault))
    }
}

impl Drop for SnapshotReceiver {
    fn drop(&mut self) {
        self.node.receiving.lock().remove(&self.name);
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
        if here.is_some_and(|replica| replica > to) || self.is_dropped(to) {
            return;
        }
        if let Some(answer) = answer_of_one_that_is_not_here(&message) {
            self.inner.node.options.transport.send(from, shard, vec![answer], Haste::Now);
        }
    }

    /// Begins to receive a snapshot.
    pub async fn begin_snapshot(&self, header: SnapshotHeader) -> Result<SnapshotReceiver, NotInstalled> {
        if self.is_dropped(header.to) {
            return Err(NotInstalled::Damaged);
        }
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
        node.receiving.lock().insert(name, 0);
        node.blocking(move |store| store.create_keyspace(name)).await.map_err(|fault| stop(&node, fault))?;
        Ok(receiver)
    }

    /// Puts a snapshot that came whole in the place of whatever the replica had, or of an older replica of the shard. On
    /// return: fsynced and running. The message tells the sender's replica how far this one is. What is begun is finished, also when
    /// nobody waits for it any more: the replica does not run meanwhile.
    pub async fn install_snapshot(&self, receiver: SnapshotReceiver) -> Result<Message, NotInstalled> {
        let (answer, installed) = oneshot::channel();
        let host = self.clone();
        let install = async move {
            // Whoever sent it may have gone away.
            drop(answer.send(host.install(receiver).await));
        };
        self.inner.node.options.spawner.spawn(Box::pin(install));
        installed.await.unwrap_or(Err(NotInstalled::Damaged))
    }

    async fn install(&self, mut receiver: SnapshotReceiver) -> Result<Message, NotInstalled> {
        let (header, name) = (receiver.header.clone(), receiver.name);
        let _changing = self.inner.changing.lock().await;
        if self.is_dropped(header.to) {
            return Err(NotInstalled::Damaged);
        }
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
        if older.is_none() && self.goes_on(&header).await.map_err(|fault| stop(node, fault))? {
            return Err(NotInstalled::NotNeeded(Box::new(header.acknowledgement())));
        }
        receiver.installed = true;
        self.replace(name, &header, older).await.map_err(|fault| stop(node, fault))?;
        count(&node.metrics.snapshots_installed, 1);
        Ok(header.acknowledgement())
    }

    /// Opens the replica, which was stopped, as it was when its log reaches as far as the snapshot: it may have
    /// acknowledged entries after that, which the snapshot would take away.
    async fn goes_on(&self, header: &SnapshotHeader) -> storage::Result<bool> {
        let node = &self.inner.node;
        // What the owner loop submitted last, and did not wait for, is then in what is read.
        node.write_log(LogBatch::default()).await?;
        let raft_log = node.options.raft_log.as_ref();
        let Some(state) = raft_log.state(header.to)? else { return Ok(false) };
        if !has_what_is_covered(raft_log, &state, header)? {
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

/// Whether a replica has everything that a snapshot covers: it has compacted that far, since its last look, or its log has
/// the last covered entry.
fn has_what_is_covered(
    log: &dyn RaftLog,
    state: &ReplicaLogState,
    header: &SnapshotHeader,
) -> storage::Result<bool> {
    if state.truncated_index >= header.index {
        return Ok(true);
    }
    if log.bounds(header.to)?.is_none_or(|(first, last)| header.index < first || header.index > last) {
        return Ok(false);
    }
    let entries = log.entries(header.to, header.index, header.index.next(), 1)?;
    Ok(entries.first().is_some_and(|entry| entry.term == header.index_term))
}

/// A fault of the storage stops the node.
fn stop(node: &Node, fault: Fault) -> NotInstalled {
    node.latch.set(fault.clone());
    NotInstalled::Fault(fault)
}

fn check_needed(header: &SnapshotHeader, commit: LogIndex) -> Result<(), NotInstalled> {
    match commit >= header.index {
        // What is behind the snapshot may come from a later leader, and this one may have something else there.
        true => Err(NotInstalled::NotNeeded(Box::new(header.acknowledgement()))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use base::{Generation, Term};
    use bytes::Bytes;
    use storage::memory::MemoryDisk;
    use storage::{LogEntry, ReplicaWrites};

    use super::*;

    const REPLICA: ReplicaId = ReplicaId(7);

    /// A log of term 4 that is compacted up to one index and reaches to another.
    fn log(truncated: u64, last: u64) -> (storage::memory::MemoryRaftLog, ReplicaLogState) {
        let (_, log) = MemoryDisk::new().open().expect("an empty disk");
        let state = ReplicaLogState {
            shard: ShardId(2),
            term: Term(4),
            vote: None,
            commit: LogIndex(truncated),
            generation: Generation(1),
            truncated_index: LogIndex(truncated),
            truncated_term: Term(4),
            membership: Bytes::new(),
        };
        let entry = |index| LogEntry { index: LogIndex(index), term: Term(4), kind: 0, data: Bytes::new() };
        let entries = (truncated + 1..=last).map(entry).collect();
        let writes = ReplicaWrites { entries, state: Some(state.clone()), ..ReplicaWrites::default() };
        let batch = LogBatch { replicas: vec![(REPLICA, writes)], node: Vec::new() };
        log.write(batch).expect("written");
        (log, state)
    }

    fn has((log, state): (storage::memory::MemoryRaftLog, ReplicaLogState), index: u64, term: u64) -> bool {
        let header = SnapshotHeader {
            shard: ShardId(2),
            from: ReplicaId(8),
            to: REPLICA,
            term: Term(5),
            index: LogIndex(index),
            index_term: Term(term),
            membership: Bytes::new(),
        };
        has_what_is_covered(&log, &state, &header).expect("readable")
    }

    #[test]
    fn a_log_that_reaches_beyond_a_snapshot_is_kept() {
        assert!(has(log(1, 9), 5, 4));
        assert!(has(log(1, 9), 9, 4));
        // The replica caught up and compacted while it was being stopped.
        assert!(has(log(7, 9), 5, 4));
        assert!(has(log(9, 9), 5, 4));
        assert!(has(log(5, 5), 5, 4));
    }

    #[test]
    fn a_snapshot_that_is_not_needed_acknowledges_only_what_it_covers() {
        let header = SnapshotHeader {
            shard: ShardId(2),
            from: ReplicaId(8),
            to: REPLICA,
            term: Term(5),
            index: LogIndex(7),
            index_term: Term(4),
            membership: Bytes::new(),
        };
        assert_eq!(check_needed(&header, LogIndex(6)), Ok(()));
        let Err(NotInstalled::NotNeeded(answer)) = check_needed(&header, LogIndex(20)) else {
            panic!("the replica has it");
        };
        assert_eq!((answer.term, answer.index, answer.commit), (5, 7, 7));
    }

    #[test]
    fn a_log_that_ends_before_a_snapshot_or_differs_from_it_is_replaced() {
        assert!(!has(log(1, 9), 10, 4));
        assert!(!has(log(9, 9), 10, 4));
        assert!(!has(log(1, 9), 5, 5));
    }
}
