//! How far this node's replicas are: what `psdb status` and `serverStatus` say of them.
//!
//! Called by `serve` for other nodes and by `server` for this one's own clients.

use base::{LogIndex, ReplicaId};
use bson::{Bson, Document, doc};
use catalog::Catalog;
use replica::{Membership, ReplicaHandle, StateMachine};

use crate::Router;

impl Router {
    /// A document for each replica of this node: shard, collection, role, term, how far its log is committed and applied,
    /// and on a primary how far each of the others is.
    pub async fn node_status(&self) -> Document {
        let catalog = self.catalog_copy();
        let mut replicas = vec![Bson::Document(replica_status(&self.catalog_replica(), None).await)];
        for replica in self.host.shards() {
            let collection =
                catalog.placement(replica.shard()).map(|(record, _)| record.namespace.to_string());
            replicas.push(Bson::Document(replica_status(&replica, collection).await));
        }
        doc! { "node": i64::from(self.node.get()), "replicas": replicas }
    }

    /// The nodes, shards and their placements as this node's copy of the catalog has them.
    pub fn cluster_status(&self) -> Document {
        let catalog = self.catalog_copy();
        let nodes: Vec<Bson> = catalog.nodes().map(|node| Bson::Document(node_facts(node))).collect();
        doc! {
            "cluster": &catalog.cluster().name,
            "replicationFactor": i64::from(catalog.cluster().replication_factor),
            "nodes": nodes,
            "shards": shards(&catalog),
        }
    }
}

fn node_facts(node: &catalog::NodeRecord) -> Document {
    let labels: Document =
        node.facts.labels.iter().map(|(name, value)| (name.clone(), Bson::from(value.as_str()))).collect();
    doc! {
        "node": i64::from(node.id.get()),
        "name": &node.facts.name,
        "listen": &node.facts.listen,
        "peer": &node.facts.peer,
        "storage": node.facts.storage,
        "labels": labels,
    }
}

fn shards(catalog: &Catalog) -> Vec<Bson> {
    let placed = |replica: &catalog::ReplicaPlacement| {
        doc! { "replica": number(replica.replica.get()), "node": i64::from(replica.node.get()) }
    };
    let group = |shard: u64, collection: Option<String>, replicas: &[catalog::ReplicaPlacement]| {
        let replicas: Vec<Bson> = replicas.iter().map(placed).map(Bson::Document).collect();
        Bson::Document(doc! { "shard": number(shard), "collection": collection, "replicas": replicas })
    };
    let own = group(base::id::CATALOG_SHARD.get(), None, &catalog.cluster().catalog);
    let collections = catalog.active().flat_map(|record| {
        let shards = record.shard_map.shards.iter();
        shards.map(|shard| group(shard.shard.get(), Some(record.namespace.to_string()), &shard.replicas))
    });
    std::iter::once(own).chain(collections).collect()
}

async fn replica_status<M: StateMachine>(replica: &ReplicaHandle<M>, collection: Option<String>) -> Document {
    let (membership, own) = (replica.membership(), replica.replica());
    let leads = replica.leader() == Some(own);
    let mut status = doc! {
        "shard": number(replica.shard().get()),
        "collection": collection,
        "replica": number(own.get()),
        "role": role(&membership, own, leads),
        "term": number(replica.term().get()),
        "committed": number(replica.commit_index().get()),
        "applied": number(replica.applied_index().get()),
        "primaryNode": replica.leader_node().map(|node| i64::from(node.get())),
        "joint": membership.is_joint(),
    };
    if leads {
        let progress = replica.progress().await;
        let follower = |(replica, matched): (&ReplicaId, &LogIndex)| {
            let node = membership.nodes.get(replica).map(|node| i64::from(node.get()));
            Bson::Document(doc! {
                "replica": number(replica.get()),
                "node": node,
                "votes": membership.voters.contains(replica),
                "matched": number(matched.get()),
            })
        };
        status.insert("members", progress.iter().map(follower).collect::<Vec<_>>());
    }
    status
}

fn role(membership: &Membership, replica: ReplicaId, leads: bool) -> &'static str {
    match () {
        () if leads => "primary",
        () if membership.voters.contains(&replica) => "secondary",
        () => "learner",
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
