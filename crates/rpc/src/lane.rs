//! What waits to be sent on one connection, and who waits for answers from it.
//!
//! Filled by owner loops and routers, emptied by the connection whenever it takes another frame: what has come together by
//! then goes into one. Always holds: a lane that is closed stays closed, takes nothing any more, and leaves nobody waiting.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;

use base::ShardId;
use base::limits::{PEER_FRAME_BYTES, PEER_RAFT_QUEUE_BYTES_MAX};
use futures::Stream;
use parking_lot::Mutex;
use raft::eraftpb::Message;
use router::peer::PeerFailure;
use tokio::sync::{Notify, oneshot};

use crate::convert::Wire;
use crate::v1;

/// What a Raft message and an entry in it count beside their data, in bytes.
const RAFT_OVERHEAD_BYTES: usize = 128;

/// See the module's comment.
pub(crate) struct Lane {
    state: Mutex<State>,
    /// Rung when there is something to send, or the lane was closed.
    bell: Notify,
}

struct State {
    /// The first frame.
    hello: Option<v1::Hello>,
    raft: VecDeque<(ShardId, Message, usize)>,
    raft_bytes: usize,
    requests: VecDeque<(v1::Request, usize)>,
    /// Who waits for the answer to which request.
    waiting: BTreeMap<u64, oneshot::Sender<v1::Answer>>,
    sequence: u64,
    /// Why the lane is closed.
    closed: Option<String>,
}

/// Closes a lane when its connection ends, in whatever way.
pub(crate) struct CloseOnDrop(pub(crate) Arc<Lane>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close("the connection has ended");
    }
}

/// A request that somebody waits for; dropping it ends that.
struct Waiting<'a> {
    lane: &'a Lane,
    sequence: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.lane.state.lock().waiting.remove(&self.sequence);
    }
}

impl Lane {
    /// An empty lane, whose first frame says `hello`.
    pub(crate) fn new(hello: v1::Hello) -> Lane {
        let state = State {
            hello: Some(hello),
            raft: VecDeque::new(),
            raft_bytes: 0,
            requests: VecDeque::new(),
            waiting: BTreeMap::new(),
            sequence: 0,
            closed: None,
        };
        Lane { state: Mutex::new(state), bell: Notify::new() }
    }

    /// Queues Raft messages. Returns how many were dropped because there is no room.
    pub(crate) fn send(&self, shard: ShardId, messages: Vec<Message>) -> usize {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return messages.len();
        }
        let mut dropped = 0;
        for message in messages {
            let bytes = raft_bytes(&message);
            if state.raft_bytes + bytes > PEER_RAFT_QUEUE_BYTES_MAX && !state.raft.is_empty() {
                dropped += 1;
                continue;
            }
            state.raft_bytes += bytes;
            state.raft.push_back((shard, message, bytes));
        }
        drop(state);
        self.bell.notify_one();
        dropped
    }

    /// Sends a request of `bytes` and waits for its answer. Fails with `Unreachable` when the connection ends first.
    pub(crate) async fn request(
        &self,
        request: v1::request::Request,
        bytes: usize,
    ) -> Result<v1::Answer, PeerFailure> {
        let (answer, answered) = oneshot::channel();
        let _waiting = {
            let mut state = self.state.lock();
            if let Some(reason) = &state.closed {
                return Err(PeerFailure::Unreachable(reason.clone()));
            }
            state.sequence += 1;
            let sequence = state.sequence;
            state.waiting.insert(sequence, answer);
            state.requests.push_back((v1::Request { sequence, request: Some(request) }, bytes));
            Waiting { lane: self, sequence }
        };
        self.bell.notify_one();
        answered.await.map_err(|_| PeerFailure::Unreachable(self.reason()))
    }

    /// Hands an answer to who waits for it, if anybody does still.
    pub(crate) fn answer(&self, answer: v1::Answer) {
        let waiting = self.state.lock().waiting.remove(&answer.sequence);
        if let Some(waiting) = waiting {
            // Who stopped waiting in this moment does not want it.
            let _ = waiting.send(answer);
        }
    }

    /// Ends the lane: whoever waits for an answer is told so at once.
    pub(crate) fn close(&self, reason: &str) {
        let waiting = {
            let mut state = self.state.lock();
            state.closed.get_or_insert_with(|| reason.to_owned());
            state.raft.clear();
            state.raft_bytes = 0;
            state.requests.clear();
            mem::take(&mut state.waiting)
        };
        drop(waiting);
        self.bell.notify_one();
    }

    fn reason(&self) -> String {
        self.state.lock().closed.clone().unwrap_or_else(|| "the answer was lost".to_owned())
    }

    /// What to send, until the lane is closed. Only one stream may be made of a lane.
    pub(crate) fn frames(self: Arc<Lane>) -> impl Stream<Item = v1::Frame> + Send + 'static {
        futures::stream::unfold(self, |lane| async move {
            loop {
                let taken = lane.state.lock().take();
                match taken {
                    Taken::Hello(hello) => {
                        break Some((v1::Frame { hello: Some(hello), ..v1::Frame::default() }, lane));
                    }
                    Taken::Some(raft, requests) => {
                        let raft = group(raft);
                        break Some((v1::Frame { raft, requests, ..v1::Frame::default() }, lane));
                    }
                    Taken::Nothing => {}
                    Taken::End => break None,
                }
                lane.bell.notified().await;
            }
        })
    }
}

