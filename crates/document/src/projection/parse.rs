//! From a projection's specification to its tree.

use base::limits::NESTING_MAX;
use base::{Code, Error, Result};

use super::elements::{ElementMatch, Slice};
use super::{Fields, Mode, Node, Projection};
use crate::context::Variables;
use crate::expression::Expression;
use crate::number::Number;
use crate::path::Path;
use crate::value::{DocRef, Value};

const PATH_COLLISION: Code = Code(31249);
const PATH_COLLISION_BELOW: Code = Code(31250);
const EXPRESSION_IN_EXCLUSION: Code = Code(31252);
const INCLUSION_IN_EXCLUSION: Code = Code(31253);
const EXCLUSION_IN_INCLUSION: Code = Code(31254);

/// Parses the projection of a `find`.
pub(super) fn find(spec: DocRef<'_>, variables: &Variables) -> Result<Projection> {
    let mut parser = Parser::new(Dialect::Find, variables);
    parser.fields(None, spec)?;
    parser.finish()
}

/// Parses the argument of `$project`.
pub(super) fn project(spec: DocRef<'_>, variables: &Variables) -> Result<Projection> {
    if spec.is_empty() {
        return Err(Error::new(
            Code(51272),
            "Invalid $project :: caused by :: projection specification must have at least one field",
        ));
    }
    let mut parser = Parser::new(Dialect::Project, variables);
    parser.fields(None, spec).map_err(|error| invalid("$project", error))?;
    parser.finish()
}

/// Parses the argument of `$addFields`.
pub(super) fn add_fields(spec: DocRef<'_>, variables: &Variables) -> Result<Projection> {
    if spec.is_empty() {
        return Err(Error::new(
            Code(40177),
            "Invalid $addFields :: caused by :: specification must have at least one field",
        ));
    }
    let mut parser = Parser::new(Dialect::AddFields, variables);
    parser.mode = Some(Mode::Exclusion);
    parser.fields(None, spec).map_err(|error| invalid("$addFields", error))?;
    parser.finish()
}

/// Parses the argument of `$unset`.
pub(super) fn unset(fields: &Value<'_>) -> Result<Projection> {
    let names: Vec<Value<'_>> = match fields {
        Value::String(_) => vec![*fields],
        Value::Array(array) if !array.is_empty() => array.iter().collect(),
        Value::Array(_) => {
            return Err(Error::new(
                Code(31119),
                "$unset specification must be a string or an array with at least one field",
            ));
        }
        _ => return Err(Error::new(Code(31002), "$unset specification must be a string or an array")),
    };
    let variables = Variables::default();
    let mut parser = Parser::new(Dialect::Project, &variables);
    parser.mode = Some(Mode::Exclusion);
    for name in names {
        let Some(name) = name.as_str() else {
            return Err(Error::new(
                Code(31120),
                "$unset specification must be a string or an array containing only string values",
            ));
        };
        let path = crate::expression::field::parse(name).map_err(|error| invalid("$unset", error))?;
        parser.add(&path, Node::Drop).map_err(|error| invalid("$unset", error))?;
    }
    parser.finish()
}

fn invalid(stage: &str, error: Error) -> Error {
    error.context(format!("Invalid {stage} :: caused by :"))
}

/// Which specifications are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Find,
    Project,
    AddFields,
}

struct Parser<'a> {
    dialect: Dialect,
    variables: &'a Variables,
    root: Fields,
    /// What the fields other than `_id` have decided.
    mode: Option<Mode>,
    /// What is said about `_id` as a whole.
    id: Option<Mode>,
    positional: Option<Path>,
    element_match: bool,
}

