//! What the catalog's commands change, and what they refuse.

use base::ReshardId;

use super::*;
use crate::{
    Failure, HashSpan, KeyDirection, ReshardOutcome, ReshardPhase, ReshardPlan, ReshardStep, balance,
};

fn namespace() -> Namespace {
    Namespace::new("shop", "orders").expect("valid")
}

/// Another creation than those with another number, by somebody who has seen so many drops.
fn create_after(drops_seen: u64, number: u8) -> Command {
    let (namespace, options) = (namespace(), bson::doc! {});
    Command::CreateCollection { namespace, uuid: [number; 16], options, drops_seen }
}

fn create() -> Command {
    create_after(0, 1)
}

fn facts(name: &str) -> NodeFacts {
    NodeFacts {
        name: name.into(),
        listen: "127.0.0.1:27017".into(),
        peer: "127.0.0.1:27117".into(),
        storage: true,
        labels: BTreeMap::new(),
    }
}

/// A catalog with one node.
fn founded() -> Catalog {
    let mut catalog = Catalog::default();
    let found = Command::Found { name: "shop".into(), replication_factor: 3, node: facts("n1") };
    run(&mut catalog, &found).expect("founded");
    catalog
}

fn run(catalog: &mut Catalog, command: &Command) -> Result<Reply> {
    let (batch, reply) = catalog.evaluate(command)?;
    catalog.apply(&batch).expect("what was evaluated applies");
    Ok(reply)
}

fn index(name: &str, path: &str, unique: bool) -> NewIndex {
    NewIndex { name: name.to_owned(), key: vec![(path.to_owned(), KeyDirection::Ascending)], unique }
}

#[test]
fn a_new_collection_has_one_shard_that_owns_every_hash() {
    let mut catalog = founded();
    run(&mut catalog, &create()).expect("created");
    let record = catalog.find(&namespace()).expect("found");
    for hash in [0, 1, u64::MAX / 2, u64::MAX] {
        assert_eq!(record.shard_map.owner(hash).shard, ShardId(100));
    }
    assert_eq!(run(&mut catalog, &create_after(0, 2)).expect_err("exists").code, Code::NAMESPACE_EXISTS);
}

#[test]
fn a_dropped_name_is_free_at_once_and_its_ids_are_never_used_again() {
    let mut catalog = founded();
    run(&mut catalog, &create()).expect("created");
    run(&mut catalog, &Command::DropCollection { collection: CollectionId(1) }).expect("dropped");
    assert!(catalog.find(&namespace()).is_none());
    run(&mut catalog, &create_after(1, 2)).expect("created again");
    let second = catalog.find(&namespace()).expect("found").clone();
    assert_eq!((second.id, second.shard_map.shards[0].shard), (CollectionId(2), ShardId(101)));
    let gone = Command::ReplicaGone { collection: CollectionId(1), replica: ReplicaId(100) };
    run(&mut catalog, &gone).expect("forgotten");
    assert_eq!(catalog.collections().count(), 1);
    assert!(catalog.find(&namespace()).is_some());
}

#[test]
fn a_node_that_asks_twice_joins_once_and_gets_a_replica_of_the_catalog() {
    let mut catalog = founded();
    let join = Command::JoinNode { token: "t".into(), facts: facts("n2") };
    let first = run(&mut catalog, &join).expect("joined");
    assert_eq!(run(&mut catalog, &join).expect("joined"), first);
    assert_eq!((catalog.nodes().count(), catalog.cluster().catalog.len()), (2, 2));
}

