//! `psdb demo`: a database, real data and answered questions with one command.
//!
//! Starts `psdb start` as child processes, so that what it shows is what a user gets, loads the cities of the GeoNames
//! gazetteer that the binary carries, asks a few questions in the shell's own language, measures, kills the node of a primary
//! under a client that keeps writing (`chaos`), and stops.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bson::{Bson, Document, RawDocumentBuf, doc};
use hdrhistogram::Histogram;
use mongodb::Collection;
use tempfile::TempDir;

use super::chaos;
use super::cluster::Cluster;
use super::growth;
use super::load::{LoadOptions, load_records};
use crate::bench::{empty_histogram, latency};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output;
use crate::shell::session::{Session, View};
use crate::shell::{execute, request};

/// GeoNames cities with more than 15,000 people (geonames.org, CC BY 4.0), one JSON document a line.
const CITIES: &[u8] = include_bytes!("../../../../data/cities.jsonl");
const DATABASE: &str = "demo";
const COLLECTION: &str = "cities";

/// Clients and time of the point reads that are measured, and inserts that one client waits for.
const READ_CLIENTS: usize = 16;
const READ_TIME: Duration = Duration::from_secs(2);
const DURABLE_INSERTS: i32 = 200;

/// From how many nodes on the demo's collections have several shards.
const SHARDED_FROM: u8 = 5;
/// Shards of the cities then.
const CITY_SHARDS: i32 = 12;

/// Start a cluster, load 34,006 cities, ask questions, measure, kill a node under a writing client, and stop.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  psdb demo --nodes 3\n  psdb demo --nodes 5\n  psdb demo --nodes 3 --keep --no-chaos\n  \
    psdb demo --keep --data ./demo-data"
)]
pub(super) struct Arguments {
    /// How many nodes; with three or more, data is replicated and the node of a primary is killed and restarted; with five or
    /// more, it is cut into shards, and a node joins and another leaves while a client works.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Where the data goes; by default into a temporary directory that is deleted at the end.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Stay up until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Kill nothing.
    #[arg(long)]
    no_chaos: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let temporary = match arguments.data {
        Some(_) => None,
        None => Some(TempDir::with_prefix("psdb-demo-")?),
    };
    let directory = match (&arguments.data, &temporary) {
        (Some(directory), _) => directory.clone(),
        (None, Some(temporary)) => temporary.path().join("data"),
        (None, None) => return Err(Failure::refused("there is no directory for the data")),
    };
    let mut cluster = Cluster::start(&directory, arguments.nodes).await?;
    let mut outcome = tour(&cluster).await;
    if outcome.is_ok() && !arguments.no_chaos {
        outcome = match arguments.nodes {
            0..=2 => Ok(()),
            3..SHARDED_FROM => chaos::run(&mut cluster).await,
            _ => growth::run(&mut cluster).await,
        };
    }
    if outcome.is_ok() {
        outcome = output::say(what_next(&cluster.uri(DATABASE), arguments.keep));
    }
    if outcome.is_ok() && arguments.keep {
        outcome = cluster.wait_for_signal().await;
    }
    output::say("Stopping the database")?;
    let stopped = cluster.stop().await;
    outcome.and(stopped)
}

async fn tour(cluster: &Cluster) -> Result<(), Failure> {
    let uri = cluster.uri(DATABASE);
    let connection = Connection::with_pool(&uri, Some(READ_CLIENTS as u32)).await?;
    let raw: Collection<RawDocumentBuf> = connection.database(DATABASE).collection(COLLECTION);
    raw.drop().await?;
    if cluster.len() >= usize::from(SHARDED_FROM) {
        let namespace = format!("{DATABASE}.{COLLECTION}");
        let shard = doc! { "shardCollection": namespace, "key": { "_id": "hashed" }, "numInitialChunks": CITY_SHARDS };
        connection.database("admin").run_command(shard).await?;
        output::say(format!("Cut {DATABASE}.{COLLECTION} into {CITY_SHARDS} shards by the hash of _id"))?;
    }
    let loaded =
        load_records(Box::new(CITIES), Some(CITIES.len() as u64), raw, LoadOptions::default()).await?;
    let copies = if cluster.len() > 2 { ", three copies of each" } else { "" };
    output::say(format!(
        "Loaded {} cities in {:.1} s{copies} (data: GeoNames, CC BY 4.0)\nConnection string: {uri}",
        output::grouped(loaded.documents),
        loaded.elapsed.as_secs_f64()
    ))?;
    let mut session = Session::new(connection, View { json: false, paged: false });
    questions(&mut session).await?;
    let measured = measure(&mut session, loaded.rate()).await?;
    output::say(format!("\nMeasured just now\n{measured}"))
}

