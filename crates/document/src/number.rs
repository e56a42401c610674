//! Numbers of all four BSON types, compared exactly.
//!
//! Called by `order` (comparison), `key` (order-preserving form) and operators that need a number's integer part. A
//! decimal is decomposed once into sign, coefficient and exponent; comparisons never round: 0.1 as a double and 0.1 as
//! a decimal differ. Format of decimals: IEEE 754-2008 decimal128, binary integer significand.
//!
//! Always holds: NaN is equal to NaN and below every other number; -0 equals 0.

use std::cmp::Ordering;

use num_bigint::BigUint;

use crate::value::Value;

pub mod arithmetic;
mod decimal;
pub mod summation;

pub use arithmetic::Numeric;

/// Digits of the largest decimal128 coefficient.
const DIGITS_MAX: u32 = 34;
const COEFFICIENT_MAX: u128 = 10_u128.pow(DIGITS_MAX) - 1;
const EXPONENT_BIAS: i32 = 6176;

/// A number of any BSON type.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// An `int` or a `long`.
    Int(i64),
    /// A `double`.
    Double(f64),
    /// A `decimal`.
    Decimal(Decimal),
}

/// A decimal128, decomposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decimal {
    /// Not a number, of either sign.
    NaN,
    /// Infinity.
    Infinity {
        /// Whether it is below every finite number.
        negative: bool,
    },
    /// `coefficient * 10^exponent`, negated when `negative`.
    Finite {
        /// The sign; zero has one too.
        negative: bool,
        /// At most 34 digits.
        coefficient: u128,
        /// The power of ten.
        exponent: i32,
    },
}

impl Decimal {
    /// Reads the 128 bits. A coefficient of more than 34 digits reads as zero, as the standard says.
    pub fn new(number: bson::Decimal128) -> Decimal {
        let bits = u128::from_le_bytes(number.bytes());
        let negative = bits >> 127 != 0;
        match (bits >> 122) & 0x1F {
            0x1F => return Decimal::NaN,
            0x1E => return Decimal::Infinity { negative },
            _ => {}
        }
        // The form with the two leading bits set has an implied coefficient above the maximum.
        if (bits >> 125) & 3 == 3 {
            let exponent = ((bits >> 111) & 0x3FFF) as i32 - EXPONENT_BIAS;
            return Decimal::Finite { negative, coefficient: 0, exponent };
        }
        let exponent = ((bits >> 113) & 0x3FFF) as i32 - EXPONENT_BIAS;
        let coefficient = bits & ((1 << 113) - 1);
        let coefficient = if coefficient > COEFFICIENT_MAX { 0 } else { coefficient };
        Decimal::Finite { negative, coefficient, exponent }
    }
}

/// A nonzero magnitude as `d1.d2..d34 * 10^adjusted`: two magnitudes compare as these tuples do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scaled {
    /// The power of ten of the first digit.
    pub(crate) adjusted: i32,
    /// The digits, scaled to exactly 34.
    pub(crate) digits: u128,
}

impl Scaled {
    /// `coefficient` must not be zero and have at most 34 digits.
    pub(crate) fn new(coefficient: u128, exponent: i32) -> Scaled {
        let count = coefficient.ilog10() + 1;
        let digits = coefficient * 10_u128.pow(DIGITS_MAX - count);
        Scaled { adjusted: exponent + count as i32 - 1, digits }
    }
}

impl Number {
    /// The value as a number. `None` for other types.
    pub fn of(value: &Value<'_>) -> Option<Number> {
        match *value {
            Value::Int32(number) => Some(Number::Int(i64::from(number))),
            Value::Int64(number) => Some(Number::Int(number)),
            Value::Double(number) => Some(Number::Double(number)),
            Value::Decimal128(number) => Some(Number::Decimal(Decimal::new(number))),
            _ => None,
        }
    }

