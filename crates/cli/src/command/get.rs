//! `psdb get KEY`: prints the value of a key.

use bson::{Document, doc};
use futures::TryStreamExt;

use super::kv::{self, KvTarget};
use crate::failure::Failure;
use crate::output;
use crate::shell::request;

/// Print the value of a key; exits with 1 if there is none.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  psdb get greeting\n  psdb get user:1 | jq .name")]
pub(super) struct Arguments {
    #[command(flatten)]
    store: KvTarget,
    /// The key.
    key: String,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let store = arguments.store.open().await?;
    let options: Document = doc! { "limit": 1, "singleBatch": true };
    let found = store
        .cursor(request::find(&store.collection, doc! { "_id": &arguments.key }, options))
        .await?
        .try_next()
        .await?;
    match found.as_ref().and_then(|document| document.get("value")) {
        Some(value) => output::say(kv::text(value)),
        None => Err(Failure::refused(format!("there is no key {:?}", arguments.key))),
    }
}
