//! What must hold of a whole cluster at every moment, looked at again and again while a run goes on.
//!
//! Always holds: at each version of a shard map every hash is owned by exactly one shard, and all nodes that have this version
//! have the same one; the version that a process has never goes back; a group that had as many voters as the replication factor
//! says, and was what the catalog had placed, has no fewer voters while there are as many nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::id::CATALOG_SHARD;
use base::{CollectionId, Epoch, LogIndex, NodeId, ShardId, Term};
use catalog::{Catalog, CollectionRecord};

use crate::groups;
use crate::process::Process;
use crate::world::World;

/// How often everything is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(40);

/// Shards with what they own: their first and last hash.
type Owned = Vec<(ShardId, u64, u64)>;

/// What was seen so far.
#[derive(Default)]
pub(super) struct Watch {
    maps: BTreeMap<(CollectionId, Epoch), Owned>,
    newest: BTreeMap<(NodeId, u64, CollectionId), Epoch>,
    /// Groups that have had all their voters, with how many these were, and what their leader had committed when they had, in the
    /// newest such term.
    complete: BTreeMap<ShardId, (Term, LogIndex, usize)>,
    /// Nodes that were taken out of use.
    taken_out: BTreeSet<NodeId>,
    /// What was applied of the catalog that said something new of that last.
    taken_out_at: Option<LogIndex>,
}

impl Watch {
    /// Looks until the future is dropped.
    pub(super) async fn keep_watching(&mut self, world: &Arc<World>) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            for (node, process) in world.processes() {
                self.look(world, node, &process);
            }
        }
    }

    fn look(&mut self, world: &World, node: NodeId, process: &Process) {
        let Some(catalog) = process.host.catalog_state() else { return };
        for record in catalog.collections() {
            if let Err(what) = self.look_at_map(node, process.boot, record) {
                world.violation(format!("{node}: {what}"));
            }
        }
        self.look_at_voters(world, &catalog, process);
    }

    fn look_at_map(&mut self, node: NodeId, boot: u64, record: &CollectionRecord) -> Result<(), String> {
        let (id, epoch) = (record.id, record.shard_map.epoch);
        let shards = &record.shard_map.shards;
        let owned: Owned =
            shards.iter().map(|shard| (shard.shard, shard.first_hash(), shard.last_hash())).collect();
        let newest = self.newest.entry((node, boot, id)).or_insert(epoch);
        if epoch < *newest {
            return Err(format!("version {epoch} of the shard map of {id} came after {newest}"));
        }
        *newest = epoch;
        let known = self.maps.entry((id, epoch)).or_insert_with(|| owned.clone());
        if *known != owned {
            return Err(format!("version {epoch} of the shard map of {id} is {owned:?}, and was {known:?}"));
        }
        let mut next = Some(0);
        for (shard, first, last) in &owned {
            if next != Some(*first) || last < first {
                return Err(format!("{shard} of {id} begins at {first}, not at {next:?}: {owned:?}"));
            }
            next = last.checked_add(1);
        }
        match next {
            None => Ok(()),
            Some(hash) => Err(format!("no shard of {id} owns {hash}: {owned:?}")),
        }
    }

    fn look_at_voters(&mut self, world: &World, catalog: &Catalog, process: &Process) {
        let wanted = catalog.replicas_wanted();
        let factor = usize::try_from(catalog.cluster().replication_factor).unwrap_or(usize::MAX);
        let Some(applied) = groups::Member::on(&process.host, CATALOG_SHARD).map(|copy| copy.applied())
        else {
            return;
        };
        // An older copy of the catalog says nothing of what is wanted since.
        if Some(applied) < self.taken_out_at {
            return;
        }
        let taken_out: BTreeSet<NodeId> =
            catalog.nodes().filter(|node| !node.is_in_use()).map(|node| node.id).collect();
        // Whoever takes nodes away until there are fewer wants fewer replicas, perhaps only until the next one joins.
        if wanted < factor || !taken_out.is_subset(&self.taken_out) {
            self.complete.clear();
            self.taken_out_at = Some(applied);
        }
        self.taken_out.extend(taken_out);
        if wanted < factor {
            return;
        }
        for status in process.host.replicas().into_iter().filter(|status| status.is_leader) {
            let shard = status.name.shard;
            let Some(member) = groups::Member::on(&process.host, shard) else { continue };
            let membership = member.membership();
            let joint = membership.is_joint().then_some(membership.voters_outgoing.len());
            let voters = membership.voters.len().min(joint.unwrap_or(usize::MAX));
            let (term, commit, floor) = self.complete.entry(shard).or_insert((Term(0), LogIndex(0), 0));
            // One that stands still may not have heard yet that others have elected another, and what that one has changed; one that
            // was just elected may not know yet how much of what it has is committed.
            if status.term < *term || status.commit < *commit {
                continue;
            }
            if voters < (*floor).min(wanted) {
                world.violation(format!("{shard} had {floor} voters, and has {membership:?}"));
            }
            // A group on its way does not count: a change that was decided while fewer replicas were wanted may come to its
            // end later.
            let placed = catalog.placed(shard).unwrap_or_default().iter().map(|placed| placed.replica);
            let is_settled = placed.collect::<BTreeSet<_>>() == membership.nodes.keys().copied().collect();
            if is_settled && !voters.is_multiple_of(2) {
                (*term, *commit, *floor) = (status.term, status.commit, (*floor).max(voters));
            }
        }
    }
}
