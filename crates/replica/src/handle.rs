//! How the rest of the node reaches a replica: writes through its owner loop, reads past it.
//!
//! Called by the router from connections' tasks. Clones are cheap and outlive the replica: after its end they answer
//! errors. A read costs a few atomic loads and a view of the store when the replica leads and has applied what it
//! committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::{Code, Error, LogIndex, MonoTime, NodeId, ReplicaId, ShardId, Term};
use raft::eraftpb::Message;
use storage::{Fault, View};
use tokio::sync::{mpsc, oneshot};

use crate::machine::StateMachine;
use crate::membership::{MemberChange, Membership};
use crate::metrics::count;
use crate::node::Node;
use crate::owner::peers::nanos;
use crate::shared::Shared;

/// How long whoever waits for a change of a replica that has ended waits before it looks elsewhere.
const ENDED_PAUSE: Duration = Duration::from_millis(10);

/// How long a read waits for a leader before it is refused, in milliseconds.
const LEADER_WAIT_MS: u64 = 5_000;

/// A command and whoever waits for its answer.
pub(crate) struct Request<M: StateMachine> {
    pub(crate) command: M::Command,
    pub(crate) answer: Answer<M::Reply>,
}

/// What peers and administrators ask of a replica's group.
pub(crate) enum Control {
    /// A peer's message, and the node that it came from.
    Receive(NodeId, Message),
    /// A change of the membership; the answer is the index of its entry, once that is committed.
    Change(Arc<Membership>, Vec<MemberChange>, Answer<LogIndex>),
    /// Another voter shall lead.
    Transfer(ReplicaId),
    /// Some other voter shall lead.
    HandOver,
    /// Where nobody leads, this replica asks for votes now.
    Campaign,
    /// The node of the leader is lost or was restarted: a group that sleeps has to look for itself.
    PeerLost,
    /// How far each follower's log is known to match, from the leader.
    Progress(oneshot::Sender<BTreeMap<ReplicaId, LogIndex>>),
    /// The same, of those that were just heard.
    ProgressOfHeard(oneshot::Sender<BTreeMap<ReplicaId, LogIndex>>),
    /// The group shall not sleep.
    Stir,
}

/// Where an answer goes.
pub(crate) type Answer<R> = oneshot::Sender<base::Result<R>>;

/// Answers with where they go.
pub(crate) type Answers<R> = Vec<(Answer<R>, base::Result<R>)>;

/// What a read gets: a view of the shard's keyspace, and the published state as of the same applied index.
pub type ReadView<S> = (Arc<dyn View>, Arc<S>);

/// Access to one replica.
pub struct ReplicaHandle<M: StateMachine> {
    node: Arc<Node>,
    shared: Arc<Shared<M::State>>,
    mailbox: mpsc::Sender<Request<M>>,
    control: mpsc::Sender<Control>,
}

impl<M: StateMachine> Clone for ReplicaHandle<M> {
    fn clone(&self) -> ReplicaHandle<M> {
        ReplicaHandle {
            node: self.node.clone(),
            shared: self.shared.clone(),
            mailbox: self.mailbox.clone(),
            control: self.control.clone(),
        }
    }
}

impl<M: StateMachine> ReplicaHandle<M> {
    pub(crate) fn new(
        node: Arc<Node>,
        shared: Arc<Shared<M::State>>,
        mailbox: mpsc::Sender<Request<M>>,
        control: mpsc::Sender<Control>,
    ) -> ReplicaHandle<M> {
        ReplicaHandle { node, shared, mailbox, control }
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.shared.name.shard
    }

    /// The replica.
    pub fn replica(&self) -> ReplicaId {
        self.shared.name.replica
    }

    /// Current term.
    pub fn term(&self) -> Term {
        Term(self.shared.term.get())
    }

    /// Highest index known committed.
    pub fn commit_index(&self) -> LogIndex {
        self.shared.commit.index()
    }

    /// Highest index applied.
    pub fn applied_index(&self) -> LogIndex {
        self.shared.applied.index()
    }

    /// Whether this replica leads and answers reads by itself.
    pub fn is_leader(&self) -> bool {
        self.shared.lease.holds(self.node.options.clock.as_ref())
    }

