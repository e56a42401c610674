//! The node's replicas under a simulated clock, disk and scheduler: one thread, one seed.
//!
//! The same `replica`, `query` and `catalog` code that runs in production runs here over the engines in memory. Clients
//! write and read while the simulator cuts the power, kills the process, fails fsyncs and moves the wall clock; checkers
//! then compare what clients were told with what the store holds. Always holds: a seed and a commit replay a run exactly,
//! which the running hash of its trace shows. Called by the binary and by this crate's tests.

mod check;
mod client;
mod history;
mod node;
mod register;
mod run;
mod world;

pub use run::{Options, Report, run};
