//! Matching: walks the tree of a filter over one document.
//!
//! Called by `Filter::matches` and the array operators. The walk stops at the first value that decides.

use std::ops::ControlFlow;

use base::Result;

use super::comparison::Comparison;
use super::{MatchDetails, Node, Predicate, array};
use crate::context::EvalContext;
use crate::path::{self, Leaf, Path};
use crate::value::{DocRef, Value};

impl Node {
    /// Whether the document satisfies this condition. `details` is meaningful only when it does.
    pub(super) fn matches_with(
        &self,
        doc: DocRef<'_>,
        cx: &EvalContext,
        details: &mut MatchDetails,
    ) -> Result<bool> {
        match self {
            Node::True => Ok(true),
            Node::False => Ok(false),
            Node::Expr(expression) => expression.is_true(doc, cx),
            Node::Field { path, predicate } => field_matches(path, predicate, doc, cx, details),
            Node::And(nodes) => all(nodes, |node| node.matches_with(doc, cx, details)),
            Node::Or(nodes) => any(nodes, |node| node.matches_with(doc, cx, details)),
            Node::Nor(nodes) => Ok(!any(nodes, |node| node.matches(doc, cx))?),
        }
    }
}

fn field_matches(
    path: &Path,
    predicate: &Predicate,
    doc: DocRef<'_>,
    cx: &EvalContext,
    details: &mut MatchDetails,
) -> Result<bool> {
    let mut ignored = MatchDetails::default();
    match predicate {
        Predicate::Ne(operand) => {
            let operand = Value::from(operand);
            let found = some_value(path, doc, Leaf::Traverse, &mut ignored, |value, _| {
                Ok(Comparison::Eq.holds(value, &operand))
            })?;
            Ok(!found)
        }
        Predicate::Not(inner) => {
            Ok(!all(inner, |predicate| field_matches(path, predicate, doc, cx, &mut ignored))?)
        }
        Predicate::Exists(wanted) => {
            let found = some_value(path, doc, Leaf::Whole, &mut ignored, |value, _| Ok(value.is_some()))?;
            Ok(found == *wanted)
        }
        Predicate::All(inner) => {
            let all = all(inner, |predicate| field_matches(path, predicate, doc, cx, details))?;
            Ok(all && !inner.is_empty())
        }
        Predicate::Size(_) | Predicate::ElemMatchDocument(_) | Predicate::ElemMatchValue(_) => {
            some_value(path, doc, Leaf::Whole, details, |value, index| {
                let Some(Value::Array(elements)) = value else { return Ok(false) };
                let Some(inner_index) = array::matches(predicate, *elements, cx)? else { return Ok(false) };
                *index = index.or(inner_index);
                Ok(true)
            })
        }
        _ => some_value(path, doc, Leaf::Traverse, details, |value, _| value_matches(predicate, value, cx)),
    }
}

/// Whether one of the values at the path passes the test, which may refine the array index of its value.
fn some_value(
    path: &Path,
    doc: DocRef<'_>,
    leaf: Leaf,
    details: &mut MatchDetails,
    mut test: impl FnMut(Option<&Value<'_>>, &mut Option<u32>) -> Result<bool>,
) -> Result<bool> {
    let mut outcome = Ok(false);
    let _ = path::walk(doc, path.parts(), leaf, None, &mut |value, mut index| {
        match test(value.as_ref(), &mut index) {
            Ok(false) => return ControlFlow::Continue(()),
            Ok(true) => {
                // A later condition that goes through no array leaves the index of an earlier one.
                details.array_index = index.or(details.array_index);
                outcome = Ok(true);
            }
            Err(error) => outcome = Err(error),
        }
        ControlFlow::Break(())
    });
    outcome
}

/// Whether a single value satisfies the predicate. Arrays are taken as a whole.
pub(super) fn value_matches(
    predicate: &Predicate,
    value: Option<&Value<'_>>,
    cx: &EvalContext,
) -> Result<bool> {
    let present = |test: &dyn Fn(&Value<'_>) -> bool| Ok(value.is_some_and(test));
    match predicate {
        Predicate::Eq(operand) => Ok(Comparison::Eq.holds(value, &Value::from(operand))),
        Predicate::Gt(operand) => Ok(Comparison::Gt.holds(value, &Value::from(operand))),
        Predicate::Gte(operand) => Ok(Comparison::Gte.holds(value, &Value::from(operand))),
        Predicate::Lt(operand) => Ok(Comparison::Lt.holds(value, &Value::from(operand))),
        Predicate::Lte(operand) => Ok(Comparison::Lte.holds(value, &Value::from(operand))),
        Predicate::Ne(operand) => Ok(!Comparison::Eq.holds(value, &Value::from(operand))),
        Predicate::In(list) => list.contains(value),
        Predicate::Exists(wanted) => Ok(value.is_some() == *wanted),
        Predicate::Type(kinds) => present(&|value| kinds.contains(value)),
        Predicate::Regex(regex) => regex.matches(value),
        Predicate::Mod(modulo) => present(&|value| modulo.matches(value)),
        Predicate::Bits { test, mask } => present(&|value| test.matches(mask, value)),
        Predicate::Not(inner) => Ok(!value_matches_all(inner, value, cx)?),
        Predicate::All(inner) => Ok(!inner.is_empty() && value_matches_all(inner, value, cx)?),
        Predicate::Size(_) | Predicate::ElemMatchDocument(_) | Predicate::ElemMatchValue(_) => match value {
            Some(Value::Array(elements)) => Ok(array::matches(predicate, *elements, cx)?.is_some()),
            _ => Ok(false),
        },
    }
}

pub(super) fn value_matches_all(
    predicates: &[Predicate],
    value: Option<&Value<'_>>,
    cx: &EvalContext,
) -> Result<bool> {
    all(predicates, |predicate| value_matches(predicate, value, cx))
}

fn all<T>(items: &[T], mut test: impl FnMut(&T) -> Result<bool>) -> Result<bool> {
    for item in items {
        if !test(item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn any<T>(items: &[T], mut test: impl FnMut(&T) -> Result<bool>) -> Result<bool> {
    for item in items {
        if test(item)? {
            return Ok(true);
        }
    }
    Ok(false)
}