    /// Who belongs to the group, as of what is committed here.
    pub fn membership(&self) -> Arc<Membership> {
        self.shared.membership.load_full()
    }

    /// The replica that leads, as far as is known here.
    pub fn leader(&self) -> Option<ReplicaId> {
        self.shared.known_leader()
    }

    /// The node of the replica that leads, as far as is known here.
    pub fn leader_node(&self) -> Option<NodeId> {
        self.shared.membership.load().nodes.get(&self.leader()?).copied()
    }

    /// Takes a message of a peer on node `from`. It is lost when too many wait already.
    pub fn receive(&self, from: NodeId, message: Message) {
        // Losing messages is allowed.
        let _ = self.control.try_send(Control::Receive(from, message));
    }

    /// Changes the membership `from` which the changes were chosen. On return with `Ok`: the change is committed and in effect
    /// here; one of several voters is complete only once the membership is joint no more. Fails with `NotWritablePrimary`
    /// on any replica but the leader, and with `ConflictingOperationInProgress` while an earlier change is not complete,
    /// when the membership is another by now, or when a replica is to get a vote that has not received the shard's state yet.
    pub async fn change_membership(
        &self,
        from: Arc<Membership>,
        changes: Vec<MemberChange>,
    ) -> base::Result<LogIndex> {
        let (answer, answered) = oneshot::channel();
        if self.control.send(Control::Change(from, changes, answer)).await.is_err() {
            return Err(self.gone());
        }
        answered.await.unwrap_or_else(|_| Err(self.interrupted()))
    }

    /// Asks the leader, if this is it, to hand its role to another voter.
    pub async fn transfer_to(&self, replica: ReplicaId) {
        // A replica that is gone does not lead.
        let _ = self.control.send(Control::Transfer(replica)).await;
    }

    /// Asks the leader, if this is it, to hand its role to whichever voter is furthest. Once a term.
    pub(crate) async fn hand_over(&self) {
        // A replica that is gone does not lead.
        let _ = self.control.send(Control::HandOver).await;
    }

    /// Has the replica ask for votes at once if nobody leads: whoever creates a group need not wait for a timeout.
    pub async fn campaign(&self) {
        // A replica that is gone does not lead.
        let _ = self.control.send(Control::Campaign).await;
    }

    /// The leader's node is lost: wakes the replica if it sleeps, and makes it ready to succeed.
    pub(crate) fn peer_lost(&self) {
        // One that is too busy to hear of it does not sleep, and finds out by itself.
        let _ = self.control.try_send(Control::PeerLost);
    }

    /// How far each member's log is known to match this one's. Empty on any replica but the leader.
    pub async fn progress(&self) -> BTreeMap<ReplicaId, LogIndex> {
        self.ask_progress(Control::Progress).await
    }

    /// The same, of those members alone that may be relied on: this one, and those that it has heard within the patience of a
    /// follower. In a group that sleeps nobody is heard.
    pub async fn progress_of_heard(&self) -> BTreeMap<ReplicaId, LogIndex> {
        self.ask_progress(Control::ProgressOfHeard).await
    }

    async fn ask_progress(
        &self,
        control: impl FnOnce(oneshot::Sender<BTreeMap<ReplicaId, LogIndex>>) -> Control,
    ) -> BTreeMap<ReplicaId, LogIndex> {
        let (answer, answered) = oneshot::channel();
        if self.control.send(control(answer)).await.is_err() {
            return BTreeMap::new();
        }
        answered.await.unwrap_or_default()
    }

    /// Wakes the group, if it sleeps.
    pub async fn stir(&self) {
        // One that has ended has nobody to wake.
        let _ = self.control.send(Control::Stir).await;
    }

    /// Waits until this replica has applied more than `applied`, knows another leader than `leader`, or has ended. One that
    /// has ended before takes a moment to say so: whoever waits in a loop must not keep a core busy.
    pub async fn changed(&self, applied: LogIndex, leader: Option<ReplicaId>) {
        if self.is_stopped() {
            return tokio::time::sleep(ENDED_PAUSE).await;
        }
        loop {
            let mut rung = std::pin::pin!(self.shared.readers.notified());
            rung.as_mut().enable();
            let same = self.applied_index() <= applied && self.leader() == leader;
            if !same || self.shared.stopped.load(Ordering::SeqCst) {
                return;
            }
            rung.await;
        }
    }

