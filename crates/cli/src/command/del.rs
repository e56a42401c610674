//! `psdb del KEY`: deletes a key.

use bson::{Document, doc};

use super::kv::KvTarget;
use crate::failure::Failure;
use crate::shell::{execute, request};

/// Delete a key; exits with 1 if there is none.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  psdb del greeting")]
pub(super) struct Arguments {
    #[command(flatten)]
    store: KvTarget,
    /// The key.
    key: String,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut store = arguments.store.open().await?;
    let filter = doc! { "_id": &arguments.key };
    let reply = store.command(request::delete(&store.collection, filter, false, Document::new())).await?;
    match execute::number(&reply, "n") {
        0 => Err(Failure::refused(format!("there is no key {:?}", arguments.key))),
        _ => Ok(()),
    }
}
