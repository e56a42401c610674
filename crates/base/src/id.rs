//! Newtypes for every identifier, term, index and epoch, so that swapped arguments do not compile.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The bare number, for encodings.
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The one after this.
            #[must_use]
            pub const fn next(self) -> $name {
                $name(self.0 + 1)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// One running `psdb` process with one data directory.
    NodeId(u32), "n"
);
id!(
    /// One partition of one collection; also names its Raft group. Never used again after a drop.
    ShardId(u64), "s"
);
id!(
    /// One replica of a shard: the Raft peer id. Names a replica, never a node; never zero and never used again.
    ReplicaId(u64), "r"
);
id!(
    /// Which incarnation of a replica's keyspace: a snapshot fills the next one.
    Generation(u32), "g"
);
id!(
    /// One collection for its whole life, renames included.
    CollectionId(u64), "c"
);
id!(
    /// One index of a collection; `IndexId(0)` is the `_id` index, which the document keys themselves are.
    IndexId(u32), "i"
);
id!(
    /// A Raft term.
    Term(u64), "t"
);
id!(
    /// A position in a Raft log; the first entry has index 1.
    LogIndex(u64), "x"
);
id!(
    /// The version of a collection's shard map.
    Epoch(u64), "e"
);
id!(
    /// A reshard of a collection: the how manieth it is.
    ReshardId(u64), "reshard "
);
id!(
    /// A node's process incarnation: random, new at every start.
    BootId(u64), "b"
);

/// The shard of the catalog's own Raft group.
pub const CATALOG_SHARD: ShardId = ShardId(1);

/// The identity of a request between nodes: which process sent it, and which of its requests it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// The process that sent it.
    pub boot: BootId,
    /// Counts that process's requests.
    pub sequence: u64,
}

impl RequestId {
    /// The session, of this request alone, under which a shard remembers what it did.
    pub fn as_session(self) -> SessionId {
        let both = (u128::from(self.boot.get()) << 64) | u128::from(self.sequence);
        SessionId(both.to_be_bytes())
    }
}

/// A client's logical session: the UUID in its `lsid`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
