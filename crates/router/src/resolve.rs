//! From a namespace to its collection, and from a filter to the shards that it can mean.

use std::sync::Arc;

use base::{Code, Epoch, Error, Namespace, Result, ShardId};
use catalog::{CollectionRecord, ShardPlacement};
use document::ShardKey;
use document::filter::Filter;
use replica::ShardHandle;

use crate::Router;

impl Router {
    /// How many nodes hold data, as this node knows.
    pub fn data_nodes(&self) -> usize {
        self.catalog_copy().nodes().filter(|node| node.facts.storage && node.is_member()).count()
    }

    /// The collection in use under a name. `None` is confirmed by a linearizable read.
    pub(crate) async fn collection(&self, namespace: &Namespace) -> Result<Option<Arc<CollectionRecord>>> {
        if let Some(record) = self.catalog_copy().find(namespace) {
            return Ok(Some(Arc::clone(record)));
        }
        Ok(self.catalog_now().await?.find(namespace).cloned())
    }

    /// The collection as of now, with every definition acknowledged before. Fails with `NamespaceNotFound` (26).
    pub(crate) async fn existing_collection(&self, namespace: &Namespace) -> Result<Arc<CollectionRecord>> {
        let catalog = self.catalog_now().await?;
        let record = catalog.find(namespace).cloned();
        record.ok_or_else(|| Error::new(Code::NAMESPACE_NOT_FOUND, format!("ns does not exist: {namespace}")))
    }

    /// This node's replica of a shard. Fails as stale while there is none.
    pub(crate) fn shard_of(&self, place: &Place) -> Result<ShardHandle> {
        self.host.shard(place.shard).ok_or_else(|| {
            let message = format!("{} of {} is not served here", place.shard, place.record.namespace);
            Error::new(Code::STALE_CONFIG, message)
        })
    }
}

/// A shard of a collection, as an operation was routed to it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) record: Arc<CollectionRecord>,
    pub(crate) shard: ShardId,
    /// The version of the shard map with which it came into use.
    pub(crate) since: Epoch,
    /// Where it is in the shard map, if it is there.
    position: usize,
}

impl Place {
    /// The shard of the map at a position.
    fn at(record: &Arc<CollectionRecord>, position: usize) -> Place {
        let placement = record.shard_map.shards.get(position).expect("the caller counted the shards");
        Place { record: Arc::clone(record), shard: placement.shard, since: placement.since, position }
    }

    /// A shard that somebody asked for by its id.
    pub(crate) fn of_placement(record: &Arc<CollectionRecord>, placement: &ShardPlacement) -> Place {
        let shards = &record.shard_map.shards;
        let position = shards.iter().position(|shard| shard.shard == placement.shard).unwrap_or(shards.len());
        Place { record: Arc::clone(record), shard: placement.shard, since: placement.since, position }
    }

    /// Where its replicas are.
    pub(crate) fn placement(&self) -> &ShardPlacement {
        let mapped = self.record.shard_map.shards.get(self.position);
        let kept = || self.record.all_shards().find(|placement| placement.shard == self.shard);
        mapped.or_else(kept).expect("a place is made of a placement of its record")
    }
}

/// All shards of a collection, in the order of the map.
pub(crate) fn all_places(record: &Arc<CollectionRecord>) -> Vec<Place> {
    (0..record.shard_map.shards.len()).map(|position| Place::at(record, position)).collect()
}

/// The shard that owns a hash.
pub(crate) fn place_of(record: &Arc<CollectionRecord>, hash: u64) -> Place {
    Place::at(record, record.shard_map.owner_position(hash))
}

/// The collection's only shard; `None` when it has several.
pub(crate) fn sole_place(record: &Arc<CollectionRecord>) -> Option<Place> {
    (record.shard_map.shards.len() == 1).then(|| Place::at(record, 0))
}

/// The shard key of a collection.
pub(crate) fn shard_key(record: &CollectionRecord) -> ShardKey {
    ShardKey::from(record.shard_key.clone())
}

/// The shards that hold whatever the filter accepts; at least one.
pub(crate) fn places_of(record: &Arc<CollectionRecord>, filter: &Filter) -> Vec<Place> {
    if let Some(sole) = sole_place(record) {
        return vec![sole];
    }
    let Some(hashes) = shard_key(record).hashes(filter) else { return all_places(record) };
    let mut positions: Vec<usize> =
        hashes.into_iter().map(|hash| record.shard_map.owner_position(hash)).collect();
    positions.sort_unstable();
    positions.dedup();
    match positions.is_empty() {
        // Nothing can match: whichever shard says so.
        true => vec![Place::at(record, 0)],
        false => positions.into_iter().map(|position| Place::at(record, position)).collect(),
    }
}
