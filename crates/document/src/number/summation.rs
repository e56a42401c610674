//! Sums over many numbers: exact over integers, compensated over doubles, 34 digits over decimals.
//!
//! Called by the accumulators `$sum` and `$avg`, in groups and as expressions. A partial sum does not lose digits that a
//! naive loop would: 1e100 + 1 - 1e100 is 1. Method: Knuth's two-sum, carried along as a second double. A sum can leave a
//! shard as a value and be added to others, with its types and both its doubles.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson};

use super::{Decimal, Numeric};
use crate::value::Value;

/// A running sum.
#[derive(Clone, Debug)]
pub struct Summation {
    /// Exact: 2^64 additions of longs fit 128 bits.
    integers: i128,
    doubles: f64,
    compensation: f64,
    /// The plain sum: what infinities and NaN make.
    plain: f64,
    decimals: Decimal,
    widest: Widest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Widest {
    Int32,
    Int64,
    Double,
    Decimal,
}

impl Default for Summation {
    fn default() -> Summation {
        Summation {
            integers: 0,
            doubles: 0.0,
            compensation: 0.0,
            plain: 0.0,
            decimals: Decimal::ZERO,
            widest: Widest::Int32,
        }
    }
}

impl Summation {
    /// Adds one number.
    pub fn add(&mut self, number: Numeric) {
        let kind = match number {
            Numeric::Int32(number) => {
                self.integers = self.integers.saturating_add(i128::from(number));
                Widest::Int32
            }
            Numeric::Int64(number) => {
                self.integers = self.integers.saturating_add(i128::from(number));
                Widest::Int64
            }
            Numeric::Double(number) => {
                self.add_double(number);
                Widest::Double
            }
            Numeric::Decimal(number) => {
                self.decimals = self.decimals.add(number);
                Widest::Decimal
            }
        };
        self.widest = self.widest.max(kind);
    }

    /// Adds all that another sum has taken.
    pub fn merge(&mut self, other: &Summation) {
        self.integers = self.integers.saturating_add(other.integers);
        let plain = self.plain + other.plain;
        self.add_double(other.doubles);
        self.compensation += other.compensation;
        self.plain = plain;
        self.decimals = self.decimals.add(other.decimals);
        self.widest = self.widest.max(other.widest);
    }

    /// The sum as a value that `of_bson` reads: the widest type, integers, doubles with their compensation and plain, decimals.
    pub fn to_bson(&self) -> Bson {
        let integers =
            Binary { subtype: BinarySubtype::Generic, bytes: self.integers.to_le_bytes().to_vec() };
        Bson::Array(vec![
            Bson::Int32(self.widest as i32),
            Bson::Binary(integers),
            Bson::Double(self.doubles),
            Bson::Double(self.compensation),
            Bson::Double(self.plain),
            Bson::Decimal128(self.decimals.to_bson()),
        ])
    }

    /// Reads what `to_bson` made; `None` for any other value.
    pub fn of_bson(value: &Bson) -> Option<Summation> {
        let parts = value.as_array()?.as_slice();
        let [
            Bson::Int32(widest),
            Bson::Binary(integers),
            Bson::Double(doubles),
            Bson::Double(compensation),
            Bson::Double(plain),
            decimals @ Bson::Decimal128(_),
        ] = parts
        else {
            return None;
        };
        let kinds = [Widest::Int32, Widest::Int64, Widest::Double, Widest::Decimal];
        let Some(Numeric::Decimal(decimals)) = Numeric::of(&Value::from(decimals)) else { return None };
        Some(Summation {
            integers: i128::from_le_bytes(integers.bytes.as_slice().try_into().ok()?),
            doubles: *doubles,
            compensation: *compensation,
            plain: *plain,
            decimals,
            widest: kinds.into_iter().find(|kind| *kind as i32 == *widest)?,
        })
    }

    /// The sum, of the widest type that was added; of integers a double when it is no long.
    pub fn total(&self) -> Numeric {
        match self.widest {
            Widest::Int32 | Widest::Int64 => match i64::try_from(self.integers) {
                Ok(total) if self.widest == Widest::Int32 => Numeric::int_or_long(total),
                Ok(total) => Numeric::Int64(total),
                Err(_) => Numeric::Double(self.integers as f64),
            },
            Widest::Double => Numeric::Double(self.double_total()),
            Widest::Decimal => Numeric::Decimal(self.decimal_total()),
        }
    }

    /// The mean of `count` numbers: a double, or a decimal when one was added. `None` when there is none.
    pub fn mean(&self, count: u64) -> Option<Numeric> {
        if count == 0 {
            return None;
        }
        Some(if self.widest == Widest::Decimal {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            Numeric::Decimal(self.decimal_total().divide(Decimal::of_int(count)))
        } else {
            Numeric::Double(self.double_total() / count as f64)
        })
    }

    fn add_double(&mut self, number: f64) {
        self.plain += number;
        let sum = self.doubles + number;
        let back = sum - self.doubles;
        self.compensation += (self.doubles - (sum - back)) + (number - back);
        self.doubles = sum;
    }

    fn double_total(&self) -> f64 {
        if !self.plain.is_finite() {
            return self.plain;
        }
        let mut with_integers = self.clone();
        let high = self.integers as f64;
        with_integers.add_double(high);
        with_integers.add_double((self.integers - high as i128) as f64);
        with_integers.doubles + with_integers.compensation
    }

    fn decimal_total(&self) -> Decimal {
        let mut total = self.decimals;
        if self.integers != 0 {
            total = total.add(Decimal::parse(&self.integers.to_string()).unwrap_or(Decimal::NaN));
        }
        if !self.plain.is_finite() {
            total = total.add(Decimal::of_double(self.plain));
        } else if self.doubles != 0.0 || self.compensation != 0.0 {
            total = total.add(Decimal::of_double_exact(self.doubles));
            total = total.add(Decimal::of_double_exact(self.compensation));
        }
        total
    }
}
