//! What would make the cluster better: replicas rebuilt, nodes emptied, zones kept apart, load spread, shards split and merged.
//!
//! Called by the node of the catalog's leader, which turns each [`Proposal`] into a command, a handover or a resharding, and
//! shows its reason to whoever asks. Always holds: equal catalogs and observations give equal plans; no proposal takes a
//! shard below its replication factor; an even cluster gets no proposal; and none undoes the one before it, because each
//! lowers, in this order of importance, the number of: replicas on nodes that are gone or to be emptied, pairs of a
//! shard's replicas in one zone, the squares of the nodes' replicas, of their primaries, of their bytes and of their
//! operations. What a rule lowers, the rules after it never raise; the last two may take a shard back where it was in
//! exchange for a better one, and a role may return to where it was once replicas have moved.
//!
//! The rules, a file for each: `repair` (gone and draining nodes), `spread` (zones, replicas, bytes), `primaries`
//! (primaries, operations), `resize` (splits, merges). They work on a `model` of the cluster, in which each proposal counts as
//! done for the ones after it.

mod model;
mod primaries;
mod repair;
mod resize;
mod settings;
mod spread;

use std::collections::{BTreeMap, BTreeSet};

use base::{CollectionId, NodeId, ShardId};

use crate::{Catalog, Command};

pub(crate) use model::Model;
pub use settings::BalancerSettings;

/// How a shard is, as its primary says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ShardLoad {
    /// Bytes of its documents and index entries on one replica.
    pub bytes: u64,
    /// Documents.
    pub documents: u64,
    /// Reads and writes a second, as a mean over minutes.
    pub operations_per_s: u64,
    /// The node of its primary; unknown while there is none.
    pub primary: Option<NodeId>,
}

/// What the catalog does not say and the balancer has to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The shards whose primaries have answered. Others are not split or merged, and count as empty.
    pub shards: BTreeMap<ShardId, ShardLoad>,
    /// The nodes that answer now. Nothing is moved to others, or for the sake of evenness from them.
    pub alive: BTreeSet<NodeId>,
    /// Shards whose group is not yet what the catalog has placed, or that are being split or merged: they are left alone.
    /// Those with a replica on its way out need not be listed.
    pub unsettled: BTreeSet<ShardId>,
    /// Collections that a split or a merge is under way of: they get no other one.
    pub resharding: BTreeSet<CollectionId>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// A replica is missing.
    PlaceReplica {
        /// Of this shard.
        shard: ShardId,
        /// It shall be on this node.
        node: NodeId,
    },
    /// A replica is in the wrong place.
    MoveReplica {
        /// Of this shard.
        shard: ShardId,
        /// It is on this node.
        from: NodeId,
        /// It shall be on this one.
        to: NodeId,
    },
    /// A replica is one too many.
    RetireReplica {
        /// Of this shard.
        shard: ShardId,
        /// It is on this node.
        node: NodeId,
    },
    /// Another replica shall be the primary.
    TransferPrimary {
        /// Of this shard.
        shard: ShardId,
        /// The one on this node.
        to: NodeId,
    },
    /// A shard is too large, or has too much to do.
    Split {
        /// The shard.
        shard: ShardId,
        /// How many shards it shall become, at least two.
        into: u32,
    },
    /// Neighbours are small enough for one shard.
    Merge {
        /// The shards, in the order of their hash ranges, at least two.
        shards: Vec<ShardId>,
    },
}

impl Action {
    /// The catalog's command that does this, for those that are the catalog's to do.
    pub fn command(&self, catalog: &Catalog) -> Option<Command> {
        match *self {
            Action::PlaceReplica { shard, node } => Some(Command::PlaceReplica { shard, node }),
            Action::MoveReplica { shard, from, to } => {
                Some(Command::MoveReplica { shard, from, to, cancels_seen: catalog.cancels(shard) })
            }
            Action::RetireReplica { shard, node } => Some(Command::RetireReplica { shard, node }),
            Action::TransferPrimary { .. } | Action::Split { .. } | Action::Merge { .. } => None,
        }
    }
}

/// A change with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// What to do.
    pub action: Action,
    /// Why: a sentence for people.
    pub reason: String,
}

/// What to do now, the most important first. All of it may be done at once; asking again before that is done gives it again.
pub fn plan(catalog: &Catalog, observed: &Observed) -> Vec<Proposal> {
    let mut model = Model::observed(catalog, observed);
    let mut proposals = repair::plan(&mut model);
    if catalog.cluster().balancer.enabled {
        let (apart, waits) = spread::separate_zones(&mut model);
        proposals.extend(apart);
        // What comes first may make even what is not, or uneven what was made even.
        if proposals.is_empty() && !waits {
            proposals.extend(spread::even_replicas(&mut model));
        }
        proposals.extend(primaries::even_primaries(&mut model));
        // What weighs how much shows only once what counts more is even, and has arrived.
        if proposals.is_empty() && !model.is_moving() {
            proposals.extend(spread::even_bytes(&mut model));
        }
        if proposals.is_empty() && !model.is_moving() {
            proposals.extend(primaries::even_operations(&mut model));
        }
        proposals.extend(resize::plan(&mut model));
    }
    proposals
}

/// The part of [`plan`] that the catalog alone decides: replicas that are missing or on nodes that are gone, and nodes that are
/// to be emptied. Every node that is not marked as dead counts as alive.
pub fn repairs(catalog: &Catalog) -> Vec<Proposal> {
    repair::plan(&mut Model::new(catalog))
}

#[cfg(test)]
mod examples;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
