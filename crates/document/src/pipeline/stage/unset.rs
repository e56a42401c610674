//! `$unset`: rows without some fields.

use base::Result;

use super::Stage;
use crate::context::Variables;
use crate::projection::Projection;
use crate::value::Value;

pub(super) fn parse(argument: &Value<'_>, _: &Variables, out: &mut Vec<Stage>) -> Result<()> {
    out.push(Stage::Project(Projection::parse_unset(argument)?));
    Ok(())
}
