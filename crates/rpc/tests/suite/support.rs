//! A node that serves others and has ways to them, with a service that records what comes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::{BootId, Code, Entropy, Error, LogIndex, NodeId, ShardId};
use bson::doc;
use parking_lot::Mutex;
use raft::eraftpb::{Entry, Message, MessageType};
use replica::SnapshotReceiver;
use replica::snapshot::{NotInstalled, SnapshotHeader};
use router::peer::{PeerFailure, PeerReply, PeerRequest};
use rpc::{Greeting, Identity, JoinReply, JoinRequest, Network, NetworkOptions, Presence, Service, serve};
use storage::Fault;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Longer than any of these tests takes.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// Numbers that count up.
#[derive(Default)]
pub(crate) struct Counting(AtomicU64);

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Records what comes. `Status` is answered at once, `CatalogIndex` once the gate is open, `CatalogWrite` never: it panics.
pub(crate) struct Recorder {
    pub(crate) node: NodeId,
    pub(crate) received: Mutex<Vec<(NodeId, ShardId, Message)>>,
    pub(crate) gate: watch::Sender<bool>,
    /// Requests that wait at the gate.
    pub(crate) waiting: AtomicUsize,
    /// The most that ever waited.
    pub(crate) waiting_max: AtomicUsize,
    /// Bytes of the answer to `Status`.
    pub(crate) status_bytes: AtomicUsize,
}

impl Recorder {
    pub(crate) fn new(node: NodeId) -> Recorder {
        Recorder {
            node,
            received: Mutex::default(),
            gate: watch::Sender::new(false),
            waiting: AtomicUsize::new(0),
            waiting_max: AtomicUsize::new(0),
            status_bytes: AtomicUsize::new(1),
        }
    }

    pub(crate) fn received(&self) -> Vec<(NodeId, ShardId, u64)> {
        self.received.lock().iter().map(|(from, shard, message)| (*from, *shard, message.index)).collect()
    }
}

#[async_trait]
impl Service for Recorder {
    fn receive(&self, from: NodeId, shard: ShardId, messages: Vec<Message>) {
        self.received.lock().extend(messages.into_iter().map(|message| (from, shard, message)));
    }

    async fn handle(&self, from: NodeId, request: PeerRequest) -> Result<PeerReply, PeerFailure> {
        match request {
            PeerRequest::Status => {
                let filler = "x".repeat(self.status_bytes.load(Ordering::Relaxed));
                let status = doc! { "node": self.node.get(), "from": from.get(), "filler": filler };
                Ok(PeerReply::Status(status))
            }
            PeerRequest::CatalogIndex | PeerRequest::ShardIndex(_) => {
                let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
                self.waiting_max.fetch_max(waiting, Ordering::Relaxed);
                self.gate.subscribe().wait_for(|open| *open).await.expect("the gate lives as long as this");
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                Ok(PeerReply::Index(LogIndex(7)))
            }
            PeerRequest::CatalogWrite(_) | PeerRequest::Loads => {
                panic!("a request that this service cannot do")
            }
            PeerRequest::Operation(_) | PeerRequest::Operations(_) | PeerRequest::HandOver { .. } => {
                let error = Error::new(Code::NOT_WRITABLE_PRIMARY, "not here");
                Err(PeerFailure::Refused { error, primary: Some(NodeId(9)) })
            }
        }
    }

    async fn begin_snapshot(&self, _: NodeId, _: SnapshotHeader) -> Result<SnapshotReceiver, NotInstalled> {
        Err(NotInstalled::Damaged)
    }

    async fn install_snapshot(&self, _: SnapshotReceiver) -> Result<Message, NotInstalled> {
        Err(NotInstalled::Damaged)
    }

    fn operations(&self) -> u64 {
        0
    }

    fn fault(&self, fault: Fault) {
        panic!("no store fails here: {fault}");
    }

    async fn join(&self, request: JoinRequest) -> base::Result<JoinReply> {
        if request.cluster_name.as_deref() == Some("other") {
            return Err(Error::new(Code::ILLEGAL_OPERATION, "this cluster has another name"));
        }
        let peers = [(self.node, request.peer)].into();
        Ok(JoinReply { cluster_id: "blue".to_owned(), node: NodeId(7), peers })
    }

