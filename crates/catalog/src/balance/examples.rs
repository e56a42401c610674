//! What the balancer does, by example.

use base::{Code, NodeId, ReplicaId, ShardId};

use super::testing::{Cluster, spread};
use super::{Action, BalancerSettings, ShardLoad};
use crate::placement::for_new_shards;
use crate::{Command, NodeState};

const GIB: u64 = 1 << 30;

fn nodes(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn placed_on(cluster: &Cluster, shard: u64) -> Vec<u32> {
    let shards = cluster.shards();
    let shard = shards.iter().find(|placed| placed.shard == ShardId(shard)).expect("there");
    shard.replicas.iter().map(|placed| placed.node.get()).collect()
}

/// Three nodes with `shards` shards on each of them, and a fourth one that is new.
fn grown(shards: usize) -> Cluster {
    let mut cluster = Cluster::new(3, &[None; 3]).with_shards(&vec![nodes(&[1, 2, 3]); shards]);
    cluster.add_node(3, None);
    cluster
}

#[test]
fn a_new_node_takes_over_from_the_fullest_two_at_a_time() {
    let mut cluster = grown(8);
    let reasons = cluster.reasons();
    assert_eq!(
        reasons.first().map(String::as_str),
        Some("n4 holds no replica and n3 holds 8: shard 100 of shop.things1 moves from n3 to n4")
    );
    let moves = |action: &Action| matches!(action, Action::MoveReplica { to: NodeId(4), .. });
    assert_eq!(cluster.plan().iter().filter(|proposal| moves(&proposal.action)).count(), 2);
    cluster.converge(20, |_, _, _, _| {});
    assert!(cluster.replica_counts().values().all(|count| *count == 6));
    assert_eq!(cluster.primary_counts().into_values().collect::<Vec<_>>(), [2, 2, 2, 2]);
    assert_eq!(cluster.reasons(), Vec::<String>::new());
}

#[test]
fn while_moves_are_under_way_no_others_of_those_nodes_begin() {
    let mut cluster = grown(8);
    let first = cluster.plan();
    first.iter().for_each(|proposal| cluster.carry_out(&proposal.action));
    let moves = |action: &Action| matches!(action, Action::MoveReplica { .. });
    assert!(!cluster.plan().iter().any(|proposal| moves(&proposal.action)));
    cluster.settle();
    assert!(cluster.plan().iter().any(|proposal| moves(&proposal.action)));
}

#[test]
fn a_balancer_that_is_off_still_rebuilds_and_drains() {
    let mut cluster = grown(8);
    cluster.run(&Command::SetBalancer { enabled: false });
    assert_eq!(cluster.reasons(), Vec::<String>::new());
    cluster.run(&Command::DrainNode { node: NodeId(1) });
    assert_eq!(
        cluster.reasons().first().map(String::as_str),
        Some("n1 is being drained: shard 100 of shop.things1 moves from n1 to n4")
    );
}

#[test]
fn what_a_node_had_that_is_gone_is_rebuilt_where_it_fits() {
    let mut cluster = grown(2);
    cluster.down.insert(NodeId(3));
    assert_eq!(cluster.reasons(), Vec::<String>::new(), "it may come back");
    cluster.run(&Command::MarkDead { node: NodeId(3) });
    let reason =
        "n3 is gone, and its replicas are rebuilt elsewhere: shard 100 of shop.things1 moves from n3 to n4";
    assert_eq!(cluster.reasons().first().map(String::as_str), Some(reason));
    cluster.converge(5, |_, _, _, _| {});
    assert_eq!(placed_on(&cluster, 100), [1, 2, 4]);
    cluster.run(&Command::MarkAlive { node: NodeId(3) });
    cluster.down.clear();
    cluster.converge(5, |_, _, _, _| {});
    assert!(spread(&cluster.replica_counts()) <= 1);
}

#[test]
fn a_successor_that_dies_on_its_way_gets_a_successor_itself() {
    let mut cluster = grown(1);
    cluster.add_node(3, None);
    let shard = ShardId(100);
    cluster.run(&Command::MoveReplica { shard, from: NodeId(3), to: NodeId(4), cancels_seen: 0 });
    let other = Command::MoveReplica { shard, from: NodeId(2), to: NodeId(5), cancels_seen: 0 };
    assert_eq!(cluster.refusal(&other).code, Code::CONFLICTING_OPERATION_IN_PROGRESS);
    cluster.run(&Command::MarkDead { node: NodeId(4) });
    let actions: Vec<_> = cluster.plan().into_iter().map(|proposal| proposal.action).collect();
    assert_eq!(actions, [Action::MoveReplica { shard, from: NodeId(4), to: NodeId(5) }]);
    cluster.carry_out(&actions[0]);
    let leaving: Vec<_> = cluster.shards()[0].leaving.iter().map(|placed| placed.node.get()).collect();
    assert_eq!(leaving, [3, 4]);
}

#[test]
fn a_move_that_is_called_off_leaves_the_replica_where_it_was() {
    let mut cluster = grown(1);
    let shard = ShardId(100);
    let replicas = cluster.shards()[0].replicas.clone();
    let cancel = Command::CancelMove { shard, replica: replicas[2].replica, cancels_seen: 0 };
    cluster.run(&cancel);
    assert_eq!(cluster.shards()[0].replicas, replicas, "there was nothing to call off");
    let begin = Command::MoveReplica { shard, from: NodeId(3), to: NodeId(4), cancels_seen: 0 };
    cluster.run(&begin);
    cluster.run(&cancel);
    cluster.run(&cancel);
    assert_eq!(cluster.shards()[0].replicas, replicas);
    let leaving: Vec<_> = cluster.shards()[0].leaving.iter().map(|placed| placed.node.get()).collect();
    assert_eq!(leaving, [4]);
    let taker = cluster.shards()[0].leaving[0].replica;
    let taken_back = Command::CancelMove { shard, replica: taker, cancels_seen: 1 };
    assert_eq!(
        cluster.refusal(&taken_back).code,
        Code::ILLEGAL_OPERATION,
        "it takes nobody's place any more"
    );
    cluster.settle();
    assert_eq!(placed_on(&cluster, 100), [1, 2, 3]);
    assert!(cluster.shards()[0].leaving.is_empty());
    // What comes late was meant for the move that was called off.
    assert_eq!(cluster.refusal(&begin).code, Code::WRITE_CONFLICT);
    cluster.run(&Command::MoveReplica { shard, from: NodeId(3), to: NodeId(4), cancels_seen: 1 });
    assert_eq!(cluster.refusal(&cancel).code, Code::WRITE_CONFLICT);
    cluster.run(&Command::ReplicaLeft { shard, replica: replicas[2].replica, cancels_seen: 0 });
    assert_eq!(cluster.shards()[0].leaving.len(), 1, "it has joined again since");
    cluster.settle();
    assert_eq!(placed_on(&cluster, 100), [1, 2, 4]);
}

#[test]
fn a_move_is_called_off_although_its_target_has_changed_but_not_to_a_node_that_is_drained() {
    let mut cluster = grown(1);
    cluster.add_node(3, None);
    let (shard, replicas) = (ShardId(100), cluster.shards()[0].replicas.clone());
    cluster.run(&Command::MoveReplica { shard, from: NodeId(3), to: NodeId(4), cancels_seen: 0 });
    cluster.run(&Command::MarkDead { node: NodeId(4) });
    cluster.run(&Command::MoveReplica { shard, from: NodeId(4), to: NodeId(5), cancels_seen: 0 });
    let cancel = Command::CancelMove { shard, replica: replicas[2].replica, cancels_seen: 0 };
    cluster.run(&Command::DrainNode { node: NodeId(3) });
    assert_eq!(cluster.refusal(&cancel).message, "n3 gets no replica: it is being drained");
    cluster.run(&Command::CancelDrain { node: NodeId(3) });
    cluster.run(&cancel);
    assert_eq!(cluster.shards()[0].replicas, replicas);
    cluster.settle();
    assert_eq!(
        cluster.refusal(&Command::CancelMove { shard, replica: ReplicaId(99), cancels_seen: 1 }).code,
        Code::ILLEGAL_OPERATION
    );
}

#[test]
fn replicas_in_one_zone_part_and_new_ones_never_meet() {
    let zones = [Some("a"), Some("a"), Some("b"), Some("b"), Some("c")];
    let mut cluster = Cluster::new(3, &zones).with_shards(&[nodes(&[1, 2, 3])]);
    let reason = "2 replicas of it are in one zone, and n5 is in another: shard 100 of shop.things1 moves from n2 to n5";
    assert_eq!(cluster.reasons().first().map(String::as_str), Some(reason));
    cluster.converge(5, |_, _, _, _| {});
    assert_eq!(placed_on(&cluster, 100), [1, 5, 3]);
    for shard in for_new_shards(&cluster.catalog, 20) {
        let zone = |node: &NodeId| zones[node.get() as usize - 1];
        let zones: std::collections::BTreeSet<_> = shard.iter().map(zone).collect();
        assert_eq!(zones.len(), 3, "{shard:?}");
    }
}

#[test]
fn with_fewer_zones_than_replicas_two_share_one() {
    let zones = [Some("a"), Some("a"), Some("b"), Some("b")];
    let cluster = Cluster::new(3, &zones).with_shards(&[nodes(&[1, 2, 3])]);
    assert_eq!(cluster.reasons(), Vec::<String>::new());
}

#[test]
fn primaries_are_handed_over_also_by_way_of_a_third_node() {
    let shards = [nodes(&[1, 2]), nodes(&[1, 2]), nodes(&[2, 3]), nodes(&[3, 2])];
    let mut cluster = Cluster::new(2, &[None; 3]).with_shards(&shards);
    cluster.loads.values_mut().for_each(|load| load.bytes = 1);
    cluster.loads.get_mut(&ShardId(103)).expect("there").primary = Some(NodeId(2));
    assert_eq!(cluster.primary_counts().into_values().collect::<Vec<_>>(), [2, 2, 0]);
    cluster.converge(5, |_, _, _, _| {});
    assert_eq!(spread(&cluster.primary_counts()), 1);
}

#[test]
fn a_large_shard_is_exchanged_for_a_small_one_where_the_numbers_are_even() {
    let shards = [nodes(&[1]), nodes(&[1]), nodes(&[2]), nodes(&[2])];
    let mut cluster = Cluster::new(1, &[None; 2]).with_shards(&shards);
    for (load, bytes) in cluster.loads.values_mut().zip([GIB - 1, GIB - 1, 1000, 1000]) {
        load.bytes = bytes;
    }
    let reasons = cluster.reasons();
    assert_eq!(
        reasons,
        [
            "n1 holds 2147481646 bytes more than n2: shard 100 of shop.things1 moves from n1 to n2",
            "n1 holds 2147481646 bytes more than n2, and gets a smaller shard for a larger one: \
             shard 102 of shop.things1 moves from n2 to n1",
        ]
    );
    cluster.converge(5, |_, _, _, _| {});
    assert_eq!(spread(&cluster.replica_counts()), 0);
}

#[test]
fn busy_primaries_are_exchanged_for_idle_ones() {
    let shards = [nodes(&[1, 2]), nodes(&[1, 2]), nodes(&[2, 1]), nodes(&[2, 1])];
    let mut cluster = Cluster::new(2, &[None; 2]).with_shards(&shards);
    for (load, operations) in cluster.loads.values_mut().zip([9_000, 8_000, 10, 20]) {
        load.operations_per_s = operations;
    }
    let reasons = cluster.reasons();
    assert_eq!(
        reasons.first().map(String::as_str),
        Some(
            "n1 has 16970 operations a second more than n2 as a primary: the primary of shard 101 of \
             shop.things1 shall be on n2"
        )
    );
    cluster.converge(5, |_, _, _, _| {});
    assert_eq!(cluster.primary_counts().into_values().collect::<Vec<_>>(), [2, 2]);
}

/// The plan for one collection of shards with these bytes and operations a second.
fn resized(shards: &[(u64, u64)]) -> Vec<Action> {
    let mut cluster = Cluster::new(1, &[None]).with_shards(&vec![nodes(&[1]); shards.len()]);
    for (load, (bytes, operations)) in cluster.loads.values_mut().zip(shards) {
        *load = ShardLoad { bytes: *bytes, operations_per_s: *operations, documents: 100_000, ..*load };
    }
    cluster.plan().into_iter().map(|proposal| proposal.action).collect()
}

#[test]
fn shards_that_are_too_large_or_too_busy_are_split() {
    let split = |shard, into| vec![Action::Split { shard: ShardId(shard), into }];
    assert_eq!(resized(&[(GIB, 0)]), []);
    assert_eq!(resized(&[(GIB + 1, 0)]), split(100, 2));
    assert_eq!(resized(&[(GIB + 1, 0), (5 * GIB, 0)]), split(101, 8), "the worst of a collection first");
    assert_eq!(resized(&[(GIB, 50_000)]), split(100, 4));
}

#[test]
fn neighbours_that_are_small_together_are_merged() {
    let merge = |first| vec![Action::Merge { shards: vec![ShardId(first), ShardId(first + 1)] }];
    let small = GIB / 8 - 1;
    assert_eq!(resized(&[(small, 0), (small, 0)]), merge(100));
    assert_eq!(resized(&[(GIB / 8, 0), (GIB / 8, 0)]), []);
    assert_eq!(resized(&[(small, 0), (GIB, 0), (small, 0), (9, 0)]), merge(102));
    assert_eq!(resized(&[(small, 4_000), (small, 4_000)]), [], "they have too much to do for one");
}

#[test]
fn what_the_user_asked_for_is_not_merged_and_one_resharding_of_a_collection_is_enough() {
    let mut cluster = Cluster::new(1, &[None]).with_shards(&vec![nodes(&[1]); 2]);
    cluster.loads.values_mut().for_each(|load| load.bytes = 1);
    let (shards, collection) = (cluster.shards(), cluster.catalog.active().next().expect("one").id);
    let merge = Action::Merge { shards: shards.iter().map(|shard| shard.shard).collect() };
    let plan = |cluster: &Cluster, resharding: bool| {
        let mut observed = cluster.observed();
        observed.resharding.extend(resharding.then_some(collection));
        super::plan(&cluster.catalog, &observed)
            .into_iter()
            .map(|proposal| proposal.action)
            .collect::<Vec<_>>()
    };
    assert_eq!(plan(&cluster, false), [merge]);
    assert_eq!(plan(&cluster, true), []);
    cluster.ask_for_shards(collection, 2);
    assert_eq!(plan(&cluster, false), []);
}

#[test]
fn a_node_is_drained_only_where_its_replicas_can_go() {
    let cluster = Cluster::new(3, &[None; 3]).with_shards(&[nodes(&[1, 2, 3])]);
    let refusal = cluster.refusal(&Command::DrainNode { node: NodeId(3) });
    assert_eq!(refusal.code, Code::ILLEGAL_OPERATION);
    assert_eq!(
        refusal.message,
        "without n3, 2 nodes would be left for 3 replicas of each shard: add a node first"
    );
    let unknown = cluster.refusal(&Command::DrainNode { node: NodeId(9) });
    assert_eq!(unknown.code, Code::NODE_NOT_FOUND);
    let alone = Cluster::new(3, &[None]).with_shards(&[nodes(&[1])]);
    let refusal = alone.refusal(&Command::DrainNode { node: NodeId(1) });
    assert_eq!(refusal.message, "no node would be left to take over what n1 holds");
}

#[test]
fn a_cluster_with_fewer_nodes_than_the_factor_may_shrink() {
    let mut cluster = Cluster::new(3, &[None; 2]).with_shards(&[nodes(&[1])]);
    cluster.run(&Command::DrainNode { node: NodeId(1) });
    cluster.converge(5, |_, _, _, _| {});
    assert_eq!(placed_on(&cluster, 100), [2]);
    cluster.run(&Command::RemoveNode { node: NodeId(1) });
}

#[test]
fn a_drain_can_be_called_off() {
    let mut cluster = grown(4);
    cluster.run(&Command::DrainNode { node: NodeId(1) });
    cluster.run(&Command::CancelDrain { node: NodeId(1) });
    assert_eq!(cluster.catalog.node(NodeId(1)).expect("there").state, NodeState::InUse);
}

#[test]
fn a_node_is_removed_once_it_is_empty_and_its_name_is_free_then() {
    let mut cluster = grown(2);
    let (node, remove) = (NodeId(1), Command::RemoveNode { node: NodeId(1) });
    let refusal = cluster.refusal(&remove);
    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (Code::ILLEGAL_OPERATION, "n1 holds 2 replicas: drain it, and wait until it has none")
    );
    cluster.run(&Command::DrainNode { node });
    cluster.converge(5, |_, _, _, _| {});
    cluster.run(&remove);
    cluster.run(&remove);
    assert_eq!(cluster.catalog.node(node).expect("remembered").state, NodeState::Removed);
    assert!(cluster.catalog.cluster().catalog.iter().all(|placed| placed.node != node));
    assert_eq!(cluster.catalog.cluster().leaving.len(), 1);
    assert_eq!(cluster.refusal(&Command::CancelDrain { node }).code, Code::NODE_NOT_FOUND);
    let again = Command::JoinNode { token: "again".to_owned(), facts: super::testing::facts("n1", None) };
    cluster.run(&again);
    assert_eq!(cluster.catalog.nodes().filter(|node| node.facts.name == "n1" && node.is_member()).count(), 1);
}

