//! A running node: engines, replicas, router, listeners, and how they end.
//!
//! Always holds: connections are taken only once everything behind them runs; on [`Server::stop`] they end first, then
//! the replicas, then the engines, each having written what it owes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::id::CATALOG_SHARD;
use base::{BootId, Clock, Entropy, NodeId};
use catalog::{Command, NodeFacts};
use replica::spawn::Spawner;
use replica::{CompactionPolicy, Host, HostOptions, ThreadSpawner};
use router::{FIRST_NODE, Router, RouterOptions, found_cluster};
use rpc::{Network, NetworkOptions, Presence};
use storage::{DataDirectory, Identity};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::info;

use crate::admin::{Admin, NodeView, Running};
use crate::disk::FreeBytes;
use crate::engines::{Engines, write_port_file};
use crate::facts::{ProcessFacts, process_status};
use crate::logging::RecentLog;
use crate::options::Settings;
use crate::peers::{PeerService, addresses};
use crate::place::{Newcomer, Place};
use crate::{Failure, OsEntropy, SystemClock, disk};

/// Threads that apply committed writes to the store.
const APPLY_THREADS: usize = 2;
/// How often idle cursors are looked for.
const CURSOR_SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// After a failed introduction to the cluster, before the next one.
const INTRODUCE_AGAIN_DELAY: Duration = Duration::from_millis(100);
/// How often a node that joins looks whether its replica of the catalog has come.
const CATALOG_LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A running node.
pub struct Server {
    address: SocketAddr,
    peer_address: SocketAddr,
    admin: Option<Admin>,
    state: Arc<wire::State>,
    host: Host,
    network: Network,
    serving: JoinHandle<()>,
    watching: JoinHandle<storage::Fault>,
    /// Tasks that end with the node.
    background: Vec<JoinHandle<()>>,
    /// Ends the service for other nodes when it is dropped.
    stop_peers: oneshot::Sender<()>,
    serving_peers: JoinHandle<std::io::Result<()>>,
}

/// What a node has before it belongs to a cluster.
struct Ground {
    settings: Settings,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    directory: Arc<DataDirectory>,
    clients: TcpListener,
    address: SocketAddr,
    peer_address: SocketAddr,
    view: Arc<NodeView>,
    admin: Option<Admin>,
    boot: BootId,
    presence: Arc<Presence>,
    service: Arc<PeerService>,
    identified: watch::Sender<Option<rpc::Identity>>,
    stop_peers: oneshot::Sender<()>,
    serving_peers: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Starts a node. On return it takes connections: a node that joins a cluster, or waits for one to form, returns when it
    /// belongs. Call within a tokio runtime.
    pub async fn start(settings: Settings) -> Result<Server, Failure> {
        Server::start_with_log(settings, Arc::default()).await
    }

    pub(crate) async fn start_with_log(
        settings: Settings,
        recent: Arc<RecentLog>,
    ) -> Result<Server, Failure> {
        let (ground, place) = Ground::prepare(settings).await?;
        let engines = Engines::open(&ground.directory, &ground.settings)?;
        let network = ground.network(&place.identity);
        network.set_addresses(place.peers.clone());
        let spawner = spawner()?;
        let host = ground.start_host(&engines, &place, &network, spawner.clone()).await?;
        ground.service.set_host(host.clone());
        ground.view.set_host(host.clone());
        ground.identify(&place.identity);
        ground.await_catalog(&host, &place).await?;
        let router = Router::new(RouterOptions {
            node: place.identity.node_id,
            host: Arc::new(host.clone()),
            peers: Arc::new(network.clone()),
            describe: ground.describe(),
            clock: ground.clock.clone(),
            entropy: ground.entropy.clone(),
            spawner,
        });
        ground.check_belonging(&router, &place)?;
        ground.service.set_router(router.clone());
        let background = vec![
            tokio::spawn(router.clone().keep_reconciled()),
            tokio::spawn(router.clone().keep_balanced()),
            tokio::spawn(sweep_cursors(router.clone())),
            tokio::spawn(follow_addresses(host.clone(), network.clone())),
            tokio::spawn(watch_peers(host.clone(), network.clone())),
            tokio::spawn(introduce(router.clone(), ground.facts())),
        ];
        ground.serve(engines, host, router, network, background, recent)
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where other nodes connect.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer_address
    }

