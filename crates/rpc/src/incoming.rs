//! What comes in on one stream of another node, and the answers to it.
//!
//! Made by `server` for every stream. Always holds: Raft messages are handed on in order and wait for no request; requests
//! beyond what a peer may have unanswered are turned away before anything is done; a stream that has ended leaves the
//! requests that run alone, and drops their answers.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use base::limits::{PEER_ANSWER_BYTES_MAX, PEER_FRAME_BYTES};
use base::{Code, Error, NodeId, ShardId};
use futures::{FutureExt, Stream};
use parking_lot::Mutex;
use prost::Message as _;
use raft::eraftpb::Message;
use router::peer::{PeerFailure, PeerReply};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tonic::{Status, Streaming};

use crate::convert::{Wire, answer_to_wire, request_from_wire};
use crate::link::{ROOM_UNIT_BYTES, SINGLE_BYTES_MAX, request_units};
use crate::presence::Presence;
use crate::service::Service;
use crate::v1;

/// The reading side of a stream.
pub(crate) struct Incoming {
    pub(crate) from: NodeId,
    pub(crate) presence: Arc<Presence>,
    pub(crate) service: Arc<dyn Service>,
    /// For the requests of this peer that run, on whichever of its streams they came.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) answers: Arc<Answers>,
}

/// However the reading ends: a stream that nobody reads must not look alive.
impl Drop for Incoming {
    fn drop(&mut self) {
        self.answers.close(None);
    }
}

impl Incoming {
    /// Reads frames until the stream ends or the node stops.
    pub(crate) async fn read(self, mut frames: Streaming<v1::Frame>, mut stopped: watch::Receiver<bool>) {
        let end = loop {
            let frame = tokio::select! {
                frame = frames.message() => frame,
                _ = stopped.wait_for(|stopped| *stopped) => break Some(stopping()),
            };
            match frame {
                Ok(Some(frame)) => {
                    self.presence.note(self.from);
                    self.take(frame);
                }
                Ok(None) => break None,
                Err(status) => {
                    tracing::debug!(peer = %self.from, reason = status.message(), "a stream of another node has ended");
                    break None;
                }
            }
        };
        self.answers.close(end);
    }

    /// Takes what is in a frame.
    fn take(&self, frame: v1::Frame) {
        for group in frame.raft {
            let messages: Vec<_> =
                group.messages.into_iter().filter_map(|message| self.raft(message)).collect();
            if !messages.is_empty() {
                self.service.receive(self.from, ShardId(group.shard), messages);
            }
        }
        for request in frame.requests {
            let units = request_units(request.encoded_len());
            let permit = self.room.clone().try_acquire_many_owned(units).ok();
            tokio::spawn(handle(self.from, self.service.clone(), self.answers.clone(), request, permit));
        }
    }

    /// Raft loses nothing that it cannot send again: what is not understood is left out.
    fn raft(&self, message: v1::RaftMessage) -> Option<Message> {
        let read = Message::from_wire(message);
        read.inspect_err(
            |error| tracing::warn!(peer = %self.from, %error, "a message of a replica was dropped"),
        )
        .ok()
    }
}

/// Why streams end when the node does.
pub(crate) fn stopping() -> Status {
    Status::unavailable("the node stops")
}

/// Does one request and queues its answer.
async fn handle(
    from: NodeId,
    service: Arc<dyn Service>,
    answers: Arc<Answers>,
    request: v1::Request,
    permit: Option<OwnedSemaphorePermit>,
) {
    let sequence = request.sequence;
    let done = match permit {
        Some(_) => perform(from, &*service, request).await,
        None => Err(PeerFailure::Unreachable("it does too much for this node already".to_owned())),
    };
    let mut answer = answer_to_wire(sequence, done);
    let bytes = answer.encoded_len();
    if bytes > SINGLE_BYTES_MAX {
        let message = format!("an answer of {bytes} bytes is larger than nodes send each other");
        let error = Error::new(Code::BSON_OBJECT_TOO_LARGE, message);
        answer = answer_to_wire(sequence, Err(PeerFailure::Refused { error, primary: None }));
    }
    answers.push(answer).await;
    drop(permit);
}