#[test]
fn a_dead_node_is_removed_with_what_it_had_unless_nobody_else_has_that() {
    let mut cluster = grown(2);
    cluster.run(&Command::MarkDead { node: NodeId(1) });
    cluster.run(&Command::RemoveNode { node: NodeId(1) });
    assert_eq!(placed_on(&cluster, 100), [4, 2, 3]);
    let mut cluster = Cluster::new(1, &[None; 2]).with_shards(&[nodes(&[1])]);
    cluster.run(&Command::MarkDead { node: NodeId(1) });
    let refusal = cluster.refusal(&Command::RemoveNode { node: NodeId(1) });
    assert_eq!(refusal.message, "shard s100 of shop.things1 has no other replica than the one on n1");
    // One that was placed in its stead has nothing, and never gets anything without it.
    let (shard, cancels_seen) = (ShardId(100), 0);
    cluster.run(&Command::MoveReplica { shard, from: NodeId(1), to: NodeId(2), cancels_seen });
    assert_eq!(placed_on(&cluster, 100), [2]);
    assert_eq!(cluster.refusal(&Command::RemoveNode { node: NodeId(1) }), refusal);
    // Nor has one on its way out again.
    let mut cluster = Cluster::new(1, &[None; 2]).with_shards(&[nodes(&[1])]);
    let replica = cluster.shards()[0].replicas[0].replica;
    cluster.run(&Command::MoveReplica { shard, from: NodeId(1), to: NodeId(2), cancels_seen });
    cluster.run(&Command::CancelMove { shard, replica, cancels_seen });
    cluster.run(&Command::MarkDead { node: NodeId(1) });
    assert_eq!(cluster.refusal(&Command::RemoveNode { node: NodeId(1) }), refusal);
}

