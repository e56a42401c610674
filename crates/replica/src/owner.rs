//! The owner loop of one replica: the only place where its writes are evaluated and its Raft group is driven.
//!
//! Everyone else sends it requests or rings its bell. One turn of the loop: note what was applied and what became
//! durable, drive the group (log writes out, committed entries to the apply side, answers to clients), evaluate every
//! waiting command into one entry, drive again. Always holds: nothing is answered before commit, in the term in which it
//! was evaluated; nothing is evaluated before the first entry of the leader's own term is applied; bytes proposed and not
//! applied stay below a limit (plus one turn).

mod compact;
#[cfg(feature = "bugs")]
mod mischief;
pub(crate) mod peers;
mod sleep;
mod ticks;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::limits::{ENTRY_BYTES_MAX, MAILBOX_REQUESTS_MAX, SHARD_IN_FLIGHT_BYTES_MAX};
use base::{Code, Error, Generation, HybridClock, LogIndex, NodeId, ReplicaId, ShardId, Term};
use raft::eraftpb::{Entry, EntryType, Message};
use storage::{Fault, KvBatch, LogBatch, ReplicaLogState, ReplicaWrites};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval_at};

use self::peers::Unproven;
use self::sleep::Sleep;
use self::ticks::Ticks;
use crate::apply::{Applier, Change, Committed};
#[cfg(feature = "bugs")]
use crate::bugs::Bug;
use crate::entry::{self, EntryBuilder};
use crate::group::{Group, Logging, Work};
use crate::handle::{Answer, Answers, Control, Request};
use crate::machine::{EvaluateContext, StateMachine};
use crate::membership::Membership;
use crate::metrics::count;
use crate::node::Node;
use crate::overlay::{Overlay, OverlayReader};
use crate::shared::Shared;
use crate::trace::Event;

/// Commands evaluated in one turn at most.
const TURN_COMMANDS_MAX: usize = 1_024;
/// Bytes from which an entry takes no further command. One command's changes stay below the other half.
const ENTRY_BYTES_WANTED: usize = ENTRY_BYTES_MAX / 2;
/// Messages of peers that wait for one replica, at most.
const CONTROLS_MAX: usize = 1_024;
/// Time between two commands that a leader gives itself, in milliseconds.
const UPKEEP_INTERVAL_MS: u64 = 60_000;
/// The first byte of retry records' keys, for the bug that loses them.
#[cfg(feature = "bugs")]
const RETRY_TAG: u8 = query::encoding::TAG_RETRY;
const CHANGING: &str = "the primary of this shard is changing";

/// See the module's comment.
pub(crate) struct Owner<M: StateMachine> {
    node: Arc<Node>,
    shared: Arc<Shared<M::State>>,
    applier: Arc<Applier<M>>,
    machine: M,
    group: Group,
    clock: HybridClock,
    /// As of what is committed.
    membership: Membership,
    /// As of what the store durably has, or older: a restart may find a store that has applied no more than that, and
    /// applies later changes to this one when the store does not have any.
    durable_membership: Membership,
    /// Committed changes that are not known to be durable in the store, with what they lead to.
    newer_memberships: VecDeque<(LogIndex, Membership)>,
    overlay: Overlay,
    leading: Option<Leading>,
    /// Answers that wait for an index to be committed, in log order.
    waiting: VecDeque<Waiting<M::Reply>>,
    /// Proposed entries that are not applied, with their sizes.
    in_flight: VecDeque<(LogIndex, usize)>,
    in_flight_bytes: usize,
    /// Bytes logged since the last compaction.
    log_bytes: usize,
    applied: LogIndex,
    mailbox: mpsc::Receiver<Request<M>>,
    inbox: Vec<Request<M>>,
    /// Answers that wrote nothing and wait for a proof that this replica leads.
    unproven: Vec<Unproven<M::Reply>>,
    /// Changes of the membership that are proposed, and whoever waits for them.
    changing: Vec<(LogIndex, Answer<LogIndex>)>,
    /// What peers send and administrators ask.
    control: mpsc::Receiver<Control>,
    controls: Vec<Control>,
    /// Where replicas are that wrote to this one and that its membership does not have.
    strangers: BTreeMap<ReplicaId, NodeId>,
    /// The tick in which each member of the group last wrote to this replica.
    heard: BTreeMap<ReplicaId, u64>,
    sleep: Sleep,
    /// The highest index that a leader said was committed.
    leader_commit: LogIndex,
    /// The last entry that this replica told a leader it has, and in which term.
    acknowledged: (Term, LogIndex),
    /// What a leader has sent that hands its role over to this replica.
    wish: Option<Message>,
    ticks: u64,
    /// Whether the next tick does not count.
    skips_tick: bool,
    leaderless_ticks: u64,
    stopping_ticks: u64,
    /// The number up to which log writes were durable in the last tick, and for how many ticks that has not changed although
    /// there are others.
    stalled: (u64, u64),
    /// The term in which this replica tried to hand its role over.
    handed_over: Option<Term>,
    #[cfg(feature = "bugs")]
    mischief: mischief::Mischief,
}

