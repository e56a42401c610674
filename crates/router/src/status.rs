//! How the cluster is: its nodes, its shards, and how far each replica is.
//!
//! Called by `serve` for other nodes and by `wire` for clients. Always holds: a node that does not answer within a second is
//! reported as such, and holds nobody up longer; what is placed where is as of now, if the catalog's leader answers within a second.

use std::time::Duration;

use base::{LogIndex, NodeId, ReplicaId};
use bson::{Bson, Document, doc};
use catalog::{Catalog, CollectionRecord, NodeRecord, NodeState, Reshard, ReshardPhase};
use replica::{Membership, ReplicaHandle, ShardHandle, StateMachine};

use crate::Router;
use crate::config_database::number_of_hash;
use crate::peer::{PeerFailure, PeerReply, PeerRequest};

/// How long a node may take to say how it is.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

impl Router {
    /// The cluster as this node and all that answer see it: `cluster`, `replicationFactor`, `nodes` (each with its facts,
    /// `health` and, where it answered, `replicas`), and `shards` with their placements, and
    /// `reshards`: the cutting of shards that is under way.
    pub async fn cluster_status(&self) -> Document {
        // Where the catalog has no leader, what this node knows is better than nothing.
        let as_of_now = tokio::time::timeout(ANSWER_TIMEOUT, self.catalog_now()).await;
        let catalog = as_of_now.ok().and_then(Result::ok).unwrap_or_else(|| self.catalog_copy());
        let nodes: Vec<_> = catalog.nodes().filter(|node| node.is_member()).cloned().collect();
        let asked = nodes.iter().map(|node| self.ask_status(node.id));
        let answers = futures::future::join_all(asked).await;
        let held = |node: &NodeRecord| match node.state {
            NodeState::Draining => catalog.replicas_on(node.id).count(),
            _ => 0,
        };
        let answered = nodes.iter().zip(answers);
        let described = answered.map(|(node, answer)| Bson::Document(described(node, held(node), answer)));
        doc! {
            "cluster": &catalog.cluster().name,
            "replicationFactor": i64::from(catalog.cluster().replication_factor),
            "answeredBy": i64::from(self.node.get()),
            "nodes": described.collect::<Vec<_>>(),
            "shards": shards(&catalog),
            "reshards": reshards(&catalog),
        }
    }

    async fn ask_status(&self, node: NodeId) -> Result<Document, String> {
        if node == self.node {
            return Ok(self.node_status().await);
        }
        match self.peers.call(node, PeerRequest::Status, ANSWER_TIMEOUT).await {
            Ok(PeerReply::Status(status)) => Ok(status),
            Ok(_) => Err("it answered something else".to_owned()),
            Err(PeerFailure::Unreachable(reason)) => Err(reason),
            Err(PeerFailure::Refused { error, .. }) => Err(error.message),
        }
    }

    /// Replicas whose state is on its way to this node.
    fn receiving(&self) -> Vec<Bson> {
        let receiving = self.host.receiving().into_iter();
        let described = receiving.map(|(shard, replica, bytes)| {
            doc! { "shard": number(shard.get()), "replica": number(replica.get()), "bytes": number(bytes) }
        });
        described.map(Bson::Document).collect()
    }

    /// What `server` says of the process, with a document for each replica of this node: shard, collection, role, term, how
    /// far its log is committed and applied, and on a primary how far each of the others is; and `receiving`.
    pub(crate) async fn node_status(&self) -> Document {
        let catalog = self.catalog_copy();
        let mut replicas = vec![Bson::Document(replica_status(&self.catalog_replica(), None).await)];
        for replica in self.host.shards() {
            let collection =
                catalog.placement(replica.shard()).map(|(record, _)| record.namespace.to_string());
            let mut status = replica_status(&replica, collection).await;
            if let Some(held) = held(&replica).await {
                status.extend(held);
            }
            replicas.push(Bson::Document(status));
        }
        let mut status = (self.describe)();
        status.insert("replicas", replicas);
        status.insert("receiving", self.receiving());
        status
    }
}

