//! Joining and greeting.

use base::{Error, NodeId, Result};

use super::{Wire, missing};
use crate::member::{Greeting, JoinReply, JoinRequest};
use crate::v1;

impl Wire for JoinRequest {
    type Message = v1::JoinRequest;

    fn into_wire(self) -> Result<v1::JoinRequest> {
        Ok(v1::JoinRequest {
            name: self.name,
            listen: self.listen,
            peer: self.peer,
            roles: self.roles,
            labels: self.labels.into_iter().collect(),
            version: self.version,
            cluster_name: self.cluster_name,
            token: self.token,
        })
    }

    fn from_wire(message: v1::JoinRequest) -> Result<JoinRequest> {
        Ok(JoinRequest {
            name: message.name,
            listen: message.listen,
            peer: message.peer,
            roles: message.roles,
            labels: message.labels.into_iter().collect(),
            version: message.version,
            cluster_name: message.cluster_name,
            token: message.token,
        })
    }
}

impl Wire for JoinReply {
    type Message = v1::JoinReply;

    fn into_wire(self) -> Result<v1::JoinReply> {
        let peers = self.peers.into_iter().map(|(node, address)| (node.get(), address)).collect();
        Ok(v1::JoinReply { cluster_id: self.cluster_id, node: self.node.get(), peers })
    }

    fn from_wire(message: v1::JoinReply) -> Result<JoinReply> {
        let peers = message.peers.into_iter().map(|(node, address)| (NodeId(node), address)).collect();
        Ok(JoinReply { cluster_id: message.cluster_id, node: NodeId(message.node), peers })
    }
}

impl Wire for Result<JoinReply> {
    type Message = v1::JoinAnswer;

    fn into_wire(self) -> Result<v1::JoinAnswer> {
        let outcome = match self {
            Ok(reply) => v1::join_answer::Outcome::Reply(reply.into_wire()?),
            Err(error) => v1::join_answer::Outcome::Error(error.into_wire()?),
        };
        Ok(v1::JoinAnswer { outcome: Some(outcome) })
    }

    fn from_wire(message: v1::JoinAnswer) -> Result<Self> {
        Ok(match message.outcome.ok_or_else(|| missing("an outcome"))? {
            v1::join_answer::Outcome::Reply(reply) => Ok(JoinReply::from_wire(reply)?),
            v1::join_answer::Outcome::Error(error) => Err(Error::from_wire(error)?),
        })
    }
}

impl Wire for Greeting {
    type Message = v1::Greeting;

    fn into_wire(self) -> Result<v1::Greeting> {
        Ok(v1::Greeting {
            cluster_id: self.cluster_id,
            node: self.node.map(NodeId::get),
            name: self.name,
            version: self.version,
            empty: self.empty,
        })
    }

    fn from_wire(message: v1::Greeting) -> Result<Greeting> {
        Ok(Greeting {
            cluster_id: message.cluster_id,
            node: message.node.map(NodeId),
            name: message.name,
            version: message.version,
            empty: message.empty,
        })
    }
}
