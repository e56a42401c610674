//! The two Raft groups of a simulated cluster, a shard and the catalog, as whoever administers them sees them.
//!
//! Always holds: every replica of a group has an id of its own, which the ledger knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::id::CATALOG_SHARD;
use base::{CollectionId, Epoch, IndexId, LogIndex, NodeId, ReplicaId, ShardId};
use catalog::{Catalog, Command, IndexSpec, KeyDirection, NodeFacts};
use query::state::{IndexStatus, ShardIndex, ShardState};
use replica::{CatalogHandle, Host, MemberChange, Membership, ReplicaStatus, ShardHandle};
use storage::KvBatch;

use crate::client;
use crate::world::World;

/// The shard that clients write to.
pub(crate) const SHARD: ShardId = ShardId(100);
/// The shard map's version.
pub(crate) const EPOCH: Epoch = Epoch(1);
/// Both groups.
pub(crate) const GROUPS: [ShardId; 2] = [SHARD, CATALOG_SHARD];
/// How long an administrator waits for an answer, in milliseconds.
const PATIENCE_MS: u64 = 3_000;

/// The replica of a group that a founder begins with.
pub(crate) fn first_replica(shard: ShardId, node: NodeId) -> ReplicaId {
    ReplicaId(shard.get() * 2 + u64::from(node.get()))
}

/// Who belongs to a group at first.
pub(crate) fn first_members(world: &World, shard: ShardId) -> Membership {
    Membership::of_voters(world.founders.iter().map(|node| (first_replica(shard, *node), *node)))
}

/// The ledger learns of the first replicas.
pub(crate) fn register_founders(world: &World) {
    for shard in GROUPS {
        for node in &world.founders {
            world.ledger.lock().register(first_replica(shard, *node), shard);
        }
    }
}

/// Creates the first replicas of a founder, unless they are there.
pub(crate) async fn found(host: &Host, world: &World, node: NodeId) -> base::Result<()> {
    let replica = |shard| first_replica(shard, node);
    let catalog = first_members(world, CATALOG_SHARD);
    host.create_catalog(replica(CATALOG_SHARD), &catalog, initial_batch(CATALOG_SHARD)).await?;
    let shard = first_members(world, SHARD);
    host.create_replica(SHARD, replica(SHARD), &shard, initial_batch(SHARD)).await?;
    Ok(())
}

/// The membership of a group that only one node has.
pub(crate) fn sole_voter(replica: ReplicaId, node: NodeId) -> Membership {
    Membership::sole_voter(replica, node)
}

/// The first state of either group.
pub(crate) fn initial_batch(shard: ShardId) -> KvBatch {
    match shard {
        CATALOG_SHARD => initial_catalog(),
        _ => initial_state().initial_batch(),
    }
}

/// The catalog's first state: a cluster with a node that can hold data.
fn initial_catalog() -> KvBatch {
    let node = NodeFacts {
        name: "n1".to_owned(),
        listen: "127.0.0.1:27017".to_owned(),
        peer: "127.0.0.1:27117".to_owned(),
        storage: true,
        labels: BTreeMap::new(),
    };
    let found = Command::Found { name: "sim".to_owned(), replication_factor: 3, node };
    Catalog::default().evaluate(&found).expect("an empty catalog can be founded").0
}

/// The shard's first state: an index that documents share values in, and a unique one.
pub(crate) fn initial_state() -> ShardState {
    let index = |id: u32, field: &str, unique: bool| {
        let spec = IndexSpec {
            id: IndexId(id),
            name: format!("{field}_1"),
            key: vec![(field.to_owned(), KeyDirection::Ascending)],
            unique,
        };
        ShardIndex::new(spec, IndexStatus::Ready)
    };
    let mut state = ShardState::new(CollectionId(1), EPOCH);
    state.indexes = vec![index(1, "tag", false), index(2, "seat", true)];
    state
}

/// A replica of either group.
pub(crate) enum Member {
    Shard(ShardHandle),
    Catalog(CatalogHandle),
}

impl Member {
    /// The replica of a group on a host.
    pub(crate) fn on(host: &Host, shard: ShardId) -> Option<Member> {
        match shard {
            CATALOG_SHARD => host.catalog().map(Member::Catalog),
            _ => host.shard(shard).map(Member::Shard),
        }
    }

