//! Parsing of filter documents, with MongoDB's errors.
//!
//! Called by `Filter::parse`. One arm for each operator; what its operand means is read in the operator's own file.
//! Recursion is bounded by the nesting of the document, which validation bounds.

use base::{Code, Error, Result};
use bson::Bson;

use super::bits::{BitMask, BitTest};
use super::comparison::InList;
use super::element::TypeSet;
use super::modulo::Modulo;
use super::regex::Regex;
use super::{Node, Predicate, is_operator_document};
use crate::context::Variables;
use crate::display::show_value;
use crate::expression::Expression;
use crate::number::Number;
use crate::path::Path;
use crate::value::{ArrayRef, DocRef, Value};

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// A whole document.
    Document,
    /// An element of an array.
    Element,
}

/// Parses a whole filter.
pub(super) fn filter(doc: DocRef<'_>, vars: &Variables) -> Result<Node> {
    node(doc, Level::Document, vars)
}

/// Parses a filter, or a branch of `$and` and the like.
fn node(doc: DocRef<'_>, level: Level, vars: &Variables) -> Result<Node> {
    let mut nodes = Vec::new();
    for (name, value) in doc.iter() {
        match name.strip_prefix('$') {
            Some(_) => nodes.extend(top_level(name, &value, level, vars)?),
            None => field(name, &value, vars, &mut nodes)?,
        }
    }
    Ok(conjunction(nodes))
}

/// Parses the operators of `{field: {..}}`. `field` is for messages.
fn operators(doc: DocRef<'_>, field: &str, vars: &Variables) -> Result<Vec<Predicate>> {
    doc.iter()
        .map(|(name, operand)| operator(name, &operand, doc, field, vars))
        .filter_map(Result::transpose)
        .collect()
}

fn conjunction(nodes: Vec<Node>) -> Node {
    let mut flat = Vec::with_capacity(nodes.len());
    for node in nodes {
        match node {
            Node::True => {}
            Node::And(inner) => flat.extend(inner),
            other => flat.push(other),
        }
    }
    match flat.len() {
        0 => Node::True,
        1 => flat.pop().expect("there is one"),
        _ => Node::And(flat),
    }
}

fn top_level(name: &str, operand: &Value<'_>, level: Level, vars: &Variables) -> Result<Option<Node>> {
    Ok(Some(match name {
        "$and" => conjunction(branches(name, operand, level, vars)?),
        "$or" => {
            let mut nodes = branches(name, operand, level, vars)?;
            if nodes.len() == 1 { nodes.pop().expect("there is one") } else { Node::Or(nodes) }
        }
        "$nor" => Node::Nor(branches(name, operand, level, vars)?),
        "$expr" if level == Level::Document => Node::Expr(Box::new(Expression::parse(operand, vars)?)),
        "$expr" => return Err(Error::bad_value("$expr can only be applied to the top-level document")),
        "$comment" => return Ok(None),
        "$alwaysTrue" => constant(name, operand, Node::True)?,
        "$alwaysFalse" => constant(name, operand, Node::False)?,
        _ => {
            return Err(Error::bad_value(format!(
                "unknown top level operator: {name}. If you have a field name that starts with a '$' symbol, \
                 consider using $getField or $setField."
            )));
        }
    }))
}

fn branches(name: &str, operand: &Value<'_>, level: Level, vars: &Variables) -> Result<Vec<Node>> {
    let Value::Array(entries) = operand else {
        return Err(Error::bad_value(format!("{name} must be an array")));
    };
    if entries.is_empty() {
        return Err(Error::bad_value("$and/$or/$nor must be a nonempty array"));
    }
    let branch = |entry: Value<'_>| match entry {
        Value::Document(document) => node(document, level, vars),
        _ => Err(Error::bad_value("$or/$and/$nor entries need to be full objects")),
    };
    entries.iter().map(branch).collect()
}

fn constant(name: &str, operand: &Value<'_>, node: Node) -> Result<Node> {
    match Number::of(operand).and_then(Number::integer) {
        Some(1) => Ok(node),
        _ => Err(Error::failed_to_parse(format!("{name} must be an integer value of 1"))),
    }
}

