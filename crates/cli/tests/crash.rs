//! Kills a real `psdb` process (SIGKILL) at random moments under load, again and again on one data directory, and looks
//! afterwards for every acknowledged write.
//!
//! `PSDB_CRASH_ROUNDS` says how often (default 5), `PSDB_CRASH_SEED` repeats the moments of an earlier run. Always checked
//! after a restart: every acknowledged insert is there unless its delete may have been applied, every acknowledged
//! delete holds, a batch is there as a whole or not at all, nothing is there that nobody asked for, a counter stands
//! between what was acknowledged and what was asked for, and `validate` finds every index consistent with its documents.

#![expect(clippy::print_stdout, reason = "the seed of a run is what repeats it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use mongodb::bson::{Document, doc};
use mongodb::error::ErrorKind;
use mongodb::options::{ClientOptions, IndexOptions};
use mongodb::{Client, Collection, IndexModel};
use rand::{Rng, SeedableRng, rngs::StdRng};

const WRITERS: usize = 4;
const BATCH: usize = 20;

/// What one writer knows of its writes.
#[derive(Default)]
struct Ledger {
    /// Single inserts that were asked for.
    insert_asked: BTreeSet<String>,
    /// Single inserts that were acknowledged.
    inserted: BTreeSet<String>,
    /// Documents whose delete was asked for.
    delete_asked: BTreeSet<String>,
    /// Documents whose delete was acknowledged.
    deleted: BTreeSet<String>,
    /// Batches that were asked for, and whether they were acknowledged.
    batches: BTreeMap<String, bool>,
    /// Increments that were acknowledged, and all that were asked for.
    increments: (i64, i64),
}

impl Ledger {
    fn documents_acknowledged(&self) -> usize {
        let batches = self.batches.values().filter(|acknowledged| **acknowledged).count();
        self.inserted.len() + batches * BATCH
    }
}

struct Node {
    process: Child,
    uri: String,
}

