//! `psdb shard`: the shards of collections, split, merged and moved.

use bson::{Bson, Document, doc};

use super::status::{documents, node_name, primary_of, text};
use super::{input, recut};
use crate::connection::{Connection, Target};
use crate::failure::Failure;
use crate::output;
use crate::shell::{execute, table};

const MOVE_EXAMPLES: &str = "Examples:
  psdb shard move shop.orders s12 --to n3
  psdb shard move shop.orders s12 --cancel

While the balancer is on it may begin a move again that was called off: psdb balancer stop";

/// Show, split, merge and move shards.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Show the shards of all collections, or of one.
    #[command(after_help = "Examples:\n  psdb shard list\n  psdb shard list shop.orders --json")]
    List {
        #[command(flatten)]
        target: Target,
        /// DATABASE.COLLECTION; without it all of them.
        namespace: Option<String>,
        /// Print one line of JSON for each shard.
        #[arg(long)]
        json: bool,
    },
    /// Cut a shard into two.
    #[command(after_help = "Examples:\n  psdb shard split shop.orders s12\n  \
        psdb shard split shop.orders --find '{customer: 7}'")]
    Split {
        #[command(flatten)]
        target: Target,
        /// DATABASE.COLLECTION.
        namespace: String,
        /// The shard, as `psdb shard list` names it.
        #[arg(required_unless_present = "find", conflicts_with = "find")]
        shard: Option<String>,
        /// The shard that owns a document with these values of the shard key.
        #[arg(long, value_name = "JSON")]
        find: Option<String>,
    },
    /// Make one shard of neighbours.
    #[command(after_help = "Examples:\n  psdb shard merge shop.orders s12 s13")]
    Merge {
        #[command(flatten)]
        target: Target,
        /// DATABASE.COLLECTION.
        namespace: String,
        /// The first of the shards, in the order of `psdb shard list`.
        first: String,
        /// The last of them.
        last: String,
    },
    /// Bring the primary of a shard to another node.
    #[command(after_help = MOVE_EXAMPLES)]
    Move {
        #[command(flatten)]
        target: Target,
        /// DATABASE.COLLECTION.
        namespace: String,
        /// The shard, as `psdb shard list` names it.
        shard: String,
        /// The name of the node.
        #[arg(long, value_name = "NODE", required_unless_present = "cancel")]
        to: Option<String>,
        /// Call off the move of a replica that is under way, whoever began it: the replica stays where it is.
        #[arg(long, conflicts_with = "to")]
        cancel: bool,
    },
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.action {
        Action::List { target, namespace, json } => list(&target, namespace.as_deref(), json).await,
        Action::Split { target, namespace, shard, find } => {
            let connection = Connection::open(&target.uri).await?;
            let mut command = doc! { "split": &namespace };
            match (&shard, &find) {
                (Some(shard), _) => {
                    command.insert("bounds", bounds(&connection, &namespace, shard, shard).await?)
                }
                (_, find) => {
                    command.insert("find", input::document(find.as_deref().unwrap_or("{}"), "--find")?)
                }
            };
            recut::run(&connection, &namespace, command).await?;
            list(&target, Some(&namespace), false).await
        }
        Action::Merge { target, namespace, first, last } => {
            let connection = Connection::open(&target.uri).await?;
            let bounds = bounds(&connection, &namespace, &first, &last).await?;
            let command = doc! { "mergeChunks": &namespace, "bounds": bounds };
            recut::run(&connection, &namespace, command).await?;
            list(&target, Some(&namespace), false).await
        }
        Action::Move { target, namespace, shard, to, .. } => {
            let connection = Connection::open(&target.uri).await?;
            let bounds = bounds(&connection, &namespace, &shard, &shard).await?;
            let admin = connection.database("admin");
            let Some(to) = to else {
                let command = doc! { "psdbMove": &namespace, "bounds": bounds, "cancel": true };
                let answer = admin.run_command(command).await?;
                return output::say(format!("the replica of {shard} stays on {}", text(&answer, "staysOn")));
            };
            admin.run_command(doc! { "moveChunk": &namespace, "bounds": bounds, "to": &to }).await?;
            output::say(format!("the primary of {shard} is on {to}"))
        }
    }
}

