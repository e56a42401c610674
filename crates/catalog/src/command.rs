//! What the catalog can be asked to change. Each command is one entry of the catalog's Raft log.

use base::{CollectionId, IndexId, Namespace, NodeId};
use bson::Document;
use serde::{Deserialize, Serialize};

use crate::{CollectionRecord, KeyDirection, NodeRecord};

/// A change of the catalog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Adds a node, or renews what is known of it.
    PutNode(NodeRecord),
    /// Creates a collection with one shard on `nodes`. Fails with `NamespaceExists` when the name is taken.
    CreateCollection {
        /// Its name.
        namespace: Namespace,
        /// Its UUID, drawn by the proposer.
        uuid: [u8; 16],
        /// Its options.
        options: Document,
        /// Where its replicas go.
        nodes: Vec<NodeId>,
    },
    /// Takes a collection out of use; its name is free from now on. Fails with `NamespaceNotFound`.
    DropCollection {
        /// Its name.
        namespace: Namespace,
    },
    /// Forgets a dropped collection whose replicas are gone. Does nothing when it is gone already.
    ForgetCollection {
        /// The collection.
        collection: CollectionId,
    },
    /// Adds indexes as building. An index that exists with the same key and options is left as it is.
    AddIndexes {
        /// The collection.
        collection: CollectionId,
        /// The indexes.
        indexes: Vec<NewIndex>,
    },
    /// Every shard has applied "ready". Does nothing when the index is gone.
    IndexReady {
        /// The collection.
        collection: CollectionId,
        /// The index.
        index: IndexId,
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

/// What a command answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// The collection as created or dropped.
    Collection(Box<CollectionRecord>),
    /// The indexes that `AddIndexes` added, in order; those that existed are left out.
    Indexes(Vec<IndexId>),
}
