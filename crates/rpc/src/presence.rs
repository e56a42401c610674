//! Which other nodes were heard lately, on whichever connection.
//!
//! Made by `server` for both halves of this crate: links and the serving side note whatever comes, and links ask before they
//! ping. Always holds: two nodes that talk anyway need no pings, and of two that do not, one pings and the other only answers.

use std::collections::BTreeMap;

use base::NodeId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// See the module's comment.
#[derive(Debug, Default)]
pub struct Presence {
    heard: Mutex<BTreeMap<NodeId, Instant>>,
}

impl Presence {
    /// Something has come from a node, right now.
    pub(crate) fn note(&self, from: NodeId) {
        self.heard.lock().insert(from, Instant::now());
    }

    /// When a node was heard last.
    pub(crate) fn heard(&self, node: NodeId) -> Option<Instant> {
        self.heard.lock().get(&node).copied()
    }
}
