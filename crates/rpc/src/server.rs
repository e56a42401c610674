//! Answers other nodes.
//!
//! Called by `server`, once for a node's whole life: also a node that belongs to no cluster yet answers who asks for it.
//! Always holds: a stream is served only after its first message was checked to be meant for this node.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base::NodeId;
use base::limits::{PEER_MESSAGE_BYTES_MAX, PEER_REQUEST_BYTES_MAX, SNAPSHOTS_AT_A_TIME};
use futures::Stream;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::convert::Wire;
use crate::hello::Identity;
use crate::incoming::{Answers, Incoming, stopping};
use crate::link::{CONNECTION_WINDOW_BYTES, ROOM_UNIT_BYTES, STREAM_WINDOW_BYTES, innermost};
use crate::member::JoinRequest;
use crate::presence::Presence;
use crate::service::Service;
use crate::v1::peer_server::{Peer, PeerServer};
use crate::{snapshot, v1};

/// How long the first message of a stream may take.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// How long connections may take to end when the node stops.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// How often the other end of a connection is asked for a sign of life, and how long it may take: a connection that its
/// peer has left is given up.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Streams of one connection at a time.
const STREAMS_MAX: u32 = 64;

/// Serves other nodes on `listener` until `stop` ends. Answers [`crate::greet`] and [`crate::join`] at once, everything else
/// as soon as `identity` has a value. Fails when the listener does.
pub async fn serve(
    listener: TcpListener,
    identity: watch::Receiver<Option<Identity>>,
    presence: Arc<Presence>,
    service: Arc<dyn Service>,
    stop: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let (stopping, stopped) = watch::channel(false);
    let node = Node {
        identity,
        presence,
        service,
        stopped: stopped.clone(),
        rooms: Mutex::default(),
        snapshots: Semaphore::new(SNAPSHOTS_AT_A_TIME),
    };
    let peer = PeerServer::new(node)
        .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(peer)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            wait_for_stop(stopped),
        );
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stop => {
            stopping.send_replace(true);
            // Who does not let go of a connection by then loses it with the process.
            tokio::time::timeout(STOP_WAIT, serving).await.unwrap_or(Ok(()))
        }
    };
    ended.map_err(|error| io::Error::other(innermost(&error)))
}

async fn wait_for_stop(mut stopped: watch::Receiver<bool>) {
    // Fails when `serve` is gone: that is a stop as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// The node, as other nodes see it.
struct Node {
    identity: watch::Receiver<Option<Identity>>,
    presence: Arc<Presence>,
    service: Arc<dyn Service>,
    stopped: watch::Receiver<bool>,
    /// Room for the requests that run, by the node that sent them.
    rooms: Mutex<BTreeMap<NodeId, Arc<Semaphore>>>,
    /// For the snapshots that come in.
    snapshots: Semaphore,
}

impl Node {
    fn identity(&self) -> Result<Identity, Status> {
        let identity = self.identity.borrow().clone();
        identity.ok_or_else(|| Status::failed_precondition("this node belongs to no cluster yet"))
    }

    fn room(&self, from: NodeId) -> Arc<Semaphore> {
        let mut rooms = self.rooms.lock();
        // Who has no stream any more and nothing that runs needs none.
        rooms.retain(|_, room| Arc::strong_count(room) > 1);
        rooms.entry(from).or_insert_with(|| Arc::new(Semaphore::new(ROOM))).clone()
    }
}

/// Twice what a peer itself has unanswered: those that it gave up may still run here.
const ROOM: usize = 2 * PEER_REQUEST_BYTES_MAX / ROOM_UNIT_BYTES;

/// The next message of a stream that has to begin.
async fn first<T>(messages: &mut Streaming<T>) -> Result<T, Status> {
    let message = tokio::time::timeout(HELLO_WAIT, messages.message()).await;
    let message = message.map_err(|_| Status::deadline_exceeded("the stream did not begin"))??;
    message.ok_or_else(|| Status::invalid_argument("the stream is empty"))
}

type Answered<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl Peer for Node {
    type ExchangeStream = Answered<v1::Frame>;
    type BeatStream = Answered<v1::Pong>;

    async fn exchange(
        &self,
        request: Request<Streaming<v1::Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut frames = request.into_inner();
        let hello = first(&mut frames).await?.hello;
        let identity = self.identity()?;
        let (from, _) = identity.check(hello)?;
        let answers = Arc::new(Answers::new(identity.hello(from)));
        let incoming = Incoming {
            from,
            presence: self.presence.clone(),
            service: self.service.clone(),
            room: self.room(from),
            answers: answers.clone(),
        };
        tokio::spawn(incoming.read(frames, self.stopped.clone()));
        Ok(Response::new(Box::pin(answers.frames())))
    }

    async fn beat(
        &self,
        request: Request<Streaming<v1::Ping>>,
    ) -> Result<Response<Self::BeatStream>, Status> {
        let mut pings = request.into_inner();
        let hello = first(&mut pings).await?.hello;
        let identity = self.identity()?;
        let (from, _) = identity.check(hello)?;
        let state = (pings, self.presence.clone(), self.stopped.clone());
        let pongs = futures::stream::unfold(state, move |(mut pings, presence, mut stopped)| async move {
            let ping = tokio::select! {
                ping = pings.message() => ping.transpose()?.inspect(|_| presence.note(from)),
                _ = stopped.wait_for(|stopped| *stopped) => Err(stopping()),
            };
            let pong = ping.map(|ping| v1::Pong { number: ping.number, boot: identity.boot.get() });
            Some((pong, (pings, presence, stopped)))
        });
        Ok(Response::new(Box::pin(pongs)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotPart>>,
    ) -> Result<Response<v1::SnapshotAnswer>, Status> {
        let busy = |_| Status::resource_exhausted("this node receives other snapshots");
        let _permit = self.snapshots.try_acquire().map_err(busy)?;
        let mut stopped = self.stopped.clone();
        let received = snapshot::receive(request.into_inner(), self.identity()?, &*self.service);
        tokio::select! {
            answer = received => answer.map(Response::new),
            _ = stopped.wait_for(|stopped| *stopped) => Err(stopping()),
        }
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinAnswer>, Status> {
        let request = JoinRequest::from_wire(request.into_inner());
        let outcome = match request {
            Ok(request) => self.service.join(request).await,
            Err(error) => Err(error),
        };
        outcome.into_wire().map(Response::new).map_err(|error| Status::internal(error.to_string()))
    }

    async fn greet(&self, _: Request<v1::GreetRequest>) -> Result<Response<v1::Greeting>, Status> {
        let greeting = self.service.greet().await;
        greeting.into_wire().map(Response::new).map_err(|error| Status::internal(error.to_string()))
    }
}
