//! Expressions: what `$expr`, computed fields, group keys and pipeline updates evaluate.
//!
//! Called by filters, projections, updates and pipeline stages. An expression is parsed once into a tree, with constant
//! parts evaluated right then, and evaluated for each document, whose fields are read in place. One file per family of
//! operators; `operators` has the sorted table of all of them.
//!
//! Always holds: evaluation never panics, and its depth and memory are bounded whatever the expression says. The result
//! depends on the document and the context only.

mod accumulate;
mod arithmetic;
mod array;
mod boolean;
mod comparison;
mod conditional;
mod conversion;
mod date;
mod date_arithmetic;
mod date_format;
mod date_parts;
mod exponential;
pub(crate) mod field;
mod limit;
mod object;
mod operand;
mod operators;
mod parse;
mod regex;
mod set;
mod string;
mod string_search;
mod timezone;
mod transform;
mod trim;
mod variable;

use std::collections::BTreeSet;

use base::Result;
use bson::{Bson, Document};

pub(crate) use limit::memory_bytes;
pub(crate) use operand::{Operand, is_nullish, kind_name};
use operators::Operator;
pub use operators::operator_names;
pub use variable::command_variables;

use crate::context::{EvalContext, Variables};
use crate::path::Path;
use crate::value::{DocRef, Value};

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    node: Node,
}

/// One node of the tree.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    /// A value known at parsing; `None` is `$$REMOVE`.
    Constant(Option<Bson>),
    /// A regular expression, compiled at parsing.
    Regex(regex::CompiledRegex),
    /// `$a.b`
    Field(Path),
    /// `$$ROOT`
    Root,
    /// `$$NOW`
    Now,
    /// `$$CLUSTER_TIME`
    ClusterTime,
    /// A variable of an enclosing `$let`, `$map`, ..: how many frames outwards, which of the frame's variables, and what
    /// to read of its value.
    Variable { depth: usize, slot: usize, path: Option<Path> },
    /// `{a: .., b: ..}`
    Object(Vec<(String, Expression)>),
    /// `[.., ..]`
    Array(Vec<Expression>),
    /// `{$operator: ..}`
    Call { operator: &'static Operator, arguments: Vec<Option<Expression>> },
}

/// What an expression sees while it is evaluated.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    root: DocRef<'a>,
    cx: &'a EvalContext,
    frame: Option<&'a Frame<'a>>,
}

/// The variables that one operator binds.
struct Frame<'a> {
    values: &'a [Option<Operand<'a>>],
    parent: Option<&'a Frame<'a>>,
}

impl Expression {
    /// Reads an expression. `variables` are the command's `let` variables; their values become constants.
    ///
    /// Errors: MongoDB's, e.g. 168 for an operator that does not exist and 17276 for an undefined variable.
    pub fn parse(value: &Value<'_>, variables: &Variables) -> Result<Expression> {
        parse::Parser::new(variables).expression(value)
    }

    /// An expression that is always `value`.
    pub fn constant(value: Bson) -> Expression {
        Expression { node: Node::Constant(Some(value)) }
    }

    pub(crate) fn compiled_regex(regex: regex::CompiledRegex) -> Expression {
        Expression { node: Node::Regex(regex) }
    }

    /// The value for one document; `None` when it is missing.
    pub fn evaluate(&self, root: DocRef<'_>, cx: &EvalContext) -> Result<Option<Bson>> {
        let value = self.eval(&Scope { root, cx, frame: None })?;
        let value = value.map(Operand::into_bson);
        if let Some(value) = &value {
            limit::check_depth(value)?;
        }
        Ok(value)
    }

    /// Whether the value for one document counts as true.
    pub fn is_true(&self, root: DocRef<'_>, cx: &EvalContext) -> Result<bool> {
        Ok(self.eval(&Scope { root, cx, frame: None })?.is_some_and(|value| value.is_true()))
    }

    /// The value, when it is the same for every document and is not missing.
    pub fn as_constant(&self) -> Option<&Bson> {
        match &self.node {
            Node::Constant(value) => value.as_ref(),
            _ => None,
        }
    }

    /// The field that the expression reads and nothing else, as in `"$a.b"`.
    pub fn as_field_path(&self) -> Option<&Path> {
        match &self.node {
            Node::Field(path) => Some(path),
            _ => None,
        }
    }

    /// The fields of the document that the expression reads. `None` when it reads the whole document.
    pub fn field_paths(&self) -> Option<BTreeSet<Path>> {
        let mut paths = BTreeSet::new();
        self.collect_paths(&mut paths).then_some(paths)
    }

    /// False when the whole document is read.
    fn collect_paths(&self, paths: &mut BTreeSet<Path>) -> bool {
        match &self.node {
            Node::Constant(_) | Node::Regex(_) | Node::Now | Node::ClusterTime | Node::Variable { .. } => {
                true
            }
            Node::Root => false,
            Node::Field(path) => {
                paths.insert(path.clone());
                true
            }
            Node::Object(fields) => fields.iter().all(|(_, value)| value.collect_paths(paths)),
            Node::Array(elements) => elements.iter().all(|element| element.collect_paths(paths)),
            Node::Call { arguments, .. } => {
                arguments.iter().flatten().all(|argument| argument.collect_paths(paths))
            }
        }
    }