    /// Where metrics and health are served, if they are.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// Resolves when the node cannot go on: with the fault of its storage.
    pub async fn failed(&mut self) -> Failure {
        tokio::select! {
            fault = self.host.faulted() => Failure::Storage(fault),
            watched = &mut self.watching => match watched {
                Ok(fault) => Failure::Storage(fault),
                Err(error) => Failure::Start(format!("the watch over the disk ended: {error}")),
            },
        }
    }

    /// Stops: takes no more connections, finishes what runs, hands the role of primary over, flushes.
    pub async fn stop(self) -> Result<(), Failure> {
        self.state.stop();
        self.background.iter().for_each(JoinHandle::abort);
        self.watching.abort();
        self.serving.await.map_err(|error| Failure::Start(format!("the listener ended: {error}")))?;
        let stopped = self.host.shutdown().await;
        self.network.stop();
        drop(self.stop_peers);
        // Whatever other nodes still wanted, they ask others now.
        let _ = self.serving_peers.await;
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
        stopped?;
        info!("stopped");
        Ok(())
    }
}

impl Ground {
    /// Opens the data directory, listens, and finds the node's place.
    async fn prepare(settings: Settings) -> Result<(Ground, Place), Failure> {
        let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
        let mut directory = DataDirectory::open(&settings.data)?;
        directory.check_raft_log()?;
        info!(data = %settings.data.display(), cache_bytes = settings.cache_bytes, "opening the data directory");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let view = Arc::new(NodeView::new(clock.clone()));
        let admin = serve_admin(settings.admin, &view).await?;
        let clients = bind(settings.listen).await?;
        let peers = bind(settings.peer_listen).await?;
        let address = local_address(&clients)?;
        let peer_address = local_address(&peers)?;
        let service = PeerService::new(settings.clone(), directory.identity().cloned());
        let presence = Arc::new(Presence::default());
        let (identified, identity) = watch::channel(None);
        let (stop_peers, stopped) = oneshot::channel::<()>();
        // The sender is dropped, never used.
        let stop = async { drop(stopped.await) };
        let serving_peers =
            tokio::spawn(rpc::serve(peers, identity, presence.clone(), service.clone(), stop));
        let place = match directory.identity() {
            Some(identity) => Place { identity: identity.clone(), peers: Default::default() },
            None => {
                let newcomer = Newcomer {
                    settings: &settings,
                    listen: address.to_string(),
                    peer: peer_address.to_string(),
                    entropy: entropy.as_ref(),
                };
                let place = newcomer.find_place().await?;
                directory.set_identity(place.identity.clone())?;
                place
            }
        };
        let ground = Ground {
            settings,
            clock,
            boot: BootId(entropy.next_u64()),
            entropy,
            directory: Arc::new(directory),
            clients,
            address,
            peer_address,
            view,
            admin,
            presence,
            service,
            identified,
            stop_peers,
            serving_peers,
        };
        Ok((ground, place))
    }

    fn peer_identity(&self, identity: &Identity) -> rpc::Identity {
        rpc::Identity { cluster_id: identity.cluster_id.clone(), node: identity.node_id, boot: self.boot }
    }

    fn network(&self, identity: &Identity) -> Network {
        let identity = self.peer_identity(identity);
        let (entropy, presence) = (self.entropy.clone(), self.presence.clone());
        let network = Network::new(identity, entropy, presence, NetworkOptions::default());
        network.set_local(self.service.clone());
        network
    }

    /// Other nodes are answered from now on.
    fn identify(&self, identity: &Identity) {
        self.service.set_identity(identity.clone());
        self.identified.send_replace(Some(self.peer_identity(identity)));
    }

    async fn start_host(
        &self,
        engines: &Engines,
        place: &Place,
        network: &Network,
        spawner: Arc<dyn Spawner>,
    ) -> Result<Host, Failure> {
        let options = HostOptions {
            node: place.identity.node_id,
            store: engines.store.clone(),
            raft_log: engines.raft_log.clone(),
            log_writer: engines.writer.clone(),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            spawner,
            transport: Arc::new(network.clone()),
            trace: None,
            compaction: CompactionPolicy::default(),
        };
        Ok(Host::start(options).await?)
    }

