//! `psdb aggregate`: runs a pipeline, its results as JSON lines.

use bson::{Bson, Document};

use super::input;
use crate::connection::Target;
use crate::failure::Failure;
use crate::shell::request;

/// Run an aggregation pipeline and print its results, one line of JSON each.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    psdb aggregate shop.users '[{$group: {_id: \"$city\", n: {$sum: 1}}}, {$sort: {n: -1}}]'\n  \
    psdb aggregate shop.users '{$match: {age: {$gt: 30}}}' '{$count: \"n\"}'")]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// DATABASE.COLLECTION.
    namespace: String,
    /// The pipeline as one array, or its stages as one argument each.
    #[arg(required = true)]
    pipeline: Vec<String>,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut stages = Vec::new();
    for text in &arguments.pipeline {
        match input::value(text, "pipeline")? {
            Bson::Array(many) => stages.extend(many),
            stage => stages.push(stage),
        }
    }
    let build = |collection: &str| request::aggregate(collection, stages, Document::new());
    input::send(&arguments.target, &arguments.namespace, build).await
}
