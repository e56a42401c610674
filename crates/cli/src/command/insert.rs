//! `psdb insert`: documents from the command line or from standard input.

use bson::Bson;

use super::input;
use super::load::{Format, LoadOptions, load};
use crate::connection::{Connection, Target, split_namespace};
use crate::failure::Failure;
use crate::shell::request;

/// Insert documents, given as arguments or as JSON lines on standard input.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    psdb insert shop.users '{name: \"Ada\", born: ISODate(\"1815-12-10\")}'\n  \
    psdb insert shop.users '{_id: 1}' '{_id: 2}'\n  \
    jq -c '.items[]' big.json | psdb insert shop.items")]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// DATABASE.COLLECTION.
    namespace: String,
    /// Documents; none means: read standard input.
    json: Vec<String>,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    if arguments.json.is_empty() {
        return from_stdin(&arguments).await;
    }
    let mut documents = Vec::new();
    for text in &arguments.json {
        match input::value(text, "document")? {
            Bson::Array(many) => documents.extend(many),
            document @ Bson::Document(_) => documents.push(document),
            _ => return Err(Failure::usage(format!("{text} is not a document"))),
        }
    }
    let build = |collection: &str| request::insert(collection, documents, true);
    input::send(&arguments.target, &arguments.namespace, build).await
}

async fn from_stdin(arguments: &Arguments) -> Result<(), Failure> {
    let (database, collection) = split_namespace(&arguments.namespace)?;
    let connection = Connection::open(&arguments.target.uri).await?;
    let collection = connection.database(database).collection(collection);
    let options = LoadOptions { format: Format::Jsonl, stop_on_error: true, ..LoadOptions::default() };
    load(Box::new(std::io::BufReader::new(std::io::stdin())), None, collection, options).await
}