    /// The value in place where possible.
    pub(crate) fn eval<'a>(&'a self, scope: &Scope<'a>) -> Result<Option<Operand<'a>>> {
        Ok(match &self.node {
            Node::Constant(value) => value.as_ref().map(|value| Operand::Borrowed(Value::from(value))),
            Node::Regex(regex) => Some(regex.to_bson().into()),
            Node::Field(path) => field::read(scope.root, path.parts()),
            Node::Root => Some(Operand::Borrowed(Value::Document(scope.root))),
            Node::Now => Some(Operand::Borrowed(Value::DateTime(scope.cx.now.timestamp_millis()))),
            Node::ClusterTime => Some(Operand::Borrowed(Value::Timestamp(scope.cx.cluster_time))),
            Node::Variable { depth, slot, path } => scope.variable(*depth, *slot, path.as_ref()),
            Node::Object(fields) => {
                let mut document = Document::new();
                for (name, value) in fields {
                    if let Some(value) = value.eval(scope)? {
                        document.insert(name.clone(), value.into_bson());
                    }
                }
                Some(document.into())
            }
            Node::Array(elements) => {
                let mut array = Vec::with_capacity(elements.len());
                for element in elements {
                    array.push(element.eval(scope)?.map_or(Bson::Null, Operand::into_bson));
                }
                Some(Bson::Array(array).into())
            }
            Node::Call { operator, arguments } => {
                (operator.apply)(&Call { operator, arguments, scope: *scope })?
            }
        })
    }
}

impl<'a> Scope<'a> {
    fn variable(&self, depth: usize, slot: usize, path: Option<&Path>) -> Option<Operand<'a>> {
        let mut frame = self.frame;
        for _ in 0..depth {
            frame = frame?.parent;
        }
        let value = frame?.values.get(slot)?.as_ref()?.value();
        path.map_or(Some(Operand::Borrowed(value)), |path| field::read_value(value, path.parts()))
    }
}

/// One call of an operator: its arguments, evaluated when the operator asks for them.
pub(crate) struct Call<'a> {
    operator: &'static Operator,
    arguments: &'a [Option<Expression>],
    scope: Scope<'a>,
}

impl<'a> Call<'a> {
    /// The operator's name, with its `$`.
    pub(crate) fn name(&self) -> &'static str {
        self.operator.name
    }

    /// How many arguments there are.
    pub(crate) fn len(&self) -> usize {
        self.arguments.len()
    }

    /// Whether a named argument was given.
    pub(crate) fn has(&self, index: usize) -> bool {
        self.arguments.get(index).is_some_and(Option::is_some)
    }

    /// The argument, when it is a pattern that was compiled at parsing.
    pub(crate) fn compiled_regex(&self, index: usize) -> Option<&'a regex::CompiledRegex> {
        match &self.arguments.get(index)?.as_ref()?.node {
            Node::Regex(regex) => Some(regex),
            _ => None,
        }
    }

    /// Evaluates one argument. `None` when its value is missing, or when it was not given.
    pub(crate) fn get(&self, index: usize) -> Result<Option<Operand<'a>>> {
        match self.arguments.get(index) {
            Some(Some(argument)) => argument.eval(&self.scope),
            _ => Ok(None),
        }
    }

    /// Evaluates one argument with variables bound to `values`.
    pub(crate) fn get_with(&self, index: usize, values: &[Option<Operand<'_>>]) -> Result<Option<Bson>> {
        let Some(Some(argument)) = self.arguments.get(index) else {
            return Ok(None);
        };
        let frame = Frame { values, parent: self.scope.frame };
        let scope = Scope { root: self.scope.root, cx: self.scope.cx, frame: Some(&frame) };
        Ok(argument.eval(&scope)?.map(Operand::into_bson))
    }

    /// Whether one argument counts as true with variables bound to `values`.
    pub(crate) fn is_true_with(&self, index: usize, values: &[Option<Operand<'_>>]) -> Result<bool> {
        let Some(Some(argument)) = self.arguments.get(index) else {
            return Ok(false);
        };
        let frame = Frame { values, parent: self.scope.frame };
        let scope = Scope { root: self.scope.root, cx: self.scope.cx, frame: Some(&frame) };
        Ok(argument.eval(&scope)?.is_some_and(|value| value.is_true()))
    }
}

/// What an operator answers; `None` when the value is missing.
pub(crate) type Outcome<'a> = Result<Option<Operand<'a>>>;

/// Null, as most operators answer to a null or missing argument.
pub(crate) fn null<'a>() -> Outcome<'a> {
    Ok(Some(Operand::Borrowed(Value::Null)))
}

/// A computed answer.
pub(crate) fn value<'a>(value: impl Into<Bson>) -> Outcome<'a> {
    Ok(Some(Operand::Owned(value.into())))
}
