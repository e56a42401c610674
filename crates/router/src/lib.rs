//! Turns a client's command into work for shards and merges the answers.
//!
//! Called by `wire` (one task per connection) with typed commands ([`command`]); calls the replica host of this node.
//! Always holds: the router keeps no state of its own but cursors and index builds; every write that a client may send
//! again carries its identity, so that asking again is harmless.
//!
//! An operation in reading order:
//! 1. [`Router`] finds the collection in its copy of the catalog (`resolve`). Absence is confirmed by a linearizable
//!    read of the catalog before anybody hears of it.
//! 2. The filter's equality on the shard key names the documents, or a search on a read view finds them (`target`,
//!    `search`).
//! 3. Writes go to the owner loop of the shard with their candidates (`write`, `find_and_modify`); a candidate that no
//!    longer matches sends the statement back to step 2.
//! 4. Reads run in the caller's task on a read view (`read`, `aggregate`), in slices, so that a long scan neither
//!    holds the task nor outlives its deadline; what does not fit the first batch waits in a cursor (`cursor`).
//! 5. Refusals that mean "the shard has moved on" are retried under a fresh resolution until the deadline (`retry`).
//!
//! Definitions go through the catalog first and reach the shards after it (`definition`, `index_build`); whatever a
//! crash interrupts in between is taken up again by [`Router::reconcile`].

mod aggregate;
pub mod command;
mod cursor;
mod definition;
mod explain;
mod find_and_modify;
mod index_build;
mod parse;
pub mod peer;
mod read;
mod reconcile;
mod resolve;
mod retry;
mod search;
mod statistics;
mod target;
mod write;

use std::sync::Arc;

use base::{Clock, Entropy, NodeId};
use document::EvalContext;
use document::Variables;
use replica::{CatalogHandle, Host};

pub use aggregate::ROUTER_STAGES;
pub use command::OperationContext;

/// What a router is made of.
pub struct RouterOptions {
    /// This node.
    pub node: NodeId,
    /// The replicas of this node.
    pub host: Arc<Host>,
    /// The catalog's replica on this node.
    pub catalog: CatalogHandle,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for UUIDs and cursor numbers.
    pub entropy: Arc<dyn Entropy>,
}

/// Executes commands. One for each node, shared by all connections.
pub struct Router {
    node: NodeId,
    host: Arc<Host>,
    catalog: CatalogHandle,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    cursors: cursor::Registry,
    builds: Arc<index_build::Builds>,
    definitions: tokio::sync::Mutex<()>,
}

impl Router {
    /// A router without cursors. Call [`Router::reconcile`] before the first command.
    pub fn new(options: RouterOptions) -> Arc<Router> {
        Arc::new(Router {
            node: options.node,
            host: options.host,
            catalog: options.catalog,
            clock: options.clock,
            entropy: options.entropy,
            cursors: cursor::Registry::default(),
            builds: Arc::default(),
            definitions: tokio::sync::Mutex::new(()),
        })
    }

    /// The surroundings of one command's evaluation.
    fn eval_context(&self, variables: Variables) -> EvalContext {
        let now_ms = self.clock.wall_ms();
        let seconds = u32::try_from(now_ms.max(0) / 1000).unwrap_or(u32::MAX);
        let cluster_time = base::Timestamp { seconds, counter: 0 };
        EvalContext::new(bson::DateTime::from_millis(now_ms), cluster_time).with_variables(variables)
    }
}
