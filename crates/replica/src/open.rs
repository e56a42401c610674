//! Creating, opening and removing a replica on disk, in an order that a crash at any moment leaves repairable.
//!
//! Called by the host. A replica exists from the synced log write that names its keyspace until the synced log write that
//! cleans it; a keyspace that no log state names is an orphan, removed at the next start. Always holds after opening: the
//! store's applied index and the Raft log meet without a gap, and every entry to replay passed its checksum.

use std::sync::Arc;

use base::id::CATALOG_SHARD;
use base::{Generation, HybridClock, LogIndex, ReplicaId, ShardId, Term};
use raft::eraftpb::HardState;
use storage::{Fault, KeyspaceName, KvBatch, LogBatch, LogEntry, ReplicaLogState, ReplicaWrites};

use crate::entry;
use crate::group::Group;
use crate::handle::ReplicaHandle;
use crate::log_store::{LogStore, LogStoreOptions};
use crate::machine::StateMachine;
use crate::membership::Membership;
use crate::node::Node;
use crate::owner::peers::stored_membership;
use crate::owner::{Owner, OwnerOptions, control, mailbox};
use crate::shared::Shared;
use crate::snapshot::SnapshotHeader;
use crate::trace::Event;

/// The initial state of a replica stands where the first entry of its log would: entries begin after it.
const INITIAL_INDEX: LogIndex = LogIndex(1);
/// The key of the node in the Raft log that names the keyspace which a snapshot was last installed into.
const INSTALLING_KEY: &str = "installing";
const INITIAL_TERM: Term = Term(1);
/// The kind of entries that carry changes of keys; the others change the membership.
const NORMAL: u8 = 0;
pub(crate) const FIRST_GENERATION: Generation = Generation(1);

/// An opened replica, its owner loop running.
pub(crate) struct Opened<M: StateMachine> {
    pub(crate) handle: ReplicaHandle<M>,
    pub(crate) shared: Arc<Shared<M::State>>,
}

/// Creates a replica whose keyspace holds `initial`. On return: fsynced. A replica that exists already is left alone.
pub(crate) async fn create(
    node: &Arc<Node>,
    shard: ShardId,
    replica: ReplicaId,
    membership: &Membership,
    initial: KvBatch,
) -> storage::Result<()> {
    if node.options.raft_log.state(replica)?.is_some() {
        return Ok(());
    }
    let name = KeyspaceName { shard, replica, generation: FIRST_GENERATION };
    node.blocking(move |store| {
        store.create_keyspace(name)?;
        store.apply(name, &initial, INITIAL_INDEX)?;
        store.flush()
    })
    .await?;
    let state = ReplicaLogState {
        shard,
        term: INITIAL_TERM,
        vote: None,
        commit: INITIAL_INDEX,
        generation: FIRST_GENERATION,
        truncated_index: INITIAL_INDEX,
        truncated_term: INITIAL_TERM,
        membership: membership.encode(),
    };
    let writes = ReplicaWrites { state: Some(state), ..ReplicaWrites::default() };
    node.write_log(LogBatch { replicas: vec![(replica, writes)], node: Vec::new() }).await
}

/// Puts a snapshot in the place of whatever the replica had; its owner loop, if there was one, has ended. The keyspace
/// `name` holds the snapshot's keys and values. On return: fsynced.
pub(crate) async fn replace(
    node: &Arc<Node>,
    name: KeyspaceName,
    header: &SnapshotHeader,
) -> storage::Result<ReplicaLogState> {
    let index = header.index;
    // A crash after the next step leaves a keyspace that looks as if it had been in use.
    let note = (INSTALLING_KEY.to_owned(), name.to_string().into());
    node.write_log(LogBatch { replicas: Vec::new(), node: vec![note] }).await?;
    #[cfg(feature = "bugs")]
    let forgets = node.has_bug(crate::bugs::Bug::SnapshotWithoutIndex);
    #[cfg(not(feature = "bugs"))]
    let forgets = false;
    node.blocking(move |store| {
        if !forgets {
            store.apply(name, &KvBatch::default(), index)?;
        }
        store.flush()
    })
    .await?;
    let before = node.options.raft_log.state(name.replica)?;
    let (term, vote) = match &before {
        // A vote is never forgotten within its term.
        Some(before) if before.term >= header.term => (before.term, before.vote),
        _ => (header.term, None),
    };
    let state = ReplicaLogState {
        shard: name.shard,
        term,
        vote,
        commit: index,
        generation: name.generation,
        truncated_index: index,
        truncated_term: header.index_term,
        membership: header.membership.clone(),
    };
    let writes = ReplicaWrites { clean: true, state: Some(state.clone()), ..ReplicaWrites::default() };
    node.write_log(LogBatch { replicas: vec![(name.replica, writes)], node: Vec::new() }).await?;
    if let Some(before) = before {
        let old = KeyspaceName { generation: before.generation, ..name };
        node.blocking(move |store| store.drop_keyspace(old)).await?;
    }
    Ok(state)
}

