//! Accumulators: what `$group` computes over the rows of a group.
//!
//! Called by the `$group` stage; one sorted table of names. Each takes values one by one and says how many bytes it has
//! grown by, so that the stage can bound what it holds. `partial` carries what a shard has taken to where all shards' rows
//! meet.
//!
//! Always holds: the result depends on the values and their order only.

pub(crate) mod partial;

use std::cmp::Ordering;
use std::collections::BTreeSet;

use base::{Code, Error, Result};
use bson::{Bson, Document};

use crate::display::show_bson;
use crate::expression::memory_bytes;
use crate::key;
use crate::number::Numeric;
use crate::number::summation::Summation;
use crate::order;
use crate::value::Value;

/// An accumulator's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accumulator {
    /// `$addToSet`
    AddToSet,
    /// `$avg`
    Avg,
    /// `$count`
    Count,
    /// `$first`
    First,
    /// `$last`
    Last,
    /// `$max`
    Max,
    /// `$mergeObjects`
    MergeObjects,
    /// `$min`
    Min,
    /// `$push`
    Push,
    /// `$stdDevPop`
    StdDevPop,
    /// `$stdDevSamp`
    StdDevSamp,
    /// `$sum`
    Sum,
}

static ACCUMULATORS: &[(&str, Accumulator)] = &[
    ("$addToSet", Accumulator::AddToSet),
    ("$avg", Accumulator::Avg),
    ("$count", Accumulator::Count),
    ("$first", Accumulator::First),
    ("$last", Accumulator::Last),
    ("$max", Accumulator::Max),
    ("$mergeObjects", Accumulator::MergeObjects),
    ("$min", Accumulator::Min),
    ("$push", Accumulator::Push),
    ("$stdDevPop", Accumulator::StdDevPop),
    ("$stdDevSamp", Accumulator::StdDevSamp),
    ("$sum", Accumulator::Sum),
];

/// The names of all accumulators, sorted.
pub fn accumulator_names() -> impl Iterator<Item = &'static str> {
    ACCUMULATORS.iter().map(|(name, _)| *name)
}

impl Accumulator {
    /// The accumulator called `name`, with its `$`.
    pub fn find(name: &str) -> Option<Accumulator> {
        let index = ACCUMULATORS.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
        ACCUMULATORS.get(index).map(|(_, accumulator)| *accumulator)
    }

    /// The state before the first value.
    pub(crate) fn start(self) -> State {
        match self {
            Accumulator::AddToSet => State::AddToSet { keys: BTreeSet::new(), values: Vec::new() },
            Accumulator::Avg => State::Avg { sum: Summation::default(), count: 0 },
            Accumulator::Count => State::Count(0),
            Accumulator::First => State::First(None),
            Accumulator::Last => State::Last(None),
            Accumulator::Max => State::Extreme { wanted: Ordering::Greater, best: None },
            Accumulator::MergeObjects => State::MergeObjects(Document::new()),
            Accumulator::Min => State::Extreme { wanted: Ordering::Less, best: None },
            Accumulator::Push => State::Push(Vec::new()),
            Accumulator::StdDevPop => State::StdDev(Spread { sample: false, ..Spread::default() }),
            Accumulator::StdDevSamp => State::StdDev(Spread { sample: true, ..Spread::default() }),
            Accumulator::Sum => State::Sum(Summation::default()),
        }
    }
}

/// What an accumulator has taken so far.
#[derive(Clone, Debug)]
pub(crate) enum State {
    AddToSet { keys: BTreeSet<Vec<u8>>, values: Vec<Bson> },
    Avg { sum: Summation, count: u64 },
    Count(i64),
    Extreme { wanted: Ordering, best: Option<Bson> },
    First(Option<Bson>),
    Last(Option<Bson>),
    MergeObjects(Document),
    Push(Vec<Bson>),
    StdDev(Spread),
    Sum(Summation),
}

/// Welford's running variance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread {
    sample: bool,
    count: u64,
    mean: f64,
    squares: f64,
}

