//! Updates that are pipelines: the document goes through stages that compute its new form.

use base::{Code, Error, Result};
use bson::{Bson, Document};

use crate::context::{EvalContext, Variables};
use crate::pipeline::{Pipeline, Row, Runner};
use crate::value::{ArrayRef, Value};

/// The stages an update may have, sorted by name: those that make one document of one document.
pub const STAGES: &[&str] = &["$addFields", "$project", "$replaceRoot", "$replaceWith", "$set", "$unset"];

/// Parses the stages of an update.
pub(super) fn parse(stages: ArrayRef<'_>, variables: &Variables) -> Result<Pipeline> {
    let stages: Vec<Bson> = stages.iter().map(|stage| stage.to_bson()).collect();
    for stage in &stages {
        let name =
            Value::from(stage).as_document().and_then(|stage| stage.iter().next()).map(|(name, _)| name);
        if let Some(name) = name
            && crate::pipeline::stage_names().any(|known| known == name)
            && !STAGES.contains(&name)
        {
            return Err(Error::new(
                Code::INVALID_OPTIONS,
                format!("{name} is not allowed to be used within an update"),
            ));
        }
    }
    Pipeline::parse(&stages, variables)
}

/// The document's new form.
pub(super) fn run(pipeline: &Pipeline, document: Document, cx: &EvalContext) -> Result<Document> {
    let mut rows = Vec::new();
    Runner::new(&pipeline.stages, cx.clone()).push(Row::Tree(document), &mut rows)?;
    let row = rows.pop().expect("every stage of an update makes one row of one row");
    Ok(row.into_tree())
}