#[test]
fn a_node_that_comes_back_empty_gets_new_replicas_for_those_it_had() {
    let mut catalog = founded();
    for name in ["n2", "n3"] {
        let facts = NodeFacts { peer: name.into(), ..facts(name) };
        run(&mut catalog, &Command::JoinNode { token: name.into(), facts }).expect("joined");
    }
    run(&mut catalog, &create()).expect("created");
    let again = NodeFacts { peer: "n2".into(), ..facts("n2") };
    run(&mut catalog, &Command::JoinNode { token: "again".into(), facts: again }).expect("joined");
    let placed = &catalog.find(&namespace()).expect("there").shard_map.shards[0].replicas;
    let placed: Vec<_> = placed.iter().map(|placed| (placed.node.get(), placed.founder)).collect();
    assert_eq!(placed, [(1, true), (4, false), (3, true)]);
    let nodes: Vec<_> = catalog.cluster().catalog.iter().map(|placed| placed.node.get()).collect();
    assert_eq!(nodes, [1, 3, 4]);
    assert_eq!(catalog.node(NodeId(2)).expect("remembered").replaced_by, Some(NodeId(4)));
    let moved = NodeFacts { peer: "elsewhere".into(), ..facts("n3") };
    let refused = run(&mut catalog, &Command::JoinNode { token: "other".into(), facts: moved });
    assert_eq!(refused.expect_err("refused").code, Code::CONFLICTING_OPERATION_IN_PROGRESS);
}

#[test]
fn a_move_to_a_node_that_comes_back_empty_goes_on_and_can_be_called_off() {
    let mut catalog = founded();
    let join = |catalog: &mut Catalog, name: &str, token: &str| {
        let facts = NodeFacts { peer: name.into(), ..facts(name) };
        run(catalog, &Command::JoinNode { token: token.into(), facts }).expect("joined");
    };
    for name in ["n2", "n3"] {
        join(&mut catalog, name, name);
    }
    run(&mut catalog, &create()).expect("created");
    join(&mut catalog, "n4", "n4");
    let placement =
        |catalog: &Catalog| catalog.find(&namespace()).expect("there").shard_map.shards[0].clone();
    let (shard, before) = (placement(&catalog).shard, placement(&catalog).replicas);
    let (from, to) = (NodeId(2), NodeId(4));
    run(&mut catalog, &Command::MoveReplica { shard, from, to, cancels_seen: 0 }).expect("begun");
    join(&mut catalog, "n4", "again");
    let moving = placement(&catalog);
    let taker = moving.taker_of(&moving.leaving[0]).expect("it moves still");
    assert!(moving.replicas.iter().any(|placed| placed.replica == taker && placed.node == NodeId(5)));
    let replica = moving.leaving[0].replica;
    run(&mut catalog, &Command::CancelMove { shard, replica, cancels_seen: 0 }).expect("called off");
    assert_eq!(placement(&catalog).replicas, before);
}

#[test]
fn shards_get_the_replicas_that_their_cluster_has_nodes_for() {
    let mut catalog = founded();
    run(&mut catalog, &create()).expect("created");
    assert_eq!(balance::repairs(&catalog), []);
    for name in ["n2", "n3", "n4"] {
        run(&mut catalog, &Command::JoinNode { token: name.into(), facts: facts(name) }).expect("joined");
        while let Some(repair) = balance::repairs(&catalog).first() {
            let place = repair.action.command(&catalog).expect("the catalog places it");
            run(&mut catalog, &place).expect("placed");
        }
    }
    let record = catalog.find(&namespace()).expect("there").clone();
    let nodes: Vec<_> =
        record.shard_map.shards[0].replicas.iter().map(|replica| replica.node.get()).collect();
    assert_eq!(nodes, [1, 2, 3]);
    assert_eq!(placement::for_new_shard(&catalog), [NodeId(4), NodeId(1), NodeId(2)]);
}

#[test]
fn a_cluster_is_founded_once() {
    let mut catalog = founded();
    run(&mut catalog, &create()).expect("created");
    let before = format!("{catalog:?}");
    let again = Command::Found { name: "other".into(), replication_factor: 1, node: facts("n9") };
    assert!(matches!(run(&mut catalog, &again), Ok(Reply::Node(node)) if node.facts.name == "n1"));
    assert_eq!(format!("{catalog:?}"), before);
}

