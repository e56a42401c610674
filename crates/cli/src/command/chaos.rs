//! The bad day of the demo: a client writes, the node of the shard's primary is killed, and comes back.
//!
//! What counts is what the client saw: the longest pause, failed writes, and whether every acknowledged write is found.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Collection;

use super::cluster::Cluster;
use crate::bench::latency;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output;

const DATABASE: &str = "demo";
const COLLECTION: &str = "heartbeats";
/// How long the client writes before the kill, while the node is away, and after it is back.
const BEFORE: Duration = Duration::from_secs(2);
const AWAY: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(2);

/// What a client saw.
#[derive(Default)]
struct Seen {
    acknowledged: Vec<i32>,
    errors: Vec<String>,
    longest: Duration,
    usual: Vec<Duration>,
}

/// Kills and restarts the primary's node under a writing client, and says what the client saw. Fails when a write failed or
/// an acknowledged one is missing.
pub(super) async fn run(cluster: &mut Cluster) -> Result<(), Failure> {
    let connection = Connection::open(&cluster.uri(DATABASE)).await?;
    let beats: Collection<Document> = connection.database(DATABASE).collection(COLLECTION);
    beats.drop().await?;
    beats.insert_one(doc! { "_id": -1 }).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicI64::new(0));
    let writer = tokio::spawn(write(beats.clone(), stop.clone(), written.clone()));
    tokio::time::sleep(BEFORE).await;
    let node = cluster.primary_of(&format!("{DATABASE}.{COLLECTION}")).await?;
    let before = written.load(Ordering::Relaxed);
    output::say(format!(
        "\nA bad day: a client writes; after {before} writes {}, which has the primary, is killed (kill -9)",
        cluster.name(node)
    ))?;
    cluster.kill(node).await?;
    tokio::time::sleep(AWAY).await;
    let away = written.load(Ordering::Relaxed) - before;
    output::say(format!("{away} writes later it is started again"))?;
    cluster.restart(node).await?;
    tokio::time::sleep(AFTER).await;
    stop.store(true, Ordering::Relaxed);
    let seen = writer.await.map_err(Failure::refused)?;
    let waited = cluster.wait_until_replicated().await?;
    output::say(format!(
        "All replicas are complete again, {:.1} s after the last write",
        waited.as_secs_f64()
    ))?;
    report(&beats, seen).await
}

/// Writes one document after the other until it is told to stop.
async fn write(beats: Collection<Document>, stop: Arc<AtomicBool>, written: Arc<AtomicI64>) -> Seen {
    let mut seen = Seen::default();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        match beats.insert_one(doc! { "_id": number, "at": bson::DateTime::now() }).await {
            Ok(_) => seen.acknowledged.push(number),
            Err(error) => seen.errors.push(error.to_string()),
        }
        let took = started.elapsed();
        seen.longest = seen.longest.max(took);
        seen.usual.push(took);
        written.fetch_add(1, Ordering::Relaxed);
        number += 1;
    }
    seen
}

async fn report(beats: &Collection<Document>, mut seen: Seen) -> Result<(), Failure> {
    seen.usual.sort_unstable();
    let median = seen.usual.get(seen.usual.len() / 2).copied().unwrap_or_default();
    let found = beats.count_documents(doc! { "_id": { "$in": &seen.acknowledged } }).await?;
    let acknowledged = seen.acknowledged.len() as u64;
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let rows = vec![
        vec!["writes acknowledged".to_owned(), output::grouped(acknowledged)],
        vec!["of these found afterwards".to_owned(), output::grouped(found)],
        vec!["errors".to_owned(), output::grouped(seen.errors.len() as u64)],
        vec!["longest pause".to_owned(), latency(micros(seen.longest))],
        vec!["usual write (p50)".to_owned(), latency(micros(median))],
    ];
    output::say(format!(
        "\nWhat the client saw\n{}",
        crate::shell::table::rows(&["what", "figure"], &rows, output::width())
    ))?;
    match seen.errors.first() {
        Some(error) => Err(Failure::refused(format!("a write failed: {error}"))),
        None if found != acknowledged => Err(Failure::refused(format!(
            "{} acknowledged writes are lost",
            acknowledged.saturating_sub(found)
        ))),
        None => Ok(()),
    }
}