/// `held`: the replicas that a node which is being emptied still has.
fn described(node: &NodeRecord, held: usize, answer: Result<Document, String>) -> Document {
    let mut facts = node_facts(node, held);
    match answer {
        Ok(status) => {
            facts.insert("health", "up");
            facts.extend(status);
        }
        Err(reason) => {
            facts.insert("health", "down");
            facts.insert("reason", reason);
        }
    }
    facts
}

fn node_facts(node: &NodeRecord, held: usize) -> Document {
    let labels: Document =
        node.facts.labels.iter().map(|(name, value)| (name.clone(), Bson::from(value.as_str()))).collect();
    doc! {
        "node": i64::from(node.id.get()),
        "name": &node.facts.name,
        "listen": &node.facts.listen,
        "peer": &node.facts.peer,
        "storage": node.facts.storage,
        "draining": node.state == NodeState::Draining,
        "drainTotal": i64::from(node.drain_total),
        "drainLeft": held as i64,
        "dead": node.dead,
        "labels": labels,
    }
}

fn shards(catalog: &Catalog) -> Vec<Bson> {
    let placed = |replica: &catalog::ReplicaPlacement| {
        doc! { "replica": number(replica.replica.get()), "node": i64::from(replica.node.get()) }
    };
    let group = |shard: u64, collection: Option<String>, replicas: &[catalog::ReplicaPlacement]| {
        let replicas: Vec<Bson> = replicas.iter().map(placed).map(Bson::Document).collect();
        doc! { "shard": number(shard), "collection": collection, "replicas": replicas }
    };
    let own = group(base::id::CATALOG_SHARD.get(), None, &catalog.cluster().catalog);
    let collections = catalog.active().flat_map(|record| {
        let shards = record.shard_map.shards.iter();
        shards.map(|shard| {
            let (first, last) = (number_of_hash(shard.first_hash()), number_of_hash(shard.last_hash()));
            let mut described = group(shard.shard.get(), Some(record.namespace.to_string()), &shard.replicas);
            described.extend(doc! { "first": first, "last": last, "leaving": shard.leaving.len() as i64 });
            described
        })
    });
    std::iter::once(own).chain(collections).map(Bson::Document).collect()
}

fn reshards(catalog: &Catalog) -> Vec<Bson> {
    let under_way = catalog.active().filter_map(|record| Some((record, record.reshard.as_deref()?)));
    let described = |(record, reshard): (&std::sync::Arc<CollectionRecord>, &Reshard)| {
        let numbers = |shards: &mut dyn Iterator<Item = base::ShardId>| {
            shards.map(|shard| Bson::Int64(number(shard.get()))).collect::<Vec<_>>()
        };
        Bson::Document(doc! {
            "collection": record.namespace.to_string(),
            "phase": match reshard.phase {
                ReshardPhase::Copying => "copying",
                ReshardPhase::Sealing => "sealing",
            },
            "paused": reshard.paused,
            "key": match reshard.key_pattern.is_empty() {
                true => record.shown_key(),
                false => reshard.key_pattern.clone(),
            },
            "sources": numbers(&mut reshard.sources.iter().copied()),
            "targets": numbers(&mut reshard.targets.iter().map(|target| target.shard)),
            "caughtUp": numbers(&mut reshard.caught_up.iter().copied()),
            "complete": numbers(&mut reshard.complete.iter().copied()),
        })
    };
    under_way.map(described).collect()
}

/// How much a replica holds: its documents, and their bytes. `None` for one that ends.
async fn held(replica: &ShardHandle) -> Option<Document> {
    let (view, _) = replica.read_behind().await.ok()?;
    let count = query::execute::collection_count(view.as_ref()).ok()?;
    Some(doc! { "documents": number(count.documents), "bytes": number(count.bytes) })
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
        "staleMs": number(u64::try_from(replica.staleness().as_millis()).unwrap_or(u64::MAX)),
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
