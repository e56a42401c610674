//! `psdb update`: changes one document, or all that match.

use bson::Document;

use super::input;
use crate::connection::Target;
use crate::failure::Failure;
use crate::shell::request;

/// Change the first document that matches a filter, or all with --multi.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    psdb update shop.users '{name: \"Ada\"}' '{$set: {age: 36}}'\n  \
    psdb update shop.users '{age: {$lt: 18}}' '{$set: {minor: true}}' --multi\n  \
    psdb update shop.stock '{_id: \"tea\"}' '{$inc: {n: 5}}' --upsert")]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// DATABASE.COLLECTION.
    namespace: String,
    /// Which documents.
    filter: String,
    /// Operators such as {$set: {..}}, a whole document, or a pipeline [..].
    update: String,
    /// Insert a document if none matches.
    #[arg(long)]
    upsert: bool,
    /// Change all documents that match.
    #[arg(long)]
    multi: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let filter = input::document(&arguments.filter, "filter")?;
    let update = input::value(&arguments.update, "update")?;
    let mut options = Document::new();
    if arguments.upsert {
        options.insert("upsert", true);
    }
    let build = |collection: &str| request::update(collection, filter, update, arguments.multi, options);
    input::send(&arguments.target, &arguments.namespace, build).await
}
