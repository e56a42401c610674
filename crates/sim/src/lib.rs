//! A cluster under a simulated clock, network, disk and scheduler: one thread, one seed.
//!
//! The same `replica`, `query`, `catalog` and `router` code that runs in production runs here on several nodes, over the engines in
//! memory and a network that loses, delays, doubles and reorders. Clients write and read while processes crash, stand
//! still and restart, disks fail and are lost, clocks drift and jump, the network falls apart and memberships change;
//! checkers then compare what clients were told with what all replicas hold. A run of another kind shows how a cluster of a hundred
//! nodes and thousands of shards loses a node, without other faults. Always holds: a seed and a commit replay a
//! run exactly, which the running hash of its trace shows. Called by the binary and by this crate's tests.

mod aimed;
mod check;
mod checks_at_end;
mod client;
mod cluster;
mod faults;
mod groups;
mod history;
mod large;
mod ledger;
mod network;
mod node;
mod process;
mod register;
mod repair;
mod request;
mod rpc;
mod run;
mod world;

pub use large::Size;
pub use run::{Kind, Options, Report, run};
