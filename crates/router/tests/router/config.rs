//! The catalog as the database `config`, and sizes by node.

use base::{Code, Namespace};
use bson::{Bson, Document, doc};
use document::DocBuf;
use router::command::{AggregateCommand, CountCommand, DistinctCommand, FindCommand, GetMoreCommand};
use router::{ShardRequest, ShardSelector};

use crate::support::{Node, encode, things};

fn config(collection: &str) -> Namespace {
    Namespace { database: "config".to_owned(), collection: collection.to_owned() }
}

impl Node {
    async fn shard(&self, key: Document, shards: u32) {
        let request = ShardRequest { namespace: things(), key, shards: Some(shards) };
        self.router.shard_collection(&self.cx, request).await.expect("is cut");
    }

    async fn config_find(&self, collection: &str, filter: Document) -> Vec<Document> {
        let filter = Some(encode(&filter));
        let found = self.find(FindCommand { filter, ..FindCommand::all(config(collection)) }).await;
        found.batch.iter().map(DocBuf::to_document).collect()
    }

    async fn aggregate_on(&self, namespace: Namespace, pipeline: Vec<Document>) -> Vec<Document> {
        let pipeline = pipeline.into_iter().map(Bson::Document).collect();
        let command = AggregateCommand { namespace, pipeline, batch_size: None, hint: None, variables: None };
        let found = self.router.aggregate(&self.cx, command).await.expect("aggregates");
        found.batch.iter().map(DocBuf::to_document).collect()
    }
}

#[tokio::test]
async fn chunks_cover_every_key_from_the_lowest_to_the_highest() {
    let node = Node::new().await;
    assert_eq!(node.config_find("collections", doc! {}).await, Vec::<Document>::new());
    node.shard(doc! { "group": 1, "n": 1 }, 3).await;
    let chunks = node.config_find("chunks", doc! {}).await;
    let bounds = |name: &str| -> Vec<&Document> {
        chunks.iter().map(|chunk| chunk.get_document(name).expect("a bound")).collect()
    };
    let (min, max) = (bounds("min"), bounds("max"));
    assert_eq!(min.first(), Some(&&doc! { "group": Bson::MinKey, "n": Bson::MinKey }));
    assert_eq!(max.last(), Some(&&doc! { "group": Bson::MaxKey, "n": Bson::MaxKey }));
    assert_eq!(min.get(1..), max.get(..2), "each begins where the one before it ends");
    let collection = node.config_find("collections", doc! { "_id": "shop.things" }).await;
    let collection = collection.first().expect("it is sharded");
    assert_eq!(collection.get_document("key").ok(), Some(&doc! { "group": 1, "n": 1 }));
    assert!(chunks.iter().all(|chunk| chunk.get("uuid") == collection.get("uuid")));
    let databases = node.config_find("databases", doc! {}).await;
    assert_eq!(databases.len(), 1);
    assert_eq!(databases.first().and_then(|database| database.get_str("_id").ok()), Some("shop"));
}

#[tokio::test]
async fn finds_on_config_sort_skip_limit_project_and_go_on() {
    let node = Node::new().await;
    node.shard(doc! { "_id": "hashed" }, 7).await;
    let command = FindCommand {
        filter: Some(encode(&doc! { "min._id": { "$ne": Bson::MinKey } })),
        sort: Some(encode(&doc! { "psdbShard": -1 })),
        projection: Some(encode(&doc! { "_id": 0, "psdbShard": 1 })),
        skip: 1,
        limit: Some(4),
        batch_size: Some(3),
        ..FindCommand::all(config("chunks"))
    };
    let first = node.find(command.clone()).await;
    let shard = |document: &DocBuf| document.to_document().get_i64("psdbShard").expect("projected");
    let mut shards: Vec<i64> = first.batch.iter().map(shard).collect();
    assert!(first.batch.iter().all(|document| document.to_document().len() == 1));
    let cursor = first.cursor.expect("there is one more");
    let more = GetMoreCommand { cursor, namespace: first.namespace, batch_size: None };
    let rest = node.router.get_more(&node.cx, more).await.expect("goes on");
    shards.extend(rest.batch.iter().map(shard));
    assert_eq!((shards.len(), rest.cursor), (4, None));
    assert!(shards.is_sorted_by(|a, b| a > b), "{shards:?}");
    let single = node.find(FindCommand { single_batch: true, ..command }).await;
    assert_eq!((single.batch.len(), single.cursor), (3, None));
    assert_eq!(node.router.open_cursors(), 0);
}

#[tokio::test]
async fn config_is_counted_grouped_and_joined_as_other_databases_are() {
    let node = Node::new().await;
    node.shard(doc! { "_id": "hashed" }, 5).await;
    let count = |filter: Document| {
        let filter = Some(encode(&filter));
        CountCommand { namespace: config("chunks"), filter, skip: 1, limit: Some(3), hint: None }
    };
    assert_eq!(node.router.count(&node.cx, count(doc! {})).await, Ok(3));
    assert_eq!(node.router.count(&node.cx, count(doc! { "shard": "nowhere" })).await, Ok(0));
    let (namespace, key) = (config("chunks"), "shard".to_owned());
    let distinct = DistinctCommand { namespace, key, filter: None, hint: None };
    assert_eq!(node.router.distinct(&node.cx, distinct).await.map(|values| values.len()), Ok(1));
    let grouped = doc! { "$group": { "_id": "$shard", "chunks": { "$sum": 1 } } };
    let grouped = node.aggregate_on(config("chunks"), vec![grouped]).await;
    assert_eq!(grouped.first().and_then(|row| row.get_i32("chunks").ok()), Some(5));
    let lookup =
        doc! { "$lookup": { "from": "chunks", "localField": "uuid", "foreignField": "uuid", "as": "c" } };
    let joined = node.aggregate_on(config("collections"), vec![lookup]).await;
    assert_eq!(joined.first().and_then(|row| row.get_array("c").ok()).map(Vec::len), Some(5));
}

