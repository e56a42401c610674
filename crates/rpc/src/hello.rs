//! Who a node says it is, and which streams another node refuses because of it.
//!
//! Always holds: a node takes nothing from another cluster, nothing in a protocol that it does not know, and nothing that
//! was meant for another node: one that lost its data directory comes back under a new id, and what is sent to its old id
//! must not reach it.

use base::{BootId, NodeId};
use tonic::Status;

use crate::v1;

/// The version of the protocol between nodes. Nodes of different versions do not talk.
pub const PROTOCOL_VERSION: u32 = 1;

/// Characters of another node's cluster id in a message about it.
const CLUSTER_ID_SHOWN: usize = 64;

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster that it belongs to.
    pub cluster_id: String,
    /// Its id in there.
    pub node: NodeId,
    /// Its process.
    pub boot: BootId,
}

impl Identity {
    /// What it says first to the node that it believes to be `to`.
    pub(crate) fn hello(&self, to: NodeId) -> v1::Hello {
        v1::Hello {
            protocol: PROTOCOL_VERSION,
            cluster_id: self.cluster_id.clone(),
            node: self.node.get(),
            boot: self.boot.get(),
            to: to.get(),
        }
    }

    /// Checks what another node says first, and returns who that is. Fails with `FailedPrecondition` and a sentence for the
    /// operator of the other node.
    pub(crate) fn check(&self, hello: Option<v1::Hello>) -> Result<(NodeId, BootId), Status> {
        let hello = hello.ok_or_else(|| Status::invalid_argument("the first message says no hello"))?;
        let (node, other) = (self.node, NodeId(hello.node));
        if hello.protocol != PROTOCOL_VERSION {
            let other_version = hello.protocol;
            return Err(Status::failed_precondition(format!(
                "{node} speaks version {PROTOCOL_VERSION} of the protocol between nodes, and {other} version {other_version}"
            )));
        }
        if hello.cluster_id != self.cluster_id {
            let cluster = &self.cluster_id;
            let other_cluster: String = hello.cluster_id.chars().take(CLUSTER_ID_SHOWN).collect();
            return Err(Status::failed_precondition(format!(
                "{node} belongs to cluster {cluster}, and {other} to cluster {other_cluster}"
            )));
        }
        if NodeId(hello.to) != node {
            let meant = NodeId(hello.to);
            return Err(Status::failed_precondition(format!("this is {node}, and {other} meant {meant}")));
        }
        if other == node {
            return Err(Status::failed_precondition(format!("{node} is the id of both ends")));
        }
        Ok((other, BootId(hello.boot)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(cluster_id: &str, node: u32) -> Identity {
        Identity { cluster_id: cluster_id.to_owned(), node: NodeId(node), boot: BootId(u64::from(node) * 7) }
    }

    #[test]
    fn only_what_is_meant_for_this_node_passes() {
        let here = identity("blue", 1);
        let hello = identity("blue", 2).hello(NodeId(1));
        assert_eq!(here.check(Some(hello.clone())).expect("meant"), (NodeId(2), BootId(14)));
        let refused = [
            None,
            Some(v1::Hello { protocol: 2, ..hello.clone() }),
            Some(identity("green", 2).hello(NodeId(1))),
            Some(identity("blue", 2).hello(NodeId(3))),
            Some(identity("blue", 1).hello(NodeId(1))),
        ];
        for hello in refused {
            assert!(here.check(hello.clone()).is_err(), "{hello:?}");
        }
    }
}
