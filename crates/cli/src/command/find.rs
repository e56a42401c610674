//! `psdb find`: the documents that match, as JSON lines.

use bson::Document;

use super::input;
use crate::connection::Target;
use crate::failure::Failure;
use crate::shell::request;

/// Print the documents that match a filter, one line of JSON each.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    psdb find shop.users\n  \
    psdb find shop.users '{age: {$gt: 30}}' --sort '{age: -1}' --limit 5\n  \
    psdb find shop.users --projection '{name: 1, _id: 0}' | jq .name")]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// DATABASE.COLLECTION.
    namespace: String,
    /// The filter; none means: every document.
    #[arg(default_value = "{}")]
    filter: String,
    /// The order, as in {age: -1}.
    #[arg(long, value_name = "JSON")]
    sort: Option<String>,
    /// At most this many documents.
    #[arg(long, value_name = "N")]
    limit: Option<i64>,
    /// Leave out the first documents.
    #[arg(long, value_name = "N")]
    skip: Option<i64>,
    /// The fields to show, as in {name: 1}.
    #[arg(long, value_name = "JSON")]
    projection: Option<String>,
    /// The index to use: its name or its keys.
    #[arg(long, value_name = "INDEX")]
    hint: Option<String>,
    /// Show how the query ran instead of its documents.
    #[arg(long)]
    explain: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let filter = input::document(&arguments.filter, "filter")?;
    let mut options = Document::new();
    if let Some(sort) = &arguments.sort {
        options.insert("sort", input::document(sort, "--sort")?);
    }
    if let Some(limit) = arguments.limit {
        options.insert("limit", limit);
    }
    if let Some(skip) = arguments.skip {
        options.insert("skip", skip);
    }
    if let Some(projection) = &arguments.projection {
        options.insert("projection", input::document(projection, "--projection")?);
    }
    if let Some(hint) = &arguments.hint {
        options.insert("hint", input::document_or_name(hint, "--hint")?);
    }
    input::send(&arguments.target, &arguments.namespace, |collection| {
        let request = request::find(collection, filter, options);
        if arguments.explain { request.explained("executionStats") } else { request }
    })
    .await
}
