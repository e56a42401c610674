//! What this node answers to other nodes: the gRPC service over its host and its router.
//!
//! Made before both, since a node that is to belong to a cluster answers greetings while it waits. Always holds: until
//! [`PeerService::begin`] was called, everything but a greeting is refused or dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use base::{Code, Error, NodeId, ShardId};
use catalog::{Catalog, NodeFacts};
use parking_lot::Mutex;
use raft::eraftpb::Message;
use replica::snapshot::{NotInstalled, SnapshotHeader};
use replica::{Host, SnapshotReceiver};
use router::Router;
use router::peer::{PeerFailure, PeerReply, PeerRequest};
use rpc::{Greeting, JoinReply, JoinRequest, Service};
use storage::{Fault, Identity};

use crate::options::Settings;

/// The role of a node that holds data.
pub(crate) const STORAGE_ROLE: &str = "storage";
/// The role of a node that takes clients: every node has it.
pub(crate) const ROUTER_ROLE: &str = "router";

/// See the module's comment.
pub(crate) struct PeerService {
    settings: Settings,
    identity: Mutex<Option<Identity>>,
    host: OnceLock<Host>,
    router: OnceLock<Arc<Router>>,
}

impl PeerService {
    pub(crate) fn new(settings: Settings, identity: Option<Identity>) -> Arc<PeerService> {
        Arc::new(PeerService {
            settings,
            identity: Mutex::new(identity),
            host: OnceLock::new(),
            router: OnceLock::new(),
        })
    }

    /// The node belongs to a cluster from now on.
    pub(crate) fn set_identity(&self, identity: Identity) {
        *self.identity.lock() = Some(identity);
    }

    /// Replicas take messages and snapshots from now on.
    pub(crate) fn set_host(&self, host: Host) {
        assert!(self.host.set(host).is_ok(), "a node has one host");
    }

    /// The router takes requests from now on.
    pub(crate) fn set_router(&self, router: Arc<Router>) {
        assert!(self.router.set(router).is_ok(), "a node has one router");
    }

    fn router(&self) -> Result<&Arc<Router>, Error> {
        let message = "this node is starting and takes no requests yet";
        self.router.get().ok_or_else(|| Error::new(Code::NOT_WRITABLE_PRIMARY, message))
    }
}

#[async_trait]
impl Service for PeerService {
    fn receive(&self, from: NodeId, shard: ShardId, messages: Vec<Message>) {
        if let Some(host) = self.host.get() {
            messages.into_iter().for_each(|message| host.receive(from, shard, message));
        }
    }

    async fn handle(&self, from: NodeId, request: PeerRequest) -> Result<PeerReply, PeerFailure> {
        let router = self.router().map_err(|error| PeerFailure::Refused { error, primary: None })?;
        router.serve_peer(from, request).await
    }

    async fn begin_snapshot(
        &self,
        _from: NodeId,
        header: SnapshotHeader,
    ) -> Result<SnapshotReceiver, NotInstalled> {
        let host = self.host.get().ok_or(NotInstalled::Damaged)?;
        host.begin_snapshot(header).await
    }

    async fn install_snapshot(&self, receiver: SnapshotReceiver) -> Result<Message, NotInstalled> {
        let host = self.host.get().ok_or(NotInstalled::Damaged)?;
        host.install_snapshot(receiver).await
    }

    fn operations(&self) -> u64 {
        self.host.get().map_or(0, Host::operations)
    }

    fn fault(&self, fault: Fault) {
        if let Some(host) = self.host.get() {
            host.fault_latch().set(fault);
        }
    }

    async fn join(&self, request: JoinRequest) -> base::Result<JoinReply> {
        let router = self.router()?;
        if let Some(wanted) = &request.cluster_name {
            router.check_cluster_name(wanted)?;
        }
        let facts = NodeFacts {
            storage: request.roles.is_empty() || request.roles.iter().any(|role| role == STORAGE_ROLE),
            name: request.name,
            listen: request.listen,
            peer: request.peer,
            labels: request.labels,
        };
        let (node, catalog) = router.join_node(request.token, facts).await?;
        let identity = self.identity.lock().clone();
        let cluster_id = identity.expect("a node with a router belongs to a cluster").cluster_id;
        tracing::info!(%node, "a node has joined the cluster");
        Ok(JoinReply { cluster_id, node, peers: addresses(&catalog) })
    }

    async fn greet(&self) -> Greeting {
        let identity = self.identity.lock().clone();
        Greeting {
            node: identity.as_ref().map(|identity| identity.node_id),
            empty: identity.is_none(),
            cluster_id: identity.map(|identity| identity.cluster_id),
            name: self.settings.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Where the nodes of a cluster reach each other.
pub(crate) fn addresses(catalog: &Catalog) -> BTreeMap<NodeId, String> {
    // One that was removed takes part until its replica of the catalog has left: it may be the primary.
    let leaving = |node: NodeId| catalog.cluster().leaving.iter().any(|placed| placed.node == node);
    let reachable =
        catalog.nodes().filter(|node| !node.facts.peer.is_empty() && (node.is_member() || leaving(node.id)));
    reachable.map(|node| (node.id, node.facts.peer.clone())).collect()
}
