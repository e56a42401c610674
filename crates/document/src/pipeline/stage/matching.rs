//! `$match`: rows that a filter matches.

use base::{Code, Error, Result};

use super::{Stage, Step};
use crate::context::{EvalContext, Variables};
use crate::filter::Filter;
use crate::pipeline::row::Row;
use crate::pipeline::runner::{Emit, Flow};
use crate::value::Value;

pub(super) fn parse(argument: &Value<'_>, vars: &Variables, out: &mut Vec<Stage>) -> Result<()> {
    let filter = argument
        .as_document()
        .ok_or_else(|| Error::new(Code(15959), "the match filter must be an expression in an object"))?;
    out.push(Stage::Match(Filter::parse(filter, vars)?));
    Ok(())
}

pub(super) struct MatchStep {
    filter: Filter,
}

impl MatchStep {
    pub(super) fn new(filter: Filter) -> MatchStep {
        MatchStep { filter }
    }
}

impl Step for MatchStep {
    fn push(&mut self, row: Row, cx: &EvalContext, emit: Emit<'_>) -> Result<Flow> {
        if self.filter.matches(row.as_doc(), cx)? { emit(row) } else { Ok(Flow::More) }
    }
}
