//! The way to one other node: a connection that is made again whenever it ends.
//!
//! Made by [`crate::Network`] for every address that it is given. Always holds: while a link has a lane, the other node has
//! been checked to be the one meant, and was heard not long ago.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::limits::{
    PEER_FRAME_BYTES, PEER_MESSAGE_BYTES_MAX, PEER_REQUEST_BYTES_MAX, PEER_REQUEST_BYTES_MIN,
};
use base::{BootId, Code, Entropy, Error, NodeId, ShardId};
use parking_lot::Mutex;
use raft::eraftpb::Message;
use replica::Haste;
use router::peer::{PeerFailure, PeerReply, PeerRequest};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::convert::Wire;
use crate::hello::Identity;
use crate::lane::{CloseOnDrop, FrameCounts, Lane};
use crate::network::{NetworkOptions, PeerHealth};
use crate::presence::Presence;
use crate::snapshot::SnapshotCounts;
use crate::v1;
use crate::v1::peer_client::PeerClient;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long a request waits for a connection that is not there.
const CONNECTED_WAIT: Duration = Duration::from_millis(500);
/// How long a connection that was given up may be kept at most.
const LINGER: Duration = Duration::from_secs(60);
/// Bytes that may be on their way on one stream, and on a connection, before the receiver has taken them.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// See [`STREAM_WINDOW_BYTES`].
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Requests take room in units of this many bytes: a semaphore counts in 32 bits.
pub(crate) const ROOM_UNIT_BYTES: usize = 1024;
/// Largest request or answer: it shares its frame with others.
pub(crate) const SINGLE_BYTES_MAX: usize = PEER_MESSAGE_BYTES_MAX - 2 * PEER_FRAME_BYTES;

/// What all links of a node share.
pub(crate) struct Context {
    pub(crate) identity: Identity,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) options: NetworkOptions,
    pub(crate) snapshots: SnapshotCounts,
    pub(crate) frames: Arc<FrameCounts>,
    pub(crate) presence: Arc<Presence>,
    /// Rung when another node is connected, lost or restarted.
    pub(crate) news: Notify,
    /// All links ask for signs of life at the same moments, counted from here: a node at rest wakes up once for all.
    pub(crate) started: Instant,
}

/// See the module's comment.
pub(crate) struct Link {
    pub(crate) peer: NodeId,
    pub(crate) address: String,
    context: Arc<Context>,
    state: watch::Sender<State>,
    /// For unanswered requests, in [`ROOM_UNIT_BYTES`].
    room: Semaphore,
    facts: Mutex<Facts>,
    dropped: AtomicU64,
}

/// Whether there is a connection.
#[derive(Clone)]
enum State {
    /// There is none, for this reason.
    Down(String),
    Up(Arc<Lane>),
}

/// What is known of the other node.
#[derive(Default)]
struct Facts {
    heard: Option<Instant>,
    round_trip: Option<Duration>,
    boot: Option<BootId>,
    task: Option<AbortHandle>,
}

/// The streams of one connection.
struct Session {
    lane: Arc<Lane>,
    answers: Streaming<v1::Frame>,
    pings: mpsc::Sender<v1::Ping>,
    pongs: Streaming<v1::Pong>,
}

impl Link {
    /// Begins to connect, on the runtime of `handle`.
    pub(crate) fn start(
        peer: NodeId,
        address: String,
        context: Arc<Context>,
        handle: &tokio::runtime::Handle,
    ) -> Arc<Link> {
        let link = Arc::new(Link {
            peer,
            address,
            context,
            state: watch::Sender::new(State::Down("not connected yet".to_owned())),
            room: Semaphore::new(PEER_REQUEST_BYTES_MAX / ROOM_UNIT_BYTES),
            facts: Mutex::default(),
            dropped: AtomicU64::new(0),
        });
        let task = handle.spawn(link.clone().run());
        link.facts.lock().task = Some(task.abort_handle());
        link
    }

    /// Ends the connection for good.
    pub(crate) fn stop(&self, reason: &str) {
        if let Some(task) = self.facts.lock().task.take() {
            task.abort();
        }
        if let State::Up(lane) = self.state.send_replace(State::Down(reason.to_owned())) {
            lane.close(reason);
        }
    }

