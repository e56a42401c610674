//! The network between nodes: late, lossy, doubling, reordering, and cut in one direction or in both.
//!
//! Processes send through it, faults change its weather. A batch of messages travels as one piece and may overtake
//! another; a snapshot travels chunk by chunk. Always holds: what arrives is what was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{NodeId, ReplicaId, ShardId};
use parking_lot::Mutex;
use raft::eraftpb::Message;
use replica::snapshot::{Chunk, NotInstalled, SnapshotHeader, SnapshotOffer};
use replica::{Haste, Host};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::world::World;

/// Pairs in one chunk of a simulated snapshot: few, so that there are many chunks.
const CHUNK_PAIRS: usize = 40;
/// How long the sender of a snapshot waits for the end of its installation, in seconds.
const INSTALL_SECONDS_MAX: u64 = 10;

/// See the module's comment.
#[derive(Default)]
pub(crate) struct Network {
    weather: Mutex<Weather>,
    /// Directions in which nothing arrives, each as often as somebody cut it.
    cut: Mutex<Vec<(NodeId, NodeId)>>,
    /// Directions in which everything takes longer, and by how many milliseconds.
    late: Mutex<BTreeMap<(NodeId, NodeId), u64>>,
    /// Replicas that went with their node's disk: nothing reaches them.
    gone: Mutex<BTreeSet<ReplicaId>>,
    /// How much was sent so far.
    sent: Traffic,
}

/// How much was sent: Raft messages, and calls of routers.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) messages: AtomicU64,
    pub(crate) calls: AtomicU64,
}

/// What the network does to what it carries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// The usual way takes up to this long.
    pub(crate) delay_ms: u64,
    /// Out of a hundred, how many take longer.
    pub(crate) slow_percent: u64,
    /// Up to how long those take.
    pub(crate) slow_ms: u64,
    /// Out of a hundred, how many are lost.
    pub(crate) loss_percent: u64,
    /// Out of a hundred, how many arrive twice.
    pub(crate) double_percent: u64,
    /// Whether the usual way takes exactly that long, so that nothing overtakes what was sent before it.
    pub(crate) keeps_order: bool,
}

/// A part of a snapshot on its way; `None` after the last one.
type Part = Option<Chunk>;

impl Network {
    /// Replaces the weather, and returns the one before.
    pub(crate) fn set_weather(&self, weather: Weather) -> Weather {
        std::mem::replace(&mut self.weather.lock(), weather)
    }

    /// Cuts directions.
    pub(crate) fn cut(&self, directions: &BTreeSet<(NodeId, NodeId)>) {
        self.cut.lock().extend(directions);
    }

    /// Takes one cut of each direction back.
    pub(crate) fn mend(&self, directions: &BTreeSet<(NodeId, NodeId)>) {
        let mut cut = self.cut.lock();
        for direction in directions {
            if let Some(at) = cut.iter().position(|other| other == direction) {
                cut.swap_remove(at);
            }
        }
    }

    /// Whatever is sent in these directions from now on arrives so much later.
    pub(crate) fn delay_by(&self, directions: &BTreeSet<(NodeId, NodeId)>, ms: u64) {
        self.late.lock().extend(directions.iter().map(|direction| (*direction, ms)));
    }

    /// Nothing is late any more that is sent in these directions.
    pub(crate) fn hasten(&self, directions: &BTreeSet<(NodeId, NodeId)>) {
        self.late.lock().retain(|direction, _| !directions.contains(direction));
    }

    /// Everything arrives again.
    pub(crate) fn heal(&self) {
        self.cut.lock().clear();
        self.late.lock().clear();
    }

    /// Nothing reaches a replica any more.
    pub(crate) fn forget(&self, replica: ReplicaId) {
        self.gone.lock().insert(replica);
    }

    /// How much was sent so far.
    pub(crate) fn sent(&self) -> &Traffic {
        &self.sent
    }

    /// Whether what is sent now arrives twice.
    pub(crate) fn doubles(&self, world: &World) -> bool {
        let double_percent = self.weather.lock().double_percent;
        world.chance(double_percent)
    }

    fn is_gone(&self, replica: ReplicaId) -> bool {
        self.gone.lock().contains(&replica)
    }

    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.lock().contains(&(from, to))
    }

    /// How long what is sent waits for something to share the way with.
    fn waits_ms(&self, world: &World, haste: Haste) -> u64 {
        match haste {
            // Nothing overtakes it.
            Haste::By(time) if !self.weather.lock().keeps_order => {
                let most = time.saturating_duration_since(Instant::now());
                world.choose(u64::try_from(most.as_millis()).expect("a tick at most") + 1)
            }
            Haste::By(_) | Haste::Now => 0,
        }
    }

    fn delay(&self, world: &World) -> Duration {
        let Weather { delay_ms, slow_percent, slow_ms, keeps_order, .. } = *self.weather.lock();
        if keeps_order {
            return Duration::from_millis(delay_ms);
        }
        let max_ms = if world.chance(slow_percent) { slow_ms } else { delay_ms };
        Duration::from_millis(world.choose(max_ms + 1))
    }
}

