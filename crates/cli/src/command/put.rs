//! `psdb put KEY VALUE`: stores a value under a key.

use std::io::Read;

use bson::{Bson, Document, doc};

use super::kv::KvTarget;
use crate::failure::Failure;
use crate::literal;
use crate::shell::request;

/// Store a value under a key, replacing what was there.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    psdb put greeting hello\n  \
    psdb put user:1 '{name: \"Ada\", age: 36}'\n  \
    psdb put readme - < README.md")]
pub(super) struct Arguments {
    #[command(flatten)]
    store: KvTarget,
    /// The key.
    key: String,
    /// The value: JSON if it is JSON, else text; "-" reads standard input.
    #[arg(allow_hyphen_values = true)]
    value: String,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let text = match arguments.value.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            text
        }
        value => value.to_owned(),
    };
    let value = literal::parse(&text).unwrap_or(Bson::String(text));
    let mut store = arguments.store.open().await?;
    let key = arguments.key;
    let document = doc! { "_id": &key, "value": value };
    let options: Document = doc! { "upsert": true };
    store
        .command(request::update(&store.collection, doc! { "_id": &key }, document.into(), false, options))
        .await?;
    Ok(())
}
