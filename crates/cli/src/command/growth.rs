//! The second half of the demo with five nodes: the cluster grows, shrinks, splits a shard and loses a node, while a client
//! writes and reads.
//!
//! What counts is what the client saw: every acknowledged write found exactly once, no error, no wrong read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use mongodb::Collection;

use super::cluster::Cluster;
use crate::bench::latency;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output;

const DATABASE: &str = "demo";
const COLLECTION: &str = "orders";
/// Shards of the collection that the client writes.
const SHARDS: i32 = 6;
/// How long the client works before and after each step.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a drained node may take to become empty.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);

/// What a client saw.
#[derive(Default)]
struct Seen {
    acknowledged: Vec<i32>,
    reads: u64,
    wrong_reads: u64,
    errors: Vec<String>,
    longest: Duration,
    usual: Vec<Duration>,
}

/// Takes the cluster through its day under a client that writes and reads, and says what the client saw. Fails when an
/// operation failed, a read was wrong, or an acknowledged write is not there exactly once.
pub(super) async fn run(cluster: &mut Cluster) -> Result<(), Failure> {
    let connection = Connection::open(&cluster.uri(DATABASE)).await?;
    let orders: Collection<Document> = connection.database(DATABASE).collection(COLLECTION);
    orders.drop().await?;
    let namespace = format!("{DATABASE}.{COLLECTION}");
    let shard =
        doc! { "shardCollection": &namespace, "key": { "_id": "hashed" }, "numInitialChunks": SHARDS };
    connection.database("admin").run_command(shard).await?;
    output::say(format!("\nThe cluster\n{}", drawn(cluster).await?))?;
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicI64::new(0));
    let client = tokio::spawn(work(orders.clone(), stop.clone(), written.clone()));
    let day = day(cluster, &connection, &namespace, &written).await;
    stop.store(true, Ordering::Relaxed);
    let seen = client.await.map_err(Failure::refused)?;
    day?;
    output::say(format!("\nThe cluster at the end of the day\n{}", drawn(cluster).await?))?;
    report(&orders, seen).await
}

async fn day(
    cluster: &mut Cluster,
    connection: &Connection,
    namespace: &str,
    written: &AtomicI64,
) -> Result<(), Failure> {
    let admin = connection.database("admin");
    let so_far = || output::grouped(u64::try_from(written.load(Ordering::Relaxed)).unwrap_or_default());
    tokio::time::sleep(PAUSE).await;
    let new = cluster.add().await?;
    output::say(format!("\nAfter {} writes {} joins the cluster", so_far(), cluster.name(new)))?;
    tokio::time::sleep(PAUSE).await;
    let leaving = 1;
    let name = cluster.name(leaving).to_owned();
    output::say(format!(
        "After {} writes {name} is drained: its replicas move to the other nodes",
        so_far()
    ))?;
    let drained = drain(&admin, &name).await?;
    cluster.retire(leaving).await?;
    admin.run_command(doc! { "psdbNode": 1, "remove": &name }).await?;
    output::say(format!(
        "{} replicas moved in {:.1} s; {name} was stopped and removed",
        drained.replicas,
        drained.took.as_secs_f64()
    ))?;
    tokio::time::sleep(PAUSE).await;
    let started = Instant::now();
    admin.run_command(doc! { "split": namespace, "find": { "_id": 0 } }).await?;
    output::say(format!(
        "After {} writes a shard was split in two, which took {:.1} s",
        so_far(),
        started.elapsed().as_secs_f64()
    ))?;
    tokio::time::sleep(PAUSE).await;
    let node = cluster.primary_of(namespace).await?;
    output::say(format!(
        "After {} writes {}, which has primaries, is killed (kill -9)",
        so_far(),
        cluster.name(node)
    ))?;
    cluster.kill(node).await?;
    tokio::time::sleep(PAUSE).await;
    output::say(format!("After {} writes it is started again", so_far()))?;
    cluster.restart(node).await?;
    tokio::time::sleep(PAUSE).await;
    let waited = cluster.wait_until_replicated().await?;
    output::say(format!("All replicas are complete {:.1} s later", waited.as_secs_f64()))
}

struct Drained {
    replicas: i64,
    took: Duration,
}