    pub(crate) fn replica(&self) -> ReplicaId {
        match self {
            Member::Shard(handle) => handle.replica(),
            Member::Catalog(handle) => handle.replica(),
        }
    }

    pub(crate) fn membership(&self) -> Arc<Membership> {
        match self {
            Member::Shard(handle) => handle.membership(),
            Member::Catalog(handle) => handle.membership(),
        }
    }

    pub(crate) fn applied(&self) -> LogIndex {
        match self {
            Member::Shard(handle) => handle.applied_index(),
            Member::Catalog(handle) => handle.applied_index(),
        }
    }

    pub(crate) fn commit(&self) -> LogIndex {
        match self {
            Member::Shard(handle) => handle.commit_index(),
            Member::Catalog(handle) => handle.commit_index(),
        }
    }

    async fn change_membership(&self, changes: Vec<MemberChange>) -> base::Result<LogIndex> {
        match self {
            Member::Shard(handle) => handle.change_membership(handle.membership(), changes).await,
            Member::Catalog(handle) => handle.change_membership(handle.membership(), changes).await,
        }
    }

    async fn transfer_to(&self, replica: ReplicaId) {
        match self {
            Member::Shard(handle) => handle.transfer_to(replica).await,
            Member::Catalog(handle) => handle.transfer_to(replica).await,
        }
    }

    /// Waits until everything that any leader answered so far is applied here.
    async fn catch_up(&self) -> bool {
        match self {
            Member::Shard(handle) => handle.read().await.is_ok(),
            Member::Catalog(handle) => handle.read().await.is_ok(),
        }
    }
}

/// The node of a group's leader, as of the newest term that a running process knows.
pub(crate) fn leader_node(world: &World, shard: ShardId) -> Option<NodeId> {
    let mut found: Vec<(NodeId, ReplicaStatus)> = Vec::new();
    for (node, process) in world.processes() {
        let statuses = process.host.replicas().into_iter();
        found.extend(statuses.filter(|status| status.name.shard == shard).map(|status| (node, status)));
    }
    let leaders = found.into_iter().filter(|(_, status)| status.is_leader);
    leaders.max_by_key(|(_, status)| status.term).map(|(node, _)| node)
}

/// A group's leader, unless there is none right now.
pub(crate) fn leader(world: &World, shard: ShardId) -> Option<Member> {
    let process = world.node(leader_node(world, shard)?).process()?;
    Member::on(&process.host, shard)
}

/// Changes a group's membership, or fails within a few seconds; then nobody knows whether it will happen.
pub(crate) async fn change(world: &World, shard: ShardId, changes: Vec<MemberChange>) -> bool {
    let Some(leader) = leader(world, shard) else { return false };
    world.schedule(&format!("{shard} shall change: {changes:?}"));
    let changing = leader.change_membership(changes);
    let changed = tokio::time::timeout(Duration::from_millis(PATIENCE_MS), changing).await;
    matches!(changed, Ok(Ok(_)))
}

/// Asks a group's leader to hand its role to another replica.
pub(crate) async fn transfer(world: &World, shard: ShardId, to: ReplicaId) {
    let Some(leader) = leader(world, shard) else { return };
    world.schedule(&format!("{} of {shard} shall hand over to {to}", leader.replica()));
    // A paused process takes no orders.
    let _ = tokio::time::timeout(Duration::from_millis(PATIENCE_MS), leader.transfer_to(to)).await;
}

/// A group's membership, once it is certain that no change of it is under way: everything that was proposed before is
/// committed or gone. `None` when that takes too long.
pub(crate) async fn settled_membership(world: &Arc<World>, shard: ShardId) -> Option<Membership> {
    let settled = async {
        client::barrier(world, shard).await;
        let leader = leader(world, shard)?;
        leader.catch_up().await.then(|| Membership::clone(&leader.membership()))
    };
    let settled = tokio::time::timeout(Duration::from_millis(PATIENCE_MS), settled).await;
    settled.ok().flatten().filter(|membership| !membership.is_joint())
}

/// Whether the replica runs on its node and is not far behind the leader.
pub(crate) fn has_caught_up(world: &World, shard: ShardId, node: NodeId, replica: ReplicaId) -> bool {
    let Some(leader) = leader(world, shard) else { return false };
    let present = world.node(node).process().and_then(|process| Member::on(&process.host, shard));
    present.is_some_and(|member| {
        member.replica() == replica && member.applied().get() + 5 >= leader.commit().get()
    })
}
