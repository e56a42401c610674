//! `$count`: one row with the number of rows; none when there are none.

use base::{Code, Error, Result};
use bson::{Bson, Document};

use super::{Stage, Step};
use crate::context::{EvalContext, Variables};
use crate::number::Numeric;
use crate::pipeline::row::Row;
use crate::pipeline::runner::{Emit, Flow};
use crate::value::Value;

pub(super) fn parse(argument: &Value<'_>, _: &Variables, out: &mut Vec<Stage>) -> Result<()> {
    let refuse = |code, message| Err(Error::new(Code(code), message));
    let Some(field) = argument.as_str() else {
        return refuse(40156, "the count field must be a non-empty string");
    };
    match field {
        "" => return refuse(40157, "the count field must be a non-empty string"),
        "_id" => return refuse(9_039_800, "the count field cannot be '_id'"),
        _ if field.starts_with('$') => return refuse(40158, "the count field cannot be a $-prefixed path"),
        _ if field.contains('\0') => return refuse(40159, "the count field cannot contain a null byte"),
        _ if field.contains('.') => return refuse(40160, "the count field cannot contain '.'"),
        _ => {}
    }
    out.push(Stage::Count(field.to_owned()));
    Ok(())
}

pub(super) struct CountStep {
    field: String,
    count: i64,
}

impl CountStep {
    pub(super) fn new(field: String) -> CountStep {
        CountStep { field, count: 0 }
    }
}

impl Step for CountStep {
    fn push(&mut self, _: Row, _: &EvalContext, _: Emit<'_>) -> Result<Flow> {
        self.count += 1;
        Ok(Flow::More)
    }

    fn next_held(&mut self) -> Result<Option<Row>> {
        let count = std::mem::take(&mut self.count);
        if count == 0 {
            return Ok(None);
        }
        let mut document = Document::new();
        document.insert::<_, Bson>(self.field.clone(), Numeric::int_or_long(count).to_bson());
        Ok(Some(Row::Tree(document)))
    }
}
