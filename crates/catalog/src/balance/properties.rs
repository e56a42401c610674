//! What holds for any cluster: the factor is kept, zones are kept apart, everything ends even and then stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use base::{NodeId, ShardId};
use proptest::prelude::*;
use proptest::sample::Index;

use super::testing::{Cluster, spread};
use super::{Action, ShardLoad, plan};
use crate::placement::for_new_shards;
use crate::{Command, NodeRecord, ShardPlacement};

/// Rounds after which a small cluster is even, at the latest: each moves two replicas of a node.
const ROUNDS_MAX: usize = 200;
const ZONES: [&str; 3] = ["east", "west", "north"];

/// How one node begins.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Fine,
    Down,
    Dead,
    Draining,
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        12 => Just(Mood::Fine), 1 => Just(Mood::Down), 1 => Just(Mood::Dead), 1 => Just(Mood::Draining)
    ]
}

/// Nodes with zones, or most of them without, and shards anywhere.
fn cluster(zoned: bool) -> impl Strategy<Value = Cluster> {
    let zone = prop::option::weighted(0.9, prop::sample::select(&ZONES[..]));
    let zone = zone.prop_map(move |zone| zone.filter(|_| zoned));
    let shard = (prop::collection::vec(any::<Index>(), 5), 0..1_u64 << 31, 0..30_000_u64);
    let parts = (1..=5_u32, prop::collection::vec(zone, 1..12), prop::collection::vec(shard, 0..50));
    parts.prop_map(|(factor, zones, shards)| {
        let nodes: Vec<NodeId> = (1..=zones.len() as u32).map(NodeId).collect();
        let placed: Vec<Vec<NodeId>> =
            shards.iter().map(|(choices, ..)| choose(&nodes, choices, factor)).collect();
        let mut cluster = Cluster::new(factor, &zones).with_shards(&placed);
        for (load, (_, bytes, operations)) in cluster.loads.values_mut().zip(&shards) {
            *load = ShardLoad { bytes: *bytes, operations_per_s: *operations, ..*load };
        }
        cluster
    })
}

/// At most `factor` different nodes.
fn choose(nodes: &[NodeId], choices: &[Index], factor: u32) -> Vec<NodeId> {
    let mut chosen: Vec<NodeId> = Vec::new();
    for choice in choices.iter().take(factor as usize) {
        let node = *choice.get(nodes);
        if !chosen.contains(&node) {
            chosen.push(node);
        }
    }
    chosen
}

fn upset(mut cluster: Cluster, moods: &[Mood]) -> Cluster {
    let nodes: Vec<NodeId> = cluster.catalog.nodes().map(|node| node.id).collect();
    for (&node, mood) in nodes.iter().zip(moods) {
        match mood {
            Mood::Fine => {}
            Mood::Down => drop(cluster.down.insert(node)),
            Mood::Dead => cluster.run(&Command::MarkDead { node }),
            Mood::Draining => {
                if cluster.catalog.evaluate(&Command::DrainNode { node }).is_ok() {
                    cluster.run(&Command::DrainNode { node });
                }
            }
        }
    }
    cluster
}

fn live(cluster: &Cluster, shard: &ShardPlacement) -> usize {
    let is_live = |node: NodeId| cluster.catalog.node(node).is_some_and(|node| !node.dead);
    shard.replicas.iter().filter(|placed| is_live(placed.node)).count()
}

fn by_id(cluster: &Cluster) -> BTreeMap<ShardId, ShardPlacement> {
    cluster.shards().into_iter().map(|shard| (shard.shard, shard)).collect()
}

/// Nothing that counts gets lost by one step.
fn check_step(before: &Cluster, after: &Cluster, action: &Action) {
    let wanted = before.catalog.replicas_wanted();
    let (old, new) = (by_id(before), by_id(after));
    for (shard, new) in &new {
        let old = &old[shard];
        assert!(
            live(after, new) >= live(before, old).min(wanted),
            "{action:?} takes {old:?} below its factor"
        );
        let nodes: BTreeSet<NodeId> = new.members().map(|placed| placed.node).collect();
        assert_eq!(nodes.len(), new.members().count(), "two replicas of a shard are on one node: {new:?}");
        if let Action::TransferPrimary { shard, to } = action
            && *shard == new.shard
        {
            assert!(new.replicas.iter().any(|placed| placed.node == *to), "{action:?}: {new:?}");
        }
    }
}