/// What [`Owner::new`] needs.
pub(crate) struct OwnerOptions<M: StateMachine> {
    pub(crate) node: Arc<Node>,
    pub(crate) shared: Arc<Shared<M::State>>,
    pub(crate) group: Group,
    pub(crate) clock: HybridClock,
    /// As of what the store has applied.
    pub(crate) membership: Membership,
    /// As the Raft log has it: as of what the store has applied, or older.
    pub(crate) durable_membership: Membership,
    pub(crate) mailbox: mpsc::Receiver<Request<M>>,
    pub(crate) control: mpsc::Receiver<Control>,
}

/// A term that this replica leads.
struct Leading {
    term: Term,
    /// Evaluation begins once this entry is applied: the first one of the term, or a later one after proposals were
    /// dropped.
    from: LogIndex,
    evaluating: bool,
}

struct Waiting<R> {
    index: LogIndex,
    answers: Answers<R>,
}

/// Where peers' messages wait for a new owner loop. One that finds it full is dropped.
pub(crate) fn control() -> (mpsc::Sender<Control>, mpsc::Receiver<Control>) {
    mpsc::channel(CONTROLS_MAX)
}

/// The mailbox of a new owner loop.
pub(crate) fn mailbox<M: StateMachine>() -> (mpsc::Sender<Request<M>>, mpsc::Receiver<Request<M>>) {
    mpsc::channel(MAILBOX_REQUESTS_MAX)
}

impl<M: StateMachine> Owner<M> {
    pub(crate) fn new(options: OwnerOptions<M>) -> Owner<M> {
        let OwnerOptions { node, shared, group, clock, membership, durable_membership, mailbox, control } =
            options;
        let applied = shared.applied.index();
        Owner {
            applier: Arc::new(Applier::new(node.clone(), shared.clone())),
            applied,
            node,
            shared,
            machine: M::default(),
            group,
            clock,
            durable_membership,
            newer_memberships: VecDeque::from([(applied, membership.clone())]),
            membership,
            overlay: Overlay::default(),
            leading: None,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            log_bytes: 0,
            mailbox,
            inbox: Vec::new(),
            unproven: Vec::new(),
            changing: Vec::new(),
            control,
            controls: Vec::new(),
            strangers: BTreeMap::new(),
            heard: BTreeMap::new(),
            sleep: Sleep::default(),
            leader_commit: LogIndex(0),
            acknowledged: (Term(0), LogIndex(0)),
            wish: None,
            ticks: 0,
            skips_tick: false,
            leaderless_ticks: 0,
            stopping_ticks: 0,
            stalled: (0, 0),
            handed_over: None,
            #[cfg(feature = "bugs")]
            mischief: mischief::Mischief::default(),
        }
    }

    /// Runs until the replica is stopped or the node has a fault. Requests that are left get an error.
    pub(crate) async fn run(mut self) {
        let end = End { node: self.node.clone(), shared: self.shared.clone() };
        let result = self.serve().await;
        if let Err(fault) = result {
            let name = self.shared.name;
            self.node.latch.set(fault.context(format!("{} of {}", name.replica, name.shard)));
        }
        self.trace(|| Event::Stopped);
        // Dropping the answers that are left tells their clients that the outcome is not known.
        drop(self);
        drop(end);
    }

