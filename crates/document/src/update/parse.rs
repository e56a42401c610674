//! From an update document with operators to the tree of fields that it writes.
//!
//! Called by `Update::parse`. Everything that can be refused without looking at a document is refused here.

use std::collections::BTreeSet;

use base::{Code, Error, Result};
use bson::{Bson, Document};

use super::add_to_set::AddToSet;
use super::arithmetic::{Arithmetic, Operation};
use super::array_filters::ArrayFilters;
use super::assign::{Assign, CurrentDate};
use super::bit::Bits;
use super::min_max::MinMax;
use super::operator::{Leaf, Operator, kind_name};
use super::pop::End;
use super::pull::Pull;
use super::push::Push;
use super::rename::Rename;
use super::tree::{Fields, Name, Step};
use crate::context::Variables;
use crate::display;
use crate::value::DocRef;

/// An update document with operators, parsed.
#[derive(Debug, Default)]
pub(super) struct Modifiers {
    /// The fields it writes.
    pub(super) fields: Fields,
    /// Its renames; operators refer to them by index.
    pub(super) renames: Vec<Rename>,
    /// The conditions of its `$[id]` steps.
    pub(super) array_filters: ArrayFilters,
    /// Whether a path has a `$` step.
    pub(super) positional: bool,
    /// Every path it writes.
    pub(super) paths: Vec<Vec<Step>>,
    /// The first names of those paths.
    pub(super) top_level: BTreeSet<String>,
}

/// The update operators, sorted by name. `COMPATIBILITY.md` lists them from here.
pub const OPERATORS: &[&str] = &[
    "$addToSet",
    "$bit",
    "$currentDate",
    "$inc",
    "$max",
    "$min",
    "$mul",
    "$pop",
    "$pull",
    "$pullAll",
    "$push",
    "$rename",
    "$set",
    "$setOnInsert",
    "$unset",
];