impl Node {
    fn start(data: &Path) -> Node {
        let port_file = data.with_extension("port");
        let _ = std::fs::remove_file(&port_file);
        let mut process = Command::new(env!("CARGO_BIN_EXE_psdb"))
            .args(["start", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .arg("--port-file")
            .arg(&port_file)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("psdb starts");
        loop {
            let written = std::fs::read_to_string(&port_file).unwrap_or_default();
            if let Some(address) = written.strip_suffix('\n') {
                let port = address.rsplit(':').next().expect("a split has at least one part");
                return Node { process, uri: format!("mongodb://127.0.0.1:{port}/?directConnection=true") };
            }
            assert!(process.try_wait().expect("a child can be waited for").is_none(), "psdb ended at start");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn kill(mut self) {
        self.process.kill().expect("the node runs");
        self.process.wait().expect("a killed child can be waited for");
    }

    async fn client(&self) -> Client {
        let mut options = ClientOptions::parse(&self.uri).await.expect("a valid URI");
        // An answer that is lost must stay lost: the ledger tells apart what was acknowledged and what was asked for.
        options.retry_writes = Some(false);
        options.server_selection_timeout = Some(Duration::from_secs(10));
        Client::with_options(options).expect("valid options")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_when_the_process_is_killed() {
    let rounds: u32 = setting("PSDB_CRASH_ROUNDS").unwrap_or(5);
    let seed: u64 = setting("PSDB_CRASH_SEED").unwrap_or_else(rand::random);
    println!("PSDB_CRASH_SEED={seed} PSDB_CRASH_ROUNDS={rounds}");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("node");
    let mut random = StdRng::seed_from_u64(seed);
    let mut ledgers: Vec<Ledger> = (0..WRITERS).map(|_| Ledger::default()).collect();
    prepare(&data).await;
    for round in 0..rounds {
        let node = Node::start(&data);
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut tasks = Vec::new();
        for (writer, ledger) in std::mem::take(&mut ledgers).into_iter().enumerate() {
            let things = collection(&node.client().await);
            tasks.push(tokio::spawn(write(
                things,
                writer,
                round,
                random.random(),
                ledger,
                Arc::clone(&stop),
                Arc::clone(&written),
            )));
        }
        // Later rounds may end before anything is acknowledged.
        while round == 0 && !written.load(Ordering::Relaxed) {
            assert!(!tasks.iter().all(|writer| writer.is_finished()), "nobody can write");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(5..700))).await;
        node.kill();
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            ledgers.push(task.await.expect("a writer does not panic"));
        }
        let node = Node::start(&data);
        check(&node.client().await, &ledgers).await;
        // The node that has just recovered is killed as well: recovery must be repeatable.
        node.kill();
    }
    let acknowledged: usize = ledgers.iter().map(Ledger::documents_acknowledged).sum();
    println!("{rounds} kills, {acknowledged} documents acknowledged, none lost");
    assert!(acknowledged > 0, "the load must have written something");
}

async fn prepare(data: &Path) {
    let node = Node::start(data);
    let things = collection(&node.client().await);
    let unique = IndexOptions::builder().unique(true).build();
    let indexes = [
        IndexModel::builder().keys(doc! { "serial": 1 }).options(unique).build(),
        IndexModel::builder().keys(doc! { "group": 1, "tags": -1 }).build(),
    ];
    things.create_indexes(indexes).await.expect("indexes on an empty collection");
    let counters = (0..WRITERS).map(|writer| {
        let id = format!("counter-{writer}");
        doc! { "_id": &id, "serial": &id, "n": 0_i64, "group": -1 }
    });
    things.insert_many(counters).await.expect("the counters are new");
    node.kill();
}

/// Writes until the node is gone.
async fn write(
    things: Collection<Document>,
    writer: usize,
    round: u32,
    seed: u64,
    mut ledger: Ledger,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicBool>,
) -> Ledger {
    let mut random = StdRng::seed_from_u64(seed);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("{writer}-{round}-{number}");
        let done = match random.random_range(0..10) {
            0..4 => insert(&things, id, &mut ledger).await,
            4 => insert_batch(&things, id, &mut ledger).await,
            5..8 => increment(&things, writer, &mut ledger).await,
            _ => delete(&things, &mut random, &mut ledger).await,
        };
        if let Err(error) = done {
            // Only the kill may end the load: a refusal would end it unseen.
            let refused =
                matches!(*error.kind, ErrorKind::Command(_) | ErrorKind::Write(_) | ErrorKind::InsertMany(_));
            assert!(!refused, "the node refused a write: {error}");
            break;
        }
        if ledger.documents_acknowledged() > 0 {
            written.store(true, Ordering::Relaxed);
        }
    }
    ledger
}

async fn insert(
    things: &Collection<Document>,
    id: String,
    ledger: &mut Ledger,
) -> mongodb::error::Result<()> {
    ledger.insert_asked.insert(id.clone());
    things.insert_one(document(&id)).await?;
    ledger.inserted.insert(id);
    Ok(())
}

async fn insert_batch(
    things: &Collection<Document>,
    id: String,
    ledger: &mut Ledger,
) -> mongodb::error::Result<()> {
    ledger.batches.insert(id.clone(), false);
    things.insert_many((0..BATCH).map(|part| document(&format!("{id}/{part}")))).await?;
    ledger.batches.insert(id, true);
    Ok(())
}

async fn increment(
    things: &Collection<Document>,
    writer: usize,
    ledger: &mut Ledger,
) -> mongodb::error::Result<()> {
    ledger.increments.1 += 1;
    things.update_one(doc! { "_id": format!("counter-{writer}") }, doc! { "$inc": { "n": 1_i64 } }).await?;
    ledger.increments.0 += 1;
    Ok(())
}

async fn delete(
    things: &Collection<Document>,
    random: &mut StdRng,
    ledger: &mut Ledger,
) -> mongodb::error::Result<()> {
    let living: Vec<_> = ledger.inserted.difference(&ledger.delete_asked).cloned().collect();
    if living.is_empty() {
        return Ok(());
    }
    let id = living[random.random_range(0..living.len())].clone();
    ledger.delete_asked.insert(id.clone());
    things.delete_one(doc! { "_id": &id }).await?;
    ledger.deleted.insert(id);
    Ok(())
}

fn document(id: &str) -> Document {
    let group = id.len() as i32 % 5;
    doc! { "_id": id, "serial": format!("serial of {id}"), "group": group, "tags": [group, "x", id], "pad": "p".repeat(200) }
}

async fn check(client: &Client, ledgers: &[Ledger]) {
    let things = collection(client);
    let all: Vec<Document> =
        things.find(doc! {}).await.expect("the node answers").try_collect().await.expect("and goes on");
    let found: BTreeMap<&str, &Document> = all
        .iter()
        .map(|document| (document.get_str("_id").expect("all ids are strings"), document))
        .collect();
    for (writer, ledger) in ledgers.iter().enumerate() {
        for id in ledger.inserted.difference(&ledger.delete_asked) {
            assert_eq!(found.get(id.as_str()), Some(&&document(id)), "an acknowledged insert is lost: {id}");
        }
        for id in &ledger.deleted {
            assert!(!found.contains_key(id.as_str()), "an acknowledged delete is undone: {id}");
        }
        for (id, acknowledged) in &ledger.batches {
            let present = (0..BATCH).filter(|part| is_there(&found, &format!("{id}/{part}"))).count();
            let whole = present == BATCH || (present == 0 && !acknowledged);
            assert!(whole, "batch {id} (acknowledged: {acknowledged}) has {present} of {BATCH} documents");
        }
        let counter = found.get(format!("counter-{writer}").as_str()).expect("counters are never deleted");
        let n = counter.get_i64("n").expect("a counter counts");
        let (acknowledged, asked) = ledger.increments;
        assert!(
            (acknowledged..=asked).contains(&n),
            "counter {writer} is {n}, acknowledged {acknowledged}, asked {asked}"
        );
    }
    for (id, found) in &found {
        let batch = id.split_once('/').map_or(*id, |(batch, _)| batch);
        let asked = |ledger: &Ledger| ledger.insert_asked.contains(*id) || ledger.batches.contains_key(batch);
        assert!(id.starts_with("counter-") || ledgers.iter().any(asked), "nobody asked for {found}");
    }
    let report = client.database("crash").run_command(doc! { "validate": "things", "full": true }).await;
    let report = report.expect("validate answers");
    assert_eq!(report.get_bool("valid").ok(), Some(true), "{report}");
    let by_index =
        things.count_documents(doc! { "serial": { "$gte": "" } }).hint(hint()).await.expect("counts");
    assert_eq!(by_index, all.len() as u64, "the unique index has an entry for every document");
}

/// Whether a document is there, as it was written.
fn is_there(found: &BTreeMap<&str, &Document>, id: &str) -> bool {
    let present = found.get(id);
    assert!(present.is_none_or(|present| **present == document(id)), "{id} has changed: {present:?}");
    present.is_some()
}

fn hint() -> mongodb::options::Hint {
    mongodb::options::Hint::Name("serial_1".to_owned())
}

fn collection(client: &Client) -> Collection<Document> {
    client.database("crash").collection("things")
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}
