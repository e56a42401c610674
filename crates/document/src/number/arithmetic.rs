//! Arithmetic over BSON numbers with MongoDB's promotion: int, long, double, decimal; the wider operand wins.
//!
//! Called by expressions, accumulators and updates (`$inc`, `$mul`). Two ints that overflow make a long; two longs that
//! overflow make a double in expressions and nothing (`None`) in the checked forms, which updates refuse.
//!
//! Always holds: nothing panics or wraps. A decimal operand makes the whole operation decimal, 34 digits, half to even.

use bson::Bson;

pub use super::decimal::Rounding;
use super::{Decimal, Number};
use crate::value::Value;

/// A number that knows its BSON type.
#[derive(Clone, Copy, Debug)]
pub enum Numeric {
    /// `int`.
    Int32(i32),
    /// `long`.
    Int64(i64),
    /// `double`.
    Double(f64),
    /// `decimal`.
    Decimal(Decimal),
}

impl Numeric {
    /// The value as a number. `None` for other types.
    pub fn of(value: &Value<'_>) -> Option<Numeric> {
        match *value {
            Value::Int32(number) => Some(Numeric::Int32(number)),
            Value::Int64(number) => Some(Numeric::Int64(number)),
            Value::Double(number) => Some(Numeric::Double(number)),
            Value::Decimal128(number) => Some(Numeric::Decimal(Decimal::new(number))),
            _ => None,
        }
    }

    /// An int when it fits, otherwise a long.
    pub fn int_or_long(number: i64) -> Numeric {
        i32::try_from(number).map_or(Numeric::Int64(number), Numeric::Int32)
    }

    /// The BSON value.
    pub fn to_bson(self) -> Bson {
        match self {
            Numeric::Int32(number) => Bson::Int32(number),
            Numeric::Int64(number) => Bson::Int64(number),
            Numeric::Double(number) => Bson::Double(number),
            Numeric::Decimal(number) => Bson::Decimal128(number.to_bson()),
        }
    }

    /// The number without its type, for comparison and integer parts.
    pub fn number(self) -> Number {
        match self {
            Numeric::Int32(number) => Number::Int(i64::from(number)),
            Numeric::Int64(number) => Number::Int(number),
            Numeric::Double(number) => Number::Double(number),
            Numeric::Decimal(number) => Number::Decimal(number),
        }
    }

    /// The nearest double.
    pub fn to_f64(self) -> f64 {
        match self {
            Numeric::Int32(number) => f64::from(number),
            Numeric::Int64(number) => number as f64,
            Numeric::Double(number) => number,
            Numeric::Decimal(number) => number.to_double(),
        }
    }

    /// The number as a decimal; doubles with 15 digits.
    pub fn to_decimal(self) -> Decimal {
        match self {
            Numeric::Int32(number) => Decimal::of_int(i64::from(number)),
            Numeric::Int64(number) => Decimal::of_int(number),
            Numeric::Double(number) => Decimal::of_double(number),
            Numeric::Decimal(number) => number,
        }
    }

    /// Whether the number equals zero, of either sign.
    pub fn is_zero(self) -> bool {
        match self {
            Numeric::Int32(number) => number == 0,
            Numeric::Int64(number) => number == 0,
            Numeric::Double(number) => number == 0.0,
            Numeric::Decimal(number) => number.is_zero(),
        }
    }

    /// Whether the number is below zero.
    pub fn is_negative(self) -> bool {
        match self {
            Numeric::Int32(number) => number < 0,
            Numeric::Int64(number) => number < 0,
            Numeric::Double(number) => number < 0.0,
            Numeric::Decimal(number) => number.is_negative(),
        }
    }

    /// The sum. `None` when two integers overflow 64 bits.
    pub fn checked_add(self, other: Numeric) -> Option<Numeric> {
        self.combine(other, i64::checked_add, |a, b| a + b, Decimal::add)
    }

    /// The difference. `None` when two integers overflow 64 bits.
    pub fn checked_subtract(self, other: Numeric) -> Option<Numeric> {
        self.combine(other, i64::checked_sub, |a, b| a - b, |a, b| a.add(b.negate()))
    }

    /// The product. `None` when two integers overflow 64 bits.
    pub fn checked_multiply(self, other: Numeric) -> Option<Numeric> {
        self.combine(other, i64::checked_mul, |a, b| a * b, Decimal::multiply)
    }

    /// The sum; a double when two integers overflow 64 bits.
    #[must_use]
    pub fn widening_add(self, other: Numeric) -> Numeric {
        self.checked_add(other).unwrap_or_else(|| Numeric::Double(self.to_f64() + other.to_f64()))
    }

