//! `$sortByCount`: a `$group` with counts and a `$sort` by them, the largest first.

use base::{Code, Error, Result};
use bson::Bson;

use super::Stage;
use super::group::{Group, GroupField};
use crate::context::Variables;
use crate::expression::Expression;
use crate::path::Path;
use crate::pipeline::accumulator::Accumulator;
use crate::sort::{SortDirection, SortSpec};
use crate::value::{DocRef, Value};

pub(super) fn parse(argument: &Value<'_>, vars: &Variables, out: &mut Vec<Stage>) -> Result<()> {
    match argument {
        Value::String(text) if text.starts_with('$') => {}
        Value::Document(document) if is_operator(*document) => {}
        Value::Document(_) => {
            let message = "the sortByCount field must be defined as a $-prefixed path or an expression inside an object";
            return Err(Error::new(Code(40147), message));
        }
        Value::String(_) => {
            let message = "the sortByCount field must be defined as a $-prefixed path or an expression inside an object";
            return Err(Error::new(Code(40148), message));
        }
        _ => {
            let message = "the sortByCount field must be specified as a string or as an object";
            return Err(Error::new(Code(40149), message));
        }
    }
    let count = GroupField {
        name: "count".to_owned(),
        accumulator: Accumulator::Sum,
        argument: Expression::constant(Bson::Int32(1)),
    };
    out.push(Stage::Group(Group { id: Expression::parse(argument, vars)?, fields: vec![count] }));
    let keys = vec![(Path::parse("count"), SortDirection::Descending)];
    out.push(Stage::Sort { spec: SortSpec { keys }, limit: None });
    Ok(())
}

fn is_operator(document: DocRef<'_>) -> bool {
    document.iter().next().is_some_and(|(name, _)| name.starts_with('$'))
}
