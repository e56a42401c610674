//! `$limit`: the first rows only.

use base::{Code, Error, Result};

use super::{Stage, Step};
use crate::context::{EvalContext, Variables};
use crate::display::show_value;
use crate::number::Number;
use crate::pipeline::row::Row;
use crate::pipeline::runner::{Emit, Flow};
use crate::value::Value;

pub(super) fn parse(argument: &Value<'_>, _: &Variables, out: &mut Vec<Stage>) -> Result<()> {
    let count = parse_count("$limit", 5_107_201, argument)?;
    if count == 0 {
        return Err(Error::new(Code(15958), "the limit must be positive"));
    }
    out.push(Stage::Limit(count));
    Ok(())
}

/// A whole number, at least zero.
pub(super) fn parse_count(stage: &str, code: i32, argument: &Value<'_>) -> Result<u64> {
    let refuse = |what: &str| {
        let shown = show_value(argument);
        Error::new(Code(code), format!("invalid argument to {stage} stage: {what}: {stage}: {shown}"))
    };
    let number = Number::of(argument).ok_or_else(|| refuse("Expected a number in"))?;
    let count = number.integer().ok_or_else(|| refuse("Expected an integer"))?;
    u64::try_from(count).map_err(|_| refuse("Expected a non-negative number in"))
}

pub(super) struct LimitStep {
    left: u64,
}

impl LimitStep {
    pub(super) fn new(count: u64) -> LimitStep {
        LimitStep { left: count }
    }
}

impl Step for LimitStep {
    fn push(&mut self, row: Row, _: &EvalContext, emit: Emit<'_>) -> Result<Flow> {
        if self.left == 0 {
            return Ok(Flow::Done);
        }
        self.left -= 1;
        let flow = emit(row)?;
        Ok(if self.left == 0 { Flow::Done } else { flow })
    }

    fn is_done(&self) -> bool {
        self.left == 0
    }
}
