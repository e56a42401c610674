//! `$replaceRoot` and `$replaceWith`: a computed document instead of the row.

use base::{Code, Error, Result};
use bson::Bson;

use super::{Stage, Step};
use crate::context::{EvalContext, Variables};
use crate::display::{show_bson, show_document};
use crate::expression::Expression;
use crate::pipeline::row::Row;
use crate::pipeline::runner::{Emit, Flow};
use crate::value::Value;

/// A parsed `$replaceRoot` or `$replaceWith`.
#[derive(Clone, Debug)]
pub struct ReplaceRoot {
    /// The new document.
    pub expression: Expression,
    /// What messages call it.
    what: &'static str,
}

impl ReplaceRoot {
    /// The document that takes the place of `row`.
    pub fn apply(&self, row: &Row, cx: &EvalContext) -> Result<bson::Document> {
        let value = self.expression.evaluate(row.as_doc(), cx)?;
        if let Some(Bson::Document(document)) = value {
            return Ok(document);
        }
        let (shown, kind) = value
            .as_ref()
            .map_or((String::new(), "missing"), |value| (show_bson(value), Value::from(value).kind().name()));
        let message = format!(
            "{} must evaluate to an object, but resulting value was: {shown}. Type of resulting value: '{kind}'. \
             Input document: {}",
            self.what,
            show_document(row.as_doc())
        );
        Err(Error::new(Code(40228), message))
    }
}

pub(super) fn parse_root(argument: &Value<'_>, vars: &Variables, out: &mut Vec<Stage>) -> Result<()> {
    let document = argument.as_document().ok_or_else(|| {
        let kind = argument.kind().name();
        Error::new(
            Code(40229),
            format!("expected an object as specification for $replaceRoot stage, got {kind}"),
        )
    })?;
    let mut root = None;
    for (name, value) in document.iter() {
        if name != "newRoot" {
            let message =
                format!("unrecognized option to $replaceRoot stage: {name}, only valid option is 'newRoot'.");
            return Err(Error::new(Code(40230), message));
        }
        root = Some(Expression::parse(&value, vars)?);
    }
    let expression =
        root.ok_or_else(|| Error::new(Code(40231), "no newRoot specified for the $replaceRoot stage"))?;
    out.push(Stage::ReplaceRoot(ReplaceRoot { expression, what: "'newRoot' expression" }));
    Ok(())
}

pub(super) fn parse_with(argument: &Value<'_>, vars: &Variables, out: &mut Vec<Stage>) -> Result<()> {
    let expression = Expression::parse(argument, vars)?;
    out.push(Stage::ReplaceRoot(ReplaceRoot { expression, what: "'replacement document'" }));
    Ok(())
}

pub(super) struct ReplaceRootStep {
    root: ReplaceRoot,
}

impl ReplaceRootStep {
    pub(super) fn new(root: ReplaceRoot) -> ReplaceRootStep {
        ReplaceRootStep { root }
    }
}

impl Step for ReplaceRootStep {
    fn push(&mut self, row: Row, cx: &EvalContext, emit: Emit<'_>) -> Result<Flow> {
        let document = self.root.apply(&row, cx)?;
        emit(Row::Tree(document))
    }
}