/// Removes a replica whose owner loop has ended. On return: gone for good.
pub(crate) async fn remove(node: &Arc<Node>, name: KeyspaceName) -> storage::Result<()> {
    let writes = ReplicaWrites { clean: true, ..ReplicaWrites::default() };
    node.write_log(LogBatch { replicas: vec![(name.replica, writes)], node: Vec::new() }).await?;
    node.blocking(move |store| store.drop_keyspace(name)).await
}

/// Removes keyspaces that no replica's log state names: what a crash left of creating or removing a replica. Faults,
/// and removes nothing, when the Raft log must have lost replicas: the catalog is never removed once it was in use, unless
/// a snapshot takes its place.
pub(crate) async fn remove_orphans(node: &Arc<Node>, named: Vec<KeyspaceName>) -> storage::Result<()> {
    let installing = node.options.raft_log.node_value(INSTALLING_KEY)?;
    let has_catalog = named.iter().any(|name| name.shard == CATALOG_SHARD);
    node.blocking(move |store| {
        let mut orphans = store.keyspaces()?;
        orphans.retain(|name| !named.contains(name));
        let was_in_use = |name: &&KeyspaceName| {
            !has_catalog && name.shard == CATALOG_SHARD && installing != Some(name.to_string().into())
        };
        for name in orphans.iter().filter(was_in_use) {
            let applied = store.applied_index(*name)?;
            if applied > INITIAL_INDEX {
                return Err(Fault::corruption(format!(
                    "the Raft log knows nothing of {} of the catalog, whose store has applied up to {applied}: the \
                     log's files are missing, or belong to another node. Nothing was removed",
                    name.replica
                )));
            }
        }
        orphans.into_iter().try_for_each(|name| store.drop_keyspace(name))
    })
    .await
}

/// Opens a replica and starts its owner loop. Faults when log and store do not fit together, or when one of them is
/// damaged: with no other copy of the shard there is nothing to rebuild it from.
pub(crate) fn open<M: StateMachine>(
    node: &Arc<Node>,
    replica: ReplicaId,
    state: &ReplicaLogState,
    restarted: bool,
) -> storage::Result<Opened<M>> {
    let name = KeyspaceName { shard: state.shard, replica, generation: state.generation };
    open_named(node, name, state, restarted)
        .map_err(|fault| fault.context(format!("opening {replica} of {}", name.shard)))
}

