//! `$group`: one row for each key, with accumulators over the rows that share it.
//!
//! Shards group their own rows as far as they can: each gives a row `{_id: key, p: [state, ...]}` for each key, and where
//! these rows meet, the states of a key come together in the group's row.
//!
//! Always holds: keys that compare equal are one group (1 and 1.0), whose `_id` is the first one seen; groups come out in
//! the order in which their keys were first seen.

use std::collections::HashMap;

use base::{Code, Error, Result, limits};
use bson::{Bson, Document};

use super::{Stage, Step};
use crate::context::{EvalContext, Variables};
use crate::expression::{Expression, memory_bytes};
use crate::key;
use crate::pipeline::accumulator::partial::foreign;
use crate::pipeline::accumulator::{Accumulator, State};
use crate::pipeline::row::Row;
use crate::pipeline::runner::{Emit, Flow};
use crate::value::Value;

/// A parsed `$group`.
#[derive(Clone, Debug)]
pub struct Group {
    /// What rows are grouped by.
    pub id: Expression,
    /// The other fields, in order.
    pub fields: Vec<GroupField>,
}

/// One computed field of a `$group`.
#[derive(Clone, Debug)]
pub struct GroupField {
    /// Its name.
    pub name: String,
    /// How values are combined.
    pub accumulator: Accumulator,
    /// The value of each row.
    pub argument: Expression,
}

pub(super) fn parse(argument: &Value<'_>, vars: &Variables, out: &mut Vec<Stage>) -> Result<()> {
    let document = argument
        .as_document()
        .ok_or_else(|| Error::new(Code(15947), "a group's fields must be specified in an object"))?;
    let (mut id, mut fields) = (None, Vec::new());
    for (name, value) in document.iter() {
        if name == "_id" {
            if id.is_some() {
                return Err(Error::new(Code(15948), "a group's _id may only be specified once"));
            }
            id = Some(Expression::parse(&value, vars)?);
        } else {
            fields.push(parse_field(name, &value, vars)?);
        }
    }
    let id = id.ok_or_else(|| Error::new(Code(15955), "a group specification must include an _id"))?;
    out.push(Stage::Group(Group { id, fields }));
    Ok(())
}

fn parse_field(name: &str, value: &Value<'_>, vars: &Variables) -> Result<GroupField> {
    let refuse = |code, message: String| Err(Error::new(Code(code), message));
    if name.contains('.') {
        return refuse(40235, format!("The field name '{name}' cannot contain '.'"));
    }
    if name.starts_with('$') {
        return refuse(40236, format!("The field name '{name}' cannot be an operator name"));
    }
    let Some(document) = value.as_document() else {
        return refuse(40234, format!("The field '{name}' must be an accumulator object"));
    };
    let mut parts = document.iter();
    let Some((operator, argument)) = parts.next() else {
        return refuse(40234, format!("The field '{name}' must be an accumulator object"));
    };
    if parts.next().is_some() {
        return refuse(40238, format!("The field '{name}' must specify one accumulator"));
    }
    if !operator.starts_with('$') {
        return refuse(40234, format!("The field '{name}' must be an accumulator object"));
    }
    let Some(accumulator) = Accumulator::find(operator) else {
        return refuse(15952, format!("unknown group operator '{operator}'"));
    };
    let argument = match argument {
        Value::Array(array) if array.len() != 1 => {
            return refuse(40237, format!("The {operator} accumulator is a unary operator"));
        }
        Value::Array(array) => array.get(0).unwrap_or(Value::Null),
        other => other,
    };
    if accumulator == Accumulator::Count
        && !argument.as_document().is_some_and(|document| document.is_empty())
    {
        return Err(Error::type_mismatch("$count takes no arguments, i.e. $count:{}"));
    }
    Ok(GroupField { name: name.to_owned(), accumulator, argument: Expression::parse(&argument, vars)? })
}

struct GroupState {
    id: Bson,
    states: Vec<State>,
}

/// Which part of the work a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Rows to groups.
    Whole,
    /// Rows to states.
    States,
    /// States to groups.
    Groups,
}