/// Drains a node and waits until it is empty.
async fn drain(admin: &mongodb::Database, name: &str) -> Result<Drained, Failure> {
    let started = Instant::now();
    admin.run_command(doc! { "psdbNode": 1, "drain": name }).await?;
    loop {
        let progress = admin.run_command(doc! { "psdbNode": 1, "progress": name }).await?;
        let number = |field: &str| crate::shell::execute::number(&progress, field);
        let votes = progress.get_bool("votesInCatalog").unwrap_or(false);
        if number("replicas") == 0 && !votes {
            return Ok(Drained { replicas: number("replicasTotal"), took: started.elapsed() });
        }
        if started.elapsed() > DRAIN_TIMEOUT {
            return Err(Failure::refused(format!("{name} was not drained in time: {progress}")));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Writes one document after the other, and reads one that was written before, until it is told to stop.
async fn work(orders: Collection<Document>, stop: Arc<AtomicBool>, written: Arc<AtomicI64>) -> Seen {
    let mut seen = Seen::default();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        match orders.insert_one(doc! { "_id": number, "total": number * 3 }).await {
            Ok(_) => seen.acknowledged.push(number),
            Err(error) => seen.errors.push(error.to_string()),
        }
        seen.note(started);
        written.fetch_add(1, Ordering::Relaxed);
        let earlier = seen.acknowledged.get(number as usize / 2).copied();
        if let Some(earlier) = earlier {
            let started = Instant::now();
            match orders.find_one(doc! { "_id": earlier }).await {
                Ok(Some(order)) if order.get_i32("total").ok() == Some(earlier * 3) => {}
                Ok(_) => seen.wrong_reads += 1,
                Err(error) => seen.errors.push(error.to_string()),
            }
            seen.reads += 1;
            seen.note(started);
        }
        number += 1;
    }
    seen
}

impl Seen {
    fn note(&mut self, started: Instant) {
        let took = started.elapsed();
        self.longest = self.longest.max(took);
        self.usual.push(took);
    }
}

async fn report(orders: &Collection<Document>, mut seen: Seen) -> Result<(), Failure> {
    seen.usual.sort_unstable();
    let median = seen.usual.get(seen.usual.len() / 2).copied().unwrap_or_default();
    let acknowledged = seen.acknowledged.len() as u64;
    let found = orders.count_documents(doc! { "_id": { "$gte": 0 } }).await?;
    let distinct = orders.distinct("_id", doc! {}).await?.len() as u64;
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let row = |what: &str, figure: String| vec![what.to_owned(), figure];
    let rows = vec![
        row("writes acknowledged", output::grouped(acknowledged)),
        row("documents found afterwards", output::grouped(found)),
        row("of these, different ones", output::grouped(distinct)),
        row("reads of what was written", output::grouped(seen.reads)),
        row("wrong reads", output::grouped(seen.wrong_reads)),
        row("errors", output::grouped(seen.errors.len() as u64)),
        row("longest pause", latency(micros(seen.longest))),
        row("usual operation (p50)", latency(micros(median))),
    ];
    let table = crate::shell::table::rows(&["what", "figure"], &rows, output::width());
    output::say(format!("\nWhat the client saw\n{table}"))?;
    if let Some(error) = seen.errors.first() {
        return Err(Failure::refused(format!("an operation failed: {error}")));
    }
    if seen.wrong_reads > 0 {
        return Err(Failure::refused(format!("{} reads were wrong", seen.wrong_reads)));
    }
    match (found, distinct) == (acknowledged, acknowledged) {
        true => Ok(()),
        false => Err(Failure::refused("the acknowledged writes are not there exactly once each")),
    }
}

/// The nodes with the shards that they hold: those in capitals as the primary.
async fn drawn(cluster: &Cluster) -> Result<String, Failure> {
    let status = cluster.status().await?;
    let documents = |document: &Document, name: &str| -> Vec<Document> {
        let array = document.get_array(name).cloned().unwrap_or_default();
        array.iter().filter_map(Bson::as_document).cloned().collect()
    };
    let nodes = documents(&status, "nodes");
    let rows = nodes.iter().map(|node| {
        let held = |role: &str| {
            let replicas = documents(node, "replicas");
            let of_role =
                replicas.iter().filter(|replica| replica.get_str("role").is_ok_and(|found| found == role));
            let shards = of_role.filter(|replica| replica.get_str("collection").is_ok());
            let names: Vec<String> =
                shards.map(|replica| replica.get_i64("shard").unwrap_or_default().to_string()).collect();
            names.join(" ")
        };
        let text = |name: &str| node.get_str(name).unwrap_or("?").to_owned();
        vec![text("name"), text("listen"), text("health"), held("primary"), held("secondary")]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let heads = ["node", "address", "health", "primary of shards", "secondary of shards"];
    Ok(crate::shell::table::rows(&heads, &rows, output::width()))
}