#[tokio::test]
async fn settings_are_shown_as_they_are_and_unknown_collections_are_empty() {
    let node = Node::new().await;
    node.router.set_balancer(false).await.expect("is switched off");
    let balancer = node.config_find("settings", doc! { "_id": "balancer" }).await;
    assert_eq!(balancer, [doc! { "_id": "balancer", "mode": "off", "stopped": true }]);
    assert_eq!(node.config_find("version", doc! {}).await.len(), 1);
    assert_eq!(node.config_find("shards", doc! { "state": 1 }).await.len(), 1);
    assert_eq!(node.config_find("mongos", doc! {}).await.len(), 1);
    assert_eq!(node.config_find("locks", doc! {}).await, Vec::<Document>::new());
    assert_eq!(node.config_find("nothing", doc! {}).await, Vec::<Document>::new());
    let listed = node.router.list_collections(&node.cx, "config").await.expect("lists");
    assert!(listed.iter().any(|collection| collection.name == "chunks"));
}

#[tokio::test]
async fn nothing_is_made_in_config() {
    let node = Node::new().await;
    let request = ShardRequest { namespace: config("mine"), key: doc! { "a": 1 }, shards: None };
    let refused = node.router.shard_collection(&node.cx, request).await.expect_err("is refused");
    assert_eq!(refused.code, Code::COMMAND_NOT_SUPPORTED);
}

#[tokio::test]
async fn sizes_come_by_node_and_count_every_document_once() {
    let node = Node::new().await;
    let documents: Vec<Document> = (0..90_i32).map(|id| doc! { "_id": id }).collect();
    node.insert(documents).await;
    let stats = doc! { "$collStats": { "count": {} } };
    let whole = node.aggregate_on(things(), vec![stats.clone()]).await;
    assert!(whole.first().is_some_and(|row| !row.contains_key("shard")), "it is not sharded: {whole:?}");
    node.shard(doc! { "_id": "hashed" }, 6).await;
    let by_node = node.aggregate_on(things(), vec![stats]).await;
    assert_eq!(by_node.iter().filter_map(|row| row.get_i32("count").ok()).sum::<i32>(), 90);
    assert!(by_node.iter().all(|row| row.contains_key("shard")), "{by_node:?}");
    let admin = Namespace { database: "admin".to_owned(), collection: "$cmd.aggregate".to_owned() };
    let spread = node.aggregate_on(admin, vec![doc! { "$shardedDataDistribution": {} }]).await;
    let spread = spread.first().expect("one collection is sharded");
    assert_eq!(spread.get_str("ns").ok(), Some("shop.things"));
    let parts = spread.get_array("shards").expect("its nodes");
    let owned = parts.iter().filter_map(|part| part.as_document()?.get_i64("numOwnedDocuments").ok());
    assert_eq!(owned.sum::<i64>(), 90);
}

#[tokio::test]
async fn a_primary_that_is_where_it_shall_be_does_not_move() {
    let node = Node::new().await;
    node.insert(vec![doc! { "_id": 1 }]).await;
    let name = node.router.node_name(base::NodeId(1)).expect("the node has a name");
    let shard = ShardSelector::Owner(doc! { "_id": 1 });
    assert_eq!(node.router.move_shard(&node.cx, &things(), &shard, &name).await, Ok(()));
    let still = node.router.cancel_move(&things(), &shard).await.expect_err("nothing moves");
    assert_eq!(still.code, Code::ILLEGAL_OPERATION);
    let nowhere = node.router.move_shard(&node.cx, &things(), &shard, "nowhere").await;
    assert_eq!(nowhere.map_err(|error| error.code), Err(Code::NODE_NOT_FOUND));
    let without_key = ShardSelector::Owner(doc! { "a": 1 });
    let refused = node.router.move_shard(&node.cx, &things(), &without_key, &name).await;
    assert_eq!(refused.map_err(|error| error.code), Err(Code::SHARD_KEY_NOT_FOUND));
}

#[tokio::test]
async fn shards_that_are_meant_by_their_bounds_have_exactly_these() {
    let node = Node::new().await;
    node.shard(doc! { "_id": "hashed" }, 2).await;
    let middle = 1_u64 << 63;
    let inexact = ShardSelector::Span(0, middle);
    let refused = node.router.split_shard(&node.cx, &things(), &inexact, 2).await;
    assert_eq!(refused.map_err(|error| error.code), Err(Code::SHARD_NOT_FOUND));
    let exact = ShardSelector::Span(0, middle - 1);
    assert_eq!(node.router.split_shard(&node.cx, &things(), &exact, 2).await, Ok(()));
    let (begin, within) = (ShardSelector::Begin(0), ShardSelector::End(middle));
    let refused = node.router.merge_shards(&node.cx, &things(), &begin, &within).await;
    assert_eq!(refused.map_err(|error| error.code), Err(Code::SHARD_NOT_FOUND));
    let end = ShardSelector::End(u64::MAX);
    assert_eq!(node.router.merge_shards(&node.cx, &things(), &begin, &end).await, Ok(()));
}