    /// The difference; a double when two integers overflow 64 bits.
    #[must_use]
    pub fn widening_subtract(self, other: Numeric) -> Numeric {
        self.checked_subtract(other).unwrap_or_else(|| Numeric::Double(self.to_f64() - other.to_f64()))
    }

    /// The product; a double when two integers overflow 64 bits.
    #[must_use]
    pub fn widening_multiply(self, other: Numeric) -> Numeric {
        self.checked_multiply(other).unwrap_or_else(|| Numeric::Double(self.to_f64() * other.to_f64()))
    }

    /// The quotient: a double, or a decimal when an operand is one. `None` when `other` is zero.
    pub fn divide(self, other: Numeric) -> Option<Numeric> {
        if other.is_zero() {
            return None;
        }
        Some(if self.is_decimal() || other.is_decimal() {
            Numeric::Decimal(self.to_decimal().divide(other.to_decimal()))
        } else {
            Numeric::Double(self.to_f64() / other.to_f64())
        })
    }

    /// The remainder with the sign of `self`. `None` when `other` is zero.
    pub fn remainder(self, other: Numeric) -> Option<Numeric> {
        if other.is_zero() {
            return None;
        }
        Some(match (self, other) {
            (Numeric::Int32(a), Numeric::Int32(b)) => Numeric::Int32(a.wrapping_rem(b)),
            (Numeric::Decimal(_), _) | (_, Numeric::Decimal(_)) => {
                Numeric::Decimal(self.to_decimal().remainder(other.to_decimal()))
            }
            (Numeric::Double(_), _) | (_, Numeric::Double(_)) => {
                Numeric::Double(self.to_f64() % other.to_f64())
            }
            (a, b) => Numeric::Int64(a.to_i64().wrapping_rem(b.to_i64())),
        })
    }

    /// The magnitude. `None` for the smallest long, whose magnitude is not a long.
    pub fn abs(self) -> Option<Numeric> {
        Some(match self {
            Numeric::Int32(number) => Numeric::int_or_long(i64::from(number).abs()),
            Numeric::Int64(number) => Numeric::Int64(number.checked_abs()?),
            Numeric::Double(number) => Numeric::Double(number.abs()),
            Numeric::Decimal(number) => Numeric::Decimal(number.abs()),
        })
    }

    /// The multiple of `10^-place` next to this number: 1.25 at place 1 is 1.2 by [`Rounding::HalfEven`]. The type stays,
    /// save that an int becomes a long when it must. `None` when a rounded integer overflows 64 bits.
    pub fn round_to(self, place: i64, rounding: Rounding) -> Option<Numeric> {
        match self {
            Numeric::Int32(number) => {
                Some(Numeric::int_or_long(round_int(i64::from(number), place, rounding)?))
            }
            Numeric::Int64(number) => Some(Numeric::Int64(round_int(number, place, rounding)?)),
            Numeric::Double(number) => Some(Numeric::Double(round_double(number, place, rounding))),
            Numeric::Decimal(number) => Some(Numeric::Decimal(number.quantize(-place, rounding))),
        }
    }

    /// Whether this is a decimal.
    pub fn is_decimal(self) -> bool {
        matches!(self, Numeric::Decimal(_))
    }

    /// Whether this is an int or a long.
    pub fn is_integer_type(self) -> bool {
        matches!(self, Numeric::Int32(_) | Numeric::Int64(_))
    }

    /// Only for the integer types.
    fn to_i64(self) -> i64 {
        match self {
            Numeric::Int32(number) => i64::from(number),
            Numeric::Int64(number) => number,
            Numeric::Double(_) | Numeric::Decimal(_) => 0,
        }
    }

    fn combine(
        self,
        other: Numeric,
        integers: fn(i64, i64) -> Option<i64>,
        doubles: fn(f64, f64) -> f64,
        decimals: fn(Decimal, Decimal) -> Decimal,
    ) -> Option<Numeric> {
        match (self, other) {
            (Numeric::Decimal(_), _) | (_, Numeric::Decimal(_)) => {
                Some(Numeric::Decimal(decimals(self.to_decimal(), other.to_decimal())))
            }
            (Numeric::Double(_), _) | (_, Numeric::Double(_)) => {
                Some(Numeric::Double(doubles(self.to_f64(), other.to_f64())))
            }
            (Numeric::Int32(a), Numeric::Int32(b)) => {
                integers(i64::from(a), i64::from(b)).map(Numeric::int_or_long)
            }
            (a, b) => integers(a.to_i64(), b.to_i64()).map(Numeric::Int64),
        }
    }
}

