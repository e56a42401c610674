//! Collections of several shards: what is routed where, and what shards give when they are cut anew under way.

use base::{Code, NodeId, SessionId};
use bson::{Bson, Document, doc};
use catalog::{Command, HashSpan, NodeState, ReshardPlan};
use document::{DocBuf, ShardKey};
use router::command::{
    CountCommand, CreateIndexesCommand, DeleteCommand, DeleteStatement, DistinctCommand, ExplainCommand,
    FindAndModifyAction, FindAndModifyCommand, FindCommand, GetMoreCommand, IndexRequest, InsertCommand,
    UpdateCommand, UpdateSpec, UpdateStatement, Verbosity,
};
use router::{OperationContext, ShardRequest, ShardSelector};

use crate::support::{Node, encode, set, things};

impl Node {
    async fn shard_by(&self, key: Document, shards: u32) {
        let request = ShardRequest { namespace: things(), key, shards: Some(shards) };
        self.router.shard_collection(&self.cx, request).await.expect("is cut");
    }

    async fn reshard_by(&self, key: Document, shards: u32) -> base::Result<()> {
        let request = ShardRequest { namespace: things(), key, shards: Some(shards) };
        self.router.reshard_collection(&self.cx, request).await
    }

    async fn split_at(&self, hash: u64) {
        let selector = ShardSelector::Hash(hash);
        self.router.split_shard(&self.cx, &things(), &selector, 2).await.expect("splits");
    }

    async fn merge_all(&self) {
        let (first, last) = (ShardSelector::Hash(0), ShardSelector::Hash(u64::MAX));
        self.router.merge_shards(&self.cx, &things(), &first, &last).await.expect("merges");
    }

    async fn rest(&self, mut cursor: Option<router::command::CursorId>, batch_size: u64) -> Vec<Document> {
        let mut seen = Vec::new();
        while let Some(id) = cursor {
            let namespace = "shop.things".to_owned();
            let command = GetMoreCommand { cursor: id, namespace, batch_size: Some(batch_size) };
            let next = self.router.get_more(&self.cx, command).await.expect("goes on");
            seen.extend(next.batch.iter().map(DocBuf::to_document));
            cursor = next.cursor;
        }
        seen
    }

    async fn shards_asked(&self, filter: Document) -> usize {
        let find = FindCommand { filter: Some(encode(&filter)), ..FindCommand::all(things()) };
        let explained =
            self.router.explain(&self.cx, ExplainCommand::Find(find), Verbosity::ExecutionStats).await;
        let explained = explained.expect("explains");
        explained.get_document("psdb").and_then(|psdb| psdb.get_array("shardsAsked")).expect("shards").len()
    }

    async fn shards(&self) -> i32 {
        let stats = self.router.collection_stats(&self.cx, things()).await.expect("counts");
        i32::try_from(stats.shards).expect("few")
    }

    async fn validates(&self) {
        let report = self.router.validate(&self.cx, things()).await.expect("validates");
        assert_eq!(report.get_bool("valid").ok(), Some(true), "{report}");
    }
}

fn numbers(range: std::ops::Range<i32>) -> Vec<Document> {
    range.map(|id| doc! { "_id": id, "group": id % 7, "n": 0 }).collect()
}

fn ids(documents: &[Document]) -> Vec<i32> {
    let mut ids: Vec<i32> =
        documents.iter().map(|document| document.get_i32("_id").expect("a number")).collect();
    ids.sort_unstable();
    ids
}

fn retryable(txn_number: i64) -> OperationContext {
    let session = Some(SessionId([9; 16]));
    OperationContext { session, txn_number: Some(txn_number), ..OperationContext::default() }
}

fn many(filter: Document, update: Document) -> UpdateStatement {
    UpdateStatement { multi: true, ..set(filter, update) }
}

fn updates(statements: Vec<UpdateStatement>, ordered: bool) -> UpdateCommand {
    UpdateCommand { namespace: things(), statements, ordered, variables: None, statement_ids: vec![] }
}

