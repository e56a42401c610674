//! The balancer at work, on the node of the catalog's leader: it looks at every node, marks those that are gone for long, and
//! does what `catalog::balance` proposes.
//!
//! Runs beside the router for as long as the node serves. Always holds: what it does is an entry of the catalog or a
//! handover, each harmless by itself, so that a crash or another leader in between leaves nothing half done; a node is
//! marked as dead only after it has not answered this leader for `node_dead_after_s` on end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, NodeId, Result, ShardId};
use bson::{Bson, Document, doc};
use catalog::balance::{Action, Observed, Proposal, ShardLoad, plan};
use catalog::{Catalog, Command, HashSpan, ReshardPlan};
use query::execute::collection_count;
use replica::ShardHandle;

use crate::Router;
use crate::peer::{PeerReply, PeerRequest};

/// How often the balancer looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How long a node may take to say how its shards are.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Operations of a shorter time say nothing of their number a second.
const MEASURED_MS_MIN: u64 = 500;
/// How much of an older mean of operations a second is left after each look: it forgets within minutes.
const MEAN_KEPT_PERCENT: u64 = 95;

/// What the balancer remembers from look to look. Another leader begins with nothing.
#[derive(Default)]
pub(crate) struct Memory {
    /// Since when nodes have not answered.
    silent: BTreeMap<NodeId, MonoTime>,
    /// For each shard and each node that led it, how many operations that node had counted, when, and their mean a second.
    operations: BTreeMap<(ShardId, NodeId), (u64, MonoTime, u64)>,
}