    /// Sends Raft messages, or drops them.
    pub(crate) fn send(&self, shard: ShardId, messages: Vec<Message>, haste: Haste) {
        let dropped = match &*self.state.borrow() {
            State::Up(lane) => lane.send(shard, messages, haste),
            State::Down(_) => messages.len(),
        };
        self.dropped.fetch_add(u64::try_from(dropped).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn call(&self, request: PeerRequest) -> Result<PeerReply, PeerFailure> {
        let refused = |error| PeerFailure::Refused { error, primary: None };
        let request = request.into_wire().map_err(refused)?;
        let bytes = request.encoded_len();
        if bytes > SINGLE_BYTES_MAX {
            let message = format!("a request of {bytes} bytes is larger than nodes send each other");
            return Err(refused(Error::new(Code::BSON_OBJECT_TOO_LARGE, message)));
        }
        let lane = self.connected().await?;
        let room = self.room.acquire_many(request_units(bytes)).await;
        let _room = room.map_err(|_| self.unreachable("the network has stopped"))?;
        let answer = lane.request(request, bytes).await.map_err(|failure| match failure {
            PeerFailure::Unreachable(reason) => self.unreachable(&reason),
            refused => refused,
        })?;
        let damaged = |error| self.unreachable(&format!("its answer does not decode: {error}"));
        let answer = answer.answer.ok_or_else(|| self.unreachable("its answer is empty"))?;
        Result::from_wire(answer).map_err(damaged)?
    }

    async fn connected(&self) -> Result<Arc<Lane>, PeerFailure> {
        let mut state = self.state.subscribe();
        let up = timeout(CONNECTED_WAIT, state.wait_for(|state| matches!(state, State::Up(_)))).await;
        drop(up);
        match &*self.state.borrow() {
            State::Up(lane) => Ok(lane.clone()),
            State::Down(reason) => Err(self.unreachable(reason)),
        }
    }

    fn unreachable(&self, reason: &str) -> PeerFailure {
        PeerFailure::Unreachable(format!("{} at {}: {reason}", self.peer, self.address))
    }

    /// What is known of the other node.
    pub(crate) fn health(&self) -> PeerHealth {
        let (connected, reason) = match &*self.state.borrow() {
            State::Up(_) => (true, None),
            State::Down(reason) => (false, Some(reason.clone())),
        };
        let facts = self.facts.lock();
        PeerHealth {
            address: self.address.clone(),
            connected,
            reason,
            heard_ago: facts.heard.map(|heard| heard.elapsed()),
            round_trip: facts.round_trip,
            boot: facts.boot,
            dropped_messages: self.dropped.load(Ordering::Relaxed),
        }
    }

    async fn run(self: Arc<Link>) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let hello = self.context.identity.hello(self.peer);
            let lane = Arc::new(Lane::new(hello, self.context.frames.clone()));
            let closing = CloseOnDrop(lane.clone());
            let reason = match self.open(lane).await {
                Ok(session) => {
                    backoff = BACKOFF_MIN;
                    tracing::info!(peer = %self.peer, address = self.address, "connected to another node");
                    self.keep(session).await
                }
                Err(reason) => reason,
            };
            closing.0.close(&reason);
            self.down(reason);
            sleep(self.jittered(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Notes why there is no connection, and logs it when that has changed.
    fn down(&self, reason: String) {
        let last = self.state.send_replace(State::Down(reason.clone()));
        self.context.news.notify_one();
        if !matches!(last, State::Down(last) if last == reason) {
            tracing::warn!(peer = %self.peer, address = self.address, reason, "another node is not reached");
        }
    }

    /// Connects, says hello, and checks who answers.
    async fn open(&self, lane: Arc<Lane>) -> Result<Session, String> {
        let patience = self.context.options.dead_after;
        let opened = async {
            // Its beats say whether the other node is there. One that was given up for that may have bytes to send still,
            // which would keep it for a quarter of an hour.
            let channel = kept_alive(endpoint(&self.address, patience)?, LINGER / 2).connect().await;
            let mut client = client(channel.map_err(|error| innermost(&error))?);
            let said = |status: Status| status.message().to_owned();
            let mut answers = client.exchange(lane.clone().frames()).await.map_err(said)?.into_inner();
            let first = answers.message().await.map_err(said)?.ok_or("it said nothing")?;
            let (node, boot) = self.context.identity.check(first.hello).map_err(said)?;
            if node != self.peer {
                return Err(format!("{node} answers there"));
            }
            let (pings, mut outgoing) = mpsc::channel(2);
            let outgoing = futures::stream::poll_fn(move |context| outgoing.poll_recv(context));
            let hello = Some(self.context.identity.hello(self.peer));
            pings.try_send(v1::Ping { hello, number: 0 }).map_err(|error| error.to_string())?;
            let pongs = client.beat(outgoing).await.map_err(said)?.into_inner();
            self.facts.lock().boot = Some(boot);
            Ok(Session { lane, answers, pings, pongs })
        };
        let late = || format!("it did not say hello within {} ms", patience.as_millis());
        timeout(patience, opened).await.unwrap_or_else(|_| Err(late()))
    }

    /// Serves a connection until it ends; returns why it did.
    async fn keep(&self, session: Session) -> String {
        let Session { lane, mut answers, pings, mut pongs } = session;
        self.state.send_replace(State::Up(lane.clone()));
        self.context.news.notify_one();
        let mut heard = Instant::now();
        self.facts.lock().heard = Some(heard);
        let mut ping = (0, heard);
        let mut ticks = self.ping_times();
        loop {
            tokio::select! {
                // What has come counts before the time that has passed: this node itself may have stood still.
                biased;
                pong = pongs.message() => match pong {
                    Ok(Some(pong)) => self.hear(pong, ping),
                    Ok(None) => return "it ended the connection".to_owned(),
                    Err(status) => return status.message().to_owned(),
                },
                frame = answers.message() => match frame {
                    Ok(Some(frame)) => frame.answers.into_iter().for_each(|answer| lane.answer(answer)),
                    Ok(None) => return "it ended the connection".to_owned(),
                    Err(status) => return status.message().to_owned(),
                },
                now = ticks.tick() => {
                    let silence = self.silence(now, heard);
                    if silence.is_over(&self.context.options) {
                        return format!("nothing heard for {} ms", silence.here.as_millis());
                    }
                    let next = v1::Ping { hello: None, number: ping.0 + 1 };
                    // When earlier ones still wait to be sent, another one would be no use.
                    if silence.asks(&self.context.options) && pings.try_send(next).is_ok() {
                        ping = (ping.0 + 1, Instant::now());
                    }
                    continue;
                }
            }
            heard = Instant::now();
            self.facts.lock().heard = Some(heard);
            self.context.presence.note(self.peer);
        }
    }

    /// For how long the other node was silent, when it was heard at `heard` on this connection.
    fn silence(&self, now: Instant, heard: Instant) -> Silence {
        let here = now.saturating_duration_since(heard);
        let elsewhere = self.context.presence.heard(self.peer);
        let anywhere = elsewhere.map_or(here, |heard| now.saturating_duration_since(heard).min(here));
        Silence { here, anywhere }
    }

    /// When to ask for a sign of life.
    fn ping_times(&self) -> Interval {
        let Context { options, started, .. } = &*self.context;
        let every_ns = options.ping_every.as_nanos().max(1);
        let passed = started.elapsed().as_nanos() / every_ns;
        let first = *started + options.ping_every * u32::try_from(passed + 1).unwrap_or(u32::MAX);
        let mut times = interval_at(first, options.ping_every);
        times.set_missed_tick_behavior(MissedTickBehavior::Skip);
        times
    }

    fn hear(&self, pong: v1::Pong, (number, sent): (u64, Instant)) {
        let mut facts = self.facts.lock();
        let boot = Some(BootId(pong.boot));
        if std::mem::replace(&mut facts.boot, boot) != boot {
            self.context.news.notify_one();
        }
        if pong.number == number {
            facts.round_trip = Some(sent.elapsed());
        }
    }

    /// Between half of it and all of it.
    fn jittered(&self, backoff: Duration) -> Duration {
        let thousandths = u32::try_from(self.context.entropy.below(500)).unwrap_or(0);
        backoff * (500 + thousandths) / 1000
    }
}

/// For how long a node was silent.
struct Silence {
    /// On this connection.
    here: Duration,
    /// On all connections.
    anywhere: Duration,
}

impl Silence {
    /// Whether a sign of life should be asked for. A connection that carries nothing is tried now and then, whatever others
    /// carry: it may have broken alone.
    fn asks(&self, options: &NetworkOptions) -> bool {
        self.anywhere >= options.ping_every * 3 / 4 || self.here >= options.dead_after
    }

    /// Whether the connection is to end.
    fn is_over(&self, options: &NetworkOptions) -> bool {
        self.anywhere > options.dead_after || self.here > options.dead_after * 2
    }
}

/// What a request of so many bytes takes of the room for requests.
pub(crate) fn request_units(bytes: usize) -> u32 {
    let units = bytes.max(PEER_REQUEST_BYTES_MIN).div_ceil(ROOM_UNIT_BYTES);
    u32::try_from(units).unwrap_or(u32::MAX)
}

/// A client with the limits of messages between nodes.
pub(crate) fn client(channel: Channel) -> PeerClient<Channel> {
    PeerClient::new(channel)
        .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
}

/// Connects to `host:port`; the connection ends when the other end is silent for long. Fails with the reason.
pub(crate) async fn connect(address: &str, patience: Duration) -> Result<Channel, String> {
    let endpoint = kept_alive(endpoint(address, patience)?, patience);
    endpoint.connect().await.map_err(|error| innermost(&error))
}

/// Ends a connection whose other end is silent for between `patience` and one and a half times that.
fn kept_alive(endpoint: Endpoint, patience: Duration) -> Endpoint {
    endpoint.http2_keep_alive_interval(patience / 2).keep_alive_timeout(patience).keep_alive_while_idle(true)
}

fn endpoint(address: &str, patience: Duration) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|error| format!("{address} is no address: {error}"))?;
    Ok(endpoint
        .connect_timeout(patience)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

/// The innermost cause of an error: what the outer ones wrap says nothing to an operator.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_heard_anyway_is_not_asked_but_a_silent_connection_is_tried_and_given_up() {
        let options = NetworkOptions::default();
        let judged = |here_ms, anywhere_ms| {
            let silence = Silence {
                here: Duration::from_millis(here_ms),
                anywhere: Duration::from_millis(anywhere_ms),
            };
            (silence.asks(&options), silence.is_over(&options))
        };
        assert_eq!(judged(140, 140), (false, false), "heard just now");
        assert_eq!(judged(200, 200), (true, false), "silent since the last ping");
        assert_eq!(judged(900, 20), (false, false), "heard on another connection");
        assert_eq!(judged(1000, 20), (true, false), "this connection may have broken alone");
        assert_eq!(judged(2001, 20), (true, true), "it has");
        assert_eq!(judged(1001, 1001), (true, true), "the node is gone");
    }
}