/// Parses a document of operators.
pub(super) fn modifiers(
    update: &Document,
    array_filters: &[DocRef<'_>],
    variables: &Variables,
) -> Result<Modifiers> {
    let mut parsed =
        Modifiers { array_filters: ArrayFilters::parse(array_filters, variables)?, ..Modifiers::default() };
    let mut used = BTreeSet::new();
    for (operator, fields) in update {
        if !OPERATORS.contains(&operator.as_str()) {
            return Err(Error::failed_to_parse(format!(
                "Unknown modifier: {operator}. Expected a valid update modifier or pipeline-style update \
                 specified as an array"
            )));
        }
        let Bson::Document(fields) = fields else {
            return Err(Error::failed_to_parse(format!(
                "Modifiers operate on fields but we found type {} instead. For example: {{$mod: {{<field>: \
                 ...}}}} not {{{operator}: {}}}",
                kind_name(fields),
                display::show_bson(fields)
            )));
        };
        for (path, argument) in fields {
            parsed.add(operator, path, argument, variables, &mut used)?;
        }
    }
    parsed.array_filters.check_all_used(&used, update)?;
    Ok(parsed)
}

impl Modifiers {
    fn add(
        &mut self,
        operator: &str,
        path: &str,
        argument: &Bson,
        variables: &Variables,
        used: &mut BTreeSet<String>,
    ) -> Result<()> {
        let steps = parse_steps(path)?;
        if operator == "$rename" {
            return self.add_rename(path, argument);
        }
        for step in &steps {
            if let Step::Elements(identifier) = step {
                self.array_filters.check_defined(identifier, path)?;
                used.insert(identifier.clone());
            }
        }
        let parsed = parse_operator(operator, path, argument, variables)?;
        let argument_bytes = super::finish::encoded_bytes(argument);
        self.insert(path, steps, Leaf { operator: parsed, argument_bytes })
    }

    fn add_rename(&mut self, from: &str, to: &Bson) -> Result<()> {
        let rename = Rename::parse(from, to)?;
        let index = self.renames.len();
        let to = rename.to.join(".");
        self.renames.push(rename);
        self.insert(from, parse_steps(from)?, Leaf { operator: Operator::RenameFrom, argument_bytes: 0 })?;
        self.insert(&to, parse_steps(&to)?, Leaf { operator: Operator::RenameTo(index), argument_bytes: 0 })
    }

    fn insert(&mut self, path: &str, steps: Vec<Step>, leaf: Leaf) -> Result<()> {
        self.fields.insert(path, &steps, leaf)?;
        self.positional |= steps.contains(&Step::Positional);
        if let Some(Step::Field(Name(first))) = steps.first() {
            self.top_level.insert(first.clone());
        }
        self.paths.push(steps);
        Ok(())
    }
}

fn parse_operator(name: &str, path: &str, argument: &Bson, variables: &Variables) -> Result<Operator> {
    use std::cmp::Ordering;
    let field = path.rsplit('.').next().unwrap_or(path);
    Ok(match name {
        "$addToSet" => Operator::AddToSet(AddToSet::parse(argument)?),
        "$bit" => Operator::Bit(Bits::parse(argument)?),
        "$currentDate" => Operator::CurrentDate(CurrentDate::parse(argument)?),
        "$inc" => Operator::Arithmetic(Arithmetic::parse(Operation::Add, path, argument)?),
        "$max" => Operator::MinMax(MinMax { value: argument.clone(), wanted: Ordering::Greater }),
        "$min" => Operator::MinMax(MinMax { value: argument.clone(), wanted: Ordering::Less }),
        "$mul" => Operator::Arithmetic(Arithmetic::parse(Operation::Multiply, path, argument)?),
        "$pop" => Operator::Pop(End::parse(field, argument)?),
        "$pull" => Operator::Pull(Pull::parse(argument, variables)?),
        "$pullAll" => Operator::Pull(Pull::parse_all(argument)?),
        "$push" => Operator::Push(Push::parse(argument)?),
        "$setOnInsert" => Operator::SetOnInsert(Assign::new(argument.clone())?),
        "$unset" => Operator::Unset,
        _ => Operator::Set(Assign::new(argument.clone())?),
    })
}

/// Splits an update path and checks its parts.
pub(super) fn parse_steps(path: &str) -> Result<Vec<Step>> {
    if path.is_empty() {
        return Err(Error::new(Code::EMPTY_FIELD_NAME, "An empty update path is not valid."));
    }
    let mut steps = Vec::new();
    for part in path.split('.') {
        if part.is_empty() {
            return Err(Error::new(
                Code::EMPTY_FIELD_NAME,
                format!("The update path '{path}' contains an empty field name, which is not allowed."),
            ));
        }
        steps.push(parse_step(part));
    }
    match steps.first() {
        Some(Step::Positional) => {
            return Err(Error::bad_value(format!(
                "Cannot have positional (i.e. '$') element in the first position in path '{path}'"
            )));
        }
        Some(Step::Elements(_)) => {
            return Err(Error::bad_value(format!(
                "Cannot have array filter identifier (i.e. '$[<id>]') element in the first position in path \
                 '{path}'"
            )));
        }
        Some(Step::Field(Name(first))) if first.starts_with('$') => {
            return Err(super::finish::dollar_prefixed(first));
        }
        _ => {}
    }
    if steps.iter().filter(|step| **step == Step::Positional).count() > 1 {
        return Err(Error::bad_value(format!(
            "Too many positional (i.e. '$') elements found in path '{path}'"
        )));
    }
    if steps.len() > base::limits::NESTING_MAX {
        return Err(super::finish::too_deep());
    }
    Ok(steps)
}

fn parse_step(part: &str) -> Step {
    if part == "$" {
        return Step::Positional;
    }
    match part.strip_prefix("$[").and_then(|rest| rest.strip_suffix(']')) {
        Some(identifier) => Step::Elements(identifier.to_owned()),
        None => Step::Field(Name(part.to_owned())),
    }
}