#[test]
fn a_repeat_that_comes_late_does_not_bring_back_what_was_dropped_meanwhile() {
    let mut catalog = founded();
    run(&mut catalog, &create()).expect("created");
    let add = Command::AddIndexes {
        collection: CollectionId(1),
        drops_seen: 0,
        indexes: vec![index("a_1", "a", false)],
    };
    run(&mut catalog, &add).expect("added");
    let drop = Command::DropIndexes { collection: CollectionId(1), indexes: vec![IndexId(1)] };
    run(&mut catalog, &drop).expect("dropped");
    assert_eq!(run(&mut catalog, &add).expect_err("late").code, Code::WRITE_CONFLICT);
    run(&mut catalog, &Command::DropCollection { collection: CollectionId(1) }).expect("dropped");
    assert_eq!(run(&mut catalog, &create()).expect_err("late").code, Code::WRITE_CONFLICT);
    run(&mut catalog, &create_after(1, 3)).expect("created by somebody who has seen the drop");
}

#[test]
fn an_index_that_exists_is_left_alone_and_one_that_differs_is_refused() {
    let mut catalog = founded();
    run(&mut catalog, &create()).expect("created");
    let add =
        |index| Command::AddIndexes { collection: CollectionId(1), drops_seen: 0, indexes: vec![index] };
    let reply = run(&mut catalog, &add(index("a_1", "a", false))).expect("added");
    assert_eq!(reply, Reply::Indexes(vec![IndexId(1)]));
    assert_eq!(run(&mut catalog, &add(index("a_1", "a", false))), Ok(Reply::Indexes(vec![])));
    assert_eq!(run(&mut catalog, &add(index("_id_", "_id", false))), Ok(Reply::Indexes(vec![])));
    let code = |catalog: &mut Catalog, index| run(catalog, &add(index)).expect_err("refused").code;
    assert_eq!(code(&mut catalog, index("other", "a", false)), Code::INDEX_OPTIONS_CONFLICT);
    assert_eq!(code(&mut catalog, index("a_1", "a", true)), Code::INDEX_OPTIONS_CONFLICT);
    assert_eq!(code(&mut catalog, index("a_1", "b", false)), Code::INDEX_KEY_SPECS_CONFLICT);
}

#[test]
fn a_catalog_loaded_from_its_keys_equals_the_one_that_wrote_them() {
    let mut catalog = Catalog::default();
    let mut stored = BTreeMap::new();
    let commands = [
        Command::Found { name: "shop".into(), replication_factor: 3, node: facts("n1") },
        create(),
        Command::AddIndexes {
            collection: CollectionId(1),
            drops_seen: 0,
            indexes: vec![index("a_1", "a", true)],
        },
        Command::IndexReady { collection: CollectionId(1), index: IndexId(1), shard: ShardId(100) },
        Command::JoinNode { token: "t".into(), facts: facts("n2") },
        Command::RenewNode { node: NodeId(2), facts: facts("n3") },
        Command::DropIndexes { collection: CollectionId(1), indexes: vec![IndexId(1)] },
        Command::ForgetIndexes { collection: CollectionId(1), indexes: vec![IndexId(1)] },
    ];
    for command in &commands {
        let (batch, _) = catalog.evaluate(command).expect("valid");
        catalog.apply(&batch).expect("applies");
        stored.extend(batch.ops.iter().filter_map(|op| Some((op.key().clone(), op.value()?.clone()))));
    }
    let loaded = Catalog::load(stored.into_iter().map(Ok)).expect("loads");
    assert_eq!(format!("{loaded:?}"), format!("{catalog:?}"));
}

