//! `psdb status`: how a cluster is, at a glance: its nodes, its shards and their replicas, and what the server that was asked
//! is doing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};

use super::recut;
use crate::connection::{Connection, Target};
use crate::failure::Failure;
use crate::output;
use crate::shell::{execute, table};

/// How often a watched status is refreshed.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Moves the cursor home and clears the screen (ECMA-48, CUP and ED).
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Show a cluster's nodes, shards and databases.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  psdb status\n  psdb status --watch\n  psdb status --uri 127.0.0.1:27018 --json"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// Refresh every second until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let connection = Connection::open(&arguments.target.uri).await?;
    let mut rates = Rates::default();
    loop {
        let seen = look(&connection).await?;
        if arguments.json {
            output::json_line(&seen)?;
        } else if arguments.watch {
            output::say(format!("{CLEAR}{}", page(&seen, &mut rates)))?;
        } else {
            output::say(page(&seen, &mut rates))?;
        }
        if !arguments.watch {
            return Ok(());
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// What there is to see: `cluster`, `server` and `databases`.
async fn look(connection: &Connection) -> Result<Document, Failure> {
    let admin = connection.database("admin");
    let mut cluster = admin.run_command(doc! { "psdbStatus": 1 }).await?;
    cluster.remove("ok");
    let server = admin.run_command(doc! { "serverStatus": 1 }).await?;
    let mut databases = Vec::new();
    for name in connection.client().list_database_names().await? {
        databases.push(Bson::Document(connection.database(&name).run_command(doc! { "dbStats": 1 }).await?));
    }
    Ok(doc! { "cluster": cluster, "server": server, "databases": databases })
}

fn page(seen: &Document, rates: &mut Rates) -> String {
    let part = |name| seen.get_document(name).cloned().unwrap_or_default();
    let (cluster, server) = (part("cluster"), part("server"));
    let mut parts = vec![summary(&server), nodes_table(&cluster), shards_table(&cluster)];
    parts.extend(rates.sentences(works(&cluster), Instant::now()));
    parts.extend(troubles(&cluster));
    let rows: Vec<Vec<String>> = documents(seen, "databases").map(database_row).collect();
    parts.push(match rows.is_empty() {
        true => "no databases yet".to_owned(),
        false => {
            let header = ["database", "collections", "documents", "data bytes", "indexes"];
            table::rows(&header, &rows, output::width())
        }
    });
    parts.join("\n\n")
}

/// The nodes of `psdbStatus`.
pub(super) fn nodes_table(cluster: &Document) -> String {
    // A column of its own only where there is something in it.
    let any_admin = documents(cluster, "nodes").any(|node| node.contains_key("admin"));
    let row = |node: &Document| {
        let primaries =
            documents(node, "replicas").filter(|replica| text(replica, "role") == "primary").count();
        let replicas = documents(node, "replicas").count();
        let free = node.get_i64("diskFreeBytes").ok().and_then(|bytes| u64::try_from(bytes).ok());
        let up = text(node, "health") == "up";
        let mut row = vec![
            text(node, "name"),
            text(node, "listen"),
            text(node, "health"),
            if up { text(node, "version") } else { String::new() },
            if up { duration(execute::number(node, "uptimeSeconds")) } else { String::new() },
            free.map_or(String::new(), |bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))),
            if up { format!("{primaries} of {replicas}") } else { text(node, "reason") },
        ];
        if any_admin {
            row.push(node.get_str("admin").unwrap_or_default().to_owned());
        }
        row
    };
    let rows: Vec<Vec<String>> = documents(cluster, "nodes").map(row).collect();
    let mut header = vec!["node", "clients", "health", "version", "up for", "disk free", "primaries"];
    if any_admin {
        header.push("admin");
    }
    table::rows(&header, &rows, output::width())
}

fn shards_table(cluster: &Document) -> String {
    let rows: Vec<Vec<String>> =
        documents(cluster, "shards").map(|shard| shard_row(cluster, shard)).collect();
    let header = ["shard", "collection", "primary", "secondaries (entries behind)", "term", "log index"];
    table::rows(&header, &rows, output::width())
}

