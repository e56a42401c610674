//! One shard replica, driven by Raft, and the host that runs all replicas of a node.
//!
//! The router calls [`Host`] and [`ReplicaHandle`]; everything below goes through the engines of `storage`. From the
//! proposal downwards nothing here knows documents: Raft entries carry keys and values. The path of a write:
//!
//! 1. [`handle`]: `write` puts the command and a place for its answer into the owner loop's mailbox, and waits.
//! 2. [`owner`]: the loop drains the mailbox and has the [`machine`] evaluate every command against a view of the store
//!    with the [`overlay`] on top: everything that is proposed and not applied yet, the commands just before included.
//! 3. [`entry`]: what all of them change becomes one Raft entry, stamped and checksummed.
//! 4. [`group`]: the entry is proposed to the consensus library, which at once wants it made durable (and, with peers,
//!    sent); the log writer puts it under an fsync that it shares with whatever else waits on the node.
//! 5. The writer's callback rings the owner loop's bell; the library then declares the entry committed.
//! 6. [`owner`]: the commit index is published, the entry goes to the [`apply`] side, the commands are answered.
//! 7. [`apply`]: changes and applied index go to the store in one atomic batch, without an fsync: a restart replays the
//!    Raft log from the applied index that survived ([`open`]). Readers that waited for it go on; the overlay forgets it.
//! 8. [`flush`]: from time to time the store is flushed, and then the owner loop compacts the Raft log up to what is
//!    durable in the store.
//!
//! With peers: [`owner`]'s second half sends and receives through a [`transport`], proves from time to time that it leads
//! ([`lease`]) and changes the [`membership`]; [`snapshot`] and [`install`] bring a replica to life on another node, or
//! back to it. The server runs groups of one so far; tests run larger ones.
//!
//! Always holds: nothing is answered with success before it is durable on a majority; after a [`storage::Fault`] nothing
//! is answered with success at all.

mod apply;
#[cfg(feature = "bugs")]
pub mod bugs;
mod catalog_machine;
pub mod entry;
mod fault;
mod flush;
mod group;
mod handle;
mod host;
mod install;
mod lease;
mod log_store;
pub mod machine;
mod membership;
mod metrics;
mod node;
mod open;
pub mod overlay;
mod owner;
pub mod pace;
mod shard;
mod shared;
pub mod snapshot;
pub mod spawn;
pub mod trace;
pub mod transport;

pub use catalog_machine::CatalogMachine;
pub use fault::FaultLatch;
pub use group::LEASE_MAX;
pub use handle::{ReadView, ReplicaHandle};
pub use host::{HostOf, ReplicaStatus};
pub use install::SnapshotReceiver;
pub use machine::{EvaluateContext, StateMachine};
pub use membership::{MemberChange, Membership};
pub use metrics::HostMetrics;
pub use node::{CompactionPolicy, HostOptions};
pub use shard::ShardMachine;
pub use spawn::{Spawner, ThreadSpawner};
pub use transport::{Haste, NoPeers, Transport};

/// All replicas of a node.
pub type Host = HostOf<ShardMachine, CatalogMachine>;
/// Access to a shard's replica.
pub type ShardHandle = ReplicaHandle<ShardMachine>;
/// Access to the catalog's replica.
pub type CatalogHandle = ReplicaHandle<CatalogMachine>;
