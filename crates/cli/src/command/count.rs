//! `psdb count`: how many documents match.

use bson::Document;

use super::input;
use crate::connection::Target;
use crate::failure::Failure;
use crate::shell::request;

/// Print how many documents match a filter.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  psdb count shop.users\n  psdb count shop.users '{age: {$gt: 30}}'")]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// DATABASE.COLLECTION.
    namespace: String,
    /// The filter; none means: every document.
    #[arg(default_value = "{}")]
    filter: String,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let filter = input::document(&arguments.filter, "filter")?;
    let build = |collection: &str| request::count(collection, filter, Document::new());
    input::send(&arguments.target, &arguments.namespace, build).await
}