/// The field of a partial row that holds a state for each field of the group.
const STATES_FIELD: &str = "p";

pub(super) struct GroupStep {
    group: Group,
    part: Part,
    /// From the key's encoding to its place in `groups`. Never iterated.
    index: HashMap<Vec<u8>, usize>,
    groups: Vec<GroupState>,
    memory_bytes: usize,
    finished: std::vec::IntoIter<GroupState>,
    encoded: Vec<u8>,
}

impl GroupStep {
    pub(super) fn new(group: Group, part: Part) -> GroupStep {
        GroupStep {
            group,
            part,
            index: HashMap::new(),
            groups: Vec::new(),
            memory_bytes: 0,
            finished: Vec::new().into_iter(),
            encoded: Vec::new(),
        }
    }

    fn position_of(&mut self, id: Bson) -> usize {
        self.encoded.clear();
        key::encode(&Value::from(&id), &mut self.encoded);
        if let Some(position) = self.index.get(&self.encoded) {
            return *position;
        }
        let position = self.groups.len();
        let states: Vec<State> = self.group.fields.iter().map(|field| field.accumulator.start()).collect();
        self.memory_bytes +=
            2 * self.encoded.len() + memory_bytes(&id) + states.len() * size_of::<State>() + 64;
        self.index.insert(self.encoded.clone(), position);
        self.groups.push(GroupState { id, states });
        position
    }

    fn take_row(&mut self, row: &Row, cx: &EvalContext) -> Result<()> {
        let id = self.group.id.evaluate(row.as_doc(), cx)?.unwrap_or(Bson::Null);
        let position = self.position_of(id);
        if let Some(state) = self.groups.get_mut(position) {
            for (field, state) in self.group.fields.iter().zip(&mut state.states) {
                self.memory_bytes += state.add(field.argument.evaluate(row.as_doc(), cx)?)?;
            }
        }
        Ok(())
    }

    /// Takes a row of a shard.
    fn take_states(&mut self, row: Row) -> Result<()> {
        let mut row = row.into_tree();
        let (Some(id), Some(Bson::Array(partials))) = (row.remove("_id"), row.remove(STATES_FIELD)) else {
            return Err(foreign());
        };
        if partials.len() != self.group.fields.len() {
            return Err(foreign());
        }
        let position = self.position_of(id);
        if let Some(state) = self.groups.get_mut(position) {
            for (partial, state) in partials.into_iter().zip(&mut state.states) {
                self.memory_bytes += state.absorb(partial)?;
            }
        }
        Ok(())
    }
}

impl Step for GroupStep {
    fn push(&mut self, row: Row, cx: &EvalContext, _: Emit<'_>) -> Result<Flow> {
        match self.part {
            Part::Whole | Part::States => self.take_row(&row, cx)?,
            Part::Groups => self.take_states(row)?,
        }
        if self.memory_bytes > limits::SORT_MEMORY_BYTES_MAX {
            let message = "PlanExecutor error during aggregation :: caused by :: Exceeded memory limit for $group, \
                           but didn't allow external sort. Pass allowDiskUse:true to opt in.";
            return Err(Error::new(Code::QUERY_EXCEEDED_MEMORY_LIMIT, message));
        }
        Ok(Flow::More)
    }

    fn seal(&mut self, _: &EvalContext) -> Result<()> {
        self.index = HashMap::new();
        self.finished = std::mem::take(&mut self.groups).into_iter();
        Ok(())
    }

    fn next_held(&mut self) -> Result<Option<Row>> {
        let Some(GroupState { id, states }) = self.finished.next() else {
            return Ok(None);
        };
        let mut document = Document::new();
        document.insert("_id", id);
        if self.part == Part::States {
            let states: Vec<Bson> = states.into_iter().map(State::into_partial).collect();
            document.insert(STATES_FIELD, states);
        } else {
            for (field, state) in self.group.fields.iter().zip(states) {
                document.insert(field.name.clone(), state.finish());
            }
        }
        Ok(Some(Row::Tree(document)))
    }
}