#[test]
fn a_record_with_a_flipped_bit_is_a_fault() {
    let (batch, _) = founded().evaluate(&create()).expect("valid");
    let op = batch.ops.last().expect("the collection");
    let mut value = op.value().expect("a put").to_vec();
    *value.last_mut().expect("not empty") ^= 1;
    let fault = Catalog::load([Ok((op.key().clone(), value.into()))].into_iter()).expect_err("corrupt");
    assert_eq!(fault.kind, storage::fault::FaultKind::Corruption);
}

fn three_nodes() -> Catalog {
    let mut catalog = founded();
    for name in ["n2", "n3"] {
        let facts = NodeFacts { peer: name.into(), ..facts(name) };
        run(&mut catalog, &Command::JoinNode { token: name.into(), facts }).expect("joined");
    }
    run(&mut catalog, &create()).expect("created");
    catalog
}

fn record(catalog: &Catalog) -> CollectionRecord {
    catalog.find(&namespace()).expect("there").as_ref().clone()
}

/// Asks for `count` shards in the place of `sources`.
fn begin(catalog: &mut Catalog, sources: &[u64], count: usize) -> Result<Reply> {
    let record = record(catalog);
    let sources: Vec<ShardId> = sources.iter().copied().map(ShardId).collect();
    let spans = record.shard_map.shards.iter().filter(|shard| sources.contains(&shard.shard));
    let spans: Vec<HashSpan> = spans.map(ShardPlacement::span).collect();
    let whole = HashSpan { first: spans[0].first, last: spans[spans.len() - 1].last };
    let plan = ReshardPlan::of_key(&record, sources, whole.cut(count));
    let begin = Command::BeginReshard { collection: record.id, reshards_seen: record.reshards, plan };
    run(catalog, &begin)
}

fn step(catalog: &mut Catalog, step: ReshardStep) {
    let record = record(catalog);
    let reshard = ReshardId(record.reshards);
    run(catalog, &Command::StepReshard { collection: record.id, reshard, step }).expect("stepped");
}

/// Takes a reshard of these sources to its end.
fn finish(catalog: &mut Catalog, sources: &[u64]) {
    for source in sources.iter().copied().map(ShardId) {
        step(catalog, ReshardStep::CaughtUp { source });
    }
    for source in sources.iter().copied().map(ShardId) {
        step(catalog, ReshardStep::Complete { source });
    }
}

fn shards(catalog: &Catalog) -> Vec<u64> {
    record(catalog).shard_map.shards.iter().map(|shard| shard.shard.get()).collect()
}

#[test]
fn a_split_puts_the_targets_in_the_place_of_the_source_once_that_is_copied() {
    let mut catalog = three_nodes();
    assert_eq!(begin(&mut catalog, &[100], 3), Ok(Reply::Reshard(ReshardId(1))));
    assert_eq!(
        begin(&mut catalog, &[100], 3).expect_err("one at a time").code,
        Code::CONFLICTING_OPERATION_IN_PROGRESS
    );
    let targets = record(&catalog).reshard.expect("under way").targets;
    let firsts: Vec<u32> = targets.iter().map(|target| target.replicas[0].node.get()).collect();
    assert_eq!(firsts, [2, 3, 1], "each node leads one");
    step(&mut catalog, ReshardStep::Complete { source: ShardId(100) });
    assert_eq!(shards(&catalog), [100], "it cannot be complete before it is sealed");
    finish(&mut catalog, &[100]);
    assert_eq!(shards(&catalog), [101, 102, 103]);
    let now = record(&catalog);
    assert_eq!((now.shard_map.epoch, now.shard_map.shards[0].since), (Epoch(2), Epoch(2)));
    assert_eq!(now.shard_map.owner(u64::MAX / 2).shard, ShardId(102));
    assert_eq!(now.retired.len(), 1);
    assert!(catalog.placement(ShardId(100)).is_some() && catalog.kept(ShardId(100)).is_none());
    assert_eq!(catalog.placement(ShardId(100)).expect("being removed").1.span(), HashSpan::new(0, u64::MAX));
    for placed in now.retired[0].replicas.clone() {
        run(&mut catalog, &Command::ReplicaGone { collection: now.id, replica: placed.replica })
            .expect("gone");
    }
    assert!(record(&catalog).retired.is_empty() && catalog.placement(ShardId(100)).is_none());
}

