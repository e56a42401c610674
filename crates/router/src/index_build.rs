//! Filling an index from the documents that were there before it, without stopping writes; and emptying a dropped one.
//!
//! Steps, each safe to do again after a crash: every shard commits "maintain it", so that writes keep it up from then
//! on; a read view made after that names all older documents; their missing entries go through the owner loop in
//! batches, which look at each document as it is by then; every shard commits "ready"; the catalog commits "ready".

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Code, CollectionId, Error, IndexId, Namespace, Result};
use catalog::{CollectionRecord, Command, IndexSpec};
use parking_lot::Mutex;
use query::evaluate::{ConfigChange, ShardCommand, ShardReply};
use replica::ShardHandle;
use storage::Direction;
use tokio::sync::watch;

use crate::definition::BuildKey;
use crate::{OperationContext, Router};

/// Documents that go into one backfill entry, so that client writes get their turn in between.
const BACKFILL_BATCH: usize = 500;
/// Index entries that one purge entry removes.
const PURGE_BATCH: usize = 2_000;

type Outcome = Option<Result<()>>;

/// The builds that run on this node.
#[derive(Default)]
pub(crate) struct Builds {
    running: Mutex<BTreeMap<BuildKey, watch::Receiver<Outcome>>>,
}

/// Waits for one build.
pub(crate) struct Build {
    outcome: watch::Receiver<Outcome>,
}

impl Build {
    /// Returns when the index is complete, or why it could not be built. Leaving early does not stop the build.
    pub(crate) async fn finished(mut self, router: &Router, cx: &OperationContext) -> Result<()> {
        loop {
            if let Some(outcome) = self.outcome.borrow_and_update().clone() {
                return outcome;
            }
            cx.check(router.clock.monotonic())?;
            let pause = std::time::Duration::from_millis(50);
            if let Ok(Err(_)) = tokio::time::timeout(pause, self.outcome.changed()).await {
                return Err(Error::new(Code::INTERRUPTED_AT_SHUTDOWN, "The node is stopping."));
            }
        }
    }
}

impl Router {
    /// Starts building an index, unless that is going on already.
    pub(crate) fn build_index(&self, record: &Arc<CollectionRecord>, spec: &IndexSpec) -> Build {
        let key = (record.id, spec.id);
        let mut running = self.builds.running.lock();
        if let Some(outcome) = running.get(&key) {
            return Build { outcome: outcome.clone() };
        }
        let (sender, outcome) = watch::channel(None);
        running.insert(key, outcome.clone());
        let builder = Builder {
            catalog: self.catalog.clone(),
            shard: self.shard_of(record),
            namespace: record.namespace.clone(),
            spec: spec.clone(),
        };
        let builds = Arc::clone(&self.builds);
        let collection = record.id;
        tokio::spawn(async move {
            let result = builder.run(collection).await;
            if let Err(error) = &result {
                tracing::warn!(%error, index = %builder.spec.name, "an index could not be built");
            }
            builds.running.lock().remove(&key);
            sender.send_replace(Some(result));
        });
        Build { outcome }
    }

    /// Removes the entries of dropped indexes in the background, then forgets the indexes.
    pub(crate) fn purge_indexes(&self, collection: CollectionId, shard: ShardHandle, indexes: Vec<IndexId>) {
        let catalog = self.catalog.clone();
        tokio::spawn(async move {
            let purge = async {
                for &index in &indexes {
                    // A crash may have come between the catalog's entry and the shard's.
                    shard.write(ShardCommand::Configure(ConfigChange::DropIndex(index))).await?;
                    purge_index(&shard, index).await?;
                }
                catalog.write(Command::ForgetIndexes { collection, indexes: indexes.clone() }).await
            };
            if let Err(error) = purge.await {
                // The next start takes it up again.
                tracing::debug!(%error, "dropped indexes are not purged yet");
            }
        });
    }
}

/// What a build needs, free of the router that started it.
struct Builder {
    catalog: replica::CatalogHandle,
    shard: Result<ShardHandle>,
    namespace: Namespace,
    spec: IndexSpec,
}

impl Builder {
    async fn run(&self, collection: CollectionId) -> Result<()> {
        let shard = self.shard.as_ref().map_err(Clone::clone)?;
        shard.write(ShardCommand::Configure(ConfigChange::AddIndex(self.spec.clone()))).await?;
        self.backfill(shard).await?;
        shard.write(ShardCommand::Configure(ConfigChange::MarkReady(self.spec.id))).await?;
        self.catalog.write(Command::IndexReady { collection, index: self.spec.id }).await?;
        Ok(())
    }

    async fn backfill(&self, shard: &ShardHandle) -> Result<()> {
        let (view, _) = shard.read().await?;
        let mut keys = view.scan(query::encoding::document_range(), Direction::Forward);
        loop {
            let batch: Vec<_> = keys.by_ref().take(BACKFILL_BATCH).collect();
            let (more, mut document_keys) = (batch.len() == BACKFILL_BATCH, Vec::with_capacity(batch.len()));
            for pair in batch {
                document_keys.push(pair.map_err(|fault| shard.report(fault))?.0);
            }
            let namespace = self.namespace.clone();
            shard.write(ShardCommand::Backfill { namespace, index: self.spec.id, document_keys }).await?;
            if !more {
                return Ok(());
            }
        }
    }
}

async fn purge_index(shard: &ShardHandle, index: IndexId) -> Result<()> {
    loop {
        match shard.write(ShardCommand::PurgeIndex { index, limit: PURGE_BATCH }).await? {
            ShardReply::Purged { done: true, .. } => return Ok(()),
            ShardReply::Purged { .. } => {}
            other => unreachable!("a shard answers a purge with {other:?}"),
        }
    }
}
