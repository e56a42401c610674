//! The cluster's own metadata as a pure state machine: nodes, collections, their indexes and shard maps.
//!
//! Replicated by a Raft group of its own. Its leader evaluates a [`Command`] against its [`Catalog`]; what comes out is
//! physical, keys and values ([`storage::KvBatch`]), which every node applies to its store and to the catalog it keeps in
//! memory. Called by `replica` (evaluation) and `router` (reading). Always holds: nothing in here does I/O, reads a
//! clock or draws a random number; equal catalogs and equal commands give equal batches.

pub mod balance;
pub mod command;
pub mod placement;
pub mod record;
pub mod reshard;
pub mod state;

pub use balance::BalancerSettings;
pub use command::{Command, NewIndex, Reply, ReshardStep};
pub use record::{
    Birth, ClusterRecord, CollectionRecord, CollectionState, Failure, HashSpan, IndexFailure, IndexSpec,
    IndexState, KeyDirection, NodeFacts, NodeRecord, NodeState, ReplicaPlacement, ShardMap, ShardPlacement,
};
pub use reshard::{Reshard, ReshardOutcome, ReshardPhase, ReshardPlan};
pub use state::Catalog;
