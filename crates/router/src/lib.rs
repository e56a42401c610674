//! Turns a client's command into work for shards and merges the answers.
//!
//! Called by `wire` (one task per connection) with typed commands ([`command`]), and by `rpc` with those of other nodes
//! ([`peer`]); calls the replica host of this node and the routers of others. Always holds: the router keeps no state of
//! its own but cursors and index builds; every write that a client, or another router, may send again carries an identity,
//! so that asking again is harmless.
//!
//! An operation in reading order:
//! 1. [`Router`] finds the collection in its copy of the catalog (`resolve`). Absence is confirmed by a linearizable
//!    read of the catalog before anybody hears of it (`catalog_access`).
//! 2. Where there is one shard, it goes, whole, to the node of the shard's primary: often this one, else over
//!    [`peer::Peers`] (`front`, `route`). Where there are several, it is cut into one for each shard that it is about
//!    (`spread`; `seek` for a write of one document that may be in any), with one call for each node. Steps 3 to 5 happen
//!    where they arrive (`serve` takes what other nodes send).
//! 3. The filter's equality on `_id` names the documents, or a search on a read view finds them (`target`, `search`).
//! 4. Writes go to the owner loop of the shard with their candidates (`write`, `find_and_modify`); a candidate that no
//!    longer matches sends the statement back to step 3.
//! 5. Reads run in the caller's task on a read view (`scan`, `read`), in slices, so that a long scan neither holds the task
//!    nor outlives its deadline; what does not fit a batch waits in a cursor (`cursor`). The client's router merges the parts
//!    of all shards (`gather`), does what only it can of an aggregation (`aggregate`), and goes on behind its position with a
//!    part that is lost. A read that prefers a secondary goes to one instead (`read_route`).
//! 6. Refusals that mean "the shard has moved on", and nodes that do not answer, send the operation back to step 1 until
//!    its deadline (`retry`).
//!
//! Definitions are entries of the catalog (`definition`), and so is how a collection is cut (`sharding`) and what becomes of
//! nodes (`administer`). Each node makes its replicas what the catalog says (`reconcile`, with `index_build`, `copy_shard` and
//! `group_steps`), whenever the catalog or a leader changes: what a crash interrupts is taken up again by whoever leads then. On
//! the node of the catalog's leader the balancer looks at all of them, and acts (`balancing`).

mod administer;
mod aggregate;
mod background;
mod balancer_settings;
mod balancing;
mod catalog_access;
pub mod command;
pub mod config_database;
mod copy_shard;
mod cursor;
mod definition;
mod explain;

mod find_and_modify;
mod front;
mod gather;
mod group_steps;
mod index_build;
#[cfg(feature = "bugs")]
mod mischief;
mod move_shard;
mod nodes;
mod parse;
pub mod peer;
mod read;
mod read_route;
mod reconcile;
mod resolve;
mod retry;
mod room;
mod route;
mod scan;
mod search;
mod seek;
mod serve;
mod shard_statistics;
pub mod sharding;
mod spread;
mod spread_explain;
mod statistics;
mod status;
mod target;
mod write;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use base::{BootId, Clock, Entropy, HybridClock, LogIndex, MonoTime, NodeId, RequestId, ShardId, Timestamp};
use document::EvalContext;
use document::Variables;
use parking_lot::Mutex;
use replica::Host;
use replica::spawn::Spawner;

pub use administer::NodeProgress;
pub use aggregate::ROUTER_STAGES;
pub use command::OperationContext;
pub use copy_shard::CopyCounts;
pub use nodes::{FIRST_NODE, found_cluster};
pub use sharding::{ShardRequest, ShardSelector};

/// How far a cluster time may be ahead of this node's clock.
const CLUSTER_TIME_AHEAD_SECONDS_MAX: u64 = 3_600;

/// What a router is made of.
pub struct RouterOptions {
    /// This node.
    pub node: NodeId,
    /// The replicas of this node, with one of the catalog among them.
    pub host: Arc<Host>,
    /// The way to other nodes.
    pub peers: Arc<dyn peer::Peers>,
    /// What there is to say of this process, for [`Router::cluster_status`].
    pub describe: Arc<dyn Fn() -> bson::Document + Send + Sync>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for UUIDs and cursor numbers.
    pub entropy: Arc<dyn Entropy>,
    /// Where builds and whatever else goes on in the background runs.
    pub spawner: Arc<dyn Spawner>,
}