#[tokio::test]
async fn documents_are_found_wherever_they_are_and_equality_on_the_key_asks_one_shard() {
    let node = Node::new().await;
    node.shard_by(doc! { "_id": "hashed" }, 12).await;
    assert_eq!(node.insert(numbers(0..300)).await.n, 300);
    assert_eq!(node.shards().await, 12);
    assert_eq!(node.all(doc! {}).await, numbers(0..300), "merged in the order of the sort");
    assert_eq!(node.all(doc! { "_id": 17 }).await, numbers(17..18));
    assert_eq!(node.all(doc! { "group": 3 }).await.len(), 43);
    assert_eq!(node.shards_asked(doc! { "_id": 17 }).await, 1);
    assert!(node.shards_asked(doc! { "_id": { "$in": [1, 2, 3] } }).await <= 3);
    assert_eq!(node.shards_asked(doc! { "group": 3 }).await, 12);
    node.validates().await;
}

#[tokio::test]
async fn skip_limit_count_and_distinct_are_those_of_the_whole() {
    let node = Node::new().await;
    node.shard_by(doc! { "_id": "hashed" }, 5).await;
    node.insert(numbers(0..100)).await;
    let command = FindCommand {
        sort: Some(encode(&doc! { "_id": -1 })),
        skip: 10,
        limit: Some(25),
        batch_size: Some(4),
        ..FindCommand::all(things())
    };
    let first = node.find(command).await;
    let mut seen: Vec<Document> = first.batch.iter().map(DocBuf::to_document).collect();
    seen.extend(node.rest(first.cursor, 4).await);
    let expected: Vec<Document> = numbers(65..90).into_iter().rev().collect();
    assert_eq!(seen, expected);
    let count = |filter: Option<Document>, skip, limit| {
        let filter = filter.as_ref().map(encode);
        node.router.count(&node.cx, CountCommand { namespace: things(), filter, skip, limit, hint: None })
    };
    assert_eq!(count(None, 0, None).await, Ok(100));
    assert_eq!(count(Some(doc! { "group": 0 }), 3, Some(10)).await, Ok(10));
    assert_eq!(count(Some(doc! { "group": 0 }), 12, Some(10)).await, Ok(3));
    let command = DistinctCommand { namespace: things(), key: "group".to_owned(), filter: None, hint: None };
    let values = node.router.distinct(&node.cx, command).await.expect("distinct");
    assert_eq!(values, (0..7).map(Bson::Int32).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_pipeline_groups_sorts_and_counts_over_all_shards() {
    let node = Node::new().await;
    node.shard_by(doc! { "_id": "hashed" }, 6).await;
    node.insert(numbers(0..70)).await;
    let grouped = node
        .aggregate(vec![
            doc! { "$match": { "_id": { "$gte": 7 } } },
            doc! { "$group": { "_id": "$group", "n": { "$sum": 1 }, "max": { "$max": "$_id" } } },
            doc! { "$sort": { "_id": 1 } },
        ])
        .await;
    let expected: Vec<Document> =
        (0..7).map(|group| doc! { "_id": group, "n": 9, "max": 63 + group }).collect();
    assert_eq!(grouped, expected);
    let top = node
        .aggregate(vec![
            doc! { "$sort": { "_id": -1 } },
            doc! { "$limit": 3 },
            doc! { "$project": { "_id": 1 } },
        ])
        .await;
    assert_eq!(top, [doc! { "_id": 69 }, doc! { "_id": 68 }, doc! { "_id": 67 }]);
    assert_eq!(node.aggregate(vec![doc! { "$count": "all" }]).await, [doc! { "all": 70 }]);
}

#[tokio::test]
async fn ordered_writes_stop_at_the_first_that_fails_wherever_that_is() {
    let node = Node::new().await;
    node.shard_by(doc! { "_id": "hashed" }, 8).await;
    node.insert(numbers(5..6)).await;
    let reply = node.insert(numbers(0..10)).await;
    assert_eq!((reply.n, reply.write_errors.len(), reply.write_errors[0].0), (5, 1, 5));
    assert_eq!(ids(&node.all(doc! {}).await), [0, 1, 2, 3, 4, 5]);
    let documents = numbers(0..10).iter().map(encode).collect();
    let command = InsertCommand { namespace: things(), documents, ordered: false, statement_ids: vec![] };
    let reply = node.router.insert(&node.cx, command).await.expect("inserts");
    let failed: Vec<usize> = reply.write_errors.iter().map(|(index, _)| *index).collect();
    assert_eq!((reply.n, failed), (4, vec![0, 1, 2, 3, 4, 5]));
}

#[tokio::test]
async fn a_write_of_one_document_without_the_key_is_done_once_however_often_it_is_sent() {
    let node = Node::new().await;
    node.shard_by(doc! { "_id": "hashed" }, 8).await;
    node.insert(numbers(0..50)).await;
    let one = updates(vec![set(doc! { "group": 3 }, doc! { "$inc": { "n": 1 } })], true);
    for expected in [vec![], vec![0], vec![0]] {
        let reply = node.router.update(&retryable(1), one.clone()).await.expect("updates");
        assert_eq!((reply.n, reply.n_modified, reply.retried_statement_ids), (1, 1, expected));
    }
    assert_eq!(node.all(doc! { "n": 1 }).await.len(), 1);
    let delete = DeleteCommand {
        namespace: things(),
        statements: vec![DeleteStatement { filter: encode(&doc! { "group": 4 }), multi: false, hint: None }],
        ordered: true,
        variables: None,
        statement_ids: vec![],
    };
    for _ in 0..2 {
        assert_eq!(node.router.delete(&retryable(2), delete.clone()).await.expect("deletes").n, 1);
    }
    assert_eq!(node.all(doc! {}).await.len(), 49);
    let action = FindAndModifyAction::Update {
        update: UpdateSpec::Document(encode(&doc! { "$set": { "n": 9 } })),
        upsert: false,
        return_new: true,
    };
    let command = FindAndModifyCommand {
        namespace: things(),
        filter: encode(&doc! { "group": 5 }),
        sort: Some(encode(&doc! { "_id": -1 })),
        action,
        projection: None,
        array_filters: vec![],
        hint: None,
        variables: None,
    };
    for _ in 0..2 {
        let reply = node.router.find_and_modify(&retryable(3), command.clone()).await.expect("modifies");
        let value = reply.value.expect("found").to_document();
        assert_eq!(value, doc! { "_id": 47, "group": 5, "n": 9 }, "the first in the order over all shards");
    }
    assert_eq!(node.all(doc! { "n": 9 }).await.len(), 1);
}

#[tokio::test]
async fn an_upsert_that_matches_in_no_shard_inserts_where_its_document_belongs() {
    let node = Node::new().await;
    node.shard_by(doc! { "_id": "hashed" }, 8).await;
    node.insert(numbers(0..20)).await;
    let upsert = |multi| UpdateStatement {
        upsert: true,
        multi,
        ..set(doc! { "group": 99 + i32::from(multi) }, doc! { "$inc": { "n": 1 } })
    };
    for (txn, multi) in [(1, false), (2, true)] {
        let command = updates(vec![upsert(multi)], true);
        let first = node.router.update(&retryable(txn), command.clone()).await.expect("upserts");
        assert_eq!((first.n, first.upserted.len()), (1, 1));
        let again = node.router.update(&retryable(txn), command).await.expect("upserts");
        assert_eq!(again.upserted, first.upserted);
        let found = node.all(doc! { "group": 99 + i32::from(multi) }).await;
        assert_eq!((found.len(), found[0].get_i32("n").ok()), (1, Some(1)));
        let id = found[0].get("_id").expect("has one").clone();
        assert_eq!(node.all(doc! { "_id": id }).await.len(), 1, "it is where its key says");
    }
}

#[tokio::test]
async fn an_update_of_many_documents_is_done_by_all_shards_once() {
    let node = Node::new().await;
    node.shard_by(doc! { "_id": "hashed" }, 4).await;
    node.insert(numbers(0..200)).await;
    let command = updates(vec![many(doc! {}, doc! { "$inc": { "n": 1 } })], false);
    for _ in 0..2 {
        let reply = node.router.update(&retryable(1), command.clone()).await.expect("updates");
        assert_eq!((reply.n, reply.n_modified), (200, 200));
    }
    assert_eq!(node.all(doc! { "n": 1 }).await.len(), 200);
}

#[tokio::test]
async fn shards_are_split_merged_and_cut_by_another_key_with_everything_in_them() {
    let node = Node::new().await;
    node.create_index("group", false).await.expect("built");
    node.insert(numbers(0..500)).await;
    node.split_at(0).await;
    node.split_at(u64::MAX).await;
    assert_eq!(node.shards().await, 3);
    assert_eq!(node.all(doc! {}).await, numbers(0..500));
    node.validates().await;
    node.merge_all().await;
    assert_eq!(node.shards().await, 1);
    assert_eq!(node.all(doc! {}).await, numbers(0..500));
    node.shard_by(doc! { "_id": 1 }, 2).await;
    node.reshard_by(doc! { "group": 1 }, 6).await.expect("cut anew");
    assert_eq!(node.shards().await, 6);
    assert_eq!(node.all(doc! {}).await, numbers(0..500));
    assert_eq!(node.shards_asked(doc! { "group": 4 }).await, 1);
    assert_eq!(node.shards_asked(doc! { "_id": 4 }).await, 6);
    assert_eq!(node.all(doc! { "group": 4 }).await.len(), 71);
    node.validates().await;
    let moved = node.update(set(doc! { "_id": 1 }, doc! { "$set": { "group": 5 } })).await;
    let errors: Vec<Code> = moved.write_errors.iter().map(|(_, error)| error.code).collect();
    assert!(errors.is_empty() || errors == [Code::ILLEGAL_OPERATION]);
}

#[tokio::test]
async fn a_write_is_recognised_after_its_shard_was_split_and_merged() {
    let node = Node::new().await;
    node.insert(numbers(0..100)).await;
    let all = updates(vec![many(doc! {}, doc! { "$inc": { "n": 1 } })], true);
    let one = updates(vec![set(doc! { "_id": 42 }, doc! { "$inc": { "n": 1 } })], true);
    let other = |byte| OperationContext { session: Some(SessionId([byte; 16])), ..retryable(1) };
    let repeat = async || {
        let reply = node.router.update(&other(1), all.clone()).await.expect("updates");
        assert_eq!((reply.n, reply.n_modified), (100, 100));
        let reply = node.router.update(&other(2), one.clone()).await.expect("updates");
        assert_eq!((reply.n, reply.n_modified), (1, 1));
        let numbers =
            node.all(doc! {}).await.iter().map(|one| one.get_i32("n").expect("a number")).sum::<i32>();
        assert_eq!(numbers, 101);
    };
    repeat().await;
    node.split_at(0).await;
    repeat().await;
    node.split_at(0).await;
    repeat().await;
    node.merge_all().await;
    repeat().await;
}

#[tokio::test]
async fn a_cursor_gives_every_document_once_while_shards_are_split_merged_and_cut_by_another_key() {
    let node = Node::new().await;
    node.insert(numbers(0..400)).await;
    for sort in [None, Some(doc! { "_id": 1 }), Some(doc! { "group": -1 })] {
        let command = FindCommand {
            sort: sort.as_ref().map(encode),
            batch_size: Some(20),
            ..FindCommand::all(things())
        };
        let first = node.find(command).await;
        let mut seen: Vec<Document> = first.batch.iter().map(DocBuf::to_document).collect();
        let mut cursor = first.cursor;
        for step in 0..6 {
            match step {
                0 | 1 => node.split_at(0).await,
                2 => node.merge_all().await,
                3 => node.shard_by(doc! { "_id": 1 }, 3).await,
                4 => node.reshard_by(doc! { "group": 1 }, 4).await.expect("cut anew"),
                _ => node.reshard_by(doc! { "_id": 1 }, 1).await.expect("cut anew"),
            }
            let id = cursor.expect("there is more");
            let command =
                GetMoreCommand { cursor: id, namespace: "shop.things".into(), batch_size: Some(31) };
            let next = node.router.get_more(&node.cx, command).await.expect("goes on");
            seen.extend(next.batch.iter().map(DocBuf::to_document));
            cursor = next.cursor;
        }
        seen.extend(node.rest(cursor, 50).await);
        assert_eq!(ids(&seen), (0..400).collect::<Vec<_>>());
        if sort == Some(doc! { "_id": 1 }) {
            assert_eq!(seen, numbers(0..400));
        }
    }
    let open = (node.router.open_cursors(), node.router.open_cursor_parts());
    assert_eq!(open, (0, 0), "nothing is left open");
}

#[tokio::test]
async fn a_reshard_that_cannot_be_done_is_given_up_and_the_old_shards_go_on() {
    let node = Node::new().await;
    node.shard_by(doc! { "_id": 1 }, 2).await;
    node.insert(numbers(0..50)).await;
    node.insert([doc! { "_id": 50, "group": [1, 2] }]).await;
    let refused = node.reshard_by(doc! { "group": 1 }, 3).await.expect_err("an array in the key");
    assert_eq!(refused.code, Code::SHARD_KEY_NOT_FOUND);
    assert_eq!(node.insert([doc! { "_id": 51 }]).await.n, 1);
    assert_eq!(node.all(doc! {}).await.len(), 52);
    node.reshard_by(doc! { "_id": 1 }, 3).await.expect("the next one begins");
    assert_eq!(node.all(doc! {}).await.len(), 52);
}

#[tokio::test]
async fn a_reshard_may_begin_at_once_when_another_one_was_given_up() {
    let node = Node::new().await;
    node.shard_by(doc! { "_id": 1 }, 2).await;
    node.insert([doc! { "_id": 50, "group": [1, 2] }]).await;
    for shards in [3, 2, 4, 1, 2] {
        let refused = node.reshard_by(doc! { "group": 1 }, 3).await.expect_err("an array in the key");
        assert_eq!(refused.code, Code::SHARD_KEY_NOT_FOUND);
        // The shards note their changes for the one before.
        node.reshard_by(doc! { "_id": 1 }, shards).await.expect("the next one is done");
    }
    assert_eq!(node.all(doc! {}).await.len(), 1);
}

#[tokio::test]
async fn what_shards_cannot_keep_unique_is_refused_either_way() {
    let node = Node::new().await;
    node.create_index("email", true).await.expect("one shard keeps it");
    let request = ShardRequest { namespace: things(), key: doc! { "_id": "hashed" }, shards: Some(2) };
    let refused = node.router.shard_collection(&node.cx, request).await.expect_err("refused");
    assert_eq!(refused.code, Code::INVALID_OPTIONS);
    let request = ShardRequest { namespace: things(), key: doc! { "email": 1 }, shards: Some(2) };
    node.router.shard_collection(&node.cx, request).await.expect("its key is the shard key");
    node.insert([doc! { "_id": 1, "email": "a" }]).await;
    let twice = node.insert([doc! { "_id": 2, "email": "a" }]).await;
    assert_eq!(twice.write_errors[0].1.code, Code::DUPLICATE_KEY);
    let index = IndexRequest { key: doc! { "name": 1 }, name: "name_1".to_owned(), unique: true };
    let command = CreateIndexesCommand { namespace: things(), indexes: vec![index] };
    let refused = node.router.create_indexes(&node.cx, command).await.expect_err("refused");
    assert_eq!(refused.code, Code::CANNOT_CREATE_INDEX);
    node.create_index("name", false).await.expect("every shard builds it");
    let found = node.all(doc! { "name": Bson::Null }).await;
    assert_eq!(found.len(), 1);
}

#[tokio::test]
async fn shards_and_a_reshard_that_a_crash_interrupted_are_there_after_the_restart() {
    let node = Node::new().await;
    node.insert(numbers(0..3_000)).await;
    let router = node.router.clone();
    let splitting = tokio::spawn(async move {
        let cx = OperationContext::default();
        let _ = router.split_shard(&cx, &things(), &ShardSelector::Hash(0), 4).await;
    });
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    splitting.abort();
    let node = node.crash_and_reopen().await;
    let found = loop {
        // It goes on by itself.
        if node.shards().await == 4 {
            break node.all(doc! {}).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(found, numbers(0..3_000));
    node.validates().await;
}

/// Begun as the balancer does, by which nobody is told.
#[tokio::test]
async fn who_cuts_shards_waits_for_the_balancer_that_does_so_too() {
    let node = Node::new().await;
    node.insert(numbers(0..3_000)).await;
    let state = node.host.catalog_state().expect("there");
    let record = state.find(&things()).expect("there");
    let (source, targets) = (record.shard_map.shards[0].shard, HashSpan::new(0, u64::MAX).cut(2));
    let plan = ReshardPlan::of_key(record, vec![source], targets);
    let begin = Command::BeginReshard { collection: record.id, reshards_seen: record.reshards, plan };
    node.host.catalog().expect("there").write(begin).await.expect("begun");
    node.shard_by(doc! { "_id": "hashed" }, 5).await;
    assert_eq!(node.shards().await, 5);
    assert_eq!(node.all(doc! {}).await, numbers(0..3_000));
}

#[tokio::test]
async fn the_last_node_is_neither_drained_nor_removed() {
    let node = Node::new().await;
    node.insert([doc! { "_id": 1 }]).await;
    let first = NodeId(1);
    let refused = node.router.drain_node(first).await.expect_err("nobody could take over");
    assert_eq!(refused.code, Code::ILLEGAL_OPERATION);
    let refused = node.router.remove_node(&node.cx, first).await.expect_err("it is the one that is asked");
    assert_eq!(refused.code, Code::ILLEGAL_OPERATION);
    let missing = node.router.drain_node(NodeId(7)).await.expect_err("there is none");
    assert_eq!(missing.code, Code::NODE_NOT_FOUND);
    node.router.cancel_drain(first).await.expect("there is nothing to call off");
    let progress = node.router.node_progress(first).await.expect("known");
    assert_eq!((progress.state, progress.replicas, progress.replicas_total), (NodeState::InUse, 1, 1));
    assert!(progress.votes_in_catalog && !progress.is_dead);
}

#[test]
fn a_million_ids_are_spread_over_shards_within_five_percent_of_even() {
    let (shards, count) = (12, 1_000_000_u64);
    let spans = HashSpan::new(0, u64::MAX).cut(shards);
    let even = count as f64 / shards as f64;
    let key = ShardKey::on_id();
    // The second kind looks random, and is the same in every run.
    let kinds: [fn(u64) -> u64; 2] =
        [|number| number, |number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1];
    for id in kinds {
        let mut held = vec![0_u64; shards];
        for number in 0..count {
            let document = doc! { "_id": i64::try_from(id(number)).expect("63 bits") };
            let hash = key.hash(document::DocRef::Tree(&document)).expect("no array");
            let position = spans.partition_point(|span| span.first_hash() <= hash) - 1;
            held[position] += 1;
        }
        let off = held.iter().map(|held| (*held as f64 - even).abs() / even).fold(0.0, f64::max);
        assert!(off < 0.05, "{off}: {held:?}");
    }
}