fn round_int(number: i64, place: i64, rounding: Rounding) -> Option<i64> {
    if place >= 0 {
        return Some(number);
    }
    Number::Decimal(Decimal::of_int(number).quantize(-place, rounding)).truncated()
}

fn round_double(number: f64, place: i64, rounding: Rounding) -> f64 {
    if !number.is_finite() {
        return number;
    }
    if place == 0 {
        return match rounding {
            Rounding::HalfEven => number.round_ties_even(),
            Rounding::Truncate => number.trunc(),
            Rounding::Floor => number.floor(),
            Rounding::Ceiling => number.ceil(),
        };
    }
    Decimal::of_double_exact(number).quantize(-place, rounding).to_double()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Numeric {
        Numeric::Decimal(Decimal::parse(text).expect("a decimal"))
    }

    fn shown(number: Numeric) -> String {
        match number.to_bson() {
            Bson::Decimal128(number) => number.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn integers_widen_when_they_overflow() {
        assert_eq!(shown(Numeric::Int32(i32::MAX).widening_add(Numeric::Int32(1))), "Int64(2147483648)");
        assert_eq!(shown(Numeric::Int64(1).widening_add(Numeric::Int32(1))), "Int64(2)");
        assert_eq!(
            shown(Numeric::Int64(i64::MAX).widening_add(Numeric::Int32(1))),
            "Double(9.223372036854776e18)"
        );
        assert!(Numeric::Int64(i64::MAX).checked_multiply(Numeric::Int64(2)).is_none());
        assert_eq!(
            shown(Numeric::Int32(i32::MIN).remainder(Numeric::Int32(-1)).expect("no zero")),
            "Int32(0)"
        );
    }

    #[test]
    fn decimals_keep_their_preferred_exponent_while_they_are_exact() {
        assert_eq!(shown(decimal("1.0").widening_add(decimal("2.00"))), "3.00");
        assert_eq!(shown(decimal("1.20").widening_multiply(decimal("2"))), "2.40");
        assert_eq!(shown(decimal("6").divide(decimal("2")).expect("no zero")), "3");
        assert_eq!(shown(decimal("1").divide(decimal("8")).expect("no zero")), "0.125");
        assert_eq!(shown(decimal("7.5").remainder(decimal("2")).expect("no zero")), "1.5");
        assert_eq!(shown(decimal("1").widening_add(Numeric::Double(0.1))), "1.100000000000000");
    }

    #[test]
    fn decimals_round_to_34_digits_half_to_even() {
        let third = decimal("1").divide(decimal("3")).expect("no zero");
        assert_eq!(shown(third), "0.3333333333333333333333333333333333");
        let most = decimal("9999999999999999999999999999999999");
        assert_eq!(shown(most.widening_add(decimal("0.5"))), "1.000000000000000000000000000000000E+34");
        assert_eq!(shown(most.widening_add(decimal("1E-6000"))), "9999999999999999999999999999999999");
        assert_eq!(shown(decimal("1E-6176").divide(decimal("3")).expect("no zero")), "0E-6176");
        assert_eq!(shown(decimal("9E+6144").widening_multiply(decimal("10"))), "Infinity");
        assert_eq!(shown(decimal("Infinity").widening_subtract(decimal("Infinity"))), "NaN");
    }

    #[test]
    fn rounding_to_a_place_uses_the_exact_value_of_a_double() {
        let at = |number: f64, place| {
            shown(Numeric::Double(number).round_to(place, Rounding::HalfEven).expect("fits"))
        };
        assert_eq!(at(1.25, 1), "Double(1.2)");
        assert_eq!(at(2.675, 2), "Double(2.67)");
        assert_eq!(at(1234.5678, -2), "Double(1200.0)");
        let int = Numeric::Int32(1250).round_to(-2, Rounding::HalfEven).expect("fits");
        assert_eq!(shown(int), "Int32(1200)");
    }

    #[test]
    fn the_bits_of_a_decimal_survive_taking_it_apart() {
        for text in
            ["0", "-0", "1.50", "-Infinity", "NaN", "9.999999999999999999999999999999999E+6144", "1E-6176"]
        {
            let number: bson::Decimal128 = text.parse().expect("a decimal");
            assert_eq!(Decimal::new(number).to_bson().to_string(), number.to_string(), "{text}");
        }
    }
}
