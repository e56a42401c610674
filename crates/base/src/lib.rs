//! Ids, limits, error codes, time and randomness: what every other crate shares.
//!
//! Called by all crates; depends on none of them. Nothing in here does I/O: [`Clock`] and [`Entropy`] are traits
//! whose real implementations live in `server` and whose simulated ones live in `sim`.

pub mod clock;
pub mod error;
pub mod id;
pub mod limits;
pub mod namespace;
pub mod timestamp;

pub use clock::{Clock, Entropy, MonoTime};
pub use error::{Code, Error, Result};
pub use id::{
    BootId, CollectionId, Epoch, Generation, IndexId, LogIndex, NodeId, ReplicaId, RequestId, ReshardId,
    SessionId, ShardId, Term,
};
pub use namespace::Namespace;
pub use timestamp::{HybridClock, Timestamp};