/// Questions and their answers, as one would type them in `psdb shell`.
async fn questions(session: &mut Session) -> Result<(), Failure> {
    let steps = [
        (
            "The largest cities",
            "db.cities.find({}, {_id: 0, name: 1, country: 1, population: 1}).sort({population: -1}).limit(5).table()",
        ),
        (
            "The countries with the most cities",
            "db.cities.aggregate([{$group: {_id: \"$country\", cities: {$sum: 1}, people: {$sum: \"$population\"}}}, \
             {$sort: {cities: -1}}, {$limit: 5}]).table()",
        ),
        ("An index", "db.cities.createIndex({name: 1})"),
        (
            "Large cities whose name begins with \"San \"",
            "db.cities.find({name: /^San /, population: {$gt: 600000}}, {_id: 0, name: 1, country: 1, \
             population: 1}).sort({name: 1}).limit(5).table()",
        ),
        (
            "A change to one city",
            "db.cities.updateOne({name: \"Reykjavík\"}, {$set: {visited: true}, $inc: {population: 1}})",
        ),
        ("One city by its id", "db.cities.findOne({_id: 3413829}, {alternateNames: 0})"),
    ];
    for (title, statement) in steps {
        output::say(format!("\n{title}\n> {statement}"))?;
        session.run(statement).await?;
        if title.starts_with("Large cities") {
            output::say(explained(session).await?)?;
        }
    }
    Ok(())
}

/// What the index did for the query on names.
async fn explained(session: &mut Session) -> Result<String, Failure> {
    let filter = doc! { "name": Bson::RegularExpression(bson::Regex {
        pattern: "^San ".to_owned().try_into().map_err(Failure::refused)?,
        options: String::new().try_into().map_err(Failure::refused)?,
    }) };
    let request = request::find(COLLECTION, filter, Document::new()).explained("executionStats");
    let plan = session.connection.command(DATABASE, &request).await?;
    let stats = plan.get_document("executionStats").cloned().unwrap_or_default();
    let number = |name| u64::try_from(execute::number(&stats, name)).unwrap_or(0);
    Ok(format!(
        "explain: {}, {} index keys and {} documents examined of {} cities",
        index_name(&plan.into()).map_or("no index".to_owned(), |name| format!("index {name}")),
        output::grouped(number("totalKeysExamined")),
        output::grouped(number("totalDocsExamined")),
        output::grouped(CITIES.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() as u64),
    ))
}

/// The first index that a plan names.
fn index_name(plan: &Bson) -> Option<String> {
    match plan {
        Bson::Document(stage) => match stage.get_str("indexName") {
            Ok(name) => Some(name.to_owned()),
            Err(_) => stage.values().find_map(index_name),
        },
        Bson::Array(stages) => stages.iter().find_map(index_name),
        _ => None,
    }
}

async fn measure(session: &mut Session, load_rate: u64) -> Result<String, Failure> {
    let cities: Collection<RawDocumentBuf> =
        session.connection.database(DATABASE).collection::<RawDocumentBuf>(COLLECTION);
    let ids = cities.distinct("_id", doc! { "country": "FR" }).await?;
    if ids.is_empty() {
        return Err(Failure::refused("the cities of France are missing"));
    }
    let reads = point_reads(&cities, &ids).await?;
    let inserts = durable_inserts(session).await?;
    let rows = vec![
        vec!["documents loaded a second".to_owned(), output::grouped(load_rate)],
        vec![format!("point reads a second, {READ_CLIENTS} clients"), output::grouped(reads)],
        vec!["one durable insert, p50".to_owned(), latency(inserts.value_at_quantile(0.5))],
        vec!["one durable insert, p99".to_owned(), latency(inserts.value_at_quantile(0.99))],
    ];
    Ok(crate::shell::table::rows(&["what", "figure"], &rows, output::width()))
}

/// Reads by `_id` a second, many clients at a time.
async fn point_reads(cities: &Collection<RawDocumentBuf>, ids: &[Bson]) -> Result<u64, Failure> {
    let started = Instant::now();
    let clients = (0..READ_CLIENTS).map(|client| {
        let (cities, ids) = (cities.clone(), ids.to_vec());
        tokio::spawn(async move {
            let mut done = 0u64;
            for id in ids.iter().cycle().skip(client * 7) {
                if started.elapsed() > READ_TIME {
                    break;
                }
                cities.find_one(doc! { "_id": id }).await?;
                done += 1;
            }
            Ok::<u64, mongodb::error::Error>(done)
        })
    });
    let mut reads = 0;
    for client in clients.collect::<Vec<_>>() {
        reads += client.await.map_err(Failure::refused)??;
    }
    Ok((reads as f64 / started.elapsed().as_secs_f64()) as u64)
}

/// Latencies in microseconds of inserts that one client waits for, each acknowledged when it is on disk.
async fn durable_inserts(session: &mut Session) -> Result<Histogram<u64>, Failure> {
    let visits = session.connection.database(DATABASE).collection::<Document>("visits");
    visits.drop().await?;
    let mut latencies = empty_histogram();
    for number in 0..DURABLE_INSERTS {
        let started = Instant::now();
        visits.insert_one(doc! { "_id": number, "city": "Reykjavík", "when": bson::DateTime::now() }).await?;
        latencies.saturating_record(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    Ok(latencies)
}

fn what_next(uri: &str, keep: bool) -> String {
    if keep {
        return format!(
            "\nThe database stays up until Ctrl-C. In another terminal:\n  \
             psdb shell {uri}\n  \
             psdb find demo.cities '{{country: \"IS\"}}' --uri {uri}\n  \
             psdb bench --workload A --seconds 10 --uri {uri}\n\
             or any MongoDB driver with the connection string {uri}"
        );
    }
    "\nWhat to try next\n  \
     psdb demo --nodes 3 --keep           the same, but the database stays up for trying things\n  \
     psdb start --data ./data             a database of your own\n  \
     psdb shell                           talk to it; \"help\" shows how\n  \
     psdb import geo.cities --file data/cities.jsonl"
        .to_owned()
}
