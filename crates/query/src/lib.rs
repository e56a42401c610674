//! One shard's work: evaluation of its writes, and index choice, scans, filters and sorts on its read view.
//!
//! Called by `replica` (whose owner loop evaluates) and `router` (which plans and executes reads on a shard's view).
//! Always holds: nothing in here writes; an evaluation gives keys and values for others to replicate and apply.

pub mod copy;
pub mod encoding;
pub mod evaluate;
pub mod execute;
pub mod explain;
pub mod failure;
pub mod index;
pub mod plan;
pub mod position;
pub mod state;

pub use failure::Failure;
