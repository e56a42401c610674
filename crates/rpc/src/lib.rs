//! gRPC between nodes: Raft messages, requests of routers, snapshots, and how a node joins a cluster.
//!
//! Called by `server`, which makes one [`Network`] (the ways to all other nodes) and lets [`serve`] answer them through its
//! [`Service`]. Always holds: nothing else in the product knows Protocol Buffers; what comes from a network is checked
//! before it becomes one of the product's types, and nothing panics on it; every queue has a limit in `base::limits`;
//! nothing waits for a peer without an end.
//!
//! A message in reading order:
//! 1. [`Network`] finds the `link` to the other node, which keeps a connection to it while both live. Connecting starts
//!    with a `hello`: another cluster, another protocol, or another node than the one meant is refused.
//! 2. What is to be sent waits in the link's `lane`; whenever the connection takes a frame, everything that waits goes into
//!    it. A Raft message that finds no room is dropped, a request waits for room. A connection that ends takes its lane with
//!    it: the requests in it fail at once, and the caller decides.
//! 3. The other end (`server`, `incoming`) hands Raft messages to the service in order, and runs every request in a task of
//!    its own. Answers go back on the same stream, in the order in which they come about.
//! 4. Pings go on a second stream of the same connection, so that a large frame does not hold them up; a link whose peer was
//!    heard just now, on whichever connection, needs none. A peer that is silent for a while is taken for dead: its
//!    connection ends, and a new one is tried.
//!
//! Snapshots (`snapshot`) have connections of their own, at a limited pace: their bytes hold nothing else up.

mod convert;
mod hello;
mod incoming;
mod lane;
mod link;
mod member;
mod network;
mod presence;
mod server;
mod service;
mod snapshot;

/// The generated messages and services of `proto/psdb/v1`; their fields are documented there.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod v1 {
    tonic::include_proto!("psdb.v1");
}

pub use hello::{Identity, PROTOCOL_VERSION};
pub use lane::FrameCounts;
pub use member::{Greeting, JoinReply, JoinRequest, greet, join};
pub use network::{Network, NetworkOptions, PeerHealth};
pub use presence::Presence;
pub use server::serve;
pub use service::Service;
pub use snapshot::SnapshotCounts;