#[test]
fn neighbours_merge_and_others_do_not() {
    let mut catalog = three_nodes();
    begin(&mut catalog, &[100], 4).expect("begun");
    finish(&mut catalog, &[100]);
    assert_eq!(begin(&mut catalog, &[101, 103], 1).expect_err("refused").code, Code::CANNOT_SPLIT);
    begin(&mut catalog, &[102, 103], 1).expect("begun");
    step(&mut catalog, ReshardStep::CaughtUp { source: ShardId(103) });
    assert_eq!(record(&catalog).reshard.expect("under way").phase, ReshardPhase::Copying);
    finish(&mut catalog, &[103, 102]);
    assert_eq!(shards(&catalog), [101, 105, 104]);
}

#[test]
fn a_reshard_that_is_given_up_leaves_the_old_shards_in_charge() {
    let mut catalog = three_nodes();
    begin(&mut catalog, &[100], 2).expect("begun");
    step(&mut catalog, ReshardStep::CaughtUp { source: ShardId(100) });
    let failure = Failure::new(&Error::new(Code::INTERRUPTED, "somebody said so"));
    step(&mut catalog, ReshardStep::Abort { failure: failure.clone() });
    let now = record(&catalog);
    assert_eq!((shards(&catalog), now.retired.len()), (vec![100], 2));
    assert_eq!(now.last_reshard, Some(ReshardOutcome { id: ReshardId(1), failure: Some(failure), token: 0 }));
    step(&mut catalog, ReshardStep::Complete { source: ShardId(100) });
    assert_eq!(shards(&catalog), [100], "what comes late does nothing");
}

#[test]
fn a_paused_reshard_seals_nothing_until_it_has_caught_up_again() {
    let mut catalog = three_nodes();
    begin(&mut catalog, &[100], 2).expect("begun");
    step(&mut catalog, ReshardStep::Pause { paused: true });
    step(&mut catalog, ReshardStep::CaughtUp { source: ShardId(100) });
    step(&mut catalog, ReshardStep::Pause { paused: false });
    assert_eq!(record(&catalog).reshard.expect("under way").phase, ReshardPhase::Copying);
    finish(&mut catalog, &[100]);
    assert_eq!(shards(&catalog), [101, 102]);
}

#[test]
fn an_index_that_shards_could_not_keep_unique_is_refused_either_way() {
    let mut catalog = three_nodes();
    let add =
        |index| Command::AddIndexes { collection: CollectionId(1), drops_seen: 0, indexes: vec![index] };
    run(&mut catalog, &add(index("a_1", "a", true))).expect("one shard keeps it");
    assert_eq!(
        begin(&mut catalog, &[100], 2).expect_err("building").code,
        Code::CONFLICTING_OPERATION_IN_PROGRESS
    );
    let ready = Command::IndexReady { collection: CollectionId(1), index: IndexId(1), shard: ShardId(100) };
    run(&mut catalog, &ready).expect("ready");
    assert_eq!(begin(&mut catalog, &[100], 2).expect_err("unique").code, Code::INVALID_OPTIONS);
    assert_eq!(begin(&mut catalog, &[100], 1), Ok(Reply::Done), "one shard is no matter, and nothing to do");
    let drop = Command::DropIndexes { collection: CollectionId(1), indexes: vec![IndexId(1)] };
    run(&mut catalog, &drop).expect("dropped");
    begin(&mut catalog, &[100], 2).expect("begun");
    finish(&mut catalog, &[100]);
    let add =
        |index| Command::AddIndexes { collection: CollectionId(1), drops_seen: 1, indexes: vec![index] };
    let refused = run(&mut catalog, &add(index("b_1", "b", true))).expect_err("refused");
    assert_eq!(refused.code, Code::CANNOT_CREATE_INDEX);
    let key = vec![("b".to_owned(), KeyDirection::Ascending), ("_id".to_owned(), KeyDirection::Ascending)];
    let with_key = NewIndex { name: "b_1__id_1".into(), key, unique: true };
    run(&mut catalog, &add(with_key)).expect("it has the shard key's field");
}

