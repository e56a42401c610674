//! Makes this node's replicas what the catalog says, at start and after every definition.
//!
//! Whatever a crash interrupts between the catalog's entry and the shards' is found and finished here: replicas that
//! are missing or no longer wanted, index builds, purges of dropped indexes.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::id::CATALOG_SHARD;
use base::{Result, ShardId};
use catalog::{CollectionRecord, CollectionState, Command, IndexState};
use query::state::ShardState;
use replica::Membership;

use crate::Router;

impl Router {
    /// Brings this node in line with the catalog. Call before the first command; does nothing when all is well.
    pub async fn reconcile(&self) -> Result<()> {
        let _one_at_a_time = self.definitions.lock().await;
        let catalog = self.catalog_now().await?;
        self.drop_unknown_shards(&catalog).await?;
        for record in catalog.collections() {
            match record.state {
                CollectionState::Active => {
                    self.start_replicas(record).await?;
                    self.resume_indexes(record)?;
                }
                CollectionState::Dropping => self.remove_dropped(record).await?,
            }
        }
        Ok(())
    }

    /// Starts this node's replicas of a collection that are not running yet.
    pub(crate) async fn start_replicas(&self, record: &CollectionRecord) -> Result<()> {
        for placement in &record.shard_map.shards {
            let mine = placement.replicas.iter().find(|replica| replica.node == self.node);
            if let Some(mine) = mine
                && self.host.shard(placement.shard).is_none()
            {
                let mut state = ShardState::new(record.id, record.shard_map.epoch);
                state.hash_range =
                    query::state::HashRange { first: placement.first_hash(), last: placement.last_hash() };
                let voters = placement.replicas.iter().map(|replica| (replica.replica, replica.node));
                let membership = Membership::of_voters(voters);
                self.host
                    .create_replica(placement.shard, mine.replica, &membership, state.initial_batch())
                    .await?;
            }
        }
        Ok(())
    }

    /// Removes the replicas of a dropped collection, then the collection.
    pub(crate) async fn remove_dropped(&self, record: &CollectionRecord) -> Result<()> {
        for placement in &record.shard_map.shards {
            self.host.drop_replica(placement.shard).await?;
        }
        self.catalog.write(Command::ForgetCollection { collection: record.id }).await?;
        Ok(())
    }

    /// Replicas of shards that no collection has: their collection was forgotten before their removal was durable.
    async fn drop_unknown_shards(&self, catalog: &catalog::Catalog) -> Result<()> {
        let placements = catalog.collections().flat_map(|record| &record.shard_map.shards);
        let known: BTreeSet<ShardId> = placements.map(|placement| placement.shard).collect();
        for status in self.host.replicas() {
            let shard = status.name.shard;
            if shard != CATALOG_SHARD && !known.contains(&shard) {
                self.host.drop_replica(shard).await?;
            }
        }
        Ok(())
    }

    fn resume_indexes(&self, record: &Arc<CollectionRecord>) -> Result<()> {
        let mut dropped = Vec::new();
        for (spec, state) in &record.indexes {
            match state {
                IndexState::Building => drop(self.build_index(record, spec)),
                IndexState::Dropping => dropped.push(spec.id),
                IndexState::Ready => {}
            }
        }
        if !dropped.is_empty() {
            self.purge_indexes(record.id, self.shard_of(record)?, dropped);
        }
        Ok(())
    }
}
