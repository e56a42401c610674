//! `psdb delete`: deletes one document, or all that match.

use bson::Document;

use super::input;
use crate::connection::Target;
use crate::failure::Failure;
use crate::shell::request;

/// Delete the first document that matches a filter, or all with --multi.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    psdb delete shop.users '{_id: 1}'\n  \
    psdb delete shop.sessions '{seen: {$lt: ISODate(\"2024-01-01\")}}' --multi")]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// DATABASE.COLLECTION.
    namespace: String,
    /// Which documents.
    filter: String,
    /// Delete all documents that match.
    #[arg(long)]
    multi: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let filter = input::document(&arguments.filter, "filter")?;
    let build = |collection: &str| request::delete(collection, filter, arguments.multi, Document::new());
    input::send(&arguments.target, &arguments.namespace, build).await
}