    async fn serve(&mut self) -> storage::Result<()> {
        if self.group.is_sole_voter() {
            self.group.campaign(self.node.options.entropy.as_ref())?;
        }
        self.turn()?;
        let mut upkeep = timer(UPKEEP_INTERVAL_MS);
        let mut ticks = Ticks::new(self.node.origin);
        let mut ticked = true;
        while !self.is_finished() {
            let shared = self.shared.clone();
            let accepts = self.accepts();
            let ticking = self.needs_ticks();
            if ticking && !ticked {
                // The time that was slept is not caught up.
                ticks.begin_anew();
            }
            ticked = ticking;
            // A channel whose senders are gone is ready for ever; without handles there is nothing left to serve.
            let abandoned = self.control.is_closed() && self.control.is_empty();
            if abandoned && !shared.stopping.swap(true, Ordering::SeqCst) {
                shared.owner.notify_one();
            }
            tokio::select! {
                biased;
                () = shared.owner.notified() => {}
                received = self.mailbox.recv_many(&mut self.inbox, TURN_COMMANDS_MAX), if accepts => {
                    // Nobody holds a handle any more, the host included.
                    if received == 0 {
                        self.shared.stopping.store(true, Ordering::SeqCst);
                    }
                }
                _ = self.control.recv_many(&mut self.controls, CONTROLS_MAX), if !abandoned => {}
                number = ticks.tick(), if ticking => self.tick(number),
                _ = upkeep.tick() => self.queue_upkeep(),
            }
            if accepts && !self.inbox.is_empty() {
                // Whoever else is about to send a command gets the chance to share this entry.
                tokio::task::yield_now().await;
                self.drain_mailbox();
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Moves what waits in the mailbox to the inbox.
    fn drain_mailbox(&mut self) {
        while self.inbox.len() < TURN_COMMANDS_MAX
            && let Ok(request) = self.mailbox.try_recv()
        {
            self.inbox.push(request);
        }
    }

    fn turn(&mut self) -> storage::Result<()> {
        if let Some(fault) = self.node.latch.get() {
            return Err(fault);
        }
        if self.shared.stopping.load(Ordering::SeqCst) {
            self.refuse_all(&self.node.refusal(self.shard()));
            if !self.is_going() {
                self.hand_over();
            }
        }
        self.note_applied();
        self.note_durable();
        self.note_logged()?;
        self.take_controls()?;
        self.prove_if_wanted();
        self.drive()?;
        if self.wish.is_some() {
            self.succeed();
            self.drive()?;
        }
        if self.group.other_leader().is_some() || self.is_leaderless() {
            self.refuse_inbox(&Error::new(Code::NOT_WRITABLE_PRIMARY, "this replica is not the primary"));
        }
        if !self.inbox.is_empty() && self.may_evaluate() {
            self.evaluate_inbox()?;
            self.drive()?;
        }
        self.say_good_night();
        self.compact()
    }

    // What others have done.

    fn note_applied(&mut self) {
        let applied = self.shared.applied.index();
        if applied <= self.applied {
            return;
        }
        self.applied = applied;
        self.overlay.remove_applied(applied);
        while let Some((_, bytes)) = self.in_flight.pop_front_if(|(index, _)| *index <= applied) {
            self.in_flight_bytes -= bytes;
        }
        #[cfg(feature = "bugs")]
        let applied = applied.min(self.group.commit());
        self.group.applied(applied);
        // The library hands out as committed only what is durable here, so all of it can be read back.
        self.group.log_mut().evict(applied);
    }

    fn note_durable(&mut self) {
        let durable = self.shared.durable.index();
        while let Some((_, membership)) = self.newer_memberships.pop_front_if(|(index, _)| *index <= durable)
        {
            let last_timestamp = self.durable_membership.last_timestamp.max(membership.last_timestamp);
            self.durable_membership = Membership { last_timestamp, ..membership };
        }
    }

    fn note_logged(&mut self) -> storage::Result<()> {
        let number = self.shared.logged.get();
        let work = self.group.logged(number);
        self.handle(work)
    }

    // The Raft group.

    fn drive(&mut self) -> storage::Result<()> {
        let work = self.group.drive()?;
        self.handle(work)
    }

    fn handle(&mut self, mut work: Work) -> storage::Result<()> {
        self.note_role();
        if !work.messages.is_empty() {
            self.send_messages(std::mem::take(&mut work.messages));
        }
        self.send_snapshots(&work)?;
        self.note_proofs(&work);
        // Whoever drops a removed replica relies on those that remain: after a restart they must know of the removal without
        // it. So what is acknowledged from now on is acknowledged by one that durably knows that the change is committed.
        let changes = work.committed.iter().any(|entry| entry.entry_type != EntryType::EntryNormal);
        match work.logging {
            Some(logging) => {
                #[cfg(feature = "bugs")]
                self.apply_early(&logging);
                self.log(logging, changes);
            }
            None if changes => self.log_commit(),
            None => {}
        }
        if !work.committed.is_empty() {
            self.commit(work.committed)?;
        }
        if self.group.leads_without_vote() {
            self.step_down();
        }
        Ok(())
    }

    /// Follows elections: proposals of a term that is over, and what was evaluated against them, count no more.
    fn note_role(&mut self) {
        let term = self.group.term();
        self.shared.term.raise(term.get());
        self.publish_leader();
        if self.leading.as_ref().is_some_and(|leading| self.group.leads() && leading.term == term) {
            return;
        }
        if let Some(lost) = self.leading.take() {
            self.shared.lease.revoke();
            // Those that others overwrite are never applied; the others are before the next term of this replica is.
            self.in_flight.clear();
            self.in_flight_bytes = 0;
            self.forget_proposals();
            self.trace(|| Event::Stepped { term: lost.term });
            let error = Error::new(
                Code::INTERRUPTED_DUE_TO_REPL_STATE_CHANGE,
                "this replica stopped being the primary before the outcome was known",
            );
            for (answer, _) in self.waiting.drain(..).flat_map(|waiting| waiting.answers) {
                send(answer, Err(error.clone()));
            }
            self.drop_unproven(&error);
        }
        if self.group.leads() {
            #[cfg(feature = "bugs")]
            self.serve_early();
            let first = self.group.last_index();
            self.leading = Some(Leading { term, from: first, evaluating: false });
            self.trace(|| Event::Leads { term, first });
        }
    }

    /// Makes the commit index durable, some time before whatever is logged next.
    fn log_commit(&self) {
        let writes = ReplicaWrites { state: Some(self.log_state()), ..ReplicaWrites::default() };
        self.submit(vec![(self.shared.name.replica, writes)], None);
    }

    /// Makes entries, term and vote durable, and the commit index if `commits`. The bell rings when they are.
    fn log(&mut self, logging: Logging, commits: bool) {
        let Logging { number, runs, vote } = logging;
        let first = runs.first().and_then(|run| run.first()).map(|entry| entry.index);
        let last = runs.last().and_then(|run| run.last()).map(|entry| entry.index);
        let term = vote.then(|| self.group.term());
        self.trace(|| Event::Logging { number, entries: first.zip(last), vote: term });
        self.log_bytes += runs.iter().flatten().map(|entry| entry.data.len()).sum::<usize>();
        let replica = self.shared.name.replica;
        let mut writes: Vec<_> = runs
            .into_iter()
            .map(|entries| (replica, ReplicaWrites { entries, ..ReplicaWrites::default() }))
            .collect();
        #[cfg(not(feature = "bugs"))]
        let state = (vote || commits).then(|| self.log_state());
        #[cfg(feature = "bugs")]
        let state = self.buggy_state(vote, commits);
        if state.is_some() {
            writes.push((replica, ReplicaWrites { state, ..ReplicaWrites::default() }));
        }
        self.submit(writes, Some(number));
    }

    fn submit(&self, replicas: Vec<(ReplicaId, ReplicaWrites)>, number: Option<u64>) {
        count(&self.node.metrics.log_batches, 1);
        let (node, shared) = (self.node.clone(), self.shared.clone());
        let done = Box::new(move |result| match (result, number) {
            (Ok(()), Some(number)) => {
                node.trace(shared.name.replica, || Event::Logged { number });
                shared.logged.raise(number);
                shared.owner.notify_one();
            }
            (Ok(()), None) => {}
            (Err(fault), _) => {
                node.latch.set(fault);
                shared.owner.notify_one();
            }
        });
        self.node.options.log_writer.submit(LogBatch { replicas, node: Vec::new() }, done);
    }

    fn log_state(&self) -> ReplicaLogState {
        let (truncated_index, truncated_term) = self.group.log().truncated();
        ReplicaLogState {
            shard: self.shard(),
            term: self.group.term(),
            vote: self.group.vote(),
            commit: self.group.commit(),
            generation: self.generation(),
            truncated_index,
            truncated_term,
            membership: self.durable_membership.encode(),
        }
    }

    /// Publishes the commit index, hands the entries to the apply side and answers.
    fn commit(&mut self, entries: Vec<Entry>) -> storage::Result<()> {
        let Some(index) = entries.last().map(|entry| LogIndex(entry.index)) else { return Ok(()) };
        let own_term = self.leading.as_ref().map(|leading| leading.term);
        self.shared.commit.raise(index.get());
        self.trace(|| Event::Committed { index });
        let mut committed = Vec::with_capacity(entries.len());
        for entry in entries {
            let index = LogIndex(entry.index);
            let change = match entry.entry_type {
                EntryType::EntryNormal => {
                    if Some(Term(entry.term)) != own_term && !entry.data.is_empty() {
                        self.clock.observe(entry::check_header(&entry.data)?);
                    }
                    Change::Data(entry.data)
                }
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => self.apply_change(&entry)?,
            };
            committed.push(Committed { index, change });
        }
        #[cfg(feature = "bugs")]
        committed.retain(|committed| Some(committed.index) > self.mischief.applied_early);
        self.applier.submit(committed);
        self.answer_changes(index);
        if self.leading.as_ref().is_some_and(|leading| index >= leading.from) && self.group.is_sole_voter() {
            self.shared.lease.grant_to_sole_voter();
            self.shared.readers.notify_waiters();
        }
        self.answer_committed(index);
        self.answer_proved();
        Ok(())
    }

    fn answer_committed(&mut self, commit: LogIndex) {
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.index <= commit) {
            let (index, commands) = (waiting.index, waiting.answers.len());
            self.trace(|| Event::Answered { index, commands });
            for (answer, reply) in waiting.answers {
                send(answer, reply);
            }
        }
    }

    // Evaluation.

    fn may_evaluate(&self) -> bool {
        self.leading.as_ref().is_some_and(|leading| self.applied >= leading.from) && !self.is_throttled()
    }

    fn is_evaluating(&self) -> bool {
        self.leading.as_ref().is_some_and(|leading| leading.evaluating)
    }

    fn is_throttled(&self) -> bool {
        self.in_flight_bytes >= SHARD_IN_FLIGHT_BYTES_MAX
    }

    /// Evaluates what waits, in order, each command against the store and everything before it. All of it becomes one
    /// entry, or several when it is too large for one.
    fn evaluate_inbox(&mut self) -> storage::Result<()> {
        // Taken after the applied index was read: whatever left the overlay is in the view.
        let view = self.node.options.store.view(self.shared.name)?;
        self.begin_evaluating(view.as_ref())?;
        let leased = self.holds_lease();
        let mut draft = Draft::default();
        let mut requests = std::mem::take(&mut self.inbox).into_iter();
        while !self.is_throttled() && self.is_evaluating() {
            let Some(request) = requests.next() else { break };
            let mut batch = KvBatch::default();
            let reply = self.evaluate(view.as_ref(), &request.command, &mut batch)?;
            count(&self.node.metrics.commands_evaluated, 1);
            if reply.is_err() {
                batch.ops.clear();
            }
            #[cfg(feature = "bugs")]
            if batch.is_empty() && self.node.has_bug(Bug::DuplicateFromUncommitted) {
                send(request.answer, reply);
                continue;
            }
            if batch.is_empty() && request.answer.is_closed() {
                // Nobody waits, and nothing has to be done: no reason to wake anybody.
                continue;
            }
            if batch.is_empty() && !leased {
                draft.unproven.push((request.answer, reply));
                continue;
            }
            if !batch.is_empty() {
                self.overlay.add(self.group.last_index().next(), &batch);
                draft.entry.push(&batch);
                draft.commands += 1;
            }
            draft.answers.push((request.answer, reply));
            if draft.entry.len_bytes() >= ENTRY_BYTES_WANTED {
                self.propose(std::mem::take(&mut draft), leased)?;
            }
        }
        self.inbox.extend(requests);
        if self.is_throttled() {
            count(&self.node.metrics.throttled, 1);
        }
        self.propose(draft, leased)
    }

    fn begin_evaluating(&mut self, view: &dyn storage::View) -> storage::Result<()> {
        let Some(leading) = self.leading.as_mut().filter(|leading| !leading.evaluating) else {
            return Ok(());
        };
        leading.evaluating = true;
        let from = leading.from;
        #[cfg(not(feature = "bugs"))]
        assert!(self.overlay.is_empty(), "evaluation begins with nothing proposed");
        self.machine.reset(OverlayReader::new(view, &self.overlay))?;
        self.trace(|| Event::Evaluates { from });
        Ok(())
    }

    fn evaluate(
        &mut self,
        view: &dyn storage::View,
        command: &M::Command,
        batch: &mut KvBatch,
    ) -> storage::Result<base::Result<M::Reply>> {
        let wall_ms = self.node.options.clock.wall_ms();
        let cx = EvaluateContext {
            wall_ms,
            commit_timestamp: self.clock.tick(wall_ms),
            #[cfg(feature = "bugs")]
            route_unchecked: self.node.has_bug(Bug::EpochNotChecked),
        };
        #[cfg(feature = "bugs")]
        if self.node.has_bug(Bug::EvaluateWithoutOverlay) {
            let nothing = Overlay::default();
            return self.machine.evaluate(&cx, OverlayReader::new(view, &nothing), command, batch);
        }
        #[cfg(feature = "bugs")]
        if self.node.has_bug(Bug::RetryRecordLost) {
            let reply = self.machine.evaluate(&cx, OverlayReader::new(view, &self.overlay), command, batch);
            batch.ops.retain(|op| op.key().first() != Some(&RETRY_TAG));
            return reply;
        }
        self.machine.evaluate(&cx, OverlayReader::new(view, &self.overlay), command, batch)
    }

    /// Proposes what was evaluated, under a lease or not. Answers that wrote nothing wait for whatever they were evaluated
    /// against.
    fn propose(&mut self, draft: Draft<M::Reply>, leased: bool) -> storage::Result<()> {
        let Draft { mut entry, commands, mut answers, unproven } = draft;
        let mut together = KvBatch::default();
        self.machine.complete(&mut together);
        if !together.is_empty() {
            self.overlay.add(self.group.last_index().next(), &together);
            entry.push(&together);
        }
        if entry.is_empty() {
            self.answer_after(self.group.last_index(), answers, leased);
            self.answer_after_proof(unproven);
            return Ok(());
        }
        self.stir();
        let timestamp = self.clock.last();
        let data = entry.finish(timestamp);
        let bytes = data.len();
        let Some(index) = self.group.propose(data) else {
            answers.extend(unproven);
            self.drop_proposal(answers);
            return Ok(());
        };
        self.trace(|| Event::Proposed { index, commands, bytes, timestamp });
        self.in_flight.push_back((index, bytes));
        self.in_flight_bytes += bytes;
        let metrics = &self.node.metrics;
        count(&metrics.entries_proposed, 1);
        count(&metrics.commands_proposed, commands);
        count(&metrics.bytes_proposed, bytes);
        self.answer_after(index, answers, leased);
        self.answer_after_proof(unproven);
        Ok(())
    }

    /// Answers that wrote nothing wait for a proof that this replica led when they were evaluated.
    fn answer_after_proof(&mut self, answers: Answers<M::Reply>) {
        if answers.is_empty() {
            return;
        }
        self.stir();
        let since = self.node.options.clock.monotonic();
        self.unproven.push(Unproven { since, index: self.group.last_index(), answers });
        self.group.prove(since, true);
    }

    /// Answers once `index` is committed: at once, when it is and there was a lease when the answers were found. Whether there
    /// still is one does not matter: nobody else led then.
    fn answer_after(&mut self, index: LogIndex, answers: Answers<M::Reply>, leased: bool) {
        if answers.is_empty() {
            return;
        }
        self.waiting.push_back(Waiting { index, answers });
        #[cfg(feature = "bugs")]
        if self.node.has_bug(Bug::AnswerBeforeFsync) {
            self.answer_committed(index);
        }
        let commit = self.shared.commit.index();
        if commit >= index && leased {
            self.answer_committed(commit);
        }
    }

    /// What was proposed may never commit.
    fn forget_proposals(&mut self) {
        #[cfg(feature = "bugs")]
        if self.node.has_bug(Bug::EvaluateAgainstDropped) {
            return;
        }
        self.overlay.clear();
    }

    /// The group refused a proposal: evaluation starts afresh from the store once everything proposed is applied.
    fn drop_proposal(&mut self, answers: Answers<M::Reply>) {
        let error = Error::new(Code::NOT_WRITABLE_PRIMARY, CHANGING);
        for (answer, _) in answers {
            send(answer, Err(error.clone()));
        }
        self.overlay.clear();
        let from = self.group.last_index();
        if let Some(leading) = &mut self.leading {
            leading.from = from;
            leading.evaluating = false;
        }
    }

    fn queue_upkeep(&mut self) {
        if !self.may_evaluate() {
            return;
        }
        let wall_ms = self.node.options.clock.wall_ms();
        if let Some(command) = self.machine.upkeep(wall_ms) {
            let (answer, _) = tokio::sync::oneshot::channel();
            self.inbox.push(Request { command, answer });
        }
    }

    // Small things.

    fn accepts(&self) -> bool {
        let stopping = self.shared.stopping.load(Ordering::SeqCst);
        let refuses = self.group.other_leader().is_some() || self.is_leaderless();
        !stopping && self.inbox.is_empty() && (self.may_evaluate() || refuses)
    }

    /// A leader that is alone has nobody to send heartbeats to. Learners need them: what was lost is sent again then.
    fn needs_ticks(&self) -> bool {
        !self.is_asleep() && (self.leading.is_none() || !self.is_alone())
    }

    fn is_finished(&self) -> bool {
        self.shared.stopping.load(Ordering::SeqCst)
            && (self.is_going()
                || self.waiting.is_empty() && !self.may_hand_over()
                || self.has_waited_to_stop())
            && self.group.is_idle()
            && self.applied >= self.group.commit()
    }

    fn is_going(&self) -> bool {
        self.shared.going.load(Ordering::SeqCst)
    }

    fn refuse_all(&mut self, error: &Error) {
        self.mailbox.close();
        while let Ok(request) = self.mailbox.try_recv() {
            self.inbox.push(request);
        }
        self.refuse_inbox(error);
    }

    fn refuse_inbox(&mut self, error: &Error) {
        for request in self.inbox.drain(..) {
            send(request.answer, Err(error.clone()));
        }
    }

    fn shard(&self) -> ShardId {
        self.shared.name.shard
    }

    fn generation(&self) -> Generation {
        self.shared.name.generation
    }

    fn trace(&self, event: impl FnOnce() -> Event) {
        self.node.trace(self.shared.name.replica, event);
    }
}

/// Says that the owner loop has ended, on whatever path: also when its task is dropped or panics.
struct End<S> {
    node: Arc<Node>,
    shared: Arc<Shared<S>>,
}

impl<S> Drop for End<S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = self.shared.name;
            let message = format!("the owner loop of {} of {} panicked", name.replica, name.shard);
            self.node.latch.set(Fault::corruption(message));
        }
        self.shared.mark_stopped();
    }
}

/// Commands evaluated and not proposed yet.
struct Draft<R> {
    entry: EntryBuilder,
    commands: usize,
    answers: Answers<R>,
    /// Answers that wrote nothing and were evaluated without a lease.
    unproven: Answers<R>,
}

impl<R> Default for Draft<R> {
    fn default() -> Draft<R> {
        Draft { entry: EntryBuilder::default(), commands: 0, answers: Vec::new(), unproven: Vec::new() }
    }
}

fn timer(interval_ms: u64) -> tokio::time::Interval {
    let period = Duration::from_millis(interval_ms);
    let mut timer = interval_at(tokio::time::Instant::now() + period, period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

/// Answers a client. One that no longer waits has closed its connection; its command stands all the same.
fn send<R>(answer: Answer<R>, reply: base::Result<R>) {
    let _ = answer.send(reply);
}
