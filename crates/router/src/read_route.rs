//! Brings a read to a replica that the client's read preference allows.
//!
//! Called by `front` for reads whose preference is not the primary. Always holds: through one router, reads of a shard never
//! go backwards, whichever of its replicas answer; a read of a causal session sees whatever was acknowledged before it.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{Code, Error, LogIndex, NodeId, Result, ShardId};
use catalog::ShardPlacement;

use crate::catalog_access::unanswered;
use crate::command::{ReadMode, ReadPreference, ReadSource};
use crate::gather::Asked;
use crate::peer::{Behind, Operation, OperationReply, PeerFailure, PeerReply, PeerRequest, RemoteOperation};
use crate::resolve::Place;
use crate::retry::is_stale;
use crate::route::no_primary;
use crate::serve::check_fresh;
use crate::{OperationContext, Router};

/// Where a read may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// To the primary, wherever it is by then.
    Primary,
    /// To the replica on a node, whatever its role.
    Replica(NodeId),
}

impl Router {
    /// Has a replica execute a read that the client's preference allows, and the next one where one does not answer. Says
    /// which node did.
    pub(crate) async fn read_by_preference(
        &self,
        cx: &OperationContext,
        place: &Place,
        operation: Operation,
    ) -> Result<(NodeId, OperationReply)> {
        let mut error = unsatisfied(cx);
        for choice in self.choices(cx, place.placement()) {
            let read = match choice {
                Choice::Primary => self.read_at_primary(cx, place, operation.clone()).await,
                Choice::Replica(node) => {
                    self.read_at(cx, place, node, operation.clone()).await.map(|reply| (node, reply))
                }
            };
            match read {
                Ok(answer) => return Ok(answer),
                Err(failed) if is_stale(&failed) => error = failed,
                Err(failed) => return Err(failed),
            }
        }
        Err(error)
    }

    async fn read_at_primary(
        &self,
        cx: &OperationContext,
        place: &Place,
        operation: Operation,
    ) -> Result<(NodeId, OperationReply)> {
        let reads = ReadPreference { mode: ReadMode::Primary, ..cx.reads.clone() };
        let cx = &OperationContext { reads, ..cx.clone() };
        let asked = Asked { place: place.clone(), node: None, operation };
        Box::pin(self.attempt_one(cx, asked)).await
    }

    /// The replicas that the preference allows, in the order in which to try them.
    fn choices(&self, cx: &OperationContext, placement: &ShardPlacement) -> Vec<Choice> {
        let here = self.host.shard(placement.shard);
        let primary = self.primary_node(placement, here.as_ref());
        let allowed = self.allowed_nodes(&cx.reads.tags, placement);
        let others = allowed.iter().copied().filter(|node| Some(*node) != primary);
        let secondaries: Vec<Choice> = others.map(Choice::Replica).collect();
        match cx.reads.mode {
            ReadMode::Primary => vec![Choice::Primary],
            ReadMode::Secondary => secondaries,
            ReadMode::Nearest => allowed.into_iter().map(Choice::Replica).collect(),
            ReadMode::PrimaryPreferred if primary.is_some() => [vec![Choice::Primary], secondaries].concat(),
            ReadMode::PrimaryPreferred | ReadMode::SecondaryPreferred => {
                [secondaries, vec![Choice::Primary]].concat()
            }
        }
    }

    /// The nodes of a shard's replicas with the labels that the client prefers: this one first, the others in turn.
    fn allowed_nodes(&self, tags: &[BTreeMap<String, String>], placement: &ShardPlacement) -> Vec<NodeId> {
        let catalog = self.catalog_copy();
        let mut nodes: Vec<NodeId> = placement.replicas.iter().map(|replica| replica.node).collect();
        let turn = usize::try_from(self.entropy.below(nodes.len().max(1) as u64)).unwrap_or(0);
        nodes.rotate_left(turn);
        nodes.sort_by_key(|node| *node != self.node);
        let has_all = |node: &NodeId, tags: &BTreeMap<String, String>| {
            let labels = catalog.node(*node).map(|node| &node.facts.labels);
            labels.is_some_and(|labels| tags.iter().all(|(name, value)| labels.get(name) == Some(value)))
        };
        let labelled = |tags| nodes.iter().copied().filter(|node| has_all(node, tags)).collect::<Vec<_>>();
        match tags {
            [] => nodes,
            sets => sets.iter().map(labelled).find(|found| !found.is_empty()).unwrap_or_default(),
        }
    }