#[test]
fn an_index_is_ready_once_every_shard_has_it() {
    let mut catalog = three_nodes();
    begin(&mut catalog, &[100], 2).expect("begun");
    finish(&mut catalog, &[100]);
    let add = Command::AddIndexes {
        collection: CollectionId(1),
        drops_seen: 0,
        indexes: vec![index("a_1", "a", false)],
    };
    run(&mut catalog, &add).expect("added");
    let state = |catalog: &Catalog| record(catalog).index("a_1").expect("there").1;
    for (shard, expected) in
        [(102, IndexState::Building), (102, IndexState::Building), (101, IndexState::Ready)]
    {
        let ready =
            Command::IndexReady { collection: CollectionId(1), index: IndexId(1), shard: ShardId(shard) };
        run(&mut catalog, &ready).expect("noted");
        assert_eq!(state(&catalog), expected);
    }
    assert!(record(&catalog).built.is_empty());
}

#[test]
fn a_span_is_cut_into_equal_parts_that_leave_nothing_out() {
    let parts = HashSpan::new(0, u64::MAX).cut(12);
    assert_eq!((parts.len(), parts[0].first_hash(), parts[11].last_hash()), (12, 0, u64::MAX));
    assert!(HashSpan::follow_each_other(parts.iter().copied()));
    let sizes: Vec<u64> = parts.iter().map(|part| part.last_hash() - part.first_hash()).collect();
    assert!(sizes.iter().max().expect("some") - sizes.iter().min().expect("some") <= 1);
    assert_eq!(HashSpan::new(5, 6).cut(4), [HashSpan::new(5, 5), HashSpan::new(6, 6)]);
}

#[test]
fn a_plan_that_is_sent_again_begins_nothing_new() {
    let mut catalog = three_nodes();
    let now = record(&catalog);
    let targets = HashSpan::new(0, u64::MAX).cut(2);
    let plan = ReshardPlan { token: 7, ..ReshardPlan::of_key(&now, vec![ShardId(100)], targets) };
    let begin = Command::BeginReshard { collection: now.id, reshards_seen: 0, plan };
    for _ in 0..2 {
        assert_eq!(run(&mut catalog, &begin), Ok(Reply::Reshard(ReshardId(1))));
    }
    finish(&mut catalog, &[100]);
    assert_eq!(run(&mut catalog, &begin), Ok(Reply::Reshard(ReshardId(1))), "it is over");
    assert_eq!(shards(&catalog), [101, 102]);
}

#[test]
fn a_node_that_comes_back_empty_has_nothing_of_the_shards_that_were_replaced() {
    let mut catalog = three_nodes();
    begin(&mut catalog, &[100], 2).expect("begun");
    finish(&mut catalog, &[100]);
    let again = NodeFacts { peer: "n2".into(), ..facts("n2") };
    run(&mut catalog, &Command::JoinNode { token: "again".into(), facts: again }).expect("joined");
    let now = record(&catalog);
    let left: Vec<u32> = now.retired[0].members().map(|placed| placed.node.get()).collect();
    assert_eq!(left, [1, 3]);
    let held: Vec<u32> = now.shard_map.shards[0].members().map(|placed| placed.node.get()).collect();
    assert!(!held.contains(&2), "{held:?}");
}

