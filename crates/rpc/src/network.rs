//! The ways to all other nodes.
//!
//! Made by `server`, handed to the replica host as its transport and to the router as its peers. Always holds: sending never
//! blocks; a request ends with its timeout at the latest, and as soon as it is known that no answer will come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::limits::{SNAPSHOT_BYTES_PER_SECOND_DEFAULT, SNAPSHOTS_AT_A_TIME};
use base::{BootId, Entropy, NodeId, ShardId};
use parking_lot::RwLock;
use raft::eraftpb::Message;
use replica::pace::Pace;
use replica::snapshot::SnapshotOffer;
use replica::{Haste, Transport};
use router::peer::{PeerFailure, PeerReply, PeerRequest, Peers};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::hello::Identity;
use crate::lane::FrameCounts;
use crate::link::{Context, Link};
use crate::presence::Presence;
use crate::service::Service;
use crate::snapshot::{Sender, SnapshotCounts};

/// How a network behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// How often a peer is asked for a sign of life when it gives none by itself.
    pub ping_every: Duration,
    /// How long a peer may be silent before its connection ends; a connection may be silent for twice as long while its peer is
    /// heard on others. Also how long it may take to connect.
    pub dead_after: Duration,
    /// Bytes of snapshots that are sent in a second, all together.
    pub snapshot_bytes_per_second: u64,
}

impl Default for NetworkOptions {
    fn default() -> NetworkOptions {
        NetworkOptions {
            ping_every: Duration::from_millis(200),
            dead_after: Duration::from_secs(1),
            snapshot_bytes_per_second: SNAPSHOT_BYTES_PER_SECOND_DEFAULT,
        }
    }
}

/// What is known of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHealth {
    /// Where it is looked for.
    pub address: String,
    /// Whether there is a connection on which it was heard not long ago.
    pub connected: bool,
    /// Why there is none, as a sentence.
    pub reason: Option<String>,
    /// How long ago it was heard last on this connection.
    pub heard_ago: Option<Duration>,
    /// How long it took to answer a ping, lately.
    pub round_trip: Option<Duration>,
    /// Its process, as it said last; another one means that it was restarted.
    pub boot: Option<BootId>,
    /// Raft messages that were not sent, for want of room or of a connection.
    pub dropped_messages: u64,
}

/// See the module's comment. Clones are the same network.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    context: Arc<Context>,
    handle: Handle,
    links: RwLock<Links>,
    local: Arc<RwLock<Option<Arc<dyn Service>>>>,
    pace: Arc<Pace>,
    sending: Arc<Semaphore>,
}

#[derive(Default)]
struct Links {
    by_node: BTreeMap<NodeId, Arc<Link>>,
    stopped: bool,
}

impl Network {
    /// A network without addresses. Must be called within a Tokio runtime with IO and time, which then carries it.
    pub fn new(
        identity: Identity,
        entropy: Arc<dyn Entropy>,
        presence: Arc<Presence>,
        options: NetworkOptions,
    ) -> Network {
        let pace = Pace::new(options.snapshot_bytes_per_second);
        let inner = Inner {
            context: Arc::new(Context {
                identity,
                entropy,
                options,
                snapshots: SnapshotCounts::default(),
                frames: Arc::default(),
                presence,
                news: Notify::new(),
                started: Instant::now(),
            }),
            handle: Handle::current(),
            links: RwLock::default(),
            local: Arc::default(),
            pace: Arc::new(pace),
            sending: Arc::new(Semaphore::new(SNAPSHOTS_AT_A_TIME)),
        };
        Network { inner: Arc::new(inner) }
    }

    /// Says who takes what snapshots that this node sends lead to. Until then none are sent. [`Network::stop`] forgets it.
    pub fn set_local(&self, local: Arc<dyn Service>) {
        *self.inner.local.write() = Some(local);
    }

    /// Says where the other nodes are (`host:port`). Connections to nodes that are not among them, or are elsewhere now, end;
    /// this node's own address is ignored.
    pub fn set_addresses(&self, mut addresses: BTreeMap<NodeId, String>) {
        let inner = &self.inner;
        addresses.remove(&inner.context.identity.node);
        let mut links = inner.links.write();
        if links.stopped {
            return;
        }
        links.by_node.retain(|node, link| {
            let stays = addresses.get(node) == Some(&link.address);
            if !stays {
                link.stop("its address was changed or removed");
            }
            stays
        });
        for (node, address) in addresses {
            links
                .by_node
                .entry(node)
                .or_insert_with(|| Link::start(node, address, inner.context.clone(), &inner.handle));
        }
    }

    /// What is known of every peer with an address.
    pub fn health(&self) -> BTreeMap<NodeId, PeerHealth> {
        let links = self.inner.links.read();
        links.by_node.iter().map(|(node, link)| (*node, link.health())).collect()
    }

    /// Waits until [`Network::health`] says something new of which nodes are connected, and which process each of them is. For one
    /// caller at a time; what happened since the last call counts.
    pub async fn news(&self) {
        self.inner.context.news.notified().await;
    }

    /// Counters of the snapshots that were sent to other nodes.
    pub fn snapshot_counts(&self) -> &SnapshotCounts {
        &self.inner.context.snapshots
    }

    /// Counters of what was sent to other nodes beside snapshots.
    pub fn frame_counts(&self) -> &FrameCounts {
        &self.inner.context.frames
    }

    /// Ends all connections for good. Requests that wait fail at once.
    pub fn stop(&self) {
        let links = {
            let mut links = self.inner.links.write();
            links.stopped = true;
            std::mem::take(&mut links.by_node)
        };
        links.values().for_each(|link| link.stop("this node stops"));
        self.inner.sending.close();
        *self.inner.local.write() = None;
    }

    fn link(&self, to: NodeId) -> Option<Arc<Link>> {
        self.inner.links.read().by_node.get(&to).cloned()
    }
}

impl Transport for Network {
    fn send(&self, to: NodeId, shard: ShardId, messages: Vec<Message>, haste: Haste) {
        if let Some(link) = self.inner.links.read().by_node.get(&to) {
            link.send(shard, messages, haste);
        }
    }

    fn send_snapshot(&self, to: NodeId, offer: SnapshotOffer) {
        let inner = &self.inner;
        let local = inner.local.read().clone();
        let (Some(link), Some(local)) = (self.link(to), local) else { return };
        let sender = Sender {
            peer: to,
            address: link.address.clone(),
            context: inner.context.clone(),
            pace: inner.pace.clone(),
            paced_since: inner.context.started,
            local,
        };
        let sending = inner.sending.clone();
        inner.handle.spawn(async move {
            // Closed when the network stops.
            let Ok(_permit) = sending.acquire().await else { return };
            sender.send(offer).await;
        });
    }
}

#[async_trait]
impl Peers for Network {
    async fn call(
        &self,
        to: NodeId,
        request: PeerRequest,
        timeout: Duration,
    ) -> Result<PeerReply, PeerFailure> {
        let Some(link) = self.link(to) else {
            return Err(PeerFailure::Unreachable(format!("this node knows no address of {to}")));
        };
        let late = || format!("{to} did not answer within {} ms", timeout.as_millis());
        let answered = tokio::time::timeout(timeout, link.call(request)).await;
        answered.unwrap_or_else(|_| Err(PeerFailure::Unreachable(late())))
    }
}
