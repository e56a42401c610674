//! The contract between a replica and what it replicates.
//!
//! Implemented by [`crate::ShardMachine`] and by the catalog's machine; called by the owner loop (evaluation, on
//! the leader only) and by the apply side (published state, on every replica). Evaluation is pure given its reader, its
//! context and the machine's own state.

use base::Timestamp;
use storage::{KvBatch, View};

use crate::overlay::OverlayReader;

/// What evaluation is given besides the command.
#[derive(Clone, Copy, Debug)]
pub struct EvaluateContext {
    /// Wall-clock time in milliseconds since the Unix epoch.
    pub wall_ms: i64,
    /// The command's commit timestamp: above that of every earlier command of the shard.
    pub commit_timestamp: Timestamp,
    /// Whether to evaluate whatever comes, by whatever shard map it was routed.
    #[cfg(feature = "bugs")]
    pub route_unchecked: bool,
}

/// What a replica replicates.
pub trait StateMachine: Default + Send + 'static {
    /// What clients ask for.
    type Command: Send + 'static;
    /// What they get, once it is committed.
    type Reply: Send + 'static;
    /// What readers get together with a view of the store, always of the same applied index as the view.
    type State: Send + Sync + 'static;

    /// Turns a command into changes of keys. `reader` shows the store plus everything proposed before.
    ///
    /// With an empty batch the answer only reports what was read. An `Err` is the client's error and proposes nothing:
    /// whatever is in the batch is dropped. A fault stops the node.
    fn evaluate(
        &mut self,
        cx: &EvaluateContext,
        reader: OverlayReader<'_>,
        command: &Self::Command,
        batch: &mut KvBatch,
    ) -> storage::Result<base::Result<Self::Reply>>;

    /// Adds what the commands evaluated since the last call change together. Called before their entry is proposed, so
    /// that what many commands change is in it once.
    fn complete(&mut self, _batch: &mut KvBatch) {}

    /// Rebuilds the evaluation state from the store: the replica begins to lead, or proposals were dropped.
    fn reset(&mut self, reader: OverlayReader<'_>) -> storage::Result<()>;

    /// A command that the leader gives itself from time to time; `None` when there is nothing to tidy.
    fn upkeep(&mut self, wall_ms: i64) -> Option<Self::Command>;

    /// The published state of a keyspace that is being opened.
    fn load_state(view: &dyn View) -> storage::Result<Self::State>;

    /// The published state after `batch`; `None` when the batch does not change it. Called in log order.
    fn next_state(previous: &Self::State, batch: &KvBatch) -> storage::Result<Option<Self::State>>;
}