    async fn greet(&self) -> Greeting {
        Greeting {
            cluster_id: None,
            node: None,
            name: format!("node {}", self.node.get()),
            version: "0".to_owned(),
            empty: true,
        }
    }
}

/// A node.
pub(crate) struct Node<S = Recorder> {
    pub(crate) id: NodeId,
    pub(crate) address: String,
    pub(crate) network: Network,
    pub(crate) service: Arc<S>,
    pub(crate) identity: watch::Sender<Option<Identity>>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

pub(crate) fn identity(cluster_id: &str, node: u32, boot: u64) -> Identity {
    Identity { cluster_id: cluster_id.to_owned(), node: NodeId(node), boot: BootId(boot) }
}

/// A machine that builds other things at the same time stands still for a while now and then.
pub(crate) fn patient() -> NetworkOptions {
    NetworkOptions { dead_after: Duration::from_secs(20), ..NetworkOptions::default() }
}

impl Node {
    /// A node of cluster "blue" at an address that is free.
    pub(crate) async fn start(node: u32) -> Node {
        Node::start_as(identity("blue", node, u64::from(node)), "127.0.0.1:0", patient()).await
    }

    pub(crate) async fn start_as(identity: Identity, address: &str, options: NetworkOptions) -> Node {
        let presence = Arc::new(Presence::default());
        let network =
            Network::new(identity.clone(), Arc::new(Counting::default()), presence.clone(), options);
        Node::serve(identity.clone(), address, network, presence, Arc::new(Recorder::new(identity.node)))
            .await
    }
}

impl<S: Service> Node<S> {
    /// Serves others with `service`.
    pub(crate) async fn serve(
        identity: Identity,
        address: &str,
        network: Network,
        presence: Arc<Presence>,
        service: Arc<S>,
    ) -> Node<S> {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        network.set_local(service.clone());
        let id = identity.node;
        let (known, identity) = watch::channel(Some(identity));
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let serving = tokio::spawn(serve(listener, identity, presence, service.clone(), stopped));
        Node { id, address, network, service, identity: known, stop, serving }
    }

    /// Tells this node where others are.
    pub(crate) fn knows<'a>(&self, others: impl IntoIterator<Item = (NodeId, &'a str)>) {
        let addresses = others.into_iter().map(|(node, address)| (node, address.to_owned()));
        self.network.set_addresses(addresses.collect::<BTreeMap<_, _>>());
    }

    /// Waits until there is a connection to `peer`.
    pub(crate) async fn connected_to(&self, peer: NodeId) {
        eventually(|| self.network.health().get(&peer).is_some_and(|health| health.connected)).await;
    }

    /// Ends the node as it should.
    pub(crate) async fn stop(self) {
        self.network.stop();
        self.stop.send(()).expect("it serves");
        self.serving.await.expect("no panic").expect("the listener did not fail");
    }
}

/// Waits for a condition.
pub(crate) async fn eventually(condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, met).await.expect("the condition is met in the end");
}

/// A Raft message with a number and a payload.
pub(crate) fn append(index: u64, bytes: usize) -> Message {
    let entry = Entry { index: index + 1, data: vec![1; bytes].into(), ..Entry::default() };
    Message {
        msg_type: MessageType::MsgAppend,
        from: 10,
        to: 20,
        index,
        entries: vec![entry].into(),
        ..Message::default()
    }
}

/// A way through which nothing comes any more once it is cut. The connections stay open.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    cut: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) async fn start(to: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let cut = watch::Sender::new(false);
        let is_cut = cut.subscribe();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (to, mut is_cut) = (to.clone(), is_cut.clone());
                tokio::spawn(async move {
                    let Ok(mut far) = tokio::net::TcpStream::connect(to).await else { return };
                    let copied = tokio::io::copy_bidirectional(&mut near, &mut far);
                    let was_cut = async { is_cut.wait_for(|cut| *cut).await.is_ok() };
                    tokio::select! {
                        _ = copied => return,
                        _ = was_cut => {}
                    }
                    std::future::pending().await
                });
            }
        });
        Proxy { address, cut }
    }

    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }
}