/// What goes into the next frame.
enum Taken {
    Hello(v1::Hello),
    Some(Vec<(ShardId, Message)>, Vec<v1::Request>),
    Nothing,
    End,
}

impl State {
    /// Everything that waits, up to the size of a frame.
    fn take(&mut self) -> Taken {
        if self.closed.is_some() {
            return Taken::End;
        }
        if let Some(hello) = self.hello.take() {
            return Taken::Hello(hello);
        }
        let (raft, requests) = (self.take_raft(), self.take_requests());
        match raft.is_empty() && requests.is_empty() {
            true => Taken::Nothing,
            false => Taken::Some(raft, requests),
        }
    }

    fn take_raft(&mut self) -> Vec<(ShardId, Message)> {
        let (mut messages, mut taken) = (Vec::new(), 0);
        while taken < PEER_FRAME_BYTES
            && let Some((shard, message, bytes)) = self.raft.pop_front()
        {
            taken += bytes;
            self.raft_bytes -= bytes;
            messages.push((shard, message));
        }
        messages
    }

    fn take_requests(&mut self) -> Vec<v1::Request> {
        let (mut requests, mut taken) = (Vec::new(), 0);
        while taken < PEER_FRAME_BYTES
            && let Some((request, bytes)) = self.requests.pop_front()
        {
            // Nobody waits for it any more: it need not be done.
            if self.waiting.contains_key(&request.sequence) {
                taken += bytes;
                requests.push(request);
            }
        }
        requests
    }
}

/// Puts messages of the same shard that follow each other together. Outside of the lock: owner loops wait for that.
fn group(messages: Vec<(ShardId, Message)>) -> Vec<v1::RaftMessages> {
    let mut groups: Vec<v1::RaftMessages> = Vec::new();
    for (shard, message) in messages {
        let message = match message.into_wire() {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(%shard, %error, "a message of a replica was not sent");
                continue;
            }
        };
        match groups.last_mut().filter(|group| group.shard == shard.get()) {
            Some(group) => group.messages.push(message),
            None => groups.push(v1::RaftMessages { shard: shard.get(), messages: vec![message] }),
        }
    }
    groups
}

fn raft_bytes(message: &Message) -> usize {
    let entries = message.entries.iter();
    let entries = entries.map(|entry| RAFT_OVERHEAD_BYTES + entry.data.len() + entry.context.len());
    RAFT_OVERHEAD_BYTES + message.context.len() + entries.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::{FutureExt, StreamExt};
    use raft::eraftpb::{Entry, MessageType};

    use super::*;

    fn append(bytes: usize) -> Message {
        let entry = Entry { data: Bytes::from(vec![0; bytes]), ..Entry::default() };
        Message { msg_type: MessageType::MsgAppend, entries: vec![entry].into(), ..Message::default() }
    }

    #[tokio::test]
    async fn what_waits_goes_into_one_frame_and_what_finds_no_room_is_dropped() {
        let lane = Arc::new(Lane::new(v1::Hello::default()));
        assert_eq!(lane.send(ShardId(1), vec![append(1), append(2)]), 0);
        assert_eq!(lane.send(ShardId(2), vec![append(3)]), 0);
        assert_eq!(lane.send(ShardId(3), vec![append(PEER_RAFT_QUEUE_BYTES_MAX)]), 1);
        let mut frames = Box::pin(lane.clone().frames());
        assert!(frames.next().await.expect("a frame").hello.is_some());
        let frame = frames.next().await.expect("a frame");
        let counts: Vec<_> = frame.raft.iter().map(|group| (group.shard, group.messages.len())).collect();
        assert_eq!(counts, [(1, 2), (2, 1)]);
        assert_eq!(lane.send(ShardId(3), vec![append(PEER_RAFT_QUEUE_BYTES_MAX)]), 0);
        assert_eq!(frames.next().await.expect("a frame").raft.len(), 1);
        lane.close("over");
        assert!(frames.next().await.is_none());
        assert_eq!(lane.send(ShardId(1), vec![append(1)]), 1);
    }

    #[tokio::test]
    async fn a_closed_lane_leaves_nobody_waiting_and_what_nobody_waits_for_is_not_sent() {
        let lane = Arc::new(Lane::new(v1::Hello::default()));
        let status = || v1::request::Request::Status(v1::NodeStatus {});
        let mut first = Box::pin(lane.request(status(), 1));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(lane.request(status(), 1));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        let mut frames = Box::pin(lane.clone().frames());
        assert!(frames.next().await.expect("a frame").hello.is_some());
        let frame = frames.next().await.expect("a frame");
        assert_eq!(frame.requests.iter().map(|request| request.sequence).collect::<Vec<_>>(), [2]);
        lane.close("over");
        assert_eq!(second.await, Err(PeerFailure::Unreachable("over".to_owned())));
        assert_eq!(lane.request(status(), 1).await, Err(PeerFailure::Unreachable("over".to_owned())));
    }
}