fn shard_row(cluster: &Document, shard: &Document) -> Vec<String> {
    let number = execute::number(shard, "shard");
    let collection = shard.get_str("collection").unwrap_or("(catalog)").to_owned();
    let Some((node, primary)) = primary_of(cluster, number) else {
        return vec![format!("s{number}"), collection, "none".to_owned()];
    };
    let committed = execute::number(primary, "committed");
    let own = execute::number(primary, "replica");
    let others = documents(primary, "members").filter(|member| execute::number(member, "replica") != own);
    let other = |member: &Document| {
        let lag = (committed - execute::number(member, "matched")).max(0);
        let learns = if member.get_bool("votes").unwrap_or(false) { "" } else { ", learner" };
        format!("{} ({lag}{learns})", node_name(cluster, execute::number(member, "node")))
    };
    let others: Vec<String> = others.map(other).collect();
    let term = execute::number(primary, "term").to_string();
    vec![format!("s{number}"), collection, text(node, "name"), others.join(", "), term, committed.to_string()]
}

/// The node of a shard's primary, with what it says of the replica. Of two that think they are, the one of the later term.
pub(super) fn primary_of(cluster: &Document, shard: i64) -> Option<(&Document, &Document)> {
    let replicas = documents(cluster, "nodes")
        .flat_map(|node| documents(node, "replicas").map(move |replica| (node, replica)));
    let primaries = replicas.filter(|(_, replica)| {
        execute::number(replica, "shard") == shard && text(replica, "role") == "primary"
    });
    primaries.max_by_key(|(_, replica)| execute::number(replica, "term"))
}

/// Work that goes on in the cluster, with how much of it is done.
struct Work {
    /// What it is: the same as long as it is the same work.
    title: String,
    done: i64,
    total: i64,
    unit: &'static str,
}

/// Shards that are being cut, replicas on their way to other nodes, and nodes that are being emptied.
fn works(cluster: &Document) -> Vec<Work> {
    let cut = |reshard: &Document| {
        let done = recut::done(cluster, reshard);
        let title = format!(
            "{} is being cut into {} shards in the place of {}, {}",
            text(reshard, "collection"),
            reshard.get_array("targets").map_or(0, Vec::len),
            reshard.get_array("sources").map_or(0, Vec::len),
            recut::phase(reshard),
        );
        Work { title, done: done.documents, total: done.documents_total, unit: "documents" }
    };
    let copy = |node: &Document, copy: &Document| {
        let shard = execute::number(copy, "shard");
        let total = primary_of(cluster, shard).map_or(0, |(_, primary)| execute::number(primary, "bytes"));
        let title = format!("Shard s{shard} is being copied to {}", text(node, "name"));
        Work { title, done: execute::number(copy, "bytes"), total, unit: "bytes" }
    };
    let drain = |node: &Document| {
        let (total, left) = (execute::number(node, "drainTotal"), execute::number(node, "drainLeft"));
        let title = format!("{} is being emptied", text(node, "name"));
        Work { title, done: total - left, total, unit: "replicas" }
    };
    let mut works: Vec<Work> = documents(cluster, "reshards").map(cut).collect();
    for node in documents(cluster, "nodes") {
        if node.get_bool("draining").unwrap_or(false) {
            works.push(drain(node));
        }
        works.extend(documents(node, "receiving").map(|each| copy(node, each)));
    }
    works
}

/// What was done of each work when it was first seen: a status that is watched tells how fast it is.
#[derive(Default)]
struct Rates {
    first: BTreeMap<String, (i64, Instant)>,
}

impl Rates {
    fn sentences(&mut self, works: Vec<Work>, now: Instant) -> Vec<String> {
        self.first.retain(|title, _| works.iter().any(|work| work.title == *title));
        let sentence = |work: Work| {
            let (before, since) = *self.first.entry(work.title.clone()).or_insert((work.done, now));
            let per_s = (work.done - before) as f64 / now.duration_since(since).as_secs_f64().max(0.001);
            work.sentence(per_s)
        };
        works.into_iter().map(sentence).collect()
    }
}

impl Work {
    /// In words, with the rate and the time left where there is a rate.
    fn sentence(&self, per_s: f64) -> String {
        let count = |number: i64| output::grouped(u64::try_from(number).unwrap_or(0));
        let mut said = format!("{}: {} of {} {}", self.title, count(self.done), count(self.total), self.unit);
        if per_s > 0.0 {
            let left_s = (self.total - self.done).max(0) as f64 / per_s;
            said.push_str(&format!(
                ", {} a second, {} s left",
                count(per_s as i64),
                count(left_s.ceil() as i64)
            ));
        }
        said
    }
}