    async fn read_at(
        &self,
        cx: &OperationContext,
        place: &Place,
        node: NodeId,
        operation: Operation,
    ) -> Result<OperationReply> {
        let placement = place.placement();
        let staleness_ms_max =
            cx.reads.staleness_max.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let behind = Behind { at_least: self.at_least(cx, placement).await?, staleness_ms_max };
        if node == self.node {
            let replica = self.host.shard(placement.shard).ok_or_else(|| no_primary(placement.shard))?;
            check_fresh(&replica, &behind, node).map_err(unanswered)?;
            let here = OperationContext { source: ReadSource::Replica(behind.at_least), ..cx.clone() };
            let reply = self.execute(&here, Some(place), operation).await?;
            self.note_seen(placement.shard, replica.applied_index());
            return Ok(reply);
        }
        let request =
            RemoteOperation { behind: Some(behind), ..self.remote_operation(cx, placement.shard, operation) };
        self.ask(node, None, request).await.map_err(unanswered)
    }

    /// The index that a replica must have applied: what this router has seen, or for a read in a causal session whatever
    /// the primary has answered by now.
    async fn at_least(&self, cx: &OperationContext, placement: &ShardPlacement) -> Result<LogIndex> {
        let here = self.host.shard(placement.shard);
        if !cx.reads.causal {
            let own = here.map_or(LogIndex(0), |replica| replica.commit_index());
            return Ok(own.max(self.seen.lock().get(&placement.shard).copied().unwrap_or(LogIndex(0))));
        }
        let primary =
            self.primary_node(placement, here.as_ref()).ok_or_else(|| no_primary(placement.shard))?;
        match here.filter(|_| primary == self.node) {
            Some(replica) => {
                replica.read().await?;
                replica.announce_commit();
                Ok(replica.applied_index())
            }
            None => self.ask_index(primary, placement.shard, cx).await.map_err(unanswered),
        }
    }

    /// How far the primary is, as it proves; it lets its secondaries know without delay.
    pub(crate) async fn ask_index(
        &self,
        primary: NodeId,
        shard: ShardId,
        cx: &OperationContext,
    ) -> Result<LogIndex, PeerFailure> {
        let timeout = Duration::from_millis(self.time_left_ms(cx));
        match self.peers.call(primary, PeerRequest::ShardIndex(shard), timeout).await? {
            PeerReply::Index(index) => Ok(index),
            other => {
                let message = format!("{primary} answered something else than it was asked: {other:?}");
                let error = Error::new(Code::INTERNAL_ERROR, message);
                Err(PeerFailure::Refused { error, primary: None })
            }
        }
    }

    /// Remembers how far the replica was that answered last.
    pub(crate) fn note_seen(&self, shard: ShardId, applied: LogIndex) {
        let mut seen = self.seen.lock();
        let mark = seen.entry(shard).or_insert(applied);
        *mark = applied.max(*mark);
    }
}

/// There is no replica that the preference allows.
fn unsatisfied(cx: &OperationContext) -> Error {
    let mode = match cx.reads.mode {
        ReadMode::Primary => "primary",
        ReadMode::PrimaryPreferred => "primaryPreferred",
        ReadMode::Secondary => "secondary",
        ReadMode::SecondaryPreferred => "secondaryPreferred",
        ReadMode::Nearest => "nearest",
    };
    let message = format!("Could not find a replica that matches read preference {{ mode: \"{mode}\" }}");
    Error::new(Code::FAILED_TO_SATISFY_READ_PREFERENCE, message)
}
