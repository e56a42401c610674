//! Makes this node what the catalog says: its replicas, and what their leaders have to do for the catalog.
//!
//! Runs beside the router for as long as the node serves. Always holds: it acts on this node's copy of the catalog, which may
//! be behind, and does nothing that a newer one could forbid: ids are never used again, so that what a copy does not know
//! yet is told apart from what it has forgotten.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::id::CATALOG_SHARD;
use base::{Code, CollectionId, Error, IndexId, Result, ShardId};
use catalog::balance::{self, Proposal};
use catalog::placement::{self, GroupWanted};
use catalog::{
    Catalog, CollectionRecord, CollectionState, Command, IndexSpec, IndexState, ReplicaPlacement,
    ShardPlacement,
};
use document::ShardKey;
use query::evaluate::{ConfigChange, ShardCommand};
use query::state::{Driver, HashRange, IndexStatus, Reached, ShardIndex, ShardState, Source};
use replica::{Membership, ShardHandle};

use crate::Router;
use crate::group_steps::Leaving;
use crate::resolve::Place;
use crate::retry::is_stale;

/// How long nothing at all happens before everything is looked at again.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The same while learners catch up or a replica is missing.
pub(crate) const PENDING_INTERVAL: Duration = Duration::from_millis(50);
/// How often a new group's first replica asks for votes until the others are there.
const CAMPAIGN_INTERVAL: Duration = Duration::from_millis(20);
const CAMPAIGNS_MAX: usize = 100;