    /// Returns once this node has a replica of the catalog: of its own making, where the cluster begins with it, else as
    /// the cluster sends it.
    async fn await_catalog(&self, host: &Host, place: &Place) -> Result<(), Failure> {
        if place.identity.node_id == FIRST_NODE && place.peers.is_empty() {
            found_cluster(host, || self.founding()).await.map_err(start_failure)?;
        }
        if host.catalog().is_none() {
            info!("waiting for the catalog of the cluster");
        }
        while host.catalog().is_none() {
            tokio::time::sleep(CATALOG_LOOK_INTERVAL).await;
        }
        Ok(())
    }

    fn founding(&self) -> Command {
        info!(shard = %CATALOG_SHARD, "founding a cluster");
        Command::Found {
            name: self.settings.cluster_name.clone().unwrap_or_else(|| "psdb".to_owned()),
            replication_factor: self.settings.replication_factor,
            node: self.facts(),
        }
    }

    /// Refuses a data directory that belongs to another cluster, or to another node of the configuration.
    fn check_belonging(&self, router: &Router, place: &Place) -> Result<(), Failure> {
        let directory = self.settings.data.display();
        let wrong = |belongs: String| Failure::Options(format!("the data directory {directory} {belongs}"));
        if let Some(wanted) = &self.settings.cluster_name {
            router
                .check_cluster_name(wanted)
                .map_err(|error| wrong(format!("does not fit: {}", error.message)))?;
        }
        let known = router.node_name(place.identity.node_id).filter(|_| self.settings.is_named);
        match known.filter(|known| *known != self.settings.name) {
            Some(other) => Err(wrong(format!("belongs to node {other}, not to {}", self.settings.name))),
            None => Ok(()),
        }
    }

    /// What this process says of itself in the cluster's status.
    fn describe(&self) -> Arc<dyn Fn() -> bson::Document + Send + Sync> {
        let (clock, directory) = (self.clock.clone(), self.directory.clone());
        let started = clock.monotonic();
        let admin = self.admin.as_ref().map(Admin::address);
        Arc::new(move || process_status(clock.monotonic().since(started), &directory, admin))
    }

    fn facts(&self) -> NodeFacts {
        NodeFacts {
            name: self.settings.name_at(&self.address.to_string()),
            listen: self.address.to_string(),
            peer: self.peer_address.to_string(),
            storage: self.settings.storage,
            labels: self.settings.labels.clone(),
        }
    }

    fn serve(
        self,
        engines: Engines,
        host: Host,
        router: Arc<Router>,
        network: Network,
        background: Vec<JoinHandle<()>>,
        recent: Arc<RecentLog>,
    ) -> Result<Server, Failure> {
        let writer = engines.writer.clone();
        let facts = ProcessFacts {
            settings: self.settings.clone(),
            host: host.clone(),
            log_statistics: Box::new(move || writer.statistics()),
            recent,
        };
        let wire_settings =
            wire::Settings { test_commands: self.settings.test_commands, ..Default::default() };
        let state = Arc::new(wire::State::new(
            router.clone(),
            Arc::new(facts),
            self.clock,
            self.entropy,
            wire_settings,
        ));
        let reserve = self.settings.disk_reserve_bytes;
        let free_bytes = Arc::new(FreeBytes::new(self.directory.free_bytes()?));
        let identity = self.directory.identity().expect("a node that serves belongs to a cluster");
        self.view.set_running(Running {
            node: identity.node_id,
            state: state.clone(),
            router: router.clone(),
            network: network.clone(),
            log_writer: engines.writer,
            store: engines.store,
            free_bytes: free_bytes.clone(),
            disk_reserve_bytes: reserve,
        });
        let server = Server {
            address: self.address,
            peer_address: self.peer_address,
            admin: self.admin,
            watching: tokio::spawn(disk::watch(self.directory, reserve, router, free_bytes)),
            serving: tokio::spawn(wire::serve(state.clone(), self.clients)),
            state,
            host,
            network,
            background,
            stop_peers: self.stop_peers,
            serving_peers: self.serving_peers,
        };
        if let Some(path) = &self.settings.port_file {
            write_port_file(path, self.address.port())?;
        }
        info!("listening on {}; other nodes on {}", self.address, self.peer_address);
        Ok(server)
    }
}

