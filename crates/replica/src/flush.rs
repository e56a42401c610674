//! The host's background task: flushes the store from time to time, and tells owner loops how far it is durable.
//!
//! One for a node. Always holds: an owner loop compacts its Raft log only up to an index that a flush has made durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::ReplicaId;
use storage::KeyspaceName;

use crate::metrics::count;
use crate::node::Node;
use crate::shared::Shared;

/// What the task needs of a replica, whatever it replicates.
pub(crate) trait Flushed: Send + Sync {
    /// Its keyspace.
    fn name(&self) -> KeyspaceName;
    /// Whether something was applied since the last call.
    fn take_unflushed(&self) -> bool;
    /// The store is durable up to `index`.
    fn note_durable(&self, index: base::LogIndex);
    /// The node's Raft log cannot shrink because of this replica.
    fn want_compaction(&self);
    /// Wakes everyone who waits on the replica.
    fn ring(&self);
}

impl<S: Send + Sync> Flushed for Shared<S> {
    fn name(&self) -> KeyspaceName {
        self.name
    }

    fn take_unflushed(&self) -> bool {
        self.unflushed.swap(false, Ordering::SeqCst)
    }

    fn note_durable(&self, index: base::LogIndex) {
        self.durable.raise(index.get());
        self.owner.notify_one();
    }

    fn want_compaction(&self) {
        self.compaction_wanted.store(true, Ordering::SeqCst);
    }

    fn ring(&self) {
        self.owner.notify_one();
        self.readers.notify_waiters();
    }
}

/// Lists the replicas of the node as of now.
pub(crate) type Replicas = Box<dyn Fn() -> Vec<Arc<dyn Flushed>> + Send + Sync>;

/// Runs until `stop` resolves or the node has a fault; then wakes every replica so that it notices.
pub(crate) async fn run(node: Arc<Node>, replicas: Replicas, stop: tokio::sync::oneshot::Receiver<()>) {
    let serve = async {
        let interval = Duration::from_millis(node.options.compaction.flush_interval_ms);
        loop {
            tokio::select! {
                biased;
                () = node.flush_wanted.notified() => {}
                () = tokio::time::sleep(interval) => {}
            }
            if let Err(fault) = flush(&node, &replicas).await {
                node.latch.set(fault.context("flushing the store"));
            }
        }
    };
    tokio::select! {
        biased;
        _ = node.latch.wait() => {}
        _ = stop => {}
        () = serve => {}
    }
    replicas().iter().for_each(|replica| replica.ring());
}

async fn flush(node: &Arc<Node>, replicas: &Replicas) -> storage::Result<()> {
    let unflushed: Vec<_> = replicas().into_iter().filter(|replica| replica.take_unflushed()).collect();
    if unflushed.is_empty() {
        return Ok(());
    }
    node.unflushed_bytes.store(0, Ordering::SeqCst);
    let names: Vec<_> = unflushed.iter().map(|replica| replica.name()).collect();
    let durable = node
        .blocking(move |store| {
            store.flush()?;
            // A replica may be dropped meanwhile; that its keyspace is gone then is no fault.
            let durable = |name: KeyspaceName| match store.durable_index(name) {
                Ok(index) => Ok(Some(index)),
                Err(fault) if store.keyspaces()?.contains(&name) => Err(fault),
                Err(_) => Ok(None),
            };
            names.into_iter().map(durable).collect::<storage::Result<Vec<_>>>()
        })
        .await?;
    count(&node.metrics.flushes, 1);
    let (_, pinning) = node.options.raft_log.usage()?;
    for (replica, index) in unflushed.iter().zip(durable) {
        if pins(&pinning, replica.name().replica) {
            replica.want_compaction();
        }
        if let Some(index) = index {
            replica.note_durable(index);
        }
    }
    Ok(())
}

fn pins(pinning: &[ReplicaId], replica: ReplicaId) -> bool {
    pinning.contains(&replica)
}
