//! `$skip`: all but the first rows.

use base::Result;

use super::limit::parse_count;
use super::{Stage, Step};
use crate::context::{EvalContext, Variables};
use crate::pipeline::row::Row;
use crate::pipeline::runner::{Emit, Flow};
use crate::value::Value;

pub(super) fn parse(argument: &Value<'_>, _: &Variables, out: &mut Vec<Stage>) -> Result<()> {
    out.push(Stage::Skip(parse_count("$skip", 5_107_200, argument)?));
    Ok(())
}

pub(super) struct SkipStep {
    left: u64,
}

impl SkipStep {
    pub(super) fn new(count: u64) -> SkipStep {
        SkipStep { left: count }
    }
}

impl Step for SkipStep {
    fn push(&mut self, row: Row, _: &EvalContext, emit: Emit<'_>) -> Result<Flow> {
        if self.left > 0 {
            self.left -= 1;
            return Ok(Flow::More);
        }
        emit(row)
    }
}
