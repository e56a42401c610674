//! What all connections of a node share: the way to the data, metrics, fail points, and who is connected.
//!
//! Made once by `server`, which also tells it when to stop. Always holds: nothing in here is held locked across an await.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::{Clock, Entropy, HybridClock, MonoTime, SessionId, Timestamp};
use bson::oid::ObjectId;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::backend::{Backend, Facts};
use crate::fail_point::FailPoints;
use crate::metrics::{CommandCounts, Metrics};

/// What a node decides about its wire protocol.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most connections at a time.
    pub connections_max: usize,
    /// Whether `configureFailPoint` exists: for tests only.
    pub test_commands: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { connections_max: base::limits::CONNECTIONS_MAX, test_commands: false }
    }
}

/// Shared by all connections of a node.
pub struct State {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) facts: Arc<dyn Facts>,
    pub(crate) clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    pub(crate) settings: Settings,
    pub(crate) metrics: Metrics,
    pub(crate) fail_points: FailPoints,
    pub(crate) clients: Clients,
    /// Names this process in `topologyVersion`.
    pub(crate) process_id: ObjectId,
    pub(crate) started: MonoTime,
    object_ids: ObjectIds,
    timestamps: Mutex<HybridClock>,
    stopping: watch::Sender<bool>,
}

impl State {
    /// The state of a node that has just started.
    pub fn new(
        backend: Arc<dyn Backend>,
        facts: Arc<dyn Facts>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        settings: Settings,
    ) -> State {
        let object_ids = ObjectIds::new(entropy.as_ref());
        let mut metrics = Metrics::default();
        metrics.commands.resize_with(crate::command::TABLE.len(), CommandCounts::default);
        State {
            process_id: object_ids.next(clock.wall_ms()),
            started: clock.monotonic(),
            backend,
            facts,
            clock,
            entropy,
            settings,
            metrics,
            fail_points: FailPoints::default(),
            clients: Clients::default(),
            object_ids,
            timestamps: Mutex::default(),
            stopping: watch::Sender::new(false),
        }
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How often each command ran, in the order of their names.
    pub fn command_counts(&self) -> impl Iterator<Item = (&'static str, &CommandCounts)> {
        crate::command::TABLE.iter().map(|spec| spec.name).zip(&self.metrics.commands)
    }

    /// Connections that run a command.
    pub fn active_connections(&self) -> usize {
        self.clients.active()
    }

    /// Most connections at a time.
    pub fn connections_max(&self) -> usize {
        self.settings.connections_max
    }

    /// Open cursors of all connections.
    pub fn open_cursors(&self) -> usize {
        self.backend.open_cursors()
    }

    /// Ends the node's service: idle connections close at once, others after the command that runs.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Whether [`State::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Wakes when [`State::stop`] is called.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// A new `_id`.
    pub(crate) fn new_object_id(&self) -> ObjectId {
        self.object_ids.next(self.clock.wall_ms())
    }

    /// The time as a timestamp, later than any before it.
    pub(crate) fn new_timestamp(&self) -> Timestamp {
        self.timestamps.lock().tick(self.clock.wall_ms())
    }

    /// A new session's id: a random UUID.
    pub(crate) fn new_session_id(&self) -> SessionId {
        let random = (u128::from(self.entropy.next_u64()) << 64) | u128::from(self.entropy.next_u64());
        SessionId(uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid().into_bytes())
    }
}

/// Resolves once the node stops; at once when it stopped before the receiver was made.
pub(crate) async fn stop_wanted(stopping: &mut watch::Receiver<bool>) {
    // An error would mean that the state is gone, and with it the node.
    drop(stopping.wait_for(|stopping| *stopping).await);
}

/// Makes object ids: seconds, five random bytes of this process, a counter.
struct ObjectIds {
    process: [u8; 5],
    counter: AtomicU64,
}

impl ObjectIds {
    fn new(entropy: &dyn Entropy) -> ObjectIds {
        let [a, b, c, d, e, ..] = entropy.next_u64().to_be_bytes();
        ObjectIds { process: [a, b, c, d, e], counter: AtomicU64::new(entropy.next_u64()) }
    }

    fn next(&self, wall_ms: i64) -> ObjectId {
        let [.., s0, s1, s2, s3] = (wall_ms.max(0) / 1000).to_be_bytes();
        let [p0, p1, p2, p3, p4] = self.process;
        let [.., c0, c1, c2] = self.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        ObjectId::from_bytes([s0, s1, s2, s3, p0, p1, p2, p3, p4, c0, c1, c2])
    }
}

/// One client connection, as others see it.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its number, counted from 1.
    pub(crate) id: u64,
    /// Where it comes from.
    pub(crate) peer: SocketAddr,
    /// `client.application.name` of its hello.
    pub(crate) application: Mutex<Option<String>>,
    /// What runs on it.
    pub(crate) running: Mutex<Running>,
}

/// The command that runs on a connection, if any.
#[derive(Debug, Default)]
pub(crate) struct Running {
    /// The session it belongs to.
    pub(crate) session: Option<SessionId>,
    /// Whether there is one.
    pub(crate) active: bool,
    /// Set to interrupt it.
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl Client {
    /// A connection on which nothing runs.
    pub(crate) fn new(id: u64, peer: SocketAddr) -> Client {
        Client { id, peer, application: Mutex::default(), running: Mutex::default() }
    }

    /// Interrupts what runs.
    pub(crate) fn interrupt(&self) {
        self.running.lock().cancelled.store(true, Ordering::Relaxed);
    }

    /// Starts a command: the flag that interrupts it. A flag that was set belongs to an earlier command.
    pub(crate) fn begin(&self, session: Option<SessionId>) -> Arc<AtomicBool> {
        let mut running = self.running.lock();
        running.session = session;
        running.active = true;
        if running.cancelled.load(Ordering::Relaxed) {
            running.cancelled = Arc::default();
        }
        Arc::clone(&running.cancelled)
    }

    /// Ends the command.
    pub(crate) fn end(&self) {
        let mut running = self.running.lock();
        running.session = None;
        running.active = false;
    }
}

/// Everyone who is connected.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    by_id: Mutex<BTreeMap<u64, Arc<Client>>>,
    last_id: AtomicU64,
}

impl Clients {
    /// Registers a connection, unless there are `limit` already.
    pub(crate) fn register(&self, peer: SocketAddr, limit: usize) -> Option<Arc<Client>> {
        let mut by_id = self.by_id.lock();
        if by_id.len() >= limit {
            return None;
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client::new(id, peer));
        by_id.insert(id, Arc::clone(&client));
        Some(client)
    }

    /// Forgets a connection.
    pub(crate) fn remove(&self, id: u64) {
        self.by_id.lock().remove(&id);
    }

    /// How many of them run a command.
    pub(crate) fn active(&self) -> usize {
        self.by_id.lock().values().filter(|client| client.running.lock().active).count()
    }

    /// Interrupts the commands whose session `concerns` selects, but not the one that connection `except` runs.
    pub(crate) fn interrupt_sessions(&self, except: u64, concerns: impl Fn(SessionId) -> bool) {
        let others = self.by_id.lock().values().filter(|client| client.id != except).cloned().collect();
        let others: Vec<Arc<Client>> = others;
        for client in others {
            let session = client.running.lock().session;
            if session.is_some_and(&concerns) {
                client.interrupt();
            }
        }
    }

    /// Interrupts everything that runs.
    pub(crate) fn interrupt_all(&self) {
        for client in self.by_id.lock().values() {
            client.interrupt();
        }
    }
}