fn open_named<M: StateMachine>(
    node: &Arc<Node>,
    name: KeyspaceName,
    state: &ReplicaLogState,
    restarted: bool,
) -> storage::Result<Opened<M>> {
    let range = check_meeting(node, name, state)?;
    let commit = state.commit.max(range.applied);
    let view = node.options.store.view(name)?;
    let logged = Membership::decode(&state.membership)?;
    let stored = stored_membership(view.as_ref())?;
    let stored = stored.unwrap_or_else(|| logged.clone());
    let membership = Membership { last_timestamp: logged.last_timestamp, ..stored };
    let log = open_log(node, name.replica, state, &membership, &range, commit)?;
    let clock =
        HybridClock::starting_above(newest_timestamp(node, name.replica, state, &membership, &range)?);
    let silent = restarted && membership.voters != [name.replica];
    #[cfg(feature = "bugs")]
    let silent = silent && !node.has_bug(crate::bugs::Bug::VoteAfterRestart);
    #[cfg(feature = "bugs")]
    let log = log.with_bug(node.options.bug);
    let group = Group::new(name.replica, log, range.applied, silent, node.options.entropy.as_ref())?;
    let published = M::load_state(view.as_ref())?;
    let shared =
        Arc::new(Shared::new(name, commit, range.applied, state.term, membership.clone(), published));
    let Range { applied, last } = range;
    node.trace(name.replica, || Event::Opened { term: state.term, commit, applied, last });
    let (sender, mailbox) = mailbox::<M>();
    let (controls, control) = control();
    let owner = Owner::new(OwnerOptions {
        node: node.clone(),
        shared: shared.clone(),
        group,
        clock,
        membership,
        durable_membership: logged,
        mailbox,
        control,
    });
    node.options.spawner.spawn(Box::pin(owner.run()));
    Ok(Opened { handle: ReplicaHandle::new(node.clone(), shared.clone(), sender, controls), shared })
}

/// How far the store is, and how far the log reaches.
struct Range {
    applied: LogIndex,
    last: LogIndex,
}

/// Checks that the log goes on where the store ends.
fn check_meeting(node: &Node, name: KeyspaceName, state: &ReplicaLogState) -> storage::Result<Range> {
    let options = &node.options;
    if !options.store.keyspaces()?.contains(&name) {
        return Err(Fault::corruption(format!(
            "the store has lost its keyspace, generation {}",
            name.generation
        )));
    }
    let applied = options.store.applied_index(name)?;
    let bounds = options.raft_log.bounds(name.replica)?;
    let last = bounds.map_or(state.truncated_index, |(_, last)| last.max(state.truncated_index));
    let first = bounds.map_or(state.truncated_index.next(), |(first, _)| first);
    if applied < state.truncated_index || first > applied.next() && applied < last {
        return Err(Fault::corruption(format!(
            "the store has applied up to {applied} but the Raft log begins at {}: entries are lost, and this node \
             has no peer to copy them from",
            first.max(state.truncated_index.next())
        )));
    }
    if applied > last {
        return Err(Fault::corruption(format!(
            "the store has applied up to {applied} but the Raft log ends at {last}: acknowledged entries are lost"
        )));
    }
    Ok(Range { applied, last })
}

fn open_log(
    node: &Arc<Node>,
    replica: ReplicaId,
    state: &ReplicaLogState,
    membership: &Membership,
    range: &Range,
    commit: LogIndex,
) -> storage::Result<LogStore> {
    let hard_state = HardState {
        term: state.term.get(),
        vote: state.vote.map_or(raft::INVALID_ID, ReplicaId::get),
        commit: commit.get(),
        ..HardState::default()
    };
    let conf_state = membership.conf_state();
    LogStore::open(LogStoreOptions {
        replica,
        raft_log: node.options.raft_log.clone(),
        latch: node.latch.clone(),
        hard_state,
        conf_state,
        truncated: (state.truncated_index, state.truncated_term),
        last: range.last,
        applied: range.applied,
    })
}

/// The newest commit timestamp in the log, compacted entries included. Timestamps increase with the index, so the last
/// entry that has one has the newest: neither the first of a term nor a change of the membership does.
fn newest_timestamp(
    node: &Node,
    replica: ReplicaId,
    state: &ReplicaLogState,
    membership: &Membership,
    range: &Range,
) -> storage::Result<base::Timestamp> {
    let mut index = range.last;
    while index > state.truncated_index {
        let entries = node.options.raft_log.entries(replica, index, index.next(), usize::MAX)?;
        if let Some(last) = entries.last().filter(|last| carries_changes(last)) {
            return Ok(entry::check_header(&last.data)?.max(membership.last_timestamp));
        }
        index = LogIndex(index.get() - 1);
    }
    Ok(membership.last_timestamp)
}

fn carries_changes(entry: &LogEntry) -> bool {
    entry.kind == NORMAL && !entry.data.is_empty()
}