impl Router {
    /// Reconciles whenever the catalog, or who leads it, changes, until the task is dropped.
    pub async fn keep_reconciled(self: Arc<Self>) {
        loop {
            let replica = self.catalog_replica();
            let (applied, leader) = (replica.applied_index(), replica.leader());
            let pending = match self.reconcile().await {
                Ok(pending) => pending,
                Err(error) => {
                    tracing::warn!(%error, "this node is not yet what the catalog says");
                    tokio::time::sleep(PENDING_INTERVAL).await;
                    true
                }
            };
            let pause = if pending { PENDING_INTERVAL } else { LOOK_INTERVAL };
            tokio::select! {
                biased;
                () = replica.changed(applied, leader) => {}
                () = self.unreconciled.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Brings this node in line with its copy of the catalog. Says whether something is still on its way. Does nothing
    /// when all is well.
    pub async fn reconcile(&self) -> Result<bool> {
        let _one_at_a_time = self.reconciling.lock().await;
        let catalog = self.catalog_copy();
        self.drop_forgotten_replicas(&catalog).await?;
        let mut pending = false;
        for record in catalog.collections() {
            match record.state {
                CollectionState::Active => pending |= self.reconcile_collection(record).await?,
                CollectionState::Dropping => self.drop_replicas(record).await?,
            }
        }
        pending |= self.lead_catalog(&catalog).await?;
        Ok(pending)
    }

    /// Does the same for one collection, for whoever waits for that one: nothing else can make this fail.
    pub(crate) async fn reconcile_one(&self, collection: CollectionId) -> Result<()> {
        let _one_at_a_time = self.reconciling.lock().await;
        let catalog = self.catalog_copy();
        match catalog.collection(collection) {
            Some(record) if record.state == CollectionState::Active => {
                self.reconcile_collection(record).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    async fn reconcile_collection(&self, record: &Arc<CollectionRecord>) -> Result<bool> {
        let mut pending = record.reshard.is_some();
        for placement in record.kept_shards() {
            if placement.members().all(|placed| placed.node != self.node) {
                continue;
            }
            self.start_replica(placement).await?;
            let Some(replica) = self.host.shard(placement.shard) else {
                // It comes as a snapshot.
                continue;
            };
            if self.is_here(&replica) {
                let wanted = GroupWanted {
                    shard: placement.shard,
                    placed: &placement.replicas,
                    unfit: &BTreeSet::new(),
                };
                let leaving = Leaving { replicas: &placement.leaving, cancels_seen: placement.cancels };
                pending |= self.step_group(&wanted, leaving, &replica).await?;
                self.lead_indexes(record, &replica).await?;
                self.lead_reshard(record, &replica).await?;
            }
        }
        self.drop_retired(record).await?;
        Ok(pending)
    }

    /// What falls to the leader of a shard that others shall replace, or were to.
    async fn lead_reshard(&self, record: &CollectionRecord, replica: &ShardHandle) -> Result<()> {
        let reshard = record.reshard.as_deref();
        if let Some(reshard) = reshard.filter(|reshard| reshard.sources.contains(&replica.shard())) {
            if !reshard.paused && !reshard.complete.contains(&replica.shard()) {
                self.copy_shard(record.id, reshard, replica);
            }
            return Ok(());
        }
        if replica.state().noting.is_some() {
            // This node's copy of the catalog may be behind what the shard notes its changes for.
            let now = self.catalog_now().await?;
            self.reopen_shard(&now, replica).await?;
        }
        Ok(())
    }

    /// Removes this node's replicas of shards that others have replaced, or that never came into use.
    async fn drop_retired(&self, record: &CollectionRecord) -> Result<()> {
        for placement in &record.retired {
            #[cfg(feature = "bugs")]
            self.keep_source(placement).await;
            for mine in placement.members().filter(|placed| placed.node == self.node) {
                self.host.drop_replica(placement.shard).await?;
                let gone = Command::ReplicaGone { collection: record.id, replica: mine.replica };
                self.change_catalog(gone).await?;
            }
        }
        Ok(())
    }

    /// Starts this node's replica of a new shard. One that joins a shard later comes as a snapshot instead.
    async fn start_replica(&self, placement: &ShardPlacement) -> Result<()> {
        // With those that are on their way out: all founders must begin with the same ones.
        let founders = placement.members().filter(|placed| placed.founder);
        let Some(mine) = founders.clone().find(|placed| placed.node == self.node) else { return Ok(()) };
        if self.host.shard(placement.shard).is_some() {
            return Ok(());
        }
        // After a restart this node's copy may be older than what was done here: the replica may have been dropped, or have
        // moved away, and its id is never used again.
        let now = self.catalog_now().await?;
        let placed = now.placement(placement.shard).filter(|(record, now)| {
            let is_kept = record.kept_shards().any(|kept| kept.shard == placement.shard);
            let may_begin = |placed: &ReplicaPlacement| placed.replica == mine.replica && placed.founder;
            record.state == CollectionState::Active && is_kept && now.members().any(may_begin)
        });
        let Some((record, _)) = placed else { return Ok(()) };
        let state = first_state(record, placement);
        let membership = Membership::of_voters(founders.clone().map(|placed| (placed.replica, placed.node)));
        let replica = self
            .host
            .create_replica(placement.shard, mine.replica, &membership, state.initial_batch())
            .await?;
        if founders.clone().nth(1).is_some() && placement.replicas.first() == Some(mine) {
            self.spawner.spawn(Box::pin(campaign(replica)));
        }
        Ok(())
    }

    /// Removes this node's replicas of a dropped collection, and tells the catalog.
    async fn drop_replicas(&self, record: &CollectionRecord) -> Result<()> {
        for placement in record.all_shards() {
            for mine in placement.members().filter(|placed| placed.node == self.node) {
                // Their views would keep the collection's files on the disk for as long as nobody reads on.
                self.cursors.kill_namespace(&record.namespace.to_string());
                self.host.drop_replica(placement.shard).await?;
                let gone = Command::ReplicaGone { collection: record.id, replica: mine.replica };
                self.change_catalog(gone).await?;
            }
        }
        Ok(())
    }

    /// Replicas that the catalog has forgotten: they have left their shard, or this node was away when their collection was
    /// dropped.
    async fn drop_forgotten_replicas(&self, catalog: &Catalog) -> Result<()> {
        for replica in self.host.shards() {
            let (shard, own) = (replica.shard(), replica.replica());
            let knows = |catalog: &Catalog| {
                let placement = catalog.placement(shard).map(|(_, placement)| placement);
                placement.map(|placement| placement.members().any(|placed| placed.replica == own))
            };
            let is_forgotten = match knows(catalog) {
                Some(true) => false,
                // This node's copy may be older than the replica.
                Some(false) => knows(&*self.catalog_now().await?) != Some(true),
                None => catalog.knew_shard(shard),
            };
            if is_forgotten {
                // Its successor may be here by now.
                self.host.drop_this_replica(shard, own).await?;
            }
        }
        Ok(())
    }

    /// What falls to the catalog's leader: its own group, replicas that are missing or on nodes that are gone, and nodes that are
    /// to be emptied.
    async fn lead_catalog(&self, catalog: &Catalog) -> Result<bool> {
        let replica = self.catalog_replica();
        if !self.is_here(&replica) {
            return Ok(false);
        }
        let cluster = catalog.cluster();
        let unfit = placement::unfit_voters(catalog, CATALOG_SHARD);
        let wanted = GroupWanted { shard: CATALOG_SHARD, placed: &cluster.catalog, unfit: &unfit };
        // No move of one of these is called off.
        let leaving = Leaving { replicas: &cluster.leaving, cancels_seen: 0 };
        let mut pending = self.step_group(&wanted, leaving, &replica).await?;
        for Proposal { action, reason } in balance::repairs(catalog) {
            let Some(command) = action.command(catalog) else { continue };
            tracing::info!(%reason, "the catalog changes");
            pending = true;
            match replica.write(command).await {
                Ok(_) => {}
                Err(error) if is_stale(&error) => return Err(error),
                // The catalog has moved on since this copy of it.
                Err(error) => tracing::info!(%error, "the catalog has not changed"),
            }
        }
        Ok(pending)
    }

    /// On return no index is in use in the shard that the catalog has dropped by now. Fails as stale when this node's replica
    /// does not lead.
    pub(crate) async fn apply_index_drops(&self, place: &Place) -> Result<()> {
        let catalog = self.catalog_now().await?;
        self.reconcile_one(place.record.id).await?;
        let Some(record) = catalog.collection(place.record.id) else { return Ok(()) };
        // Whoever leads by now says what is in use: leadership may have been lost before it came to dropping.
        let (_, state) = self.shard_of(place)?.read().await?;
        let used = state.indexes.iter().filter(|index| index.status != IndexStatus::Dropping);
        match used.map(|index| index.spec.id).find(|index| is_dropped(record, *index)) {
            Some(index) => {
                let message = format!("index {index} of {} is not dropped yet", record.namespace);
                Err(Error::new(Code::STALE_CONFIG, message))
            }
            None => Ok(()),
        }
    }

    /// What falls to the leader of a shard: indexes that are not what the catalog says.
    async fn lead_indexes(&self, record: &Arc<CollectionRecord>, replica: &ShardHandle) -> Result<()> {
        for (spec, state) in &record.indexes {
            if *state == IndexState::Building {
                self.build_index(record, spec, replica);
            }
        }
        let kept = replica.state();
        let dropping = record.indexes.iter().filter(|(_, state)| *state == IndexState::Dropping);
        let mut dropped: Vec<IndexId> = dropping.map(|(spec, _)| spec.id).collect();
        // A leader whose catalog was behind may have built what was forgotten by then.
        let forgotten = kept.indexes.iter().map(|index| index.spec.id);
        dropped.extend(forgotten.filter(|index| is_forgotten(record, *index)));
        for index in kept.indexes.iter().filter(|index| index.status != IndexStatus::Dropping) {
            // No query reads the index and no write is refused by it once this is committed.
            if dropped.contains(&index.spec.id) {
                replica.write(ShardCommand::Configure(ConfigChange::DropIndex(index.spec.id))).await?;
            }
        }
        if !dropped.is_empty() {
            self.purge_indexes(record.id, replica, dropped);
        }
        Ok(())
    }
}

/// What every replica of a shard begins with.
fn first_state(record: &CollectionRecord, placement: &ShardPlacement) -> ShardState {
    let mut state = ShardState::new(record.id, placement.since);
    state.hash_range = HashRange { first: placement.first_hash(), last: placement.last_hash() };
    if let Some(birth) = record.birth(placement) {
        state.shard_key = ShardKey::from(birth.shard_key.clone());
        let source = |shard: &ShardId| {
            let (shard, reached) = (*shard, Reached::default());
            Source { shard, driver: Driver::NONE, number: 0, reached }
        };
        state.receiving = birth.sources.iter().map(source).collect();
        let index = |spec: &IndexSpec| ShardIndex::new(spec.clone(), IndexStatus::Ready);
        state.indexes = birth.indexes.iter().map(index).collect();
    }
    state
}

/// Whether the catalog wants an index that a shard has gone.
fn is_dropped(record: &CollectionRecord, index: IndexId) -> bool {
    let dropping =
        |(spec, state): &(IndexSpec, IndexState)| spec.id == index && *state == IndexState::Dropping;
    record.indexes.iter().any(dropping) || is_forgotten(record, index)
}

/// Whether an index was there once, as far as this record goes.
fn is_forgotten(record: &CollectionRecord, index: IndexId) -> bool {
    index < record.next_index && record.indexes.iter().all(|(spec, _)| spec.id != index)
}

/// Has the first replica of a new group elected as soon as enough others are there.
async fn campaign(replica: ShardHandle) {
    for _ in 0..CAMPAIGNS_MAX {
        if replica.leader().is_some() || replica.is_stopped() {
            return;
        }
        replica.campaign().await;
        // Returns at once when a leader is elected.
        let _ = tokio::time::timeout(CAMPAIGN_INTERVAL, replica.leader_changed(None)).await;
    }
}
