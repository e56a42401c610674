//! What the admin address sees of its node: nothing at first, then its replicas, then all of it.
//!
//! Made by [`crate::node`], which fills it in as the node starts. Always holds: a node that is ready is healthy, and
//! whatever is not so is a sentence.

use std::sync::{Arc, OnceLock};

use base::{Clock, MonoTime, NodeId};
use replica::Host;
use router::Router;
use rpc::Network;
use storage::{FjallStore, GroupCommitWriter};

use super::page;
use crate::disk::FreeBytes;

/// See the module's comment.
pub(crate) struct NodeView {
    clock: Arc<dyn Clock>,
    started: MonoTime,
    host: OnceLock<Host>,
    running: OnceLock<Running>,
    /// Held while a page of metrics is put together: a disk that stands still may hold that up, and then holds up one
    /// thread and not one for each request.
    collecting: Arc<tokio::sync::Mutex<()>>,
}

/// The parts of a node that takes clients.
pub(crate) struct Running {
    pub(crate) node: NodeId,
    pub(crate) state: Arc<wire::State>,
    pub(crate) router: Arc<Router>,
    pub(crate) network: Network,
    pub(crate) log_writer: Arc<GroupCommitWriter>,
    pub(crate) store: Arc<FjallStore>,
    pub(crate) free_bytes: Arc<FreeBytes>,
    pub(crate) disk_reserve_bytes: u64,
}

impl NodeView {
    /// The view of a node that has just begun to start.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> NodeView {
        NodeView {
            started: clock.monotonic(),
            clock,
            host: OnceLock::new(),
            running: OnceLock::new(),
            collecting: Arc::default(),
        }
    }

    /// The node belongs to a cluster and has replicas from now on.
    pub(crate) fn set_host(&self, host: Host) {
        assert!(self.host.set(host).is_ok(), "a node has one host");
    }

    /// The node takes clients from now on.
    pub(crate) fn set_running(&self, running: Running) {
        assert!(self.running.set(running).is_ok(), "a node starts to take clients once");
    }

    /// The node's replicas, once there are any.
    pub(super) fn host(&self) -> Option<&Host> {
        self.host.get()
    }

    /// The parts of the node, once it takes clients.
    pub(super) fn running(&self) -> Option<&Running> {
        self.running.get()
    }

    /// How long the node has been there, in seconds.
    pub(super) fn uptime_seconds(&self) -> f64 {
        self.clock.monotonic().since(self.started).as_secs_f64()
    }

    /// Whether the node can go on; else the fault that stops it.
    pub(crate) fn health(&self) -> Result<(), String> {
        match self.host.get().and_then(|host| host.fault_latch().get()) {
            Some(fault) => Err(format!("storage fault: {fault}")),
            None => Ok(()),
        }
    }

    /// Whether the node serves clients; else what is missing for that.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        self.health()?;
        let missing = |sentence: &str| Err(sentence.to_owned());
        let Some(host) = self.host.get() else {
            return missing("this node does not belong to a cluster yet");
        };
        let Some(catalog) = host.catalog() else {
            return missing("the catalog of the cluster has not come to this node yet");
        };
        let Some(running) = self.running.get() else {
            return missing("this node is starting and takes no clients yet");
        };
        if running.state.is_stopping() {
            return missing("this node is stopping");
        }
        if catalog.is_stopped() {
            return missing("this node's replica of the catalog has ended; a newer one may take its place");
        }
        if running.router.node_name(running.node).is_none() {
            return missing("this node's copy of the catalog does not have the node itself yet");
        }
        match catalog.leader() {
            Some(_) => Ok(()),
            None => missing("this node knows no leader of the catalog"),
        }
    }

    /// The page of metrics. Fails with a sentence.
    pub(super) async fn collect(self: Arc<NodeView>) -> Result<String, String> {
        let collecting = self.collecting.clone().lock_owned().await;
        let collected = tokio::task::spawn_blocking(move || {
            let page = page::collect(&self);
            // Whoever waits for the lock must find that nothing of the node is held any more.
            drop(self);
            drop(collecting);
            page
        });
        match collected.await {
            Ok(page) => page,
            Err(error) => Err(format!("the metrics could not be put together: {error}")),
        }
    }

    /// Returns once no page is being put together.
    pub(super) async fn wait_collected(&self) {
        drop(self.collecting.lock().await);
    }
}
