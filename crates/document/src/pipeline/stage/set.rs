//! `$set`: another name of `$addFields`.

use base::Result;

use super::{Stage, add_fields};
use crate::context::Variables;
use crate::value::Value;

pub(super) fn parse(argument: &Value<'_>, vars: &Variables, out: &mut Vec<Stage>) -> Result<()> {
    add_fields::parse_named("$set", argument, vars, out)
}
