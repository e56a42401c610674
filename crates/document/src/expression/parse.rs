//! From a BSON value to an expression's tree.
//!
//! Called once for each expression. Names of variables are resolved here to a frame and a slot, `let` variables of the
//! command to their values, and calls whose arguments are all constant to their results. A call that fails at that point
//! stays a call, so that it fails only where it is reached.

use base::{Code, Error, Result, limits};
use bson::{Bson, Document};

use super::operators::{self, Field, Form, Operator};
use super::{Expression, Node, Operand, Scope, field, limit};
use crate::context::{EvalContext, Variables};
use crate::display::{show_document, show_value};
use crate::path::Path;
use crate::value::{DocRef, Value};

/// The state of one parse.
pub(crate) struct Parser<'v> {
    variables: &'v Variables,
    frames: Vec<Vec<String>>,
    depth: usize,
}

impl<'v> Parser<'v> {
    /// A parser that knows the command's `let` variables.
    pub(crate) fn new(variables: &'v Variables) -> Parser<'v> {
        Parser { variables, frames: Vec::new(), depth: 0 }
    }

    /// Reads one expression.
    pub(crate) fn expression(&mut self, value: &Value<'_>) -> Result<Expression> {
        if self.depth >= limits::NESTING_MAX {
            let message = format!("an expression may nest at most {} levels deep", limits::NESTING_MAX);
            return Err(Error::new(Code::OVERFLOW, message));
        }
        self.depth += 1;
        let node = match value {
            Value::String(text) if text.starts_with('$') => self.path(text),
            Value::Document(document) => self.document(*document),
            Value::Array(array) => {
                let elements: Result<Vec<_>> =
                    array.iter().map(|element| self.expression(&element)).collect();
                elements.map(array_node)
            }
            _ => Ok(Node::Constant(Some(value.to_bson()))),
        };
        self.depth -= 1;
        node.map(|node| Expression { node })
    }

    /// Reads an expression in which `names` are bound, in a new frame.
    pub(crate) fn expression_with(&mut self, names: Vec<String>, value: &Value<'_>) -> Result<Expression> {
        self.frames.push(names);
        let expression = self.expression(value);
        self.frames.pop();
        expression
    }

    /// Reads an object of named arguments, in the order of `fields`.
    pub(crate) fn named(
        &mut self,
        operator: &str,
        fields: &[Field],
        value: &Value<'_>,
    ) -> Result<Vec<Option<Expression>>> {
        let document = value.as_document().ok_or_else(|| {
            let message =
                format!("{operator} requires an object as an argument, found: {}", value.kind().name());
            Error::failed_to_parse(message)
        })?;
        let mut arguments: Vec<Option<Expression>> = fields.iter().map(|_| None).collect();
        for (name, value) in document.iter() {
            let slot = fields.iter().zip(&mut arguments).find(|(field, _)| field.name == name);
            let Some((_, slot)) = slot else {
                return Err(Error::failed_to_parse(format!("{operator} found an unknown argument: {name}")));
            };
            *slot = Some(self.expression(&value)?);
        }
        for (field, argument) in fields.iter().zip(&arguments) {
            if field.required && argument.is_none() {
                let message = format!("{operator} requires '{}' to be specified", field.name);
                return Err(Error::failed_to_parse(message));
            }
        }
        Ok(arguments)
    }

    /// `$a.b` and `$$name.a.b`.
    fn path(&self, text: &str) -> Result<Node> {
        let Some(variable) = text.strip_prefix("$$") else {
            let path = text.strip_prefix('$').unwrap_or_default();
            if path.is_empty() {
                return Err(Error::new(Code(16872), "'$' by itself is not a valid FieldPath"));
            }
            return self.variable("CURRENT", Some(field::parse(path)?));
        };
        let (name, path) = match variable.split_once('.') {
            Some((name, path)) => (name, Some(field::parse(path)?)),
            None => (variable, None),
        };
        if name.is_empty() {
            return Err(Error::failed_to_parse("empty variable names are not allowed"));
        }
        self.variable(name, path)
    }

    fn variable(&self, name: &str, path: Option<Path>) -> Result<Node> {
        for (depth, frame) in self.frames.iter().rev().enumerate() {
            if let Some(slot) = frame.iter().position(|bound| bound == name) {
                return Ok(Node::Variable { depth, slot, path });
            }
        }
        match name {
            "ROOT" | "CURRENT" => return Ok(path.map_or(Node::Root, Node::Field)),
            "REMOVE" => return Ok(Node::Constant(None)),
            "NOW" if path.is_none() => return Ok(Node::Now),
            "CLUSTER_TIME" if path.is_none() => return Ok(Node::ClusterTime),
            "NOW" | "CLUSTER_TIME" => return Ok(Node::Constant(None)),
            _ => {}
        }
        let value = self
            .variables
            .get(name)
            .ok_or_else(|| Error::new(Code(17276), format!("Use of undefined variable: {name}")))?;
        let parts = path.as_ref().map_or(&[][..], Path::parts);
        Ok(Node::Constant(field::read_value(Value::from(value), parts).map(Operand::into_bson)))
    }

    fn document(&mut self, document: DocRef<'_>) -> Result<Node> {
        match document.iter().next() {
            Some((name, value)) if name.starts_with('$') => {
                if document.iter().nth(1).is_some() {
                    let message = format!(
                        "an object representing an expression must have exactly one field: {}",
                        show_document(document)
                    );
                    return Err(Error::new(Code(15983), message));
                }
                self.call(name, &value)
            }
            _ => self.object(document),
        }
    }

    fn object(&mut self, document: DocRef<'_>) -> Result<Node> {
        let mut fields: Vec<(String, Expression)> = Vec::new();
        for (name, value) in document.iter() {
            field::check_name(name)?;
            if name.contains('.') {
                return Err(Error::new(
                    Code(16412),
                    "FieldPath field names may not contain '.'. Consider using $getField or $setField.",
                ));
            }
            if fields.iter().any(|(known, _)| known == name) {
                let message =
                    format!("duplicate field name specified in object literal: {}", show_document(document));
                return Err(Error::new(Code(16406), message));
            }
            fields.push((name.to_owned(), self.expression(&value)?));
        }
        if fields.iter().all(|(_, value)| matches!(value.node, Node::Constant(_))) {
            let constant: Document = fields
                .into_iter()
                .filter_map(|(name, value)| value.as_constant().map(|value| (name, value.clone())))
                .collect();
            return Ok(Node::Constant(Some(Bson::Document(constant))));
        }
        Ok(Node::Object(fields))
    }

    fn call(&mut self, name: &str, value: &Value<'_>) -> Result<Node> {
        let operator = operators::find(name).ok_or_else(|| {
            Error::new(Code::INVALID_PIPELINE_OPERATOR, format!("Unrecognized expression '{name}'"))
        })?;
        let arguments = match &operator.form {
            Form::Positional { min, max } => self.positional(operator, *min, *max, value)?,
            Form::Named(fields) => self.named(operator.name, fields, value)?,
            Form::Custom(parse) => parse(value, self)?,
        };
        Ok(fold(operator, arguments))
    }

    fn positional(
        &mut self,
        operator: &Operator,
        min: usize,
        max: usize,
        value: &Value<'_>,
    ) -> Result<Vec<Option<Expression>>> {
        let arguments: Vec<Option<Expression>> = match value {
            Value::Array(array) => {
                array.iter().map(|element| self.expression(&element).map(Some)).collect::<Result<_>>()?
            }
            single => vec![Some(self.expression(single)?)],
        };
        let (name, count) = (operator.name, arguments.len());
        if (min..=max).contains(&count) {
            return Ok(arguments);
        }
        if min == max {
            let message = format!("Expression {name} takes exactly {min} arguments. {count} were passed in.");
            return Err(Error::new(Code(16020), message));
        }
        if max == operators::MANY {
            let message = format!("{name} needs at least {min} arguments, had: {count}");
            return Err(Error::new(Code(1257300), message));
        }
        let message = format!(
            "Expression {name} takes at least {min} arguments, and at most {max}, but {count} were passed in."
        );
        Err(Error::new(Code(28667), message))
    }
}

fn array_node(elements: Vec<Expression>) -> Node {
    if elements.iter().all(|element| matches!(element.node, Node::Constant(_))) {
        let constants = elements.iter().map(|element| element.as_constant().cloned().unwrap_or(Bson::Null));
        return Node::Constant(Some(Bson::Array(constants.collect())));
    }
    Node::Array(elements)
}

/// Evaluates a call of constants right away, unless that fails or makes something large.
fn fold(operator: &'static Operator, arguments: Vec<Option<Expression>>) -> Node {
    const FOLDED_BYTES_MAX: usize = 1024 * 1024;
    let is_constant = arguments.iter().flatten().all(|argument| matches!(argument.node, Node::Constant(_)));
    let node = Node::Call { operator, arguments };
    if !is_constant {
        return node;
    }
    // Nothing that is constant reads the document or the context.
    let root = Document::new();
    let cx = EvalContext::new(bson::DateTime::from_millis(0), base::Timestamp::default());
    let call = Expression { node };
    let scope = Scope { root: DocRef::Tree(&root), cx: &cx, frame: None };
    let result = call.eval(&scope).map(|value| value.map(Operand::into_bson));
    match result {
        Ok(Some(value))
            if limit::memory_bytes(&value) <= FOLDED_BYTES_MAX && limit::check_depth(&value).is_ok() =>
        {
            Node::Constant(Some(value))
        }
        Ok(None) => Node::Constant(None),
        _ => call.node,
    }
}

/// The error for an argument that must be an object.
pub(crate) fn not_an_object(code: i32, operator: &str, value: &Value<'_>) -> Error {
    let message = format!("{operator} only supports an object as its argument, found: {}", show_value(value));
    Error::new(Code(code), message)
}