impl<'a> Parser<'a> {
    fn new(dialect: Dialect, variables: &'a Variables) -> Parser<'a> {
        Parser {
            dialect,
            variables,
            root: Fields::default(),
            mode: None,
            id: None,
            positional: None,
            element_match: false,
        }
    }

    fn fields(&mut self, parent: Option<&Path>, spec: DocRef<'_>) -> Result<()> {
        for (name, value) in spec.iter() {
            let (name, positional) = match name.strip_suffix(".$") {
                Some(array) if self.dialect == Dialect::Find => (array, true),
                _ => (name, false),
            };
            if self.dialect == Dialect::Find && name.split('.').any(|part| part == "$") {
                return Err(Error::new(
                    Code(31394),
                    "As of 4.4, it's illegal to specify positional operator in the middle of a path. Positional \
                     projection may only be used at the end, for example: a.b.$. If the query previously used a \
                     form like a.b.$.d, remove the parts following the '$' and the results will be equivalent.",
                ));
            }
            let below = crate::expression::field::parse(name)?;
            let path = match parent {
                Some(parent) => parent.child(name),
                None => below,
            };
            if positional {
                self.positional(path, &value)?;
            } else {
                self.value(&path, &value)?;
            }
        }
        Ok(())
    }

    fn value(&mut self, path: &Path, value: &Value<'_>) -> Result<()> {
        let flag = match value {
            Value::Boolean(flag) => Some(*flag),
            other => Number::of(other).map(|number| number.compare(Number::Int(0)).is_ne()),
        };
        match (flag, value) {
            (Some(included), _) if self.dialect != Dialect::AddFields => self.flag(path, included),
            (_, Value::Document(spec)) => self.document(path, *spec, value),
            _ => self.computed(path, value),
        }
    }

    fn flag(&mut self, path: &Path, included: bool) -> Result<()> {
        let wanted = if included { Mode::Inclusion } else { Mode::Exclusion };
        if path.parts().len() == 1 && path.first() == "_id" {
            self.id = Some(wanted);
        } else {
            match (*self.mode.get_or_insert(wanted), wanted) {
                (Mode::Exclusion, Mode::Inclusion) => {
                    return Err(Error::new(
                        INCLUSION_IN_EXCLUSION,
                        format!("Cannot do inclusion on field {path} in exclusion projection"),
                    ));
                }
                (Mode::Inclusion, Mode::Exclusion) => {
                    return Err(Error::new(
                        EXCLUSION_IN_INCLUSION,
                        format!("Cannot do exclusion on field {path} in inclusion projection"),
                    ));
                }
                _ => {}
            }
        }
        self.add(path, if included { Node::Keep } else { Node::Drop })
    }

    fn document(&mut self, path: &Path, spec: DocRef<'_>, value: &Value<'_>) -> Result<()> {
        let Some((first, argument)) = spec.iter().next() else {
            if self.dialect == Dialect::AddFields {
                return self.computed(path, value);
            }
            return Err(Error::new(
                Code(51270),
                format!("An empty sub-projection is not a valid value. Found empty object at path {path}"),
            ));
        };
        if !first.starts_with('$') {
            return self.fields(Some(path), spec);
        }
        if self.dialect == Dialect::Find && spec.iter().count() == 1 {
            match first {
                "$slice" => {
                    if let Some(slice) = Slice::parse(&argument)? {
                        return self.add(path, Node::Slice(slice));
                    }
                }
                "$elemMatch" => return self.element_match(path, &argument),
                _ => {}
            }
        }
        self.computed(path, value)
    }

    fn element_match(&mut self, path: &Path, argument: &Value<'_>) -> Result<()> {
        if self.positional.is_some() {
            return Err(positional_and_element_match());
        }
        self.element_match = true;
        self.refuse_in_exclusion()?;
        self.add(path, Node::ElementMatch(ElementMatch::parse(path, argument, self.variables)?))
    }

    fn positional(&mut self, path: Path, value: &Value<'_>) -> Result<()> {
        if self.positional.is_some() {
            return Err(Error::new(
                Code(31276),
                "Cannot specify more than one positional projection per query.",
            ));
        }
        if self.element_match {
            return Err(positional_and_element_match());
        }
        let included = match value {
            Value::Boolean(flag) => *flag,
            other => Number::of(other).is_some_and(|number| number.compare(Number::Int(0)).is_ne()),
        };
        if !included || self.mode == Some(Mode::Exclusion) {
            return Err(Error::new(Code(31395), "positional projection cannot be used with exclusion"));
        }
        self.mode = Some(Mode::Inclusion);
        self.add(&path, Node::Keep)?;
        self.positional = Some(path);
        Ok(())
    }

    fn computed(&mut self, path: &Path, value: &Value<'_>) -> Result<()> {
        if self.dialect != Dialect::AddFields {
            self.refuse_in_exclusion()?;
            if path.parts().len() > 1 || path.first() != "_id" {
                self.mode = Some(Mode::Inclusion);
            } else {
                self.id = Some(Mode::Inclusion);
            }
        }
        let expression = Expression::parse(value, self.variables)?;
        self.add(path, Node::Computed(expression))
    }

    fn refuse_in_exclusion(&self) -> Result<()> {
        if self.mode == Some(Mode::Exclusion) {
            return Err(Error::new(
                EXPRESSION_IN_EXCLUSION,
                "Cannot use expression other than $meta in exclusion projection",
            ));
        }
        Ok(())
    }

    /// Puts a node at the path, unless that collides with another.
    fn add(&mut self, path: &Path, node: Node) -> Result<()> {
        if path.parts().len() >= NESTING_MAX {
            return Err(Error::new(
                Code::OVERFLOW,
                format!("A projected field may have at most {NESTING_MAX} parts"),
            ));
        }
        let computes = matches!(node, Node::Computed(_) | Node::ElementMatch(_));
        let mut fields = &mut self.root;
        let (last, parents) = path.parts().split_last().expect("a path has a part");
        for (depth, part) in parents.iter().enumerate() {
            fields.computes |= computes;
            if fields.get(&part.name).is_none() {
                fields.push(&part.name, Node::Fields(Fields::default()));
            }
            match fields.get_mut(&part.name) {
                Some(Node::Fields(inner)) => fields = inner,
                _ => {
                    let remaining: Vec<&str> =
                        path.parts().iter().skip(depth + 1).map(|part| part.name.as_str()).collect();
                    return Err(Error::new(
                        PATH_COLLISION_BELOW,
                        format!("Path collision at {path} remaining portion {}", remaining.join(".")),
                    ));
                }
            }
        }
        fields.computes |= computes;
        if fields.get(&last.name).is_some() {
            return Err(Error::new(PATH_COLLISION, format!("Path collision at {path}")));
        }
        fields.push(&last.name, node);
        Ok(())
    }

    fn finish(mut self) -> Result<Projection> {
        let includes = self.id == Some(Mode::Inclusion) || self.element_match;
        let undecided = if includes { Mode::Inclusion } else { Mode::Exclusion };
        let mode = self.mode.unwrap_or(undecided);
        if mode == Mode::Inclusion && self.root.get("_id").is_none() {
            self.root.push("_id", Node::Keep);
        }
        let copies = self.positional.is_none()
            && self.root.entries.iter().all(|(_, node)| matches!(node, Node::Keep | Node::Drop));
        Ok(Projection { mode, root: self.root, positional: self.positional, copies })
    }
}

fn positional_and_element_match() -> Error {
    Error::new(Code(31256), "Cannot specify positional operator and $elemMatch.")
}
