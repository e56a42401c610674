//! `psdb reshard`: cuts a collection into shards, by a key and into as many as wanted, and shows how far that is.

use bson::{Document, doc};
use mongodb::error::ErrorKind;

use super::{input, recut};
use crate::connection::{Connection, Target};
use crate::failure::Failure;
use crate::output;
use crate::shell::table;

/// Cut a collection into shards, by a key and into as many as wanted.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    psdb reshard shop.orders --key '{customer: 1}' --shards 12\n  \
    psdb reshard shop.orders --shards 24\n  \
    psdb reshard shop.orders              how far it is\n  \
    psdb reshard shop.orders --pause\n  \
    psdb reshard shop.orders --abort")]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// DATABASE.COLLECTION.
    namespace: String,
    /// The fields whose values choose the shard, as in {customer: 1}; without it the key stays as it is.
    #[arg(long, value_name = "JSON")]
    key: Option<String>,
    /// How many shards; without it as many as there are, or one for each node when it was not sharded.
    #[arg(long, value_name = "N")]
    shards: Option<u32>,
    /// Give up what is under way: the shards stay as they were.
    #[arg(long, conflicts_with_all = ["key", "shards", "pause", "resume"])]
    abort: bool,
    /// Stop the copying for a while.
    #[arg(long, conflicts_with_all = ["key", "shards", "resume"])]
    pause: bool,
    /// Let the copying go on.
    #[arg(long, conflicts_with_all = ["key", "shards"])]
    resume: bool,
    /// Print one JSON document when asked how far it is.
    #[arg(long)]
    json: bool,
}

/// The code of a collection that is not sharded.
const NOT_SHARDED: i32 = base::Code::NAMESPACE_NOT_SHARDED.0;

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let connection = Connection::open(&arguments.target.uri).await?;
    let namespace = arguments.namespace.as_str();
    let admin = connection.database("admin");
    let (command, said) = match (arguments.abort, arguments.pause, arguments.resume) {
        (true, _, _) => (doc! { "abortReshardCollection": namespace }, "is as it was"),
        (_, true, _) => (doc! { "psdbReshard": namespace, "pause": true }, "is not being cut until --resume"),
        (_, _, true) => (doc! { "psdbReshard": namespace, "resume": true }, "is being cut again"),
        _ if arguments.key.is_none() && arguments.shards.is_none() => {
            return show(&connection, &arguments).await;
        }
        _ => return cut(&connection, &arguments).await,
    };
    admin.run_command(command).await?;
    output::say(format!("{namespace} {said}"))
}

async fn cut(connection: &Connection, arguments: &Arguments) -> Result<(), Failure> {
    let namespace = arguments.namespace.as_str();
    let key = match &arguments.key {
        Some(key) => input::document(key, "--key")?,
        None => known_key(connection, namespace).await?,
    };
    let command = |name: &str| {
        let mut command = doc! { name: namespace, "key": key.clone() };
        if let Some(shards) = arguments.shards {
            command.insert("numInitialChunks", i64::from(shards));
        }
        command
    };
    let cut = match recut::run(connection, namespace, command("reshardCollection")).await {
        Err(error) if is_code(&error, NOT_SHARDED) => {
            recut::run(connection, namespace, command("shardCollection")).await
        }
        other => other,
    };
    cut?;
    let shards = shard_count(&recut::status(connection).await?, namespace);
    let shards = if shards == 1 { "1 shard".to_owned() } else { format!("{shards} shards") };
    output::say(format!("{namespace} has {shards} by {key}"))
}

/// The key of a collection, which is that of one that nobody has cut yet when it is not sharded.
async fn known_key(connection: &Connection, namespace: &str) -> Result<Document, Failure> {
    let collections = connection.database("config").collection::<Document>("collections");
    let found = collections.find_one(doc! { "_id": namespace }).await?;
    let key = found.and_then(|found| found.get_document("key").ok().cloned());
    Ok(key.unwrap_or_else(|| doc! { "_id": "hashed" }))
}

fn is_code(error: &mongodb::error::Error, code: i32) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(error) if error.code == code)
}

fn shard_count(status: &Document, namespace: &str) -> usize {
    super::status::documents(status, "shards")
        .filter(|shard| shard.get_str("collection").is_ok_and(|name| name == namespace))
        .count()
}

async fn show(connection: &Connection, arguments: &Arguments) -> Result<(), Failure> {
    let status = recut::status(connection).await?;
    let Some(reshard) = recut::under_way(&status, &arguments.namespace) else {
        let message = format!("the shards of {} are not being cut", arguments.namespace);
        return Err(Failure::refused(message));
    };
    let done = recut::done(&status, reshard);
    if arguments.json {
        let mut shown = reshard.clone();
        shown.extend(doc! {
            "documents": done.documents, "documentsTotal": done.documents_total,
            "bytes": done.bytes, "bytesTotal": done.bytes_total,
        });
        return output::json_line(&shown);
    }
    let count = |number: i64| output::grouped(u64::try_from(number).unwrap_or(0));
    let row = vec![
        arguments.namespace.clone(),
        recut::phase(reshard),
        format!("{} of {}", count(done.documents), count(done.documents_total)),
        format!("{} of {}", count(done.bytes), count(done.bytes_total)),
    ];
    output::say(table::rows(&["collection", "phase", "documents", "bytes"], &[row], output::width()))
}
