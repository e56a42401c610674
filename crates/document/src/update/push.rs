//! `$push`: inserts values into an array, then sorts and cuts it.

use std::cmp::Ordering;

use base::{Error, Result};
use bson::{Bson, Document};

use super::operator::{Change, Site, kind_name};
use crate::number::Number;
use crate::order;
use crate::path::{Part, Path};
use crate::value::Value;

/// The operator's clauses.
#[derive(Debug)]
pub(super) struct Push {
    values: Vec<Bson>,
    /// Where to insert; negative counts from the end. `None`: at the end.
    position: Option<i64>,
    sort: Option<ElementOrder>,
    /// How many elements to keep; negative keeps the last ones.
    slice: Option<i64>,
}

#[derive(Debug)]
enum ElementOrder {
    Whole { descending: bool },
    ByFields(Vec<(Path, bool)>),
}

impl Push {
    /// Reads a value, or clauses that begin with `$each`.
    pub(super) fn parse(argument: &Bson) -> Result<Push> {
        match argument {
            Bson::Document(clauses) if clauses.contains_key("$each") => parse_clauses(clauses),
            value => Ok(Push { values: vec![value.clone()], position: None, sort: None, slice: None }),
        }
    }

    /// An absent field counts as an empty array.
    pub(super) fn create(&self) -> Result<Bson> {
        let mut elements = Vec::new();
        self.apply(&mut elements);
        Ok(Bson::Array(elements))
    }

    /// Inserts, sorts, cuts.
    pub(super) fn modify(&self, value: &mut Bson, site: &Site<'_>) -> Result<Change> {
        let Bson::Array(elements) = value else {
            return Err(Error::bad_value(format!(
                "The field '{}' must be an array but is of type {} in document {}",
                site.dotted(),
                kind_name(value),
                site.shown_id()
            )));
        };
        // Without a sort or a cut, new elements always show.
        if self.sort.is_none() && self.slice.is_none() {
            self.apply(elements);
            return Ok(if self.values.is_empty() { Change::Same } else { Change::Written });
        }
        let before = elements.clone();
        self.apply(elements);
        let same = before.len() == elements.len()
            && before.iter().zip(&*elements).all(|(a, b)| super::assign::identical(a, b));
        Ok(if same { Change::Same } else { Change::Written })
    }

    fn apply(&self, elements: &mut Vec<Bson>) {
        let at = insert_position(self.position, elements.len());
        elements.splice(at..at, self.values.iter().cloned());
        if let Some(order) = &self.sort {
            elements.sort_by(|a, b| order.compare(a, b));
        }
        if let Some(slice) = self.slice {
            let keep = usize::try_from(slice.unsigned_abs()).unwrap_or(usize::MAX);
            if slice >= 0 {
                elements.truncate(keep);
            } else {
                elements.drain(..elements.len().saturating_sub(keep));
            }
        }
    }
}

fn insert_position(position: Option<i64>, len: usize) -> usize {
    let Some(position) = position else { return len };
    let distance = usize::try_from(position.unsigned_abs()).unwrap_or(usize::MAX);
    if position >= 0 { distance.min(len) } else { len.saturating_sub(distance) }
}

impl ElementOrder {
    fn compare(&self, a: &Bson, b: &Bson) -> Ordering {
        let directed =
            |ordering: Ordering, descending| if descending { ordering.reverse() } else { ordering };
        match self {
            ElementOrder::Whole { descending } => {
                directed(order::compare(&Value::from(a), &Value::from(b)), *descending)
            }
            ElementOrder::ByFields(fields) => fields
                .iter()
                .map(|(path, descending)| {
                    let (a, b) =
                        (at_path(Value::from(a), path.parts()), at_path(Value::from(b), path.parts()));
                    directed(order::compare(&a, &b), *descending)
                })
                .find(|ordering| ordering.is_ne())
                .unwrap_or(Ordering::Equal),
        }
    }
}

/// The value at the path, null when it is absent. Arrays on the way are entered by number only.
fn at_path<'a>(value: Value<'a>, parts: &[Part]) -> Value<'a> {
    let Some((part, rest)) = parts.split_first() else { return value };
    let inner = match value {
        Value::Document(document) => document.get(&part.name),
        Value::Array(array) => part.index.and_then(|index| array.get(index as usize)),
        _ => None,
    };
    inner.map_or(Value::Null, |inner| at_path(inner, rest))
}

fn parse_clauses(clauses: &Document) -> Result<Push> {
    let mut push = Push { values: Vec::new(), position: None, sort: None, slice: None };
    for (name, argument) in clauses {
        match name.as_str() {
            "$each" => push.values = each(argument)?,
            "$position" => push.position = Some(integer("$position", argument)?),
            "$slice" => push.slice = Some(integer("$slice", argument)?),
            "$sort" => push.sort = Some(element_order(argument)?),
            other => return Err(Error::bad_value(format!("Unrecognized clause in $push: {other}"))),
        }
    }
    Ok(push)
}

fn each(argument: &Bson) -> Result<Vec<Bson>> {
    match argument {
        Bson::Array(values) => Ok(values.clone()),
        other => Err(Error::bad_value(format!(
            "The argument to $each in $push must be an array but it was of type: {}",
            kind_name(other)
        ))),
    }
}

fn integer(clause: &str, argument: &Bson) -> Result<i64> {
    Number::of(&Value::from(argument)).and_then(Number::integer).ok_or_else(|| {
        Error::bad_value(format!(
            "The value for {clause} must be an integer value but was given type: {}",
            kind_name(argument)
        ))
    })
}

fn element_order(argument: &Bson) -> Result<ElementOrder> {
    let Bson::Document(pattern) = argument else {
        return match Number::of(&Value::from(argument)).map(Number::integer) {
            Some(Some(1)) => Ok(ElementOrder::Whole { descending: false }),
            Some(Some(-1)) => Ok(ElementOrder::Whole { descending: true }),
            Some(_) => Err(Error::bad_value("The $sort element value must be either 1 or -1")),
            None => Err(Error::bad_value(
                "The $sort is invalid: use 1/-1 to sort the whole element, or {field:1/-1} to sort embedded \
                 fields",
            )),
        };
    };
    if pattern.is_empty() {
        return Err(Error::bad_value("The $sort pattern is empty when it should be a set of fields."));
    }
    let mut fields = Vec::new();
    for (name, direction) in pattern {
        if name.is_empty() {
            return Err(Error::bad_value("The $sort field cannot be empty"));
        }
        let path = Path::parse_bounded(name)?;
        if path.has_empty_part() {
            return Err(Error::bad_value(format!(
                "The $sort field is a dotted field but has an empty part: {name}"
            )));
        }
        let descending = match Number::of(&Value::from(direction)).and_then(Number::integer) {
            Some(1) => false,
            Some(-1) => true,
            _ => return Err(Error::bad_value("The $sort element value must be either 1 or -1")),
        };
        fields.push((path, descending));
    }
    Ok(ElementOrder::ByFields(fields))
}
