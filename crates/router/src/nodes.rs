//! The node that founds a cluster, those that join it, and what they say of themselves.
//!
//! Called by `server`: for other nodes that want to belong, and for this one at its start.

use std::sync::Arc;

use base::{Code, Error, NodeId, ReplicaId, Result};
use catalog::{Catalog, Command, NodeFacts, Reply};
use replica::{Host, Membership};

use crate::Router;

/// The node that founds a cluster.
pub const FIRST_NODE: NodeId = NodeId(1);
/// The catalog's first replica.
const FIRST_REPLICA: ReplicaId = ReplicaId(1);

/// Begins a cluster on [`FIRST_NODE`] with the command `found`, as far as that has not been done: a founder that was
/// killed before its first entry goes on here. On return the cluster exists, fsynced.
pub async fn found_cluster(host: &Host, found: impl FnOnce() -> Command + Send) -> Result<()> {
    let catalog = match host.catalog() {
        Some(catalog) => catalog,
        None => {
            let membership = Membership::sole_voter(FIRST_REPLICA, FIRST_NODE);
            host.create_catalog(FIRST_REPLICA, &membership, storage::KvBatch::default()).await?
        }
    };
    if catalog.state().nodes().next().is_none() {
        catalog.write(found()).await?;
        // Whoever looks at the catalog from here on sees it.
        catalog.read().await?;
    }
    Ok(())
}

impl Router {
    /// Takes a node into the cluster. On return it has an id, fsynced on a majority, and the catalog is as of then. The same
    /// token gives the same node.
    pub async fn join_node(&self, token: String, facts: NodeFacts) -> Result<(NodeId, Arc<Catalog>)> {
        let Reply::Node(node) = self.change_catalog(Command::JoinNode { token, facts }).await? else {
            return Err(Error::new(Code::INTERNAL_ERROR, "the catalog answered a join with something else"));
        };
        let catalog = self.catalog_now().await?;
        self.unreconciled.notify_one();
        Ok((node.id, catalog))
    }

    /// Tells the cluster what is new about this node, when something is.
    pub async fn renew_node(&self, facts: NodeFacts) -> Result<()> {
        let known = self.catalog_now().await?.node(self.node).map(|node| node.facts.clone());
        match known {
            Some(known) if known == facts => Ok(()),
            _ => self.change_catalog(Command::RenewNode { node: self.node, facts }).await.map(drop),
        }
    }

    /// Fails with `InvalidOptions` when the cluster has another name than `wanted`.
    pub fn check_cluster_name(&self, wanted: &str) -> Result<()> {
        let catalog = self.catalog_copy();
        let name = &catalog.cluster().name;
        if name == wanted {
            return Ok(());
        }
        let message = format!("this node belongs to the cluster '{name}', not to '{wanted}'");
        Err(Error::new(Code::INVALID_OPTIONS, message))
    }

    /// The name of a node, as this node's copy of the catalog has it.
    pub fn node_name(&self, node: NodeId) -> Option<String> {
        self.catalog_copy().node(node).map(|node| node.facts.name.clone())
    }
}
