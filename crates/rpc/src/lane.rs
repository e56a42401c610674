//! What waits to be sent on one connection, and who waits for answers from it.
//!
//! Filled by owner loops and routers, emptied by the connection whenever it takes another frame: what has come together by
//! then goes into one. What has time makes no frame of its own for a while. Always holds: a lane that is closed stays closed, takes nothing any more, and leaves nobody waiting.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::ShardId;
use base::limits::{PEER_FRAME_BYTES, PEER_RAFT_QUEUE_BYTES_MAX};
use futures::Stream;
use parking_lot::Mutex;
use raft::eraftpb::Message;
use replica::Haste;
use router::peer::PeerFailure;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::convert::Wire;
use crate::v1;

/// What a Raft message and an entry in it count beside their data, in bytes.
const RAFT_OVERHEAD_BYTES: usize = 128;

/// What a node has sent to others on its lanes, since it started. Read for the metrics page.
#[derive(Debug, Default)]
pub struct FrameCounts {
    /// Frames.
    pub frames: AtomicU64,
    /// Raft messages in them.
    pub raft_messages: AtomicU64,
    /// Requests in them.
    pub requests: AtomicU64,
}

/// See the module's comment.
pub(crate) struct Lane {
    state: Mutex<State>,
    counts: Arc<FrameCounts>,
    /// Rung when there is something to send, or the lane was closed.
    bell: Notify,
}

struct State {
    /// The first frame.
    hello: Option<v1::Hello>,
    raft: VecDeque<(ShardId, Message, usize)>,
    raft_bytes: usize,
    requests: VecDeque<(v1::Request, usize)>,
    /// When the next frame is to leave: never as long as nothing waits.
    due: Due,
    /// Who waits for the answer to which request.
    waiting: BTreeMap<u64, oneshot::Sender<v1::Answer>>,
    sequence: u64,
    /// Why the lane is closed.
    closed: Option<String>,
}

/// When the next frame is to leave.
#[derive(Clone, Copy)]
enum Due {
    /// When something comes.
    Never,
    At(Instant),
    Now,
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
    pub(crate) fn new(hello: v1::Hello, counts: Arc<FrameCounts>) -> Lane {
        let state = State {
            hello: Some(hello),
            raft: VecDeque::new(),
            raft_bytes: 0,
            requests: VecDeque::new(),
            due: Due::Never,
            waiting: BTreeMap::new(),
            sequence: 0,
            closed: None,
        };
        Lane { state: Mutex::new(state), counts, bell: Notify::new() }
    }

    /// Queues Raft messages. Returns how many were dropped because there is no room.
    pub(crate) fn send(&self, shard: ShardId, messages: Vec<Message>, haste: Haste) -> usize {
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
        let is_news = state.due.hasten(haste);
        drop(state);
        if is_news {
            self.bell.notify_one();
        }
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
            if state.due.hasten(Haste::Now) {
                self.bell.notify_one();
            }
            Waiting { lane: self, sequence }
        };
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

    /// Whether something waits to be sent, and nobody for that.
    fn has_time(&self) -> bool {
        matches!(self.state.lock().due, Due::At(_))
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
                        lane.counts.add(raft.len(), requests.len());
                        let raft = group(raft);
                        break Some((v1::Frame { raft, requests, ..v1::Frame::default() }, lane));
                    }
                    Taken::Nothing => lane.bell.notified().await,
                    Taken::Later(due) => tokio::select! {
                        () = lane.bell.notified() => {}
                        () = sleep_until(due) => {}
                    },
                    Taken::End => break None,
                }
                if lane.has_time() {
                    // Those who send at the same moment get the chance to share this frame.
                    tokio::task::yield_now().await;
                }
            }
        })
    }
}

/// What goes into the next frame.
enum Taken {
    Hello(v1::Hello),
    Some(Vec<(ShardId, Message)>, Vec<v1::Request>),
    Nothing,
    /// Nothing before this time.
    Later(Instant),
    End,
}

impl FrameCounts {
    fn add(&self, raft_messages: usize, requests: usize) {
        let add = |counter: &AtomicU64, number| {
            counter.fetch_add(u64::try_from(number).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        add(&self.frames, 1);
        add(&self.raft_messages, raft_messages);
        add(&self.requests, requests);
    }
}

impl Due {
    /// Something has come. Returns whether that changes anything.
    fn hasten(&mut self, haste: Haste) -> bool {
        let sooner = match (*self, haste) {
            (Due::Now, _) => return false,
            (Due::At(due), Haste::By(time)) if due <= time => return false,
            (_, Haste::Now) => Due::Now,
            (_, Haste::By(time)) => Due::At(time),
        };
        *self = sooner;
        true
    }
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
        match self.due {
            Due::At(due) if Instant::now() < due => return Taken::Later(due),
            Due::Never => return Taken::Nothing,
            Due::At(_) | Due::Now => {}
        }
        let (raft, requests) = (self.take_raft(), self.take_requests());
        // What found no room in this frame goes into the next.
        let is_all = self.raft.is_empty() && self.requests.is_empty();
        self.due = if is_all { Due::Never } else { Due::Now };
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
    use std::time::Duration;

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
        let lane = Arc::new(Lane::new(v1::Hello::default(), Arc::default()));
        assert_eq!(lane.send(ShardId(1), vec![append(1), append(2)], Haste::Now), 0);
        assert_eq!(lane.send(ShardId(2), vec![append(3)], Haste::Now), 0);
        assert_eq!(lane.send(ShardId(3), vec![append(PEER_RAFT_QUEUE_BYTES_MAX)], Haste::Now), 1);
        let mut frames = Box::pin(lane.clone().frames());
        assert!(frames.next().await.expect("a frame").hello.is_some());
        let frame = frames.next().await.expect("a frame");
        let counts: Vec<_> = frame.raft.iter().map(|group| (group.shard, group.messages.len())).collect();
        assert_eq!(counts, [(1, 2), (2, 1)]);
        assert_eq!(lane.send(ShardId(3), vec![append(PEER_RAFT_QUEUE_BYTES_MAX)], Haste::Now), 0);
        assert_eq!(frames.next().await.expect("a frame").raft.len(), 1);
        lane.close("over");
        assert!(frames.next().await.is_none());
        assert_eq!(lane.send(ShardId(1), vec![append(1)], Haste::Now), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_time_waits_for_others_to_share_a_frame_with_but_not_for_long() {
        let counts = Arc::new(FrameCounts::default());
        let lane = Arc::new(Lane::new(v1::Hello::default(), counts.clone()));
        let mut frames = Box::pin(lane.clone().frames());
        assert!(frames.next().await.expect("a frame").hello.is_some());
        let soon = Instant::now() + Duration::from_millis(20);
        lane.send(ShardId(1), vec![append(1)], Haste::By(soon));
        assert!(frames.next().now_or_never().is_none());
        lane.send(ShardId(2), vec![append(2)], Haste::Now);
        assert_eq!(frames.next().await.expect("a frame").raft.len(), 2);
        assert!(Instant::now() < soon);
        lane.send(ShardId(1), vec![append(1)], Haste::By(soon));
        assert_eq!(frames.next().await.expect("a frame").raft.len(), 1);
        assert_eq!(Instant::now(), soon);
        assert_eq!(counts.frames.load(Ordering::Relaxed), 2);
        assert_eq!(counts.raft_messages.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_closed_lane_leaves_nobody_waiting_and_what_nobody_waits_for_is_not_sent() {
        let lane = Arc::new(Lane::new(v1::Hello::default(), Arc::default()));
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