fn spawner() -> Result<Arc<dyn Spawner>, Failure> {
    let spawner = ThreadSpawner::new(tokio::runtime::Handle::current(), APPLY_THREADS);
    Ok(Arc::new(spawner.map_err(|error| Failure::Start(format!("cannot start threads: {error}")))?))
}

async fn serve_admin(address: Option<SocketAddr>, view: &Arc<NodeView>) -> Result<Option<Admin>, Failure> {
    let Some(address) = address else { return Ok(None) };
    let admin = Admin::start(bind(address).await?, view.clone())?;
    info!("metrics and health on http://{}", admin.address());
    Ok(Some(admin))
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Listen(format!("cannot listen on {address}: {error}")))
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|error| Failure::Listen(error.to_string()))
}

fn start_failure(error: base::Error) -> Failure {
    Failure::Start(format!("the node did not start: {error}"))
}

async fn sweep_cursors(router: Arc<Router>) {
    loop {
        tokio::time::sleep(CURSOR_SWEEP_INTERVAL).await;
        router.expire_cursors();
    }
}

/// Tells the network where the nodes are, whenever the catalog changes.
async fn follow_addresses(host: Host, network: Network) {
    loop {
        let Some(catalog) = host.catalog() else { return };
        let applied = catalog.applied_index();
        let known = addresses(&catalog.state());
        // A copy that is far behind may know none of those that it will be told by.
        if known.len() > 1 {
            network.set_addresses(known);
        }
        if catalog.is_stopped() {
            // A snapshot takes its place, or the node stops.
            tokio::time::sleep(CATALOG_LOOK_INTERVAL).await;
            continue;
        }
        catalog.changed(applied, catalog.leader()).await;
    }
}

/// Tells the replicas of this node when another one is lost or has been restarted: groups that sleep hear of it no other way.
async fn watch_peers(host: Host, network: Network) {
    let mut known: BTreeMap<NodeId, (bool, Option<BootId>)> = BTreeMap::new();
    loop {
        network.news().await;
        for (node, health) in network.health() {
            let (connected, boot) = known.insert(node, (health.connected, health.boot)).unwrap_or_default();
            let lost = connected && !health.connected;
            if lost || boot.is_some() && boot != health.boot {
                info!(%node, reason = health.reason.as_deref().unwrap_or("it was restarted"), "another node is lost");
                host.peer_lost(node);
            }
        }
    }
}

/// Tells the cluster what is new about this node.
async fn introduce(router: Arc<Router>, facts: NodeFacts) {
    while let Err(error) = router.renew_node(facts.clone()).await {
        tracing::debug!(%error, "the cluster does not know yet that this node is back");
        // A node with a fault is refused at once, every time.
        tokio::time::sleep(INTRODUCE_AGAIN_DELAY).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::Options;

    async fn start(data: &std::path::Path) -> Server {
        let options = Options {
            data: Some(data.to_owned()),
            listen: Some("127.0.0.1:0".to_owned()),
            admin: Some("127.0.0.1:0".to_owned()),
            cache_bytes: Some(8 << 20),
            ..Options::default()
        };
        Server::start(options.resolve().expect("valid options")).await.expect("starts")
    }

    async fn get(server: &Server, path: &str) -> String {
        let address = server.admin_address().expect("one was asked for");
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("a whole answer");
        answer
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_with_a_storage_fault_says_so_until_it_ends() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut server = start(directory.path()).await;
        server.host.fault_latch().set(storage::Fault::io("the disk is on fire"));
        for path in ["/healthz", "/readyz"] {
            let answer = get(&server, path).await;
            assert!(answer.contains(" 503 ") && answer.contains("the disk is on fire"), "{answer}");
        }
        assert!(get(&server, "/metrics").await.contains("\npsdb_ready 0\n"));
        assert!(matches!(server.failed().await, Failure::Storage(_)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_that_stops_is_healthy_and_not_ready() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let server = start(directory.path()).await;
        server.state.stop();
        assert!(get(&server, "/healthz").await.contains(" 200 "));
        let answer = get(&server, "/readyz").await;
        assert!(answer.contains(" 503 ") && answer.contains("stopping"), "{answer}");
        server.stop().await.expect("stops");
    }
}