    /// Waits until this replica knows another leader than `leader`, or has ended.
    pub async fn leader_changed(&self, leader: Option<ReplicaId>) {
        loop {
            let mut rung = std::pin::pin!(self.shared.readers.notified());
            rung.as_mut().enable();
            if self.leader() != leader || self.shared.stopped.load(Ordering::SeqCst) {
                return;
            }
            rung.await;
        }
    }

    /// Waits until this replica has applied `index`, or has ended.
    pub async fn applied(&self, index: LogIndex) {
        loop {
            let mut rung = std::pin::pin!(self.shared.readers.notified());
            rung.as_mut().enable();
            if self.applied_index() >= index || self.shared.stopped.load(Ordering::SeqCst) {
                return;
            }
            rung.await;
        }
    }

    /// Lets the others know without delay what is committed, when this replica leads.
    pub fn announce_commit(&self) {
        if self.is_leader() {
            self.want_proof();
        }
    }

    fn want_proof(&self) {
        self.shared.proof_wanted.store(true, Ordering::SeqCst);
        self.shared.owner.notify_one();
    }

    /// How long ago this replica had everything that its leader had committed, as far as it heard: nothing on the leader.
    pub fn staleness(&self) -> Duration {
        if self.is_leader() {
            return Duration::ZERO;
        }
        let now = nanos(self.node.options.clock.monotonic());
        Duration::from_nanos(now.saturating_sub(self.shared.fresh_ns.get()))
    }

    /// Reads and commands that this replica was asked for since its node started.
    pub fn operations(&self) -> u64 {
        self.shared.operations.load(Ordering::Relaxed)
    }