/// `{name: value}`: a value to equal, a regular expression, or operators.
fn field(name: &str, value: &Value<'_>, vars: &Variables, nodes: &mut Vec<Node>) -> Result<()> {
    let predicates = match value {
        Value::Document(document) if is_operator_document(*document) => operators(*document, name, vars)?,
        Value::Regex { pattern, options } => vec![Predicate::Regex(Regex::new(pattern, options)?)],
        value => vec![Predicate::Eq(comparable(value)?)],
    };
    let path = Path::parse_bounded(name)?;
    nodes.extend(predicates.into_iter().map(|predicate| Node::Field { path: path.clone(), predicate }));
    Ok(())
}

/// `None` for `$options`, which belongs to `$regex`.
fn operator(
    name: &str,
    operand: &Value<'_>,
    siblings: DocRef<'_>,
    field: &str,
    vars: &Variables,
) -> Result<Option<Predicate>> {
    let bits = |test| Ok(Predicate::Bits { test, mask: BitMask::parse(name, operand)? });
    let predicate = match name {
        "$eq" => Predicate::Eq(comparable(operand)?),
        "$ne" => match operand {
            Value::Regex { .. } => return Err(Error::bad_value("Can't have regex as arg to $ne.")),
            operand => Predicate::Ne(comparable(operand)?),
        },
        "$gt" => Predicate::Gt(bound(operand, field)?),
        "$gte" => Predicate::Gte(bound(operand, field)?),
        "$lt" => Predicate::Lt(bound(operand, field)?),
        "$lte" => Predicate::Lte(bound(operand, field)?),
        "$in" => Predicate::In(in_list(name, operand)?),
        "$nin" => Predicate::Not(vec![Predicate::In(in_list(name, operand)?)]),
        "$not" => Predicate::Not(negated(operand, field, vars)?),
        "$exists" => Predicate::Exists(is_truthy(operand)),
        "$type" => Predicate::Type(TypeSet::parse(operand)?),
        "$regex" => Predicate::Regex(regex(operand, siblings)?),
        "$options" if siblings.get("$regex").is_some() => return Ok(None),
        "$options" => return Err(Error::bad_value("$options needs a $regex")),
        "$size" => Predicate::Size(size(operand)?),
        "$all" => Predicate::All(all(operand, vars)?),
        "$elemMatch" => elem_match(operand, vars)?,
        "$mod" => Predicate::Mod(Modulo::parse(operand)?),
        "$bitsAllSet" => bits(BitTest::AllSet)?,
        "$bitsAnySet" => bits(BitTest::AnySet)?,
        "$bitsAllClear" => bits(BitTest::AllClear)?,
        "$bitsAnyClear" => bits(BitTest::AnyClear)?,
        _ => return Err(Error::bad_value(format!("unknown operator: {name}"))),
    };
    Ok(Some(predicate))
}

/// A value to compare with.
fn comparable(operand: &Value<'_>) -> Result<Bson> {
    match operand {
        Value::Undefined => Err(Error::bad_value("cannot compare to undefined")),
        operand => Ok(operand.to_bson()),
    }
}

/// The operand of `$gt` and the like.
fn bound(operand: &Value<'_>, field: &str) -> Result<Bson> {
    match operand {
        Value::Regex { .. } => {
            Err(Error::bad_value(format!("Can't have RegEx as arg to predicate over field '{field}'.")))
        }
        operand => comparable(operand),
    }
}

fn in_list(name: &str, operand: &Value<'_>) -> Result<InList> {
    let Value::Array(elements) = operand else {
        return Err(Error::bad_value(format!("{name} needs an array")));
    };
    let (mut values, mut regexes) = (Vec::new(), Vec::new());
    for element in elements.iter() {
        match element {
            Value::Regex { pattern, options } => regexes.push(Regex::new(pattern, options)?),
            Value::Document(document) if is_operator_document(document) => {
                return Err(Error::bad_value(format!("cannot nest $ under {name}")));
            }
            element => values.push(comparable(&element)?),
        }
    }
    Ok(InList::new(values, regexes))
}

