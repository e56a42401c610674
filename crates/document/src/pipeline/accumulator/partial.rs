//! States of accumulators as values that leave a shard, and their sum where the rows of all shards meet.
//!
//! Called by the `$group` stage on both sides. Always holds: the states of parts, taken one after the other, come to the
//! state of all their rows in that order; the types and the digits of sums are those of one sum. Values that no state makes
//! are errors: they came over a network.

use base::{Code, Error, Result};
use bson::Bson;

use super::{Spread, State};
use crate::number::summation::Summation;

impl State {
    /// The state as a value that `absorb` takes.
    pub(crate) fn into_partial(self) -> Bson {
        match self {
            State::AddToSet { values, .. } | State::Push(values) => Bson::Array(values),
            State::Avg { sum, count } => Bson::Array(vec![sum.to_bson(), Bson::Int64(count.cast_signed())]),
            State::Count(count) => Bson::Int64(count),
            // A null that was met is another state than nothing.
            State::Extreme { best: value, .. } | State::First(value) | State::Last(value) => {
                Bson::Array(value.into_iter().collect())
            }
            State::MergeObjects(merged) => Bson::Document(merged),
            State::StdDev(spread) => spread.to_partial(),
            State::Sum(sum) => sum.to_bson(),
        }
    }

    /// Takes the state of other rows, which come after those taken so far. Answers by how many bytes this one has grown.
    /// Fails with `InternalError` (1) when the value is not a state of the same accumulator.
    pub(crate) fn absorb(&mut self, partial: Bson) -> Result<usize> {
        match (self, partial) {
            (State::Count(count), Bson::Int64(more)) => *count = count.saturating_add(more),
            (State::Sum(sum), partial) => sum.merge(&summation(&partial)?),
            (State::Avg { sum, count }, Bson::Array(parts)) => {
                let [partial, Bson::Int64(more)] = parts.as_slice() else { return Err(foreign()) };
                sum.merge(&summation(partial)?);
                *count = count.saturating_add(more.cast_unsigned());
            }
            (State::StdDev(spread), partial) => spread.merge(&Spread::of_partial(&partial)?),
            (state @ (State::Extreme { .. } | State::First(_) | State::Last(_)), Bson::Array(mut values)) => {
                let value = values.pop();
                if !values.is_empty() {
                    return Err(foreign());
                }
                return value.map_or(Ok(0), |value| state.add(Some(value)));
            }
            (state @ (State::Push(_) | State::AddToSet { .. }), Bson::Array(values)) => {
                return values.into_iter().map(|value| state.add(Some(value))).sum();
            }
            (state @ State::MergeObjects(_), partial @ Bson::Document(_)) => return state.add(Some(partial)),
            _ => return Err(foreign()),
        }
        Ok(0)
    }
}

impl Spread {
    fn to_partial(&self) -> Bson {
        let count = Bson::Int64(self.count.cast_signed());
        Bson::Array(vec![count, Bson::Double(self.mean), Bson::Double(self.squares)])
    }

    fn of_partial(partial: &Bson) -> Result<Spread> {
        let parts = partial.as_array().map(Vec::as_slice);
        let Some([Bson::Int64(count), Bson::Double(mean), Bson::Double(squares)]) = parts else {
            return Err(foreign());
        };
        Ok(Spread { sample: false, count: count.cast_unsigned(), mean: *mean, squares: *squares })
    }

    /// The variance of both sets from the variance of each and the distance of their means (Chan, Golub and LeVeque).
    fn merge(&mut self, other: &Spread) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = Spread { sample: self.sample, ..*other };
            return;
        }
        let count = self.count.saturating_add(other.count);
        let share = other.count as f64 / count as f64;
        let delta = other.mean - self.mean;
        self.squares += other.squares + delta * delta * self.count as f64 * share;
        self.mean += delta * share;
        self.count = count;
    }
}

fn summation(partial: &Bson) -> Result<Summation> {
    Summation::of_bson(partial).ok_or_else(foreign)
}

/// The error for a row that no shard makes.
pub(crate) fn foreign() -> Error {
    Error::new(Code::INTERNAL_ERROR, "A shard's part of a $group does not decode")
}
