//! Nodes that talk over loopback TCP. Nothing in here is timed: conditions are waited for.

#[path = "suite/garbage.rs"]
mod garbage;
#[path = "suite/members.rs"]
mod members;
#[path = "suite/requests.rs"]
mod requests;
#[path = "suite/snapshots.rs"]
mod snapshots;
#[path = "suite/streams.rs"]
mod streams;
#[path = "suite/support.rs"]
mod support;