fn negated(operand: &Value<'_>, field: &str, vars: &Variables) -> Result<Vec<Predicate>> {
    match operand {
        Value::Regex { pattern, options } => Ok(vec![Predicate::Regex(Regex::new(pattern, options)?)]),
        Value::Document(document) if document.is_empty() => Err(Error::bad_value("$not cannot be empty")),
        Value::Document(document) => operators(*document, field, vars),
        _ => Err(Error::bad_value("$not needs a regex or a document")),
    }
}

/// What counts as true where a boolean is expected.
fn is_truthy(operand: &Value<'_>) -> bool {
    match operand {
        Value::Boolean(flag) => *flag,
        Value::Null | Value::Undefined => false,
        operand => Number::of(operand).is_none_or(|number| number.compare(Number::Int(0)).is_ne()),
    }
}

fn regex(operand: &Value<'_>, siblings: DocRef<'_>) -> Result<Regex> {
    let options = match siblings.get("$options") {
        None => None,
        Some(Value::String(options)) => Some(options),
        Some(_) => return Err(Error::bad_value("$options has to be a string")),
    };
    match (operand, options) {
        (Value::String(pattern), options) => Regex::new(pattern, options.unwrap_or("")),
        (Value::Regex { options: own, .. }, Some(_)) if !own.is_empty() => {
            Err(Error::new(Code(51_075), "options set in both $regex and $options"))
        }
        (Value::Regex { pattern, options: own }, options) => Regex::new(pattern, options.unwrap_or(own)),
        _ => Err(Error::bad_value("$regex has to be a string")),
    }
}

fn size(operand: &Value<'_>) -> Result<i64> {
    let refused = |what: &str| {
        Error::bad_value(format!("Failed to parse $size. Expected {what}: $size: {}", show_value(operand)))
    };
    let number = Number::of(operand).ok_or_else(|| refused("a number in"))?;
    match number.integer() {
        Some(size) if size >= 0 => Ok(size),
        Some(_) => Err(refused("a non-negative number in")),
        None => Err(refused("an integer")),
    }
}

fn all(operand: &Value<'_>, vars: &Variables) -> Result<Vec<Predicate>> {
    let Value::Array(elements) = operand else {
        return Err(Error::bad_value("$all needs an array"));
    };
    let first = elements.get(0);
    let is_elem_match = |value: &Value<'_>| match value {
        Value::Document(document) => document.iter().next().is_some_and(|(name, _)| name == "$elemMatch"),
        _ => false,
    };
    if first.as_ref().is_some_and(is_elem_match) {
        return all_of_elem_match(*elements, vars);
    }
    let predicate = |element: Value<'_>| match element {
        Value::Regex { pattern, options } => Ok(Predicate::Regex(Regex::new(pattern, options)?)),
        Value::Document(document) if is_operator_document(document) => {
            Err(Error::bad_value("no $ expressions in $all"))
        }
        element => Ok(Predicate::Eq(comparable(&element)?)),
    };
    elements.iter().map(predicate).collect()
}

fn all_of_elem_match(elements: ArrayRef<'_>, vars: &Variables) -> Result<Vec<Predicate>> {
    let predicate = |element: Value<'_>| {
        let Value::Document(document) = element else {
            return Err(Error::bad_value("$all/$elemMatch has to be consistent"));
        };
        let mut fields = document.iter();
        match (fields.next(), fields.next()) {
            (Some(("$elemMatch", operand)), None) => elem_match(&operand, vars),
            _ => Err(Error::bad_value("$all/$elemMatch has to be consistent")),
        }
    };
    elements.iter().map(predicate).collect()
}

fn elem_match(operand: &Value<'_>, vars: &Variables) -> Result<Predicate> {
    let Value::Document(document) = operand else {
        return Err(Error::bad_value("$elemMatch needs an Object"));
    };
    let is_logical = |name: &str| matches!(name, "$and" | "$or" | "$nor" | "$expr" | "$comment");
    let on_values =
        is_operator_document(*document) && !document.iter().next().is_some_and(|(name, _)| is_logical(name));
    if on_values {
        Ok(Predicate::ElemMatchValue(operators(*document, "", vars)?))
    } else {
        Ok(Predicate::ElemMatchDocument(Box::new(node(*document, Level::Element, vars)?)))
    }
}
