//! Snapshots on their way to another node, and from one.
//!
//! Called by [`crate::Network`] for what a leader offers, and by `server` for what comes. Every attempt has a connection of
//! its own, so that its bytes hold up nothing else, and a pace that all of a node's attempts share. Always holds: only a
//! snapshot whose end has come, after as many chunks as were sent, is installed; an attempt that breaks is dropped, and the
//! leader offers another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{MonoTime, NodeId};
use replica::SnapshotReceiver;
use replica::pace::Pace;
use replica::snapshot::{Chunk, NotInstalled, SnapshotHeader, SnapshotOffer};
use storage::Fault;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, Streaming};

use crate::convert::Wire;
use crate::hello::Identity;
use crate::link::{self, Context};
use crate::service::Service;
use crate::v1;
use crate::v1::snapshot_part::Part;

/// Chunks that are read from the store and not sent yet.
const CHUNKS_AHEAD: usize = 2;
/// How long the other end may take for one part.
const PART_WAIT: Duration = Duration::from_secs(30);
/// How long the other end may take to install what it has.
const INSTALL_WAIT: Duration = Duration::from_secs(120);

/// What became of a node's attempts to send snapshots, since it started. Read for the metrics page.
#[derive(Debug, Default)]
pub struct SnapshotCounts {
    /// Snapshots that arrived.
    pub sent: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Bytes of keys and values that were sent, those of failed attempts included.
    pub bytes: AtomicU64,
}

/// One attempt to bring a snapshot to another node.
pub(crate) struct Sender {
    pub(crate) peer: NodeId,
    pub(crate) address: String,
    pub(crate) context: Arc<Context>,
    pub(crate) pace: Arc<Pace>,
    /// What the pace counts from.
    pub(crate) paced_since: Instant,
    pub(crate) local: Arc<dyn Service>,
}

impl Sender {
    /// Sends a snapshot and hands what the other node says to it to the replica that offered it.
    pub(crate) async fn send(&self, offer: SnapshotOffer) {
        let (shard, peer) = (offer.header.shard, self.peer);
        match self.attempt(&offer).await {
            Ok(message) => {
                self.context.snapshots.sent.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%shard, %peer, "a snapshot has arrived");
                self.local.receive(peer, shard, vec![message]);
            }
            Err(reason) => {
                self.context.snapshots.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%shard, %peer, reason, "a snapshot has not arrived");
            }
        }
    }

    async fn attempt(&self, offer: &SnapshotOffer) -> Result<raft::eraftpb::Message, String> {
        let channel = link::connect(&self.address, self.context.options.dead_after).await?;
        let mut client = link::client(channel);
        let (parts, mut outgoing) = mpsc::channel(1);
        let outgoing = futures::stream::poll_fn(move |context| outgoing.poll_recv(context));
        // Either both end, or the first to fail ends the other.
        let feed = self.feed(offer, parts);
        let call =
            async { client.install_snapshot(outgoing).await.map_err(|status| status.message().to_owned()) };
        let mut call = std::pin::pin!(call);
        let answer = tokio::select! {
            // What the other end says tells more than that it has hung up.
            biased;
            answer = &mut call => answer?,
            fed = feed => {
                fed?;
                timeout(INSTALL_WAIT, call).await.map_err(|_| "it was not installed in time".to_owned())??
            }
        };
        match answer.into_inner().outcome {
            Some(v1::snapshot_answer::Outcome::Message(message)) => {
                Wire::from_wire(message).map_err(|error: base::Error| error.to_string())
            }
            Some(v1::snapshot_answer::Outcome::Damaged(_)) => Err("it was damaged on its way".to_owned()),
            None => Err("the answer is empty".to_owned()),
        }
    }

    /// Feeds the stream, part by part, as fast as the pace allows and the other end takes them.
    async fn feed(&self, offer: &SnapshotOffer, parts: mpsc::Sender<v1::SnapshotPart>) -> Result<(), String> {
        let mut start = offer.header.clone().into_wire().map_err(|error| error.to_string())?;
        start.hello = Some(self.context.identity.hello(self.peer));
        hand_on(&parts, Part::Start(start)).await?;
        let mut chunks = read_ahead(offer);
        let mut sent = 0;
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk.map_err(|fault| {
                let reason = fault.to_string();
                self.local.fault(fault);
                reason
            })?;
            let bytes = bytes(&chunk);
            let now = MonoTime(self.paced_since.elapsed());
            sleep(self.pace.wait(bytes as u64, self.local.operations(), now)).await;
            hand_on(&parts, Part::Chunk(chunk.into_wire().map_err(|error| error.to_string())?)).await?;
            self.context.snapshots.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            sent += 1;
        }
        hand_on(&parts, Part::End(v1::SnapshotEnd { chunks: sent })).await
    }
}