/// What would undo an action.
fn inverse(action: &Action, primaries: &BTreeMap<ShardId, Option<NodeId>>) -> Option<Action> {
    match *action {
        Action::MoveReplica { shard, from, to } => Some(Action::MoveReplica { shard, from: to, to: from }),
        Action::TransferPrimary { shard, .. } => {
            Some(Action::TransferPrimary { shard, to: primaries.get(&shard).copied().flatten()? })
        }
        _ => None,
    }
}

/// Converges, and checks that no round takes back what the one before it did. A role may return where replicas have moved since:
/// it has other places to go to then.
fn converge(cluster: &mut Cluster) -> Vec<Vec<Action>> {
    let (mut undoing, mut doing, mut last) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut has_moved = false;
    cluster.converge(ROUNDS_MAX, |round, before, after, proposal| {
        let action = &proposal.action;
        check_step(before, after, action);
        if round != last {
            (undoing, last) = (std::mem::take(&mut doing), round);
            undoing.retain(|action: &Action| !has_moved || action.command(&before.catalog).is_some());
            has_moved = false;
        }
        has_moved |= action.command(&before.catalog).is_some();
        // For the sake of bytes or operations a shard may return in exchange for a better one.
        let is_exchange = proposal.reason.contains(" more than ");
        assert!(is_exchange || !undoing.contains(action), "{proposal:?} undoes what was done just before");
        let primaries = before.loads.iter().map(|(shard, load)| (*shard, load.primary)).collect();
        doing.extend(inverse(action, &primaries));
    })
}

fn zone_of(node: &NodeRecord) -> String {
    node.facts.labels.get("zone").cloned().unwrap_or_else(|| node.id.to_string())
}

/// Whether a replica of the shard could move to a zone that has two fewer of them.
fn could_be_apart(cluster: &Cluster, shard: &ShardPlacement) -> bool {
    let zone = |node: NodeId| zone_of(cluster.catalog.node(node).expect("known"));
    let mut crowds: BTreeMap<String, usize> = BTreeMap::new();
    shard.replicas.iter().for_each(|placed| *crowds.entry(zone(placed.node)).or_default() += 1);
    let most = crowds.values().max().copied().unwrap_or(0);
    let free = cluster
        .catalog
        .nodes()
        .filter(|node| node.takes_replicas() && shard.replicas.iter().all(|placed| placed.node != node.id));
    free.into_iter().any(|node| crowds.get(&zone_of(node)).copied().unwrap_or(0) + 2 <= most)
}

/// Whether some way of handing roles over leads from a node to one that has two primaries fewer.
fn primaries_could_be_more_even(cluster: &Cluster) -> bool {
    let counts = cluster.primary_counts();
    let shards = by_id(cluster);
    let gives = |from: NodeId, to: NodeId| {
        let led = cluster.loads.iter().filter(|(_, load)| load.primary == Some(from));
        led.into_iter().any(|(shard, _)| shards[shard].replicas.iter().any(|placed| placed.node == to))
    };
    counts.keys().any(|&from| {
        let mut reached = BTreeSet::from([from]);
        loop {
            let next = |to: &&NodeId| !reached.contains(to) && reached.iter().any(|by| gives(*by, **to));
            let Some(&next) = counts.keys().find(next) else { break };
            reached.insert(next);
        }
        reached.iter().any(|to| counts[to] + 2 <= counts[&from])
    })
}

fn moves(rounds: &[Vec<Action>]) -> usize {
    rounds.iter().flatten().filter(|action| matches!(action, Action::MoveReplica { .. })).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_happened_the_factor_is_kept_and_it_ends(
        cluster in cluster(true), moods in prop::collection::vec(mood(), 12),
    ) {
        let mut cluster = upset(cluster, &moods);
        converge(&mut cluster);
        let takes = |node: &NodeRecord| node.takes_replicas() && !cluster.down.contains(&node.id);
        for shard in cluster.shards() {
            let is_free = |node: &&std::sync::Arc<NodeRecord>| {
                takes(node) && shard.replicas.iter().all(|placed| placed.node != node.id)
            };
            if cluster.catalog.nodes().any(|node| is_free(&node)) {
                prop_assert!(shard.replicas.len() >= cluster.catalog.cluster().replication_factor as usize);
                let stays = |node: NodeId| cluster.catalog.node(node).is_some_and(|node| node.takes_replicas());
                prop_assert!(shard.replicas.iter().all(|placed| stays(placed.node)), "{shard:?}");
            }
        }
    }

    #[test]
    fn zones_are_kept_apart_as_far_as_there_are_nodes(cluster in cluster(true)) {
        let mut cluster = cluster;
        converge(&mut cluster);
        for shard in cluster.shards() {
            prop_assert!(!could_be_apart(&cluster, &shard), "{shard:?}");
        }
        prop_assert!(!primaries_could_be_more_even(&cluster));
    }

    #[test]
    fn without_zones_replicas_end_even_within_one(cluster in cluster(false)) {
        let mut cluster = cluster;
        converge(&mut cluster);
        prop_assert!(spread(&cluster.replica_counts()) <= 1, "{:?}", cluster.replica_counts());
        prop_assert!(!primaries_could_be_more_even(&cluster), "{:?}", cluster.primary_counts());
    }

    #[test]
    fn equal_clusters_get_equal_plans(cluster in cluster(true), moods in prop::collection::vec(mood(), 12)) {
        let cluster = upset(cluster, &moods);
        let again = cluster.clone();
        prop_assert_eq!(plan(&cluster.catalog, &cluster.observed()), plan(&again.catalog, &again.observed()));
    }
}

