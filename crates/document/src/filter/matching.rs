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
            Node::Field { path, predicate } => field_matches(Values::of(doc, path), predicate, cx, details),
            Node::And(nodes) => and_matches(nodes, doc, cx, details),
            Node::Or(nodes) => any(nodes, |node| node.matches_with(doc, cx, details)),
            Node::Nor(nodes) => Ok(!any(nodes, |node| node.matches(doc, cx))?),
        }
    }
}

/// Where a predicate finds its values.
#[derive(Clone, Copy)]
enum Values<'a, 'p> {
    /// At the end of a walk.
    Path(DocRef<'a>, &'p Path),
    /// In a field of the document itself.
    Field(Option<Value<'a>>),
}

impl<'a, 'p> Values<'a, 'p> {
    fn of(doc: DocRef<'a>, path: &'p Path) -> Values<'a, 'p> {
        match path.parts() {
            [part] => Values::Field(doc.get(&part.name)),
            _ => Values::Path(doc, path),
        }
    }
}

/// Looks a field up once for all its conditions in a row: `{a: {$gt: 1, $lt: 5}}` is two nodes.
fn and_matches(
    nodes: &[Node],
    doc: DocRef<'_>,
    cx: &EvalContext,
    details: &mut MatchDetails,
) -> Result<bool> {
    let mut last: Option<(&Path, Values<'_, '_>)> = None;
    all(nodes, |node| {
        let Node::Field { path, predicate } = node else {
            return node.matches_with(doc, cx, details);
        };
        let values = match last {
            Some((last_path, values)) if last_path == path => values,
            _ => Values::of(doc, path),
        };
        last = Some((path, values));
        field_matches(values, predicate, cx, details)
    })
}

fn field_matches(
    values: Values<'_, '_>,
    predicate: &Predicate,
    cx: &EvalContext,
    details: &mut MatchDetails,
) -> Result<bool> {
    let mut ignored = MatchDetails::default();
    match predicate {
        Predicate::Ne(operand) => {
            let operand = Value::from(operand);
            let found = some_value(values, Leaf::Traverse, &mut ignored, |value, _| {
                Ok(Comparison::Eq.holds(value, &operand))
            })?;
            Ok(!found)
        }
        Predicate::Not(inner) => {
            Ok(!all(inner, |predicate| field_matches(values, predicate, cx, &mut ignored))?)
        }
        Predicate::Exists(wanted) => {
            let found = some_value(values, Leaf::Whole, &mut ignored, |value, _| Ok(value.is_some()))?;
            Ok(found == *wanted)
        }
        Predicate::All(inner) => {
            let all = all(inner, |predicate| field_matches(values, predicate, cx, details))?;
            Ok(all && !inner.is_empty())
        }
        Predicate::Size(_) | Predicate::ElemMatchDocument(_) | Predicate::ElemMatchValue(_) => {
            some_value(values, Leaf::Whole, details, |value, index| {
                let Some(Value::Array(elements)) = value else { return Ok(false) };
                let Some(inner_index) = array::matches(predicate, *elements, cx)? else { return Ok(false) };
                *index = index.or(inner_index);
                Ok(true)
            })
        }
        _ => some_value(values, Leaf::Traverse, details, |value, _| value_matches(predicate, value, cx)),
    }
}

/// Whether one of the values passes the test, which may refine the array index of its value.
fn some_value(
    values: Values<'_, '_>,
    leaf: Leaf,
    details: &mut MatchDetails,
    mut test: impl FnMut(Option<&Value<'_>>, &mut Option<u32>) -> Result<bool>,
) -> Result<bool> {
    let mut outcome = Ok(false);
    let mut visit = |value: Option<Value<'_>>, mut index: Option<u32>| {
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
    };
    let _ = match values {
        Values::Path(doc, path) => path::walk(doc, path.parts(), leaf, None, &mut visit),
        Values::Field(None) => visit(None, None),
        Values::Field(Some(value)) => path::at_leaf(value, leaf, None, &mut visit),
    };
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

fn all<'a, T>(items: &'a [T], mut test: impl FnMut(&'a T) -> Result<bool>) -> Result<bool> {
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