    /// Whether the replica has ended: it was dropped, replaced, or its node stops.
    pub fn is_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::SeqCst)
    }

    /// Evaluates a command after every earlier one and waits for its answer. On return with `Ok`: what it wrote is
    /// fsynced on a majority, and what its answer says was read is committed.
    ///
    /// `ShutdownInProgress`, `NotWritablePrimary` and `StaleConfig` mean that it was not evaluated;
    /// `InterruptedAtShutdown` and `InterruptedDueToReplStateChange` that nobody knows whether it happened.
    pub async fn write(&self, command: M::Command) -> base::Result<M::Reply> {
        self.shared.operations.fetch_add(1, Ordering::Relaxed);
        self.write_unasked(command).await
    }

    /// As [`ReplicaHandle::write`], for what no client waits for: it is not counted.
    pub async fn write_unasked(&self, command: M::Command) -> base::Result<M::Reply> {
        let (answer, answered) = oneshot::channel();
        if self.mailbox.send(Request { command, answer }).await.is_err() {
            return Err(self.gone());
        }
        answered.await.unwrap_or_else(|_| Err(self.interrupted()))
    }

    /// A view that contains every write answered before the call, and the state that belongs to it. Waits while the
    /// store is behind what is committed, and for a while when there is no leader; then fails with
    /// `NotWritablePrimary`.
    pub async fn read(&self) -> base::Result<ReadView<M::State>> {
        self.shared.operations.fetch_add(1, Ordering::Relaxed);
        self.read_unasked().await
    }

    /// As [`ReplicaHandle::read`], for what no client waits for: it is not counted.
    pub async fn read_unasked(&self) -> base::Result<ReadView<M::State>> {
        let since = self.node.options.clock.monotonic();
        loop {
            if let Some(pair) = self.try_read_since(since)? {
                return Ok(pair);
            }
            count(&self.node.metrics.reads_delayed, 1);
            self.wait_readable(since).await?;
        }
    }

    /// As [`ReplicaHandle::read`], when it can be answered at once; `None` when the caller has to wait.
    pub fn try_read(&self) -> base::Result<Option<ReadView<M::State>>> {
        self.try_read_since(self.node.options.clock.monotonic())
    }

    fn try_read_since(&self, since: MonoTime) -> base::Result<Option<ReadView<M::State>>> {
        if self.node.latch.is_set() || self.shared.stopped.load(Ordering::SeqCst) {
            return Err(self.gone());
        }
        if !self.is_readable(since) {
            return Ok(None);
        }
        self.view_with_state()
    }

    /// A view of whatever this replica has applied, which may be behind what is committed, with its state. Never goes
    /// backwards on one replica.
    pub async fn read_behind(&self) -> base::Result<ReadView<M::State>> {
        loop {
            if self.node.latch.is_set() || self.shared.stopped.load(Ordering::SeqCst) {
                return Err(self.gone());
            }
            if let Some(pair) = self.view_with_state()? {
                return Ok(pair);
            }
            tokio::task::yield_now().await;
        }
    }

    fn view_with_state(&self) -> base::Result<Option<ReadView<M::State>>> {
        let view = || self.node.options.store.view(self.shared.name);
        self.shared.read_together(view).map_err(|fault| self.gone_or_fault(fault))
    }

    /// The published state, as this replica has it right now: possibly not the newest.
    pub fn state(&self) -> Arc<M::State> {
        self.shared.state()
    }

    /// Bytes on disk of the shard's keyspace, roughly.
    pub fn size_bytes(&self) -> base::Result<u64> {
        self.node.options.store.size_bytes(self.shared.name).map_err(|fault| self.gone_or_fault(fault))
    }

    /// Takes note of a fault that a caller met in a view: the node stops. Returns what the caller's client is told.
    pub fn report(&self, fault: Fault) -> Error {
        self.node.latch.set(fault);
        self.interrupted()
    }

    /// A keyspace is dropped only after its owner loop has ended: when it is missing then, the replica was removed while
    /// the caller reached for it, and nothing is wrong with the store.
    fn gone_or_fault(&self, fault: Fault) -> Error {
        match self.shared.stopped.load(Ordering::SeqCst) {
            true => self.gone(),
            false => self.report(fault),
        }
    }

    fn is_readable(&self, since: MonoTime) -> bool {
        // Lease and proof are looked at first: a commit index that was published before covers every write that an
        // earlier leader answered.
        self.may_serve(since) && {
            let commit = self.shared.commit.get();
            self.shared.applied.get() >= commit && !self.shared.is_changing()
        }
    }

    /// Whether this replica leads by a lease, or led for sure at some time after `since`.
    fn may_serve(&self, since: MonoTime) -> bool {
        self.shared.lease.holds(self.node.options.clock.as_ref())
            || self.shared.proved_ns.get() > nanos(since)
    }

    async fn wait_readable(&self, since: MonoTime) -> base::Result<()> {
        let wait = async {
            loop {
                let mut rung = std::pin::pin!(self.shared.readers.notified());
                rung.as_mut().enable();
                let over = self.node.latch.is_set() || self.shared.stopped.load(Ordering::SeqCst);
                if over || self.is_readable(since) {
                    return Ok(());
                }
                let leader = self.shared.known_leader();
                if leader.is_some_and(|leader| leader != self.replica()) {
                    return Err(self.not_primary());
                }
                if !self.may_serve(since) && leader.is_some() {
                    self.want_proof();
                }
                rung.await;
            }
        };
        let limit = Duration::from_millis(LEADER_WAIT_MS);
        tokio::time::timeout(limit, wait).await.unwrap_or_else(|_| Err(self.not_primary()))
    }

    fn not_primary(&self) -> Error {
        let message = format!("shard {} has no primary on this node right now", self.shard());
        Error::new(Code::NOT_WRITABLE_PRIMARY, message)
    }

    /// The error of a request that was not evaluated because the replica is no longer here.
    fn gone(&self) -> Error {
        self.node.refusal(self.shard())
    }

    /// The error of a request whose outcome is not known.
    fn interrupted(&self) -> Error {
        let reason = match self.node.latch.get() {
            Some(fault) => fault.message,
            None => "it was shut down".to_owned(),
        };
        let message = format!("this node stopped before the outcome was known: {reason}");
        Error::new(Code::INTERRUPTED_AT_SHUTDOWN, message)
    }
}