/// Shards made at once on nodes of equal zones, and equally large.
fn new_cluster(factor: u32, nodes: usize, shards: usize, zoned: bool) -> Cluster {
    let zones: Vec<_> = (0..nodes).map(|at| zoned.then(|| ZONES[at % ZONES.len()])).collect();
    let cluster = Cluster::new(factor, &zones);
    let placed = for_new_shards(&cluster.catalog, shards);
    cluster.with_shards(&placed)
}

/// A fifth more than what is needed, and as much as rounding may cost.
fn is_near(moves: usize, needed: usize, nodes: usize) -> bool {
    moves * 5 <= needed * 6 + nodes * 5
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn new_shards_are_even_at_once(
        odd in 0..2_u32, groups in 1..4_usize, shards in 0..100_usize, zoned: bool,
    ) {
        // With as many zones as replicas, or with none.
        let cluster = new_cluster(2 * odd + 1, 3 * groups + 2 * usize::from(!zoned), shards, zoned);
        prop_assert!(spread(&cluster.replica_counts()) <= 1, "{:?}", cluster.replica_counts());
        prop_assert!(spread(&cluster.primary_counts()) <= 2, "{:?}", cluster.primary_counts());
        prop_assert!(cluster.plan().iter().all(|proposal| proposal.action.command(&cluster.catalog).is_none()));
    }

    #[test]
    fn nodes_that_are_added_get_their_share_and_little_else_moves(
        nodes in 3..8_usize, added in 1..5_usize, shards in 1..80_usize,
    ) {
        let mut cluster = new_cluster(3, nodes, shards, false);
        for _ in 0..added {
            cluster.add_node(3, None);
        }
        let rounds = converge(&mut cluster);
        let needed = added * (3 * shards / (nodes + added));
        prop_assert!(is_near(moves(&rounds), needed, nodes + added), "{} for {needed}", moves(&rounds));
        prop_assert!(spread(&cluster.replica_counts()) <= 1);
        prop_assert!(spread(&cluster.primary_counts()) <= 1, "{:?}", cluster.primary_counts());
    }

    #[test]
    fn a_node_that_is_drained_ends_empty_and_little_else_moves(
        nodes in 4..9_usize, shards in 1..80_usize, zoned: bool,
    ) {
        let nodes = if zoned { nodes / 3 * 3 + 3 } else { nodes };
        let mut cluster = new_cluster(3, nodes, shards, zoned);
        let node = NodeId(2);
        let held = cluster.catalog.replicas_on(node).count();
        cluster.run(&Command::DrainNode { node });
        let rounds = converge(&mut cluster);
        prop_assert_eq!(cluster.catalog.replicas_on(node).count(), 0);
        prop_assert!(is_near(moves(&rounds), held, nodes), "{} for {held}", moves(&rounds));
        cluster.run(&Command::RemoveNode { node });
    }

    #[test]
    fn a_plan_keeps_to_the_number_of_moves_of_a_node(cluster in cluster(true), max in 1..4_u32) {
        let mut cluster = cluster;
        let settings = crate::BalancerSettings { moves_per_node_max: max, ..Default::default() };
        cluster.run(&Command::ChangeBalancerSettings { settings });
        let mut moving: BTreeMap<NodeId, u32> = BTreeMap::new();
        for proposal in cluster.plan() {
            match proposal.action {
                Action::MoveReplica { from, to, .. } => {
                    [from, to].into_iter().for_each(|node| *moving.entry(node).or_default() += 1);
                }
                Action::PlaceReplica { node, .. } => *moving.entry(node).or_default() += 1,
                _ => {}
            }
        }
        prop_assert!(moving.values().all(|moves| *moves <= max.max(2)), "{moving:?}");
    }
}
