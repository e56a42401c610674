//! What an application does with the Rust driver and default options. Run by `.ci/run` with `PSDB_URI` set; a failed
//! assertion ends it with a code other than 0.

use futures::TryStreamExt;
use mongodb::bson::{Document, doc, oid::ObjectId};
use mongodb::error::{ErrorKind, WriteFailure};
use mongodb::options::{IndexOptions, ReturnDocument};
use mongodb::{Client, Collection, Database, IndexModel};

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Outcome {
    let client = Client::with_uri_str(std::env::var("PSDB_URI")?).await?;
    let database = client.database(&format!("rust_{}", ObjectId::new().to_hex()));
    for name in ["crud", "many", "counters"] {
        shard(&client, &database, name).await?;
    }
    if shards().is_some() {
        println!("orders: not sharded, for a unique index of it lacks the shard key");
    }
    crud(&database.collection("crud")).await?;
    cursor_over_many(&database.collection("many")).await?;
    indexes_and_aggregation(&database.collection("orders")).await?;
    retried_write(&client, &database).await?;
    database.drop().await?;
    println!("rust driver: 4 passed, 0 failed");
    Ok(())
}

/// Into how many shards collections are cut, if they are to be.
fn shards() -> Option<i32> {
    std::env::var("PSDB_TEST_SHARDS").ok()?.parse().ok()
}

/// Cuts a new collection into shards by its `_id`.
async fn shard(client: &Client, database: &Database, name: &str) -> Outcome {
    let Some(shards) = shards() else { return Ok(()) };
    let namespace = format!("{}.{name}", database.name());
    let command =
        doc! { "shardCollection": namespace, "key": { "_id": "hashed" }, "numInitialChunks": shards };
    client.database("admin").run_command(command).await?;
    Ok(())
}

async fn crud(things: &Collection<Document>) -> Outcome {
    things.insert_many((0..10).map(|i| doc! { "_id": i, "n": i })).await?;
    let updated = things.update_many(doc! { "n": { "$gte": 5 } }, doc! { "$inc": { "n": 100 } }).await?;
    assert_eq!((updated.matched_count, updated.modified_count), (5, 5));
    let upserted = things.update_one(doc! { "_id": 50 }, doc! { "$set": { "n": 1 } }).upsert(true).await?;
    assert!(upserted.upserted_id.is_some());
    let after = things
        .find_one_and_update(doc! { "_id": 1 }, doc! { "$push": { "list": 7 } })
        .return_document(ReturnDocument::After)
        .await?;
    assert_eq!(after, Some(doc! { "_id": 1, "n": 1, "list": [7] }));
    assert_eq!(things.delete_many(doc! { "n": { "$gte": 100 } }).await?.deleted_count, 5);
    assert_eq!(things.count_documents(doc! {}).await?, 6);
    let duplicate = things.insert_one(doc! { "_id": 1 }).await.expect_err("the _id is taken");
    let ErrorKind::Write(WriteFailure::WriteError(error)) = duplicate.kind.as_ref() else {
        panic!("expected a write error, got {duplicate}");
    };
    assert_eq!(error.code, 11000);
    Ok(())
}

async fn cursor_over_many(many: &Collection<Document>) -> Outcome {
    for start in (0..100_000).step_by(10_000) {
        many.insert_many((start..start + 10_000).map(|i| doc! { "_id": i, "odd": i % 2 == 1 })).await?;
    }
    let found: Vec<Document> =
        many.find(doc! { "odd": true }).sort(doc! { "_id": -1 }).await?.try_collect().await?;
    assert_eq!(found.len(), 50_000);
    assert!(
        found
            .iter()
            .zip((0..100_000).rev().step_by(2))
            .all(|(document, id)| document.get_i32("_id").ok() == Some(id))
    );
    Ok(())
}

async fn indexes_and_aggregation(orders: &Collection<Document>) -> Outcome {
    let unique = IndexOptions::builder().unique(true).build();
    orders.create_index(IndexModel::builder().keys(doc! { "number": 1 }).options(unique).build()).await?;
    orders
        .insert_many((0..100).map(|i| doc! { "number": i, "customer": i % 4, "total": f64::from(i) }))
        .await?;
    assert!(orders.insert_one(doc! { "number": 5 }).await.is_err());
    assert_eq!(orders.list_index_names().await?, ["_id_", "number_1"]);
    let pipeline = [
        doc! { "$group": { "_id": "$customer", "sum": { "$sum": "$total" } } },
        doc! { "$sort": { "_id": 1 } },
    ];
    let groups: Vec<Document> = orders.aggregate(pipeline).await?.try_collect().await?;
    assert_eq!(groups.first(), Some(&doc! { "_id": 0, "sum": 1200.0 }));
    assert_eq!(groups.len(), 4);
    Ok(())
}

async fn retried_write(client: &Client, database: &Database) -> Outcome {
    let counters: Collection<Document> = database.collection("counters");
    counters.insert_one(doc! { "_id": "c", "n": 0 }).await?;
    let point = doc! {
        "configureFailPoint": "failCommand",
        "mode": { "times": 1 },
        "data": { "failCommands": ["update"], "closeConnection": true },
    };
    client.database("admin").run_command(point).await?;
    counters.update_one(doc! { "_id": "c" }, doc! { "$inc": { "n": 1 } }).await?;
    assert_eq!(counters.find_one(doc! {}).await?, Some(doc! { "_id": "c", "n": 1 }));
    Ok(())
}