/// A dead node is taken out of the cluster; its replicas have not left their groups yet.
fn remove_dead_node(catalog: &mut Catalog) {
    for command in [Command::MarkDead { node: NodeId(3) }, Command::RemoveNode { node: NodeId(3) }] {
        run(catalog, &command).expect("removed");
    }
    assert_eq!(nodes_of(record(catalog).shard_map.shards[0].leaving.iter()), [3]);
}

fn nodes_of<'p>(placed: impl Iterator<Item = &'p ReplicaPlacement>) -> Vec<u32> {
    placed.map(|placed| placed.node.get()).collect()
}

#[test]
fn nothing_is_waited_for_that_a_removed_node_had_of_shards_that_are_replaced_or_given_up_later() {
    let mut catalog = three_nodes();
    begin(&mut catalog, &[100], 2).expect("begun");
    remove_dead_node(&mut catalog);
    let failure = Failure::new(&Error::new(Code::INTERRUPTED, "somebody said so"));
    step(&mut catalog, ReshardStep::Abort { failure });
    let given_up = record(&catalog).retired;
    assert_eq!(nodes_of(given_up.iter().flat_map(ShardPlacement::members)), [2, 1, 1, 2]);
    begin(&mut catalog, &[100], 2).expect("begun");
    finish(&mut catalog, &[100]);
    let replaced = record(&catalog).retired.pop().expect("there");
    assert_eq!((replaced.shard, nodes_of(replaced.members())), (ShardId(100), vec![1, 2]));
}

#[test]
fn nothing_is_waited_for_that_a_removed_node_had_of_a_collection_that_is_dropped_later() {
    let mut catalog = three_nodes();
    remove_dead_node(&mut catalog);
    let before = record(&catalog);
    let dropped = run(&mut catalog, &Command::DropCollection { collection: before.id }).expect("dropped");
    let Reply::Collection(dropped) = dropped else { panic!("it is answered as it is dropped") };
    for placed in dropped.all_shards().flat_map(|shard| shard.members()) {
        run(&mut catalog, &Command::ReplicaGone { collection: before.id, replica: placed.replica })
            .expect("gone");
    }
    assert_eq!(nodes_of(dropped.all_shards().flat_map(|shard| shard.members())), [1, 2]);
    assert!(catalog.collection(before.id).is_none());
}

#[test]
fn a_dropped_collection_is_forgotten_when_the_last_node_that_has_of_it_comes_back_empty() {
    let mut catalog = three_nodes();
    begin(&mut catalog, &[100], 2).expect("begun");
    finish(&mut catalog, &[100]);
    let dropped = record(&catalog);
    run(&mut catalog, &Command::DropCollection { collection: dropped.id }).expect("dropped");
    let placed = dropped.all_shards().flat_map(|shard| shard.members());
    for placed in placed.filter(|placed| placed.node != NodeId(2)) {
        run(&mut catalog, &Command::ReplicaGone { collection: dropped.id, replica: placed.replica })
            .expect("gone");
    }
    assert!(catalog.collection(dropped.id).is_some(), "a node still has replicas of it");
    let again = NodeFacts { peer: "n2".into(), ..facts("n2") };
    run(&mut catalog, &Command::JoinNode { token: "again".into(), facts: again }).expect("joined");
    assert!(catalog.collection(dropped.id).is_none());
}

#[test]
fn a_replica_that_somebody_else_has_placed_meanwhile_is_not_placed_twice() {
    let mut catalog = three_nodes();
    let facts = NodeFacts { peer: "n4".into(), ..facts("n4") };
    run(&mut catalog, &Command::JoinNode { token: "n4".into(), facts }).expect("joined");
    // Whoever plans by an older catalog sees two replicas, and does not know that the third is on another node by now.
    run(&mut catalog, &Command::PlaceReplica { shard: ShardId(100), node: NodeId(4) })
        .expect("nothing to do");
    let held: Vec<u32> =
        record(&catalog).shard_map.shards[0].replicas.iter().map(|placed| placed.node.get()).collect();
    assert_eq!(held, [1, 2, 3]);
}
