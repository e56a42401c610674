//! `$project`: rows with some fields only, or without some, or with computed ones.

use base::{Code, Error, Result};

use super::{Stage, Step};
use crate::context::{EvalContext, Variables};
use crate::pipeline::row::Row;
use crate::pipeline::runner::{Emit, Flow};
use crate::projection::Projection;
use crate::value::Value;

pub(super) fn parse(argument: &Value<'_>, vars: &Variables, out: &mut Vec<Stage>) -> Result<()> {
    let document = argument
        .as_document()
        .ok_or_else(|| Error::new(Code(15969), "$project specification must be an object"))?;
    out.push(Stage::Project(Projection::parse_stage(document, vars)?));
    Ok(())
}

/// Also runs `$addFields` and `$unset`, which are projections of other modes.
pub(super) struct ProjectStep {
    projection: Projection,
}

impl ProjectStep {
    pub(super) fn new(projection: Projection) -> ProjectStep {
        ProjectStep { projection }
    }
}

impl Step for ProjectStep {
    fn push(&mut self, row: Row, cx: &EvalContext, emit: Emit<'_>) -> Result<Flow> {
        let document = self.projection.transform(row.as_doc(), cx)?;
        emit(Row::Tree(document))
    }
}