    /// The total order of numbers.
    pub fn compare(self, other: Number) -> Ordering {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => a.cmp(&b),
            (Number::Double(a), Number::Double(b)) => compare_doubles(a, b),
            (Number::Int(a), Number::Double(b)) => compare_int_double(a, b),
            (Number::Double(a), Number::Int(b)) => compare_int_double(b, a).reverse(),
            (Number::Decimal(a), Number::Decimal(b)) => compare_decimals(a, b),
            (Number::Decimal(a), Number::Int(b)) => compare_decimals(a, decimal_of_int(b)),
            (Number::Int(a), Number::Decimal(b)) => compare_decimals(decimal_of_int(a), b),
            (Number::Decimal(a), Number::Double(b)) => compare_decimal_double(a, b),
            (Number::Double(a), Number::Decimal(b)) => compare_decimal_double(b, a).reverse(),
        }
    }

    /// Whether this is not a number.
    pub fn is_nan(self) -> bool {
        match self {
            Number::Int(_) => false,
            Number::Double(number) => number.is_nan(),
            Number::Decimal(number) => number == Decimal::NaN,
        }
    }

    /// Whether this is neither infinite nor NaN.
    pub fn is_finite(self) -> bool {
        match self {
            Number::Int(_) => true,
            Number::Double(number) => number.is_finite(),
            Number::Decimal(number) => matches!(number, Decimal::Finite { .. }),
        }
    }

    /// The integer that is left after dropping the fraction. `None` when it does not fit or is not finite.
    pub fn truncated(self) -> Option<i64> {
        match self {
            Number::Int(number) => Some(number),
            Number::Double(number) => double_to_i64(number.trunc()),
            Number::Decimal(Decimal::Finite { negative, coefficient, exponent }) => {
                let magnitude = integer_part(coefficient, exponent)?;
                let signed = i128::try_from(magnitude).ok()?;
                i64::try_from(if negative { -signed } else { signed }).ok()
            }
            Number::Decimal(_) => None,
        }
    }

    /// The integer that this number equals. `None` when it has a fraction, does not fit or is not finite.
    pub fn integer(self) -> Option<i64> {
        let truncated = self.truncated()?;
        (self.compare(Number::Int(truncated)) == Ordering::Equal).then_some(truncated)
    }
}

/// The largest double whose magnitude is at most `coefficient * 10^exponent`, and whether it is exactly that.
pub(crate) fn truncate_to_double(coefficient: u128, exponent: i32) -> (f64, bool) {
    if coefficient == 0 {
        return (0.0, true);
    }
    if exponent >= 0 {
        let power = u32::try_from(exponent).ok().and_then(|exponent| 10_u128.checked_pow(exponent));
        if let Some(integer) = power.and_then(|power| coefficient.checked_mul(power)) {
            return assemble(integer, 0, false);
        }
    } else if exponent >= -19 {
        let power = 10_u128.pow(exponent.unsigned_abs());
        let shift = coefficient.leading_zeros();
        let numerator = coefficient << shift;
        return assemble(numerator / power, -(shift as i32), !numerator.is_multiple_of(power));
    }
    truncate_large(coefficient, exponent)
}

fn truncate_large(coefficient: u128, exponent: i32) -> (f64, bool) {
    let adjusted = Scaled::new(coefficient, exponent).adjusted;
    if adjusted > 309 {
        return (f64::MAX, false);
    }
    if adjusted < -330 {
        return (0.0, false);
    }
    let power = BigUint::from(10_u32).pow(exponent.unsigned_abs());
    let coefficient_big = BigUint::from(coefficient);
    let low_u128 = |big: &BigUint| u128::try_from(big).expect("shifted to at most 128 bits");
    if exponent >= 0 {
        let product = coefficient_big * power;
        let shift = product.bits().saturating_sub(128);
        let sticky = product.trailing_zeros().is_some_and(|zeros| zeros < shift);
        assemble(low_u128(&(product >> shift)), shift as i32, sticky)
    } else {
        // A quotient of 100 or 101 bits: more than the 53 that are kept, less than the 128 that fit.
        let shift = (power.bits() + 100).saturating_sub(coefficient_big.bits());
        let numerator = coefficient_big << shift;
        let quotient = &numerator / &power;
        let sticky = &quotient * &power != numerator;
        assemble(low_u128(&quotient), -(shift as i32), sticky)
    }
}

/// Truncates `significand * 2^exponent` to a double. `sticky`: the significand was itself truncated (and is long).
fn assemble(significand: u128, exponent: i32, sticky: bool) -> (f64, bool) {
    let bits = 128 - significand.leading_zeros() as i32;
    let top = bits - 1 + exponent;
    if top > 1023 {
        return (f64::MAX, false);
    }
    let normal = top >= -1022;
    let precision = if normal { 53 } else { 1075 + top };
    if precision <= 0 {
        return (0.0, false);
    }
    let dropped = bits - precision;
    let (mantissa, lost) = if dropped > 0 {
        (significand >> dropped, significand & ((1 << dropped) - 1) != 0)
    } else {
        (significand << -dropped, false)
    };
    let mantissa = mantissa as u64;
    let double_bits =
        if normal { (((top + 1023) as u64) << 52) | (mantissa & ((1 << 52) - 1)) } else { mantissa };
    (f64::from_bits(double_bits), !lost && !sticky)
}

