//! A running node: engines, replicas, router, listener, and how they end.
//!
//! Always holds: connections are taken only once everything behind them runs; on [`Server::stop`] they end first, then
//! the replicas, then the engines, each having written what it owes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::id::CATALOG_SHARD;
use base::{Clock, Entropy, NodeId, ReplicaId};
use catalog::{Command, NodeRecord};
use replica::{CatalogHandle, CompactionPolicy, Host, HostOptions, Membership, NoPeers, ThreadSpawner};
use router::{Router, RouterOptions};
use storage::{
    DataDirectory, EngineRaftLog, FjallStore, GroupCommitOptions, GroupCommitWriter, Identity, LogOptions,
    RaftLog, Store, StoreOptions,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::info;

use crate::facts::NodeFacts;
use crate::logging::RecentLog;
use crate::options::Settings;
use crate::{Failure, OsEntropy, SystemClock, disk};

/// The node of a cluster of one.
const FIRST_NODE: NodeId = NodeId(1);
/// The catalog's first replica.
const CATALOG_REPLICA: ReplicaId = ReplicaId(1);
/// Threads that apply committed writes to the store.
const APPLY_THREADS: usize = 2;
/// How often idle cursors are looked for.
const CURSOR_SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// A running node.
pub struct Server {
    address: SocketAddr,
    state: Arc<wire::State>,
    host: Host,
    serving: JoinHandle<()>,
    watching: JoinHandle<storage::Fault>,
    sweeping: JoinHandle<()>,
}

impl Server {
    /// Starts a node. On return it takes connections. Call within a tokio runtime.
    pub async fn start(settings: Settings) -> Result<Server, Failure> {
        Server::start_with_log(settings, Arc::default()).await
    }

    pub(crate) async fn start_with_log(
        settings: Settings,
        recent: Arc<RecentLog>,
    ) -> Result<Server, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
        let directory = Arc::new(open_directory(&settings.data, entropy.as_ref())?);
        info!(data = %settings.data.display(), cache_bytes = settings.cache_bytes, "opening the data directory");
        let engines = Engines::open(&directory, &settings)?;
        let host = start_host(&engines, &clock, &entropy).await?;
        let catalog = open_catalog(&host).await?;
        let listener = bind(settings.listen).await?;
        let address = listener.local_addr().map_err(|error| Failure::Listen(error.to_string()))?;
        let record = NodeRecord { id: FIRST_NODE, name: settings.name.clone(), listen: address.to_string() };
        catalog.write(Command::PutNode(record)).await.map_err(start_failure)?;
        let router = Router::new(RouterOptions {
            node: FIRST_NODE,
            host: Arc::new(host.clone()),
            catalog,
            clock: clock.clone(),
            entropy: entropy.clone(),
        });
        router.reconcile().await.map_err(start_failure)?;
        let writer = engines.writer.clone();
        let facts = NodeFacts {
            settings: settings.clone(),
            host: host.clone(),
            log_statistics: Box::new(move || writer.statistics()),
            recent,
        };
        let wire_settings = wire::Settings { test_commands: settings.test_commands, ..Default::default() };
        let state =
            Arc::new(wire::State::new(router.clone(), Arc::new(facts), clock, entropy, wire_settings));
        let server = Server {
            address,
            watching: tokio::spawn(disk::watch(directory, settings.disk_reserve_bytes, state.clone())),
            sweeping: tokio::spawn(sweep_cursors(router)),
            serving: tokio::spawn(wire::serve(state.clone(), listener)),
            state,
            host,
        };
        if let Some(path) = &settings.port_file {
            write_port_file(path, address.port())?;
        }
        info!("listening on {address}");
        Ok(server)
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
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

    /// Stops: takes no more connections, finishes what runs, flushes.
    pub async fn stop(self) -> Result<(), Failure> {
        self.state.stop();
        self.sweeping.abort();
        self.watching.abort();
        self.serving.await.map_err(|error| Failure::Start(format!("the listener ended: {error}")))?;
        self.host.shutdown().await?;
        info!("stopped");
        Ok(())
    }
}

/// The node's engines.
struct Engines {
    store: Arc<dyn Store>,
    raft_log: Arc<dyn RaftLog>,
    writer: Arc<GroupCommitWriter>,
}

impl Engines {
    fn open(directory: &DataDirectory, settings: &Settings) -> Result<Engines, Failure> {
        let store_options = StoreOptions { cache_bytes: settings.cache_bytes, ..StoreOptions::default() };
        let store: Arc<dyn Store> = Arc::new(FjallStore::open(&directory.store_path(), store_options)?);
        let raft_log: Arc<dyn RaftLog> =
            Arc::new(EngineRaftLog::open(&directory.raft_path(), &LogOptions::default())?);
        let commit_options =
            GroupCommitOptions { fsync_delay_us: settings.fsync_delay_us, ..GroupCommitOptions::default() };
        let writer = Arc::new(GroupCommitWriter::start(raft_log.clone(), commit_options)?);
        Ok(Engines { store, raft_log, writer })
    }
}

fn open_directory(path: &Path, entropy: &dyn Entropy) -> Result<DataDirectory, Failure> {
    let mut directory = DataDirectory::open(path)?;
    if directory.identity().is_none() {
        let random = (u128::from(entropy.next_u64()) << 64) | u128::from(entropy.next_u64());
        let cluster_id = uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid().to_string();
        directory.set_identity(Identity { cluster_id, node_id: FIRST_NODE })?;
    }
    Ok(directory)
}

async fn start_host(
    engines: &Engines,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> Result<Host, Failure> {
    let spawner = ThreadSpawner::new(tokio::runtime::Handle::current(), APPLY_THREADS)
        .map_err(|error| Failure::Start(format!("cannot start threads: {error}")))?;
    let options = HostOptions {
        node: FIRST_NODE,
        store: engines.store.clone(),
        raft_log: engines.raft_log.clone(),
        log_writer: engines.writer.clone(),
        clock: clock.clone(),
        entropy: entropy.clone(),
        spawner: Arc::new(spawner),
        transport: Arc::new(NoPeers),
        trace: None,
        compaction: CompactionPolicy::default(),
    };
    Ok(Host::start(options).await?)
}

/// The catalog's replica; a new data directory gets one.
async fn open_catalog(host: &Host) -> Result<CatalogHandle, Failure> {
    if let Some(catalog) = host.catalog() {
        return Ok(catalog);
    }
    let membership = Membership::sole_voter(CATALOG_REPLICA, FIRST_NODE);
    info!(shard = %CATALOG_SHARD, "creating the catalog");
    host.create_catalog(CATALOG_REPLICA, &membership, storage::KvBatch::default())
        .await
        .map_err(start_failure)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Listen(format!("cannot listen on {address}: {error}")))
}

/// Written under another name first, so that whoever waits for the file finds it whole.
fn write_port_file(path: &Path, port: u16) -> Result<(), Failure> {
    let unfinished = path.with_extension("unfinished");
    std::fs::write(&unfinished, format!("{port}\n"))
        .and_then(|()| std::fs::rename(&unfinished, path))
        .map_err(|error| Failure::Start(format!("cannot write the port file {}: {error}", path.display())))
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
