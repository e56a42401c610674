//! What the tests of this crate share: scripts, values in shell syntax, a router that only records, and a client.

pub(crate) mod client;
pub(crate) mod node;
pub(crate) mod recorder;

#[path = "../../../document/tests/support/json.rs"]
pub(crate) mod json;

use std::error::Error;
use std::path::Path;

use bson::{Bson, Document};
use document::DocBuf;

/// A document in shell syntax.
pub(crate) fn tree(text: &str) -> Result<Document, Box<dyn Error>> {
    match json::parse(text)? {
        Bson::Document(document) => Ok(document),
        other => Err(format!("not a document: {other}").into()),
    }
}

/// An array of documents in shell syntax.
pub(crate) fn trees(text: &str) -> Result<Vec<Document>, Box<dyn Error>> {
    let Bson::Array(items) = json::parse(text)? else { return Err("not an array".into()) };
    let document = |item| match item {
        Bson::Document(document) => Ok(document),
        other => Err(format!("not a document: {other}").into()),
    };
    items.into_iter().map(document).collect()
}

/// A document in shell syntax.
pub(crate) fn show(document: &Document) -> String {
    json::show(&Bson::Document(document.clone()))
}

/// A document in shell syntax.
pub(crate) fn show_buf(document: &DocBuf) -> String {
    show(&document.to_document())
}

/// Documents in shell syntax.
pub(crate) fn show_bufs(documents: &[DocBuf]) -> String {
    format!("[{}]", documents.iter().map(show_buf).collect::<Vec<_>>().join(", "))
}

/// Runs every script in `tests/scripts/<area>` with a fresh runner.
pub(crate) fn run_scripts<R: goldenscript::Runner>(area: &str, new_runner: impl Fn() -> R) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(area);
    let entries = std::fs::read_dir(&directory).expect("the area has a directory");
    let mut scripts: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "no scripts in {}", directory.display());
    for script in scripts {
        goldenscript::run(&mut new_runner(), &script)
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    }
}