/// Executes commands. One for each node, shared by all connections.
pub struct Router {
    own: Weak<Router>,
    node: NodeId,
    host: Arc<Host>,
    peers: Arc<dyn peer::Peers>,
    describe: Arc<dyn Fn() -> bson::Document + Send + Sync>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    spawner: Arc<dyn Spawner>,
    cursors: cursor::Registry,
    builds: background::Running<index_build::BuildKey>,
    copies: background::Running<ShardId>,
    copy_pace: replica::pace::Pace,
    copy_counts: CopyCounts,
    balancer: Mutex<balancing::Memory>,
    reconciling: tokio::sync::Mutex<()>,
    /// Rung when this node may not be what the catalog says.
    unreconciled: tokio::sync::Notify,
    no_room: arc_swap::ArcSwapOption<room::NoRoom>,
    boot: BootId,
    requests: AtomicU64,
    /// The highest round of a ballot that this router has drawn.
    ballots: AtomicU64,
    /// Where other nodes said that a shard's primary is; for shards without a replica here.
    primaries: Mutex<BTreeMap<ShardId, NodeId>>,
    /// When nodes did not answer.
    silent: Mutex<BTreeMap<NodeId, MonoTime>>,
    /// The cluster's time as this node knows it: above every time that it was told or has told.
    time: Mutex<HybridClock>,
    /// How far the replicas were that answered: reads through this router do not go backwards.
    seen: Mutex<BTreeMap<ShardId, LogIndex>>,
}

impl Router {
    /// A router without cursors. It needs [`Router::keep_reconciled`] to run beside it.
    pub fn new(options: RouterOptions) -> Arc<Router> {
        Arc::new_cyclic(|own| Router {
            own: own.clone(),
            node: options.node,
            host: options.host,
            peers: options.peers,
            describe: options.describe,
            clock: options.clock,
            boot: BootId(options.entropy.next_u64()),
            entropy: options.entropy,
            spawner: options.spawner,
            cursors: cursor::Registry::default(),
            builds: background::Running::default(),
            copies: background::Running::default(),
            copy_counts: CopyCounts::default(),
            copy_pace: replica::pace::Pace::new(copy_shard::COPY_BYTES_PER_S),
            balancer: Mutex::default(),
            reconciling: tokio::sync::Mutex::new(()),
            unreconciled: tokio::sync::Notify::new(),
            no_room: arc_swap::ArcSwapOption::empty(),
            requests: AtomicU64::new(0),
            ballots: AtomicU64::new(0),
            primaries: Mutex::default(),
            silent: Mutex::default(),
            time: Mutex::new(HybridClock::starting_above(Timestamp::default())),
            seen: Mutex::default(),
        })
    }

    /// The time of an operation that ends now: above that of every operation that this node answered or was told of.
    pub fn operation_time(&self) -> Timestamp {
        self.time.lock().tick(self.clock.wall_ms())
    }

    /// Takes note of a time that a client was told by another node. One that is far ahead of this node's clock is no time of
    /// this cluster, and is ignored.
    pub fn observe_cluster_time(&self, time: Timestamp) {
        let now = u64::try_from(self.clock.wall_ms()).unwrap_or(0) / 1000;
        if u64::from(time.seconds) <= now + CLUSTER_TIME_AHEAD_SECONDS_MAX {
            self.time.lock().observe(time);
        }
    }

    /// This router, for what runs on in the background.
    fn shared(&self) -> Arc<Router> {
        self.own.upgrade().expect("a router that is in use exists")
    }

    /// The identity of a new request.
    fn next_request(&self) -> RequestId {
        RequestId { boot: self.boot, sequence: self.requests.fetch_add(1, Ordering::Relaxed) }
    }

    /// The surroundings of one command's evaluation.
    fn eval_context(&self, variables: Variables) -> EvalContext {
        let now_ms = self.clock.wall_ms();
        let seconds = u32::try_from(now_ms.max(0) / 1000).unwrap_or(u32::MAX);
        let cluster_time = base::Timestamp { seconds, counter: 0 };
        EvalContext::new(bson::DateTime::from_millis(now_ms), cluster_time).with_variables(variables)
    }
}
