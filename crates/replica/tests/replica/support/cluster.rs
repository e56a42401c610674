//! Several nodes and the network between them, which delivers in a millisecond what is not cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::{NodeId, ReplicaId, ShardId};
use parking_lot::Mutex;
use raft::eraftpb::Message;
use replica::snapshot::{NotInstalled, SnapshotOffer};
use replica::{Haste, Membership, ReplicaHandle, Transport};
use storage::memory::MemoryDisk;

use super::machine::{KvMachine, initial};
use super::node::{KvHost, Node, NodeOptions, SHARD};

const LATENCY: Duration = Duration::from_millis(1);

/// Nodes by number; replica 10 n of the shard is on node n.
pub(crate) struct Cluster {
    network: Arc<Network>,
    nodes: BTreeMap<NodeId, Node>,
    disks: BTreeMap<NodeId, MemoryDisk>,
    options: NodeOptions,
}

/// What connects the nodes.
#[derive(Default)]
struct Network {
    hosts: Mutex<BTreeMap<NodeId, KvHost>>,
    /// Directions in which nothing arrives.
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
}

/// One node's end of it.
struct Link {
    from: NodeId,
    network: Weak<Network>,
}

impl Cluster {
    /// No nodes yet; logs are compacted after `log_entries_max` entries.
    pub(crate) fn new(log_entries_max: u64) -> Cluster {
        let options = NodeOptions { manual: false, log_entries_max };
        Cluster { network: Arc::default(), nodes: BTreeMap::new(), disks: BTreeMap::new(), options }
    }

    /// The replica of the shard on a node.
    pub(crate) fn replica_on(node: NodeId) -> ReplicaId {
        ReplicaId(u64::from(node.get()) * 10)
    }

    /// Starts a node's process on its disk.
    pub(crate) async fn start(&mut self, node: NodeId) {
        let disk = self.disks.entry(node).or_default().clone();
        let link = Arc::new(Link { from: node, network: Arc::downgrade(&self.network) });
        let started = Node::start_with(&disk, self.options, node, link).await.expect("nothing is damaged");
        self.network.hosts.lock().insert(node, started.host.clone());
        self.nodes.insert(node, started);
    }

    /// Creates the shard with one voter on each of the nodes.
    pub(crate) async fn create(&self, nodes: &[NodeId]) {
        let membership = Membership::of_voters(nodes.iter().map(|node| (Cluster::replica_on(*node), *node)));
        for node in nodes {
            let host = &self.node(*node).host;
            let replica = Cluster::replica_on(*node);
            host.create_replica(SHARD, replica, &membership, initial()).await.expect("created");
        }
    }

    /// A node whose process runs.
    pub(crate) fn node(&self, node: NodeId) -> &Node {
        self.nodes.get(&node).expect("its process runs")
    }

    /// The nodes whose processes run.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// A node's replica of the shard.
    pub(crate) fn handle(&self, node: NodeId) -> ReplicaHandle<KvMachine> {
        self.node(node).host.shard(SHARD).expect("there is one")
    }

    /// The power of a node fails: what it had not synced is gone.
    pub(crate) fn crash(&mut self, node: NodeId) {
        self.network.hosts.lock().remove(&node);
        self.nodes.remove(&node).expect("its process runs").crash();
    }

    /// A node's process ends as it should.
    pub(crate) async fn stop(&mut self, node: NodeId) {
        self.node(node).host.shutdown().await.expect("a clean end");
        self.network.hosts.lock().remove(&node);
        self.nodes.remove(&node).expect("its process runs").kill();
    }

    /// Nothing that `from` sends arrives at `to` any more.
    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.network.cut.lock().insert((from, to));
    }

    /// Everything arrives again.
    pub(crate) fn heal(&self) {
        self.network.cut.lock().clear();
    }
}

impl Network {
    /// The host at the end of a way, unless that is cut off.
    fn reach(&self, from: NodeId, to: NodeId) -> Option<KvHost> {
        let is_cut = self.cut.lock().contains(&(from, to));
        self.hosts.lock().get(&to).filter(|_| !is_cut).cloned()
    }
}

impl Transport for Link {
    fn send(&self, to: NodeId, shard: ShardId, messages: Vec<Message>, _haste: Haste) {
        let (from, network) = (self.from, self.network.clone());
        tokio::spawn(async move {
            tokio::time::sleep(LATENCY).await;
            let host = network.upgrade().and_then(|network| network.reach(from, to));
            let Some(host) = host else { return };
            messages.into_iter().for_each(|message| host.receive(from, shard, message));
        });
    }

    fn send_snapshot(&self, to: NodeId, offer: SnapshotOffer) {
        let (from, network) = (self.from, self.network.clone());
        tokio::spawn(async move {
            tokio::time::sleep(LATENCY).await;
            let Some(network) = network.upgrade() else { return };
            let Some(host) = network.reach(from, to) else { return };
            let shard = offer.header.shard;
            let installed = async {
                let mut receiver = host.begin_snapshot(offer.header.clone()).await?;
                for chunk in offer.chunks(None) {
                    receiver.add(chunk.map_err(NotInstalled::Fault)?).await?;
                }
                host.install_snapshot(receiver).await
            };
            let answer = match installed.await {
                Ok(message) => message,
                Err(NotInstalled::NotNeeded(message)) => *message,
                Err(other) => panic!("a snapshot was not installed: {other:?}"),
            };
            if let Some(host) = network.reach(to, from) {
                host.receive(to, shard, answer);
            }
        });
    }
}
