//! `$addFields`: rows with computed fields.

use base::{Code, Error, Result};

use super::Stage;
use crate::context::Variables;
use crate::projection::Projection;
use crate::value::Value;

pub(super) fn parse(argument: &Value<'_>, vars: &Variables, out: &mut Vec<Stage>) -> Result<()> {
    parse_named("$addFields", argument, vars, out)
}

pub(super) fn parse_named(
    name: &str,
    argument: &Value<'_>,
    vars: &Variables,
    out: &mut Vec<Stage>,
) -> Result<()> {
    let document = argument.as_document().ok_or_else(|| {
        let kind = argument.kind().name();
        Error::new(Code(40272), format!("{name} specification stage must be an object, got {kind}"))
    })?;
    out.push(Stage::AddFields(Projection::parse_add_fields(document, vars)?));
    Ok(())
}