impl World {
    /// Sends messages of one replica to another.
    pub(crate) fn carry(
        self: &Arc<Self>,
        from: NodeId,
        to: NodeId,
        shard: ShardId,
        messages: Vec<Message>,
        haste: Haste,
    ) {
        self.network.sent.messages.fetch_add(messages.len() as u64, Ordering::Relaxed);
        let loss_percent = self.network.weather.lock().loss_percent;
        if self.network.is_cut(from, to) || self.chance(loss_percent) {
            return;
        }
        if self.network.doubles(self) {
            self.carry_once(from, to, shard, messages.clone(), haste);
        }
        self.carry_once(from, to, shard, messages, haste);
    }

    fn carry_once(
        self: &Arc<Self>,
        from: NodeId,
        to: NodeId,
        shard: ShardId,
        messages: Vec<Message>,
        haste: Haste,
    ) {
        let late_ms = self.network.late.lock().get(&(from, to)).copied().unwrap_or_default();
        let waits_ms = self.network.waits_ms(self, haste);
        let (world, delay) =
            (self.clone(), self.network.delay(self) + Duration::from_millis(late_ms + waits_ms));
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            if !world.network.is_cut(from, to) {
                world.deliver(from, to, shard, messages);
            }
        });
    }

    fn deliver(&self, from: NodeId, to: NodeId, shard: ShardId, mut messages: Vec<Message>) {
        messages.retain(|message| !self.network.is_gone(ReplicaId(message.to)));
        let Some(process) = self.node(to).process() else { return };
        let host = process.host.clone();
        let receive = move || messages.into_iter().for_each(|message| host.receive(from, shard, message));
        match process.is_paused() {
            // Whatever comes meanwhile waits in the sockets' buffers.
            true => process.spawn(Box::pin(async move { receive() })),
            false => receive(),
        }
    }

    /// Lets one piece travel. Returns whether it arrives.
    pub(crate) async fn hop(&self, from: NodeId, to: NodeId) -> bool {
        tokio::time::sleep(self.network.delay(self)).await;
        let loss_percent = self.network.weather.lock().loss_percent;
        !self.network.is_cut(from, to) && !self.chance(loss_percent)
    }

    /// Brings a snapshot to a node, and its acknowledgement back. Runs in the sender's process; the receiving end runs in
    /// the other.
    pub(crate) async fn convey(self: Arc<Self>, from: NodeId, to: NodeId, offer: SnapshotOffer) {
        let shard = offer.header.shard;
        if !self.hop(from, to).await || self.network.is_gone(offer.header.to) {
            return;
        }
        let Some(process) = self.node(to).process() else { return };
        let (parts, arriving) = mpsc::channel(2);
        let (tell, told) = oneshot::channel();
        let receiving = receive(process.host.clone(), offer.header.clone(), arriving);
        process.spawn(Box::pin(async move {
            // A sender that is gone does not listen.
            let _ = tell.send(receiving.await);
        }));
        drop(process);
        if !self.send_parts(from, to, &offer, parts).await {
            self.trace(&format!("a snapshot from {from} to {to} is lost on its way"));
            return;
        }
        let outcome = tokio::time::timeout(Duration::from_secs(INSTALL_SECONDS_MAX), told).await;
        let Ok(Ok(installed)) = outcome else { return };
        let answer = match installed {
            Ok(message) => message,
            Err(NotInstalled::NotNeeded(message)) => *message,
            Err(NotInstalled::Damaged | NotInstalled::Fault(_)) => return,
        };
        if self.hop(to, from).await {
            self.deliver(to, from, shard, vec![answer]);
        }
    }

    /// Sends the parts until the receiver wants no more. Returns whether none was lost.
    async fn send_parts(
        &self,
        from: NodeId,
        to: NodeId,
        offer: &SnapshotOffer,
        parts: mpsc::Sender<Part>,
    ) -> bool {
        for chunk in offer.chunks(None) {
            // The sender's store is gone, and so is its process.
            let Ok(chunk) = chunk else { return false };
            for pairs in chunk.pairs.chunks(CHUNK_PAIRS) {
                let mut part = Chunk::new(pairs.to_vec());
                if self.chance(1) {
                    part.checksum ^= 1;
                }
                if !self.hop(from, to).await || self.chance(1) {
                    return false;
                }
                if parts.send(Some(part)).await.is_err() {
                    // The receiver wants no more, and its answer says why.
                    return true;
                }
            }
        }
        // As above.
        let _ = parts.send(None).await;
        true
    }
}

async fn receive(
    host: Host,
    header: SnapshotHeader,
    mut parts: mpsc::Receiver<Part>,
) -> Result<Message, NotInstalled> {
    let mut receiver = host.begin_snapshot(header).await?;
    loop {
        match parts.recv().await {
            Some(Some(chunk)) => receiver.add(chunk).await?,
            Some(None) => return host.install_snapshot(receiver).await,
            // The sender gave up, or its node is gone.
            None => return Err(NotInstalled::Damaged),
        }
    }
}
