//! Filling an index from the documents that were there before it, without stopping writes; and emptying a dropped one.
//!
//! Started by `reconcile` on the node of the shard's primary; whoever becomes primary next starts over. Steps, each safe to
//! do again: the shard commits "maintain it", so that writes keep it up from then on; a read view made after that
//! names all older documents; their missing entries go through the owner loop in batches, which look at each document
//! as it is by then; the shard commits "ready"; the catalog commits "ready". What cannot be built is "failed" in the catalog,
//! with the reason, for whoever asked.

use std::sync::Arc;

use base::{CollectionId, IndexId, Namespace, Result, ShardId};
use catalog::{CollectionRecord, Command, IndexFailure, IndexSpec, IndexState};
use query::evaluate::{ConfigChange, ShardCommand, ShardReply};
use replica::ShardHandle;
use storage::Direction;

use crate::Router;
use crate::reconcile::PENDING_INTERVAL;
use crate::retry::ends_command;

/// Documents that go into one backfill entry, so that client writes get their turn in between.
const BACKFILL_BATCH: usize = 500;
/// Index entries that one purge entry removes.
const PURGE_BATCH: usize = 2_000;

/// An index of a collection in a shard.
pub(crate) type BuildKey = (ShardId, CollectionId, IndexId);

impl Router {
    /// Builds an index in the background, unless that is going on already.
    pub(crate) fn build_index(&self, record: &Arc<CollectionRecord>, spec: &IndexSpec, shard: &ShardHandle) {
        let Some(running) = self.builds.begin(vec![(shard.shard(), record.id, spec.id)]) else { return };
        let builder =
            Builder { shard: shard.clone(), namespace: record.namespace.clone(), spec: spec.clone() };
        let (router, collection) = (self.shared(), record.id);
        self.spawner.spawn(Box::pin(async move {
            if !router.still_building(collection, builder.spec.id).await {
                return;
            }
            let built = builder.run().await;
            let index = builder.spec.id;
            let command = match built {
                Ok(()) => Command::IndexReady { collection, index, shard: builder.shard.shard() },
                Err(error) if ends_command(&error) => {
                    tracing::debug!(%error, index = %builder.spec.name, "an index build stops here");
                    // A shard that is ending refuses at once, and would again.
                    tokio::time::sleep(PENDING_INTERVAL).await;
                    drop(running);
                    router.unreconciled.notify_one();
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, index = %builder.spec.name, "an index could not be built");
                    Command::IndexFailed { collection, failure: IndexFailure::new(index, &error) }
                }
            };
            // The next leader, or the next look at the catalog, builds it again; what is there costs little.
            if let Err(error) = router.change_catalog(command).await {
                tracing::debug!(%error, "the catalog does not know yet how an index build ended");
            }
            drop(running);
        }));
    }

    /// Whether the catalog wants the index built as of now; this node's copy may be behind.
    async fn still_building(&self, collection: CollectionId, index: IndexId) -> bool {
        let Ok(catalog) = self.catalog_now().await else { return false };
        let record = catalog.collection(collection);
        let building = |record: &Arc<CollectionRecord>| {
            record.indexes.iter().any(|(spec, state)| spec.id == index && *state == IndexState::Building)
        };
        record.is_some_and(building)
    }

    /// Removes the entries of dropped indexes in the background, then forgets the indexes.
    pub(crate) fn purge_indexes(&self, collection: CollectionId, shard: &ShardHandle, indexes: Vec<IndexId>) {
        let keys = indexes.iter().map(|index| (shard.shard(), collection, *index)).collect();
        let Some(running) = self.builds.begin(keys) else { return };
        let (router, shard) = (self.shared(), shard.clone());
        self.spawner.spawn(Box::pin(async move {
            let _running = running;
            let purge = async {
                for &index in &indexes {
                    purge_index(&shard, index).await?;
                }
                router.change_catalog(Command::ForgetIndexes { collection, indexes: indexes.clone() }).await
            };
            if let Err(error) = purge.await {
                // The next look at the catalog takes it up again.
                tracing::debug!(%error, "dropped indexes are not purged yet");
            }
        }));
    }
}

/// What a build needs.
struct Builder {
    shard: ShardHandle,
    namespace: Namespace,
    spec: IndexSpec,
}

impl Builder {
    async fn run(&self) -> Result<()> {
        let shard = &self.shard;
        shard.write(ShardCommand::Configure(ConfigChange::AddIndex(self.spec.clone()))).await?;
        self.backfill(shard).await?;
        shard.write(ShardCommand::Configure(ConfigChange::MarkReady(self.spec.id))).await?;
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
