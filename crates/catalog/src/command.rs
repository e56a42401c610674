//! What the catalog can be asked to change. Each command is one entry of the catalog's Raft log.

use base::{CollectionId, IndexId, Namespace, NodeId, ReplicaId, ReshardId, ShardId};
use bson::Document;
use serde::{Deserialize, Serialize};

use crate::{
    BalancerSettings, CollectionRecord, Failure, IndexFailure, IndexSpec, KeyDirection, NodeFacts,
    NodeRecord, ReshardPlan,
};

/// A change of the catalog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// The first entry of a cluster: its name, how often it keeps things, and its first node, which gets the id 1. Does
    /// nothing, and answers with the first node, when the cluster exists.
    Found {
        /// The cluster's name.
        name: String,
        /// How many replicas a shard has where there are as many nodes.
        replication_factor: u32,
        /// The first node.
        node: NodeFacts,
    },
    /// Takes a node in under a new id, and plans a replica of the catalog on it. Answers with the node that an earlier
    /// request of the same token added. Fails with `ConflictingOperationInProgress` when another node has its name
    /// and is not known to be gone.
    JoinNode {
        /// Drawn by the node that joins; not empty.
        token: String,
        /// The node.
        facts: NodeFacts,
    },
    /// Renews what is known of a node. Does nothing when the node is not known.
    RenewNode {
        /// The node.
        node: NodeId,
        /// What is new.
        facts: NodeFacts,
    },
    /// Creates a collection with one shard, and chooses its nodes. Fails with `NamespaceExists` when the name is taken,
    /// unless by the collection with this UUID, and with `WriteConflict` when a collection was dropped since the proposer
    /// looked: this may be a repeat that comes late, and must not bring back what was created and dropped meanwhile.
    CreateCollection {
        /// Its name.
        namespace: Namespace,
        /// Its UUID, drawn by the proposer.
        uuid: [u8; 16],
        /// Its options.
        options: Document,
        /// How many collections had been dropped when the proposer looked: [`crate::Catalog::drops`].
        drops_seen: u64,
    },
    /// Takes a collection out of use; its name is free from now on. Does nothing when that was done before.
    DropCollection {
        /// The collection.
        collection: CollectionId,
    },
    /// A replica of a dropped collection is gone. With the last one the collection is forgotten.
    ReplicaGone {
        /// The collection.
        collection: CollectionId,
        /// The replica.
        replica: ReplicaId,
    },
    /// Plans a replica of a shard on a node that has none, while the shard has fewer than the replication factor. It begins as a
    /// learner.
    PlaceReplica {
        /// The shard.
        shard: ShardId,
        /// Its node.
        node: NodeId,
    },
    /// Has a node's replicas move to other nodes. Fails with `NodeNotFound` (74) when it does not belong to the cluster, and
    /// with `IllegalOperation` (20) when no node would be left, or when there are as many nodes in use as the replication
    /// factor needs and would not be any more.
    DrainNode {
        /// The node.
        node: NodeId,
    },
    /// Takes a node back into use that was to be drained. Fails with `NodeNotFound` when it does not belong to the cluster.
    CancelDrain {
        /// The node.
        node: NodeId,
    },
    /// Takes a node out of the cluster. Its id is never used again, its name is free. Fails with `IllegalOperation` while it
    /// holds replicas of shards, unless it is dead: they are then placed elsewhere. Fails in the same way when it is the
    /// last node that could hold any, or when a shard has no replica on another one. Does nothing when that was done before.
    RemoveNode {
        /// The node.
        node: NodeId,
    },
    /// A node has been gone for so long that its replicas shall be rebuilt elsewhere. Fails with `NodeNotFound` when it does
    /// not belong to the cluster.
    MarkDead {
        /// The node.
        node: NodeId,
    },
    /// A node is there again. Fails with `NodeNotFound` when it does not belong to the cluster.
    MarkAlive {
        /// The node.
        node: NodeId,
    },
    /// Plans a replica on another node in the place of one, which leaves once the new one can stand in for it. Does nothing when
    /// that was done before. Fails with `ShardNotFound` (70) when the shard is gone, with `NodeNotFound` when one of the nodes
    /// is, with `IllegalOperation` when the shard has no replica on the one or has one on the other, or when that one may get
    /// none, with `ConflictingOperationInProgress` (117) while another replica of the shard is on its way out, unless this one's
    /// node is dead, and with `WriteConflict` when a move of the shard was called off since the proposer looked: this may be
    /// a repeat that comes late, of that one.
    MoveReplica {
        /// The shard.
        shard: ShardId,
        /// The node that gives its replica up.
        from: NodeId,
        /// The node that gets one.
        to: NodeId,
        /// How many moves of the shard had been called off when the proposer looked: [`crate::Catalog::cancels`].
        #[serde(default)]
        cancels_seen: u32,
    },
    /// Keeps a replica that is on its way out; the one that was placed for it leaves instead. Does nothing when that was done
    /// before. Fails with `ShardNotFound` when the shard is gone, and with `IllegalOperation` when the replica is not on its
    /// way to another node any more, or when its node may keep none, and with `WriteConflict` as `MoveReplica` does.
    CancelMove {
        /// The shard.
        shard: ShardId,
        /// The replica that stays.
        replica: ReplicaId,
        /// As in `MoveReplica`.
        cancels_seen: u32,
    },
    /// Gives a replica up without another one in its place. Does nothing when that was done before. Fails with
    /// `IllegalOperation` when fewer than the replication factor would be left on nodes that are to stay, as far as there are
    /// as many, and otherwise as `MoveReplica` does.
    RetireReplica {
        /// The shard.
        shard: ShardId,
        /// The node that gives its replica up.
        node: NodeId,
    },
    /// A replica that was to leave its group (a shard's, or the catalog's) does not belong to it any more. Does nothing when
    /// that was known, or when a move of the shard was called off since the proposer looked: the replica may have joined again.
    ReplicaLeft {
        /// The shard.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// As in `MoveReplica`.
        #[serde(default)]
        cancels_seen: u32,
    },
    /// Switches the balancer on or off. Replicas are rebuilt and nodes are drained also while it is off.
    SetBalancer {
        /// Whether it is on.
        enabled: bool,
    },
    /// Changes what the balancer goes by. Fails with `BadValue` (2) on a number that makes no sense.
    ChangeBalancerSettings {
        /// What it shall go by.
        settings: BalancerSettings,
    },
    /// Adds indexes as building. An index that exists with the same key and options is left as it is. Fails with
    /// `WriteConflict` when indexes were dropped since the proposer looked, as `CreateCollection` does.
    AddIndexes {
        /// The collection.
        collection: CollectionId,
        /// How often indexes of it had been dropped when the proposer looked.
        drops_seen: u64,
        /// The indexes.
        indexes: Vec<NewIndex>,
    },
    /// A shard has applied "ready". With the last shard the index is. Does nothing when the index is gone.
    IndexReady {
        /// The collection.
        collection: CollectionId,
        /// The index.
        index: IndexId,
        /// The shard.
        shard: ShardId,
    },
    /// An index could not be built. Does nothing when the index is gone.
    IndexFailed {
        /// The collection.
        collection: CollectionId,
        /// Which, and why.
        failure: IndexFailure,
    },
    /// Takes indexes out of use.
    DropIndexes {
        /// The collection.
        collection: CollectionId,
        /// The indexes.
        indexes: Vec<IndexId>,
    },
    /// Forgets dropped indexes whose entries are gone.
    ForgetIndexes {
        /// The collection.
        collection: CollectionId,
        /// The indexes.
        indexes: Vec<IndexId>,
    },
    /// Begins to replace shards of a collection by others. Answers with the reshard; with `Done` when they own already what they
    /// would. Fails with `ConflictingOperationInProgress` while another reshard
    /// of it, or an index build, is under way, with `WriteConflict` when there was a reshard since the proposer looked, and
    /// with `InvalidOptions` when an index could not be kept unique.
    BeginReshard {
        /// The collection.
        collection: CollectionId,
        /// How many reshards of it the proposer has seen.
        reshards_seen: u64,
        /// What replaces what.
        plan: ReshardPlan,
    },
    /// A step of a reshard. Does nothing when it is over.
    StepReshard {
        /// The collection.
        collection: CollectionId,
        /// Which.
        reshard: ReshardId,
        /// The step.
        step: ReshardStep,
    },
}