async fn hand_on(parts: &mpsc::Sender<v1::SnapshotPart>, part: Part) -> Result<(), String> {
    let sent = timeout(PART_WAIT, parts.send(v1::SnapshotPart { part: Some(part) })).await;
    let sent = sent.map_err(|_| "the other node takes nothing any more".to_owned())?;
    sent.map_err(|_| "the stream has ended".to_owned())
}

fn bytes(chunk: &Chunk) -> usize {
    chunk.pairs.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// Reads a snapshot's chunks on a thread that may block, a few ahead. Ends when nobody takes them any more.
fn read_ahead(offer: &SnapshotOffer) -> mpsc::Receiver<storage::Result<Chunk>> {
    let (chunks, taken) = mpsc::channel(CHUNKS_AHEAD);
    let read = offer.chunks(None);
    tokio::task::spawn_blocking(move || {
        for chunk in read {
            let last = chunk.is_err();
            if chunks.blocking_send(chunk).is_err() || last {
                break;
            }
        }
    });
    taken
}

/// Receives a snapshot for this node and installs it.
pub(crate) async fn receive(
    mut parts: Streaming<v1::SnapshotPart>,
    identity: Identity,
    service: &dyn Service,
) -> Result<v1::SnapshotAnswer, Status> {
    let Some(Part::Start(mut start)) = next(&mut parts).await? else {
        return Err(Status::invalid_argument("a snapshot begins with something else than its start"));
    };
    let (from, _) = identity.check(start.hello.take())?;
    let header = SnapshotHeader::from_wire(start).map_err(|error| Status::invalid_argument(error.message))?;
    let installed = match service.begin_snapshot(from, header).await {
        Ok(receiver) => match fill(&mut parts, receiver).await? {
            Ok(receiver) => service.install_snapshot(receiver).await,
            Err(not_installed) => Err(not_installed),
        },
        Err(not_installed) => Err(not_installed),
    };
    answer(installed)
}

/// Takes all chunks. The outer error is one of the stream.
async fn fill(
    parts: &mut Streaming<v1::SnapshotPart>,
    mut receiver: SnapshotReceiver,
) -> Result<Result<SnapshotReceiver, NotInstalled>, Status> {
    let mut taken = 0;
    loop {
        match next(parts).await? {
            Some(Part::Chunk(chunk)) => {
                let chunk =
                    Chunk::from_wire(chunk).map_err(|error| Status::invalid_argument(error.message))?;
                if let Err(not_installed) = receiver.add(chunk).await {
                    return Ok(Err(not_installed));
                }
                taken += 1;
            }
            Some(Part::End(end)) if end.chunks == taken => return Ok(Ok(receiver)),
            Some(Part::End(_) | Part::Start(_)) | None => return Ok(Err(NotInstalled::Damaged)),
        }
    }
}

/// The next part; `None` at the end of the stream.
async fn next(parts: &mut Streaming<v1::SnapshotPart>) -> Result<Option<Part>, Status> {
    let part = timeout(PART_WAIT, parts.message()).await;
    let part = part.map_err(|_| Status::deadline_exceeded("the snapshot does not go on"))??;
    Ok(part.and_then(|part| part.part))
}

fn answer(installed: Result<raft::eraftpb::Message, NotInstalled>) -> Result<v1::SnapshotAnswer, Status> {
    let message = match installed {
        Ok(message) => message,
        Err(NotInstalled::NotNeeded(message)) => *message,
        Err(NotInstalled::Damaged) => {
            let damaged = v1::snapshot_answer::Outcome::Damaged(v1::SnapshotDamaged {});
            return Ok(v1::SnapshotAnswer { outcome: Some(damaged) });
        }
        // The host of this node stops it; the other one need not know what is wrong here.
        Err(NotInstalled::Fault(Fault { .. })) => return Err(Status::unavailable("the node stops")),
    };
    let message = message.into_wire().map_err(|error| Status::internal(error.message))?;
    Ok(v1::SnapshotAnswer { outcome: Some(v1::snapshot_answer::Outcome::Message(message)) })
}