fn compare_doubles(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

fn compare_int_double(int: i64, double: f64) -> Ordering {
    if double.is_nan() {
        return Ordering::Greater;
    }
    let whole = double.trunc();
    match double_to_i64(whole) {
        Some(whole_int) => {
            int.cmp(&whole_int).then_with(|| 0.0_f64.partial_cmp(&(double - whole)).expect("both are finite"))
        }
        None if double > 0.0 => Ordering::Less,
        None => Ordering::Greater,
    }
}

/// `double` must be whole; `None` when it is out of range or not finite.
fn double_to_i64(double: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    (-LIMIT..LIMIT).contains(&double).then_some(double as i64)
}

fn decimal_of_int(int: i64) -> Decimal {
    Decimal::Finite { negative: int < 0, coefficient: u128::from(int.unsigned_abs()), exponent: 0 }
}

/// NaN, minus infinity, finite, infinity.
fn class(decimal: Decimal) -> u8 {
    match decimal {
        Decimal::NaN => 0,
        Decimal::Infinity { negative: true } => 1,
        Decimal::Finite { .. } => 2,
        Decimal::Infinity { negative: false } => 3,
    }
}

fn compare_decimals(a: Decimal, b: Decimal) -> Ordering {
    let (
        Decimal::Finite { negative: a_negative, coefficient: a_coefficient, exponent: a_exponent },
        Decimal::Finite { negative: b_negative, coefficient: b_coefficient, exponent: b_exponent },
    ) = (a, b)
    else {
        return class(a).cmp(&class(b));
    };
    let signs = sign(a_negative, a_coefficient).cmp(&sign(b_negative, b_coefficient));
    if signs != Ordering::Equal || a_coefficient == 0 {
        return signs;
    }
    let magnitudes = Scaled::new(a_coefficient, a_exponent).cmp(&Scaled::new(b_coefficient, b_exponent));
    if a_negative { magnitudes.reverse() } else { magnitudes }
}

fn compare_decimal_double(decimal: Decimal, double: f64) -> Ordering {
    let Decimal::Finite { negative, coefficient, exponent } = decimal else {
        let double_class = match double {
            _ if double.is_nan() => 0,
            f64::NEG_INFINITY => 1,
            f64::INFINITY => 3,
            _ => 2,
        };
        return class(decimal).cmp(&double_class);
    };
    if double.is_nan() {
        return Ordering::Greater;
    }
    let double_sign = if double == 0.0 { 0 } else { double.signum() as i8 };
    let signs = sign(negative, coefficient).cmp(&double_sign);
    if signs != Ordering::Equal || coefficient == 0 {
        return signs;
    }
    let (truncated, exact) = truncate_to_double(coefficient, exponent);
    let magnitudes = compare_doubles(truncated, double.abs()).then(if exact {
        Ordering::Equal
    } else {
        Ordering::Greater
    });
    if negative { magnitudes.reverse() } else { magnitudes }
}

fn sign(negative: bool, coefficient: u128) -> i8 {
    match (coefficient, negative) {
        (0, _) => 0,
        (_, true) => -1,
        (_, false) => 1,
    }
}

/// `coefficient * 10^exponent` without its fraction. `None` when it does not fit.
fn integer_part(coefficient: u128, exponent: i32) -> Option<u128> {
    let power = 10_u128.checked_pow(exponent.unsigned_abs());
    match power {
        _ if coefficient == 0 => Some(0),
        Some(power) if exponent >= 0 => coefficient.checked_mul(power),
        Some(power) => Some(coefficient / power),
        None if exponent >= 0 => None,
        None => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Number {
        Number::Decimal(Decimal::new(text.parse().expect("a decimal")))
    }

    #[test]
    fn numbers_of_all_types_form_one_strictly_increasing_chain() {
        let chain = [
            Number::Double(f64::NAN),
            Number::Double(f64::NEG_INFINITY),
            decimal("-9.999999999999999999999999999999999E+6144"),
            Number::Double(f64::MIN),
            decimal("-9223372036854775809"),
            Number::Int(i64::MIN),
            Number::Int(i64::MIN + 1),
            decimal("-0.1"),
            decimal("-1E-6176"),
            decimal("-0"),
            decimal("1E-6176"),
            Number::Double(5e-324),
            decimal("0.1"),
            Number::Double(0.1),
            Number::Int(1),
            Number::Double(1.5),
            Number::Int(9_007_199_254_740_992),
            Number::Int(9_007_199_254_740_993),
            decimal("9007199254740993.5"),
            Number::Int(i64::MAX),
            Number::Double(9_223_372_036_854_775_808.0),
            Number::Double(f64::MAX),
            decimal("1E+309"),
            decimal("Infinity"),
        ];
        for (i, a) in chain.iter().enumerate() {
            for (j, b) in chain.iter().enumerate() {
                assert_eq!(a.compare(*b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn truncation_to_a_double_is_exact_for_every_exact_value() {
        assert_eq!(truncate_to_double(10, -1), (1.0, true));
        assert_eq!(truncate_to_double(5, -1), (0.5, true));
        assert_eq!(truncate_to_double(1, 22), (1e22, true));
        assert_eq!(truncate_to_double(1, -1), (0.1_f64.next_down(), false));
        assert_eq!(truncate_to_double(1, 400), (f64::MAX, false));
        assert_eq!(truncate_to_double(1, -400), (0.0, false));
        assert_eq!(truncate_to_double(3, -324), (0.0, false));
        // The smallest double prints as 5e-324 and is 4.94e-324.
        assert_eq!(truncate_to_double(5, -324), (5e-324, false));
    }
}