#[test]
fn a_replica_moves_only_to_a_node_that_may_have_it_and_a_repeated_command_does_nothing() {
    let mut cluster = grown(1);
    let shard = ShardId(100);
    let moved =
        |from, to| Command::MoveReplica { shard, from: NodeId(from), to: NodeId(to), cancels_seen: 0 };
    assert_eq!(cluster.refusal(&moved(1, 2)).code, Code::ILLEGAL_OPERATION);
    assert_eq!(cluster.refusal(&moved(1, 9)).code, Code::NODE_NOT_FOUND);
    cluster.run(&moved(1, 4));
    let after = format!("{:?}", cluster.catalog);
    cluster.run(&moved(1, 4));
    assert_eq!(format!("{:?}", cluster.catalog), after);
    assert_eq!(placed_on(&cluster, 100), [4, 2, 3]);
    let back = cluster.refusal(&moved(4, 1));
    assert_eq!(back.message, "shard s100 has a replica on n1 already");
}

#[test]
fn settings_that_make_no_sense_are_refused_and_older_records_have_the_usual_ones() {
    let cluster = grown(1);
    let settings = BalancerSettings { moves_per_node_max: 0, ..BalancerSettings::default() };
    assert_eq!(cluster.refusal(&Command::ChangeBalancerSettings { settings }).code, Code::BAD_VALUE);
    let old = bson::doc! { "name": "shop", "replication_factor": 3, "catalog": [] };
    let read: crate::ClusterRecord = bson::deserialize_from_document(old).expect("reads");
    assert_eq!(read.balancer, BalancerSettings::default());
}
