//! From a namespace to its collection and shard.

use std::sync::Arc;

use base::{Code, Error, Namespace, Result};
use catalog::{CollectionRecord, ShardPlacement};
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

    /// This node's replica of a collection's shard. Fails as stale while there is none.
    pub(crate) fn shard_of(&self, record: &CollectionRecord) -> Result<ShardHandle> {
        let placement = sole_shard(record);
        self.host.shard(placement.shard).ok_or_else(|| {
            Error::new(
                Code::STALE_CONFIG,
                format!("{} of {} is not served here", placement.shard, record.namespace),
            )
        })
    }
}

/// The collection's only shard.
pub(crate) fn sole_shard(record: &CollectionRecord) -> &ShardPlacement {
    let shards = &record.shard_map.shards;
    assert_eq!(shards.len(), 1, "collections have one shard each until they can be split");
    shards.first().expect("its length was checked")
}