/// The steps of a reshard: see `reshard`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ReshardStep {
    /// A source has little left to copy.
    CaughtUp {
        /// The source.
        source: ShardId,
    },
    /// A source is sealed and its targets have everything. With the last one the targets come into use.
    Complete {
        /// The source.
        source: ShardId,
    },
    /// The sources go on, and the targets are removed.
    Abort {
        /// Why.
        failure: Failure,
    },
    /// Stops copying, or lets it go on.
    Pause {
        /// Which of the two.
        paused: bool,
    },
}

/// An index to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewIndex {
    /// Its name.
    pub name: String,
    /// Dotted paths with their order.
    pub key: Vec<(String, KeyDirection)>,
    /// Whether two documents may share a key.
    pub unique: bool,
}

impl NewIndex {
    /// The index under an id.
    pub(crate) fn spec(&self, id: IndexId) -> IndexSpec {
        IndexSpec { id, name: self.name.clone(), key: self.key.clone(), unique: self.unique }
    }
}

/// What a command answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// The collection as created or dropped.
    Collection(Box<CollectionRecord>),
    /// The node that joined.
    Node(Box<NodeRecord>),
    /// The reshard that began.
    Reshard(ReshardId),
    /// The indexes that `AddIndexes` added, in order; those that existed are left out.
    Indexes(Vec<IndexId>),
}