async fn perform(
    from: NodeId,
    service: &dyn Service,
    request: v1::Request,
) -> Result<PeerReply, PeerFailure> {
    let request =
        request_from_wire(request).map_err(|error| PeerFailure::Refused { error, primary: None })?;
    // Otherwise a panic would leave the other node waiting.
    let handled = AssertUnwindSafe(service.handle(from, request)).catch_unwind().await;
    handled.unwrap_or_else(|_| Err(PeerFailure::Unreachable("it failed while it did this".to_owned())))
}

/// The answers that wait to be sent on one stream.
pub(crate) struct Answers {
    state: Mutex<State>,
    /// For the bytes of `State::queue`, in [`ROOM_UNIT_BYTES`].
    room: Arc<Semaphore>,
    /// Rung when there is something to send, or the stream is to end.
    bell: Notify,
}

struct State {
    /// The first frame.
    hello: Option<v1::Hello>,
    queue: VecDeque<(v1::Answer, usize, OwnedSemaphorePermit)>,
    closed: bool,
    /// What the stream ends with.
    end: Option<Status>,
}

/// A frame, an end of the stream, or neither yet.
type Taken = Option<Option<Result<v1::Frame, Status>>>;

impl Answers {
    /// No answers; the first frame says `hello`.
    pub(crate) fn new(hello: v1::Hello) -> Answers {
        let state = State { hello: Some(hello), queue: VecDeque::new(), closed: false, end: None };
        Answers {
            state: Mutex::new(state),
            room: Arc::new(Semaphore::new(PEER_ANSWER_BYTES_MAX / ROOM_UNIT_BYTES)),
            bell: Notify::new(),
        }
    }

    /// Queues an answer once there is room. Drops it when the stream has ended.
    async fn push(&self, answer: v1::Answer) {
        let bytes = answer.encoded_len();
        let units = u32::try_from(bytes.div_ceil(ROOM_UNIT_BYTES)).unwrap_or(u32::MAX);
        let Ok(permit) = self.room.clone().acquire_many_owned(units).await else { return };
        let mut state = self.state.lock();
        if !state.closed {
            state.queue.push_back((answer, bytes, permit));
            drop(state);
            self.bell.notify_one();
        }
    }

    /// Ends the stream, with a status when this side ends it. Does nothing when it has ended.
    fn close(&self, end: Option<Status>) {
        {
            let mut state = self.state.lock();
            if state.closed {
                return;
            }
            state.closed = true;
            state.end = end;
            state.queue.clear();
        }
        self.room.close();
        self.bell.notify_one();
    }

    fn take(&self) -> Taken {
        let mut state = self.state.lock();
        if state.closed {
            return Some(state.end.take().map(Err));
        }
        if let Some(hello) = state.hello.take() {
            return Some(Some(Ok(v1::Frame { hello: Some(hello), ..v1::Frame::default() })));
        }
        let (mut answers, mut taken) = (Vec::new(), 0);
        while taken < PEER_FRAME_BYTES
            && let Some((answer, bytes, _)) = state.queue.pop_front()
        {
            taken += bytes;
            answers.push(answer);
        }
        (!answers.is_empty()).then(|| Some(Ok(v1::Frame { answers, ..v1::Frame::default() })))
    }

    /// What to send. Only one stream may be made of these answers.
    pub(crate) fn frames(
        self: Arc<Answers>,
    ) -> impl Stream<Item = Result<v1::Frame, Status>> + Send + 'static {
        futures::stream::unfold(self, |answers| async move {
            loop {
                if let Some(next) = answers.take() {
                    break next.map(|frame| (frame, answers));
                }
                answers.bell.notified().await;
            }
        })
    }
}