/// Sentences about what is not as it should be.
fn troubles(cluster: &Document) -> Vec<String> {
    let storage =
        documents(cluster, "nodes").filter(|node| node.get_bool("storage").unwrap_or(false)).count();
    let wanted =
        execute::number(cluster, "replicationFactor").min(i64::try_from(storage).unwrap_or(i64::MAX));
    let mut troubles: Vec<String> = documents(cluster, "nodes")
        .filter(|node| text(node, "health") != "up")
        .map(|node| format!("Node {} does not answer: {}", text(node, "name"), text(node, "reason")))
        .collect();
    for shard in documents(cluster, "shards").filter(|shard| shard.get_str("collection").is_ok()) {
        let placed = i64::try_from(documents(shard, "replicas").count()).unwrap_or(i64::MAX);
        let number = execute::number(shard, "shard");
        match primary_of(cluster, number) {
            None => troubles.push(format!("Shard s{number} has no primary that answers")),
            Some((_, primary)) => {
                let members = i64::try_from(documents(primary, "members").count()).unwrap_or(i64::MAX);
                if members < wanted.min(placed) {
                    troubles.push(format!("Shard s{number} is getting its {}. replica", members + 1));
                }
            }
        }
        if placed < wanted {
            troubles.push(format!("Shard s{number} has {placed} of {wanted} replicas"));
        }
    }
    troubles
}

/// A node's name in `psdbStatus`.
pub(super) fn node_name(cluster: &Document, node: i64) -> String {
    let found = documents(cluster, "nodes").find(|found| execute::number(found, "node") == node);
    found.map_or_else(|| format!("n{node}"), |found| text(found, "name"))
}

/// The documents of an array.
pub(super) fn documents<'d>(
    document: &'d Document,
    name: &str,
) -> impl Iterator<Item = &'d Document> + use<'d> {
    document.get_array(name).into_iter().flatten().filter_map(Bson::as_document)
}

fn duration(seconds: i64) -> String {
    format!("{} h {} min {} s", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn summary(server: &Document) -> String {
    let connections = server.get_document("connections").map_or(0, |c| execute::number(c, "current"));
    let mut lines = vec![
        format!("process      {} at {}", text(server, "process"), text(server, "host")),
        format!("version      {}", text(server, "version")),
        format!("up for       {}", duration(execute::number(server, "uptime"))),
        format!("connections  {connections}"),
    ];
    if let Ok(counters) = server.get_document("opcounters") {
        let counts: Vec<String> = counters
            .keys()
            .map(|name| {
                let count = u64::try_from(execute::number(counters, name)).unwrap_or(0);
                format!("{name} {}", output::grouped(count))
            })
            .collect();
        lines.push(format!("operations   {}", counts.join(", ")));
    }
    lines.join("\n")
}

/// A string, or a question mark where there is none.
pub(super) fn text(document: &Document, name: &str) -> String {
    document.get_str(name).unwrap_or("?").to_owned()
}

fn database_row(stats: &Document) -> Vec<String> {
    let count = |name| output::grouped(u64::try_from(execute::number(stats, name)).unwrap_or(0));
    vec![text(stats, "db"), count("collections"), count("objects"), count("dataSize"), count("indexes")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_work_tells_its_rate_and_the_time_left() {
        let work =
            |done| Work { title: "Shard s7 is being copied to n4".into(), done, total: 9_000, unit: "bytes" };
        let (mut rates, begun) = (Rates::default(), Instant::now());
        assert_eq!(
            rates.sentences(vec![work(1_000)], begun),
            ["Shard s7 is being copied to n4: 1,000 of 9,000 bytes"]
        );
        let later = begun + Duration::from_secs(2);
        assert_eq!(
            rates.sentences(vec![work(3_000)], later),
            ["Shard s7 is being copied to n4: 3,000 of 9,000 bytes, 1,000 a second, 6 s left"]
        );
    }

    #[test]
    fn replicas_on_their_way_and_nodes_that_are_emptied_are_work() {
        let cluster = doc! {
            "nodes": [
                { "name": "n1", "replicas": [{ "shard": 7_i64, "role": "primary", "term": 1_i64, "bytes": 50_i64 }] },
                { "name": "n2", "draining": true, "drainTotal": 5_i64, "drainLeft": 2_i64 },
                { "name": "n4", "receiving": [{ "shard": 7_i64, "replica": 9_i64, "bytes": 20_i64 }] },
            ],
        };
        let said: Vec<String> = works(&cluster).iter().map(|work| work.sentence(0.0)).collect();
        assert_eq!(
            said,
            ["n2 is being emptied: 3 of 5 replicas", "Shard s7 is being copied to n4: 20 of 50 bytes"]
        );
    }
}