impl State {
    /// Takes the value of one row; `None` when it is missing. Answers by how many bytes the state has grown.
    pub(crate) fn add(&mut self, value: Option<Bson>) -> Result<usize> {
        match self {
            State::Count(count) => *count += 1,
            State::Sum(sum) => {
                if let Some(number) = number(&value) {
                    sum.add(number);
                }
            }
            State::Avg { sum, count } => {
                if let Some(number) = number(&value) {
                    sum.add(number);
                    *count += 1;
                }
            }
            State::StdDev(spread) => {
                if let Some(number) = number(&value) {
                    spread.add(number.to_f64());
                }
            }
            State::Extreme { wanted, best } => return Ok(keep_extreme(*wanted, best, value)),
            State::First(first) => {
                if first.is_none() {
                    let value = value.unwrap_or(Bson::Null);
                    let bytes = memory_bytes(&value);
                    *first = Some(value);
                    return Ok(bytes);
                }
            }
            State::Last(last) => {
                let before = last.as_ref().map_or(0, memory_bytes);
                let value = last.insert(value.unwrap_or(Bson::Null));
                return Ok(memory_bytes(value).saturating_sub(before));
            }
            State::Push(values) => {
                if let Some(value) = value {
                    let bytes = memory_bytes(&value);
                    values.push(value);
                    return Ok(bytes);
                }
            }
            State::AddToSet { keys, values } => {
                let Some(value) = value else {
                    return Ok(0);
                };
                let mut encoded = Vec::new();
                key::encode(&Value::from(&value), &mut encoded);
                let bytes = encoded.len() + memory_bytes(&value);
                if keys.insert(encoded) {
                    values.push(value);
                    return Ok(bytes);
                }
            }
            State::MergeObjects(merged) => return merge(merged, value),
        }
        Ok(0)
    }

    /// The group's result.
    pub(crate) fn finish(self) -> Bson {
        match self {
            State::AddToSet { values, .. } | State::Push(values) => Bson::Array(values),
            State::Avg { sum, count } => sum.mean(count).map_or(Bson::Null, Numeric::to_bson),
            State::Count(count) => Numeric::int_or_long(count).to_bson(),
            State::Extreme { best: value, .. } | State::First(value) | State::Last(value) => {
                value.unwrap_or(Bson::Null)
            }
            State::MergeObjects(merged) => Bson::Document(merged),
            State::StdDev(spread) => spread.finish().map_or(Bson::Null, Bson::Double),
            State::Sum(sum) => sum.total().to_bson(),
        }
    }
}

impl Spread {
    pub(crate) fn add(&mut self, number: f64) {
        self.count += 1;
        let delta = number - self.mean;
        self.mean += delta / self.count as f64;
        self.squares += delta * (number - self.mean);
    }

    pub(crate) fn finish(&self) -> Option<f64> {
        let divisor = if self.sample { self.count.checked_sub(1)? } else { self.count };
        (divisor > 0).then(|| (self.squares / divisor as f64).sqrt())
    }
}

fn number(value: &Option<Bson>) -> Option<Numeric> {
    value.as_ref().and_then(|value| Numeric::of(&Value::from(value)))
}

/// Null and missing values never win. Answers the growth in bytes.
fn keep_extreme(wanted: Ordering, best: &mut Option<Bson>, value: Option<Bson>) -> usize {
    let Some(value) = value.filter(|value| !matches!(value, Bson::Null | Bson::Undefined)) else {
        return 0;
    };
    let wins =
        best.as_ref().is_none_or(|best| order::compare(&Value::from(&value), &Value::from(best)) == wanted);
    if !wins {
        return 0;
    }
    let before = best.as_ref().map_or(0, memory_bytes);
    memory_bytes(best.insert(value)).saturating_sub(before)
}

fn merge(merged: &mut Document, value: Option<Bson>) -> Result<usize> {
    match value {
        None | Some(Bson::Null | Bson::Undefined) => Ok(0),
        Some(Bson::Document(document)) => {
            let bytes = document.values().map(memory_bytes).sum();
            merged.extend(document);
            Ok(bytes)
        }
        Some(other) => {
            let message = format!(
                "$mergeObjects requires object inputs, but input {} is of type {}",
                show_bson(&other),
                Value::from(&other).kind().name()
            );
            Err(Error::new(Code(40400), message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_a_search_finds_every_accumulator() {
        assert!(ACCUMULATORS.is_sorted_by(|a, b| a.0 < b.0));
    }
}
