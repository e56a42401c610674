//! `psdb keys PREFIX`: lists keys in order.

use bson::{Document, doc};
use futures::TryStreamExt;

use super::kv::{self, KvTarget};
use crate::failure::Failure;
use crate::output;
use crate::shell::request;

/// List the keys that begin with a prefix, in order.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  psdb keys\n  psdb keys user:\n  psdb keys user: --values")]
pub(super) struct Arguments {
    #[command(flatten)]
    store: KvTarget,
    /// The beginning of the keys; none means: every key.
    #[arg(default_value = "")]
    prefix: String,
    /// Print the values too, after a tab.
    #[arg(long)]
    values: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let store = arguments.store.open().await?;
    let mut options = doc! { "sort": { "_id": 1 } };
    if !arguments.values {
        options.insert("projection", doc! { "_id": 1 });
    }
    let mut cursor =
        store.cursor(request::find(&store.collection, prefix_range(&arguments.prefix), options)).await?;
    while let Some(document) = cursor.try_next().await? {
        let key = document.get_str("_id").unwrap_or_default();
        match document.get("value").filter(|_| arguments.values) {
            Some(value) => output::say(format!("{key}\t{}", kv::text(value)))?,
            None => output::say(key)?,
        }
    }
    Ok(())
}

/// A filter on the strings that begin with `prefix`: from it up to the first string that does not.
fn prefix_range(prefix: &str) -> Document {
    let mut range = doc! { "$gte": prefix };
    if let Some(end) = successor(prefix) {
        range.insert("$lt", end);
    }
    doc! { "_id": range }
}

/// The smallest string above all that begin with `prefix`; none if there is no such string.
fn successor(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // The range of characters skips the surrogates by itself.
        if let Some(next) = (last..=char::MAX).nth(1) {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}