async fn list(target: &Target, namespace: Option<&str>, json: bool) -> Result<(), Failure> {
    let connection = Connection::open(&target.uri).await?;
    let status = recut::status(&connection).await?;
    let shown: Vec<&Document> = shards(&status, namespace).collect();
    if let (Some(namespace), true) = (namespace, shown.is_empty()) {
        return Err(Failure::refused(format!("there is no collection {namespace}")));
    }
    if json {
        return shown.into_iter().try_for_each(|shard| output::json_line(&described(&status, shard)));
    }
    let rows: Vec<Vec<String>> = shown.into_iter().map(|shard| row(&described(&status, shard))).collect();
    let header = ["shard", "collection", "first hash", "primary", "nodes", "documents", "bytes"];
    output::say(table::rows(&header, &rows, output::width()))
}

/// The shards of collections, or of one; the catalog's own is none.
fn shards<'s>(status: &'s Document, namespace: Option<&'s str>) -> impl Iterator<Item = &'s Document> {
    documents(status, "shards").filter(move |shard| {
        let collection = shard.get_str("collection");
        collection.is_ok_and(|name| namespace.is_none_or(|wanted| wanted == name))
    })
}

/// A shard with where it is and what it holds, as its primary says.
fn described(status: &Document, shard: &Document) -> Document {
    let number = execute::number(shard, "shard");
    let nodes: Vec<String> = documents(shard, "replicas")
        .map(|replica| node_name(status, execute::number(replica, "node")))
        .collect();
    let mut described = doc! {
        "shard": format!("s{number}"),
        "collection": text(shard, "collection"),
        "first": execute::number(shard, "first"),
        "last": execute::number(shard, "last"),
        "nodes": nodes,
    };
    if let Some((node, primary)) = primary_of(status, number) {
        described.extend(doc! {
            "primary": text(node, "name"),
            "documents": execute::number(primary, "documents"),
            "bytes": execute::number(primary, "bytes"),
        });
    }
    described
}

fn row(shard: &Document) -> Vec<String> {
    let count = |name| match shard.get_i64(name) {
        Ok(number) => output::grouped(u64::try_from(number).unwrap_or(0)),
        Err(_) => String::new(),
    };
    let nodes = shard.get_array("nodes").into_iter().flatten().filter_map(Bson::as_str);
    vec![
        text(shard, "shard"),
        text(shard, "collection"),
        execute::number(shard, "first").to_string(),
        shard.get_str("primary").unwrap_or("none").to_owned(),
        nodes.collect::<Vec<_>>().join(" "),
        count("documents"),
        count("bytes"),
    ]
}

/// The bounds of shards from `first` to `last`, as `config.chunks` shows them.
async fn bounds(connection: &Connection, namespace: &str, first: &str, last: &str) -> Result<Bson, Failure> {
    let status = recut::status(connection).await?;
    let find = |wanted: &str| {
        let number: Option<i64> = wanted.strip_prefix('s').unwrap_or(wanted).parse().ok();
        let found = shards(&status, Some(namespace))
            .find(|shard| number.is_some_and(|number| execute::number(shard, "shard") == number));
        found.ok_or_else(|| Failure::refused(format!("{namespace} has no shard {wanted}")))
    };
    let min = match execute::number(find(first)?, "first") {
        i64::MIN => Bson::MinKey,
        number => Bson::Int64(number),
    };
    let max = match execute::number(find(last)?, "last").checked_add(1) {
        None => Bson::MaxKey,
        Some(number) => Bson::Int64(number),
    };
    Ok(bson::bson!([{ "hash": min }, { "hash": max }]))
}