impl Router {
    /// Looks and acts while this node leads the catalog, until the task is dropped.
    pub async fn keep_balanced(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if !self.is_here(&self.catalog_replica()) {
                *self.balancer.lock() = Memory::default();
                continue;
            }
            if let Err(error) = self.balance_once().await {
                tracing::debug!(%error, "the balancer looks again");
            }
        }
    }

    /// What the balancer would do now and why, the most important first: a sentence for each change. What shards have to do is
    /// known to the catalog's leader alone.
    pub async fn explain_balancer(&self) -> Result<Vec<String>> {
        let catalog = self.catalog_now().await?;
        let (observed, _) = self.observe(&catalog).await;
        Ok(plan(&catalog, &observed).into_iter().map(|proposal| proposal.reason).collect())
    }

    async fn balance_once(&self) -> Result<()> {
        let catalog = self.catalog_copy();
        let (observed, answered) = self.observe(&catalog).await;
        self.note_silent(&catalog, &answered).await?;
        let proposals = plan(&catalog, &observed);
        for Proposal { action, reason } in proposals {
            tracing::info!(%reason, "the balancer acts");
            if let Err(error) = self.act(&catalog, action).await {
                tracing::info!(%error, "the balancer could not do what it proposed");
            }
        }
        Ok(())
    }

    async fn act(&self, catalog: &Catalog, action: Action) -> Result<()> {
        if let Some(command) = action.command(catalog) {
            return self.change_catalog(command).await.map(drop);
        }
        match action {
            Action::TransferPrimary { shard, to } => {
                let Some((_, placement)) = catalog.placement(shard) else { return Ok(()) };
                let here = self.host.shard(shard);
                match self.primary_node(placement, here.as_ref()) {
                    Some(primary) => self.transfer_primary(shard, primary, to).await,
                    None => Ok(()),
                }
            }
            Action::Split { shard, into } => self.begin_reshard(catalog, &[shard], into as usize).await,
            Action::Merge { shards } => self.begin_reshard(catalog, &shards, 1).await,
            Action::PlaceReplica { .. } | Action::MoveReplica { .. } | Action::RetireReplica { .. } => {
                unreachable!("the catalog has commands for these")
            }
        }
    }

    async fn begin_reshard(&self, catalog: &Catalog, sources: &[ShardId], count: usize) -> Result<()> {
        let Some((record, _)) = sources.first().and_then(|shard| catalog.placement(*shard)) else {
            return Ok(());
        };
        let mapped = record.shard_map.shards.iter().filter(|shard| sources.contains(&shard.shard));
        let spans: Vec<HashSpan> = mapped.map(|shard| shard.span()).collect();
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return Ok(()) };
        let targets = HashSpan { first: first.first, last: last.last }.cut(count);
        let plan = ReshardPlan::of_key(record, sources.to_vec(), targets);
        let (collection, reshards_seen) = (record.id, record.reshards);
        self.change_catalog(Command::BeginReshard { collection, reshards_seen, plan }).await.map(drop)
    }

    /// Asks every node how its shards are. Also says which nodes answered: one whose disk is nearly full gets nothing more, as if
    /// it were not there, but is not silent.
    async fn observe(&self, catalog: &Catalog) -> (Observed, BTreeSet<NodeId>) {
        let nodes: Vec<NodeId> =
            catalog.nodes().filter(|node| node.is_member()).map(|node| node.id).collect();
        let answers = futures::future::join_all(nodes.iter().map(|node| self.ask_loads(*node))).await;
        let resharding = catalog.active().filter(|record| record.reshard.is_some()).map(|record| record.id);
        let mut observed = Observed { resharding: resharding.collect(), ..Observed::default() };
        let (mut led, mut answered) = (BTreeSet::new(), BTreeSet::new());
        for (node, answer) in nodes.into_iter().zip(answers) {
            let Some(answer) = answer else { continue };
            answered.insert(node);
            if answer.get_bool("hasRoom").unwrap_or(true) {
                observed.alive.insert(node);
            }
            for (shard, load, is_settled) in loads_of(&answer) {
                let operations_per_s = self.mean_operations(shard, node, load.operations_per_s);
                observed.shards.insert(shard, ShardLoad { operations_per_s, primary: Some(node), ..load });
                led.insert(shard);
                if !is_settled {
                    observed.unsettled.insert(shard);
                }
            }
        }
        // A shard without a primary waits for one.
        let all = catalog.active().flat_map(|record| record.kept_shards()).map(|placement| placement.shard);
        observed.unsettled.extend(all.filter(|shard| !led.contains(shard)));
        self.balancer.lock().operations.retain(|(shard, _), _| led.contains(shard));
        (observed, answered)
    }

    async fn ask_loads(&self, node: NodeId) -> Option<Document> {
        if node == self.node {
            return Some(self.loads_here().await);
        }
        match self.peers.call(node, PeerRequest::Loads, ANSWER_TIMEOUT).await {
            Ok(PeerReply::Status(loads)) => Some(loads),
            _ => None,
        }
    }

    /// The mean of a shard's operations a second on the node that leads it, with what that has counted by now. A node that was
    /// paused and believes that it still leads has counts of its own.
    fn mean_operations(&self, shard: ShardId, node: NodeId, counted: u64) -> u64 {
        let now = self.clock.monotonic();
        let mut memory = self.balancer.lock();
        let Some((before, at, mean)) = memory.operations.get(&(shard, node)).copied() else {
            memory.operations.insert((shard, node), (counted, now, 0));
            return 0;
        };
        let elapsed_ms = u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
        if elapsed_ms < MEASURED_MS_MIN {
            return mean;
        }
        // A node that was restarted counts anew.
        let done = counted.checked_sub(before).unwrap_or(counted);
        let current = done.saturating_mul(1_000) / elapsed_ms;
        let mean = (mean * MEAN_KEPT_PERCENT + current * (100 - MEAN_KEPT_PERCENT)) / 100;
        memory.operations.insert((shard, node), (counted, now, mean));
        mean
    }

    /// Marks nodes that have been silent for too long, and those that are back.
    async fn note_silent(&self, catalog: &Catalog, answered: &BTreeSet<NodeId>) -> Result<()> {
        let now = self.clock.monotonic();
        let limit = Duration::from_secs(u64::from(catalog.cluster().balancer.node_dead_after_s));
        let mut commands = Vec::new();
        {
            let mut memory = self.balancer.lock();
            memory.silent.retain(|node, _| !answered.contains(node));
            for node in catalog.nodes().filter(|node| node.is_member()) {
                let is_silent = !answered.contains(&node.id);
                if !is_silent && node.dead {
                    commands.push(Command::MarkAlive { node: node.id });
                } else if is_silent {
                    let since = *memory.silent.entry(node.id).or_insert(now);
                    if !node.dead && now.since(since) >= limit {
                        commands.push(Command::MarkDead { node: node.id });
                    }
                }
            }
        }
        for command in commands {
            tracing::info!(?command, "a node is gone or is back");
            self.change_catalog(command).await?;
            self.unreconciled.notify_one();
        }
        Ok(())
    }

    /// What this node says of itself and of the shards that it leads: `hasRoom` on its disk, and `shards`, each as
    /// `[id, bytes, documents, operations, settled]`.
    pub(crate) async fn loads_here(&self) -> Document {
        let catalog = self.catalog_copy();
        let mut shards = Vec::new();
        for replica in self.host.shards().into_iter().filter(|replica| self.is_here(replica)) {
            let Some((_, placement)) = catalog.placement(replica.shard()) else { continue };
            let membership = replica.membership();
            let is_settled = !membership.is_joint()
                && placement.leaving.is_empty()
                && placement.replicas.len() == membership.nodes.len()
                && placement.replicas.iter().all(|placed| membership.nodes.contains_key(&placed.replica));
            let Some((documents, bytes)) = self.size_of(&replica).await else { continue };
            shards.push(Bson::Array(vec![
                long(replica.shard().get()),
                long(bytes),
                long(documents),
                long(replica.operations()),
                is_settled.into(),
            ]));
        }
        doc! { "hasRoom": self.check_room().is_ok(), "shards": shards }
    }

    /// Documents and bytes of a replica, also while it has no lease: looking at it wakes nobody.
    async fn size_of(&self, replica: &ShardHandle) -> Option<(u64, u64)> {
        let (view, _) = replica.read_behind().await.ok()?;
        let count = self.step(collection_count(view.as_ref())).ok()?;
        Some((count.documents, count.bytes))
    }
}

/// What an answer says of each shard; what does not read as one is left out.
fn loads_of(answer: &Document) -> Vec<(ShardId, ShardLoad, bool)> {
    let shards = answer.get_array("shards").map(Vec::as_slice).unwrap_or_default();
    let load = |shard: &Bson| {
        let fields = shard.as_array()?;
        let number = |at: usize| fields.get(at)?.as_i64().and_then(|number| u64::try_from(number).ok());
        let load = ShardLoad {
            bytes: number(1)?,
            documents: number(2)?,
            operations_per_s: number(3)?,
            primary: None,
        };
        Some((ShardId(number(0)?), load, fields.get(4)?.as_bool()?))
    };
    shards.iter().filter_map(load).collect()
}

fn long(value: u64) -> Bson {
    Bson::Int64(i64::try_from(value).unwrap_or(i64::MAX))
}
