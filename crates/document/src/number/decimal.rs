//! Decimal128 arithmetic: exact over big integers, then rounded once to 34 digits, half to even.
//!
//! Called by `arithmetic` and `summation` only. Results keep the standard's preferred exponent (1.0 + 2.00 is 3.00) as
//! long as they are exact. Reference: IEEE 754-2008, clause 5.
//!
//! Always holds: no operation fails; what cannot be represented becomes infinity, zero or NaN.

use std::str::FromStr;

use bigdecimal::BigDecimal;
use num_bigint::{BigInt, BigUint, Sign};

use super::{COEFFICIENT_MAX, DIGITS_MAX, Decimal, EXPONENT_BIAS, truncate_to_double};

const EXPONENT_MIN: i64 = -(EXPONENT_BIAS as i64);
const EXPONENT_MAX: i64 = 6111;
/// Beyond this distance of exponents the smaller operand of an addition only decides rounding.
const ALIGNMENT_MAX: i64 = 3 * DIGITS_MAX as i64;

/// Longest text that is read as a decimal.
const TEXT_BYTES_MAX: usize = 20_000;
/// Largest exponent in a text that is read as a decimal.
const TEXT_EXPONENT_MAX: u64 = 100_000;

/// How a quotient by a power of ten is brought to a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest, ties to the even neighbour.
    HalfEven,
    /// Towards zero.
    Truncate,
    /// Towards minus infinity.
    Floor,
    /// Towards infinity.
    Ceiling,
}

impl Decimal {
    pub(crate) const ZERO: Decimal = Decimal::Finite { negative: false, coefficient: 0, exponent: 0 };

    /// The 128 bits.
    pub fn to_bson(self) -> bson::Decimal128 {
        let (negative, bits) = match self {
            Decimal::NaN => (false, 0x1F << 122),
            Decimal::Infinity { negative } => (negative, 0x1E << 122),
            Decimal::Finite { negative, coefficient, exponent } => {
                let biased = u128::try_from(exponent + EXPONENT_BIAS).unwrap_or(0);
                (negative, (biased << 113) | coefficient)
            }
        };
        bson::Decimal128::from_bytes((bits | (u128::from(negative) << 127)).to_le_bytes())
    }

    pub(crate) fn of_int(int: i64) -> Decimal {
        Decimal::Finite { negative: int < 0, coefficient: u128::from(int.unsigned_abs()), exponent: 0 }
    }

    /// A double with the 15 digits that it can be trusted for.
    pub(crate) fn of_double(double: f64) -> Decimal {
        if !double.is_finite() {
            return Decimal::special(double);
        }
        Decimal::parse(&format!("{double:.14e}")).unwrap_or(Decimal::NaN)
    }

    /// A double's exact value, rounded to 34 digits.
    pub(crate) fn of_double_exact(double: f64) -> Decimal {
        if !double.is_finite() {
            return Decimal::special(double);
        }
        Decimal::parse(&format!("{double:.33e}")).unwrap_or(Decimal::NaN).reduced(0)
    }

    fn special(double: f64) -> Decimal {
        if double.is_nan() { Decimal::NaN } else { Decimal::Infinity { negative: double < 0.0 } }
    }

    /// Reads a decimal's text form. `None` when it is none.
    pub fn parse(text: &str) -> Option<Decimal> {
        let named = ["nan", "inf", "infinity"];
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        if !named.iter().any(|name| unsigned.eq_ignore_ascii_case(name)) {
            check_digits(text)?;
        }
        match bson::Decimal128::from_str(text) {
            Ok(number) => Some(Decimal::new(number)),
            // More digits than fit: read them all and round.
            Err(_) => Some(Decimal::of_big(&BigDecimal::from_str(text).ok()?)),
        }
    }

    pub(crate) fn of_big(number: &BigDecimal) -> Decimal {
        let (digits, scale) = number.as_bigint_and_exponent();
        round(digits, -scale, false)
    }

    /// The nearest double.
    pub(crate) fn to_double(self) -> f64 {
        match self {
            Decimal::NaN => f64::NAN,
            Decimal::Infinity { negative: true } => f64::NEG_INFINITY,
            Decimal::Infinity { negative: false } => f64::INFINITY,
            Decimal::Finite { negative, coefficient, exponent } => {
                let (below, exact) = truncate_to_double(coefficient, exponent);
                let magnitude =
                    if exact { below } else { format!("{coefficient}e{exponent}").parse().unwrap_or(below) };
                if negative { -magnitude } else { magnitude }
            }
        }
    }

    pub(crate) fn is_zero(self) -> bool {
        matches!(self, Decimal::Finite { coefficient: 0, .. })
    }

    pub(crate) fn is_negative(self) -> bool {
        match self {
            Decimal::NaN => false,
            Decimal::Infinity { negative } => negative,
            Decimal::Finite { negative, coefficient, .. } => negative && coefficient != 0,
        }
    }

    pub(crate) fn negate(self) -> Decimal {
        match self {
            Decimal::NaN => Decimal::NaN,
            Decimal::Infinity { negative } => Decimal::Infinity { negative: !negative },
            Decimal::Finite { negative, coefficient, exponent } => {
                Decimal::Finite { negative: !negative, coefficient, exponent }
            }
        }
    }

    pub(crate) fn abs(self) -> Decimal {
        let negative = match self {
            Decimal::NaN => false,
            Decimal::Infinity { negative } | Decimal::Finite { negative, .. } => negative,
        };
        if negative { self.negate() } else { self }
    }

    /// NaN below zero.
    pub(crate) fn sqrt(self) -> Decimal {
        match self.parts() {
            None if self.is_negative() => Decimal::NaN,
            None => self,
            Some((digits, exponent)) => match BigDecimal::new(digits, -exponent).sqrt() {
                Some(root) => Decimal::of_big(&root).reduced(exponent.div_euclid(2)),
                None => Decimal::NaN,
            },
        }
    }

    pub(crate) fn add(self, other: Decimal) -> Decimal {
        let (Some((a, a_exponent)), Some((b, b_exponent))) = (self.parts(), other.parts()) else {
            return match (self, other) {
                (Decimal::Infinity { negative: a }, Decimal::Infinity { negative: b }) if a != b => {
                    Decimal::NaN
                }
                (Decimal::NaN, _) | (_, Decimal::NaN) => Decimal::NaN,
                (infinite @ Decimal::Infinity { .. }, _) | (_, infinite) => infinite,
            };
        };
        let low = a_exponent.min(b_exponent);
        let high = a_exponent.max(b_exponent);
        if high - low <= ALIGNMENT_MAX {
            return round(a * power(a_exponent - low) + b * power(b_exponent - low), low, false);
        }
        let (large, large_exponent, small) =
            if a_exponent > b_exponent { (a, a_exponent, b) } else { (b, b_exponent, a) };
        if large.sign() == Sign::NoSign {
            return round(small, low, false);
        }
        // The small operand is far below the last digit of the large one: it only breaks a tie.
        let nudge = BigInt::from(match small.sign() {
            Sign::Minus => -1,
            Sign::NoSign => 0,
            Sign::Plus => 1,
        });
        let shift = i64::from(2 * DIGITS_MAX);
        round(large * power(shift) + nudge, large_exponent - shift, false)
    }

    pub(crate) fn multiply(self, other: Decimal) -> Decimal {
        match (self.parts(), other.parts()) {
            (Some((a, a_exponent)), Some((b, b_exponent))) => round(a * b, a_exponent + b_exponent, false),
            _ if self == Decimal::NaN || other == Decimal::NaN => Decimal::NaN,
            _ if self.is_zero() || other.is_zero() => Decimal::NaN,
            _ => Decimal::Infinity { negative: self.is_negative() != other.is_negative() },
        }
    }

    pub(crate) fn divide(self, other: Decimal) -> Decimal {
        let (Some((a, a_exponent)), Some((b, b_exponent))) = (self.parts(), other.parts()) else {
            return match (self, other) {
                (Decimal::Infinity { .. }, Decimal::Finite { .. }) => {
                    Decimal::Infinity { negative: self.is_negative() != other.is_negative() }
                }
                (Decimal::Finite { .. }, Decimal::Infinity { .. }) => Decimal::ZERO,
                _ => Decimal::NaN,
            };
        };
        if b.sign() == Sign::NoSign {
            return if self.is_zero() {
                Decimal::NaN
            } else {
                Decimal::Infinity { negative: self.is_negative() != other.is_negative() }
            };
        }
        // Enough digits that the quotient has at least two more than are kept.
        let shift = i64::from(2 * DIGITS_MAX + 2);
        let numerator = a * power(shift);
        let quotient = &numerator / &b;
        let inexact = &quotient * &b != numerator;
        let preferred = a_exponent - b_exponent;
        let result = round(quotient, preferred - shift, inexact);
        if inexact { result } else { result.reduced(preferred) }
    }

    /// The remainder with the sign of `self`. NaN when `other` is zero or `self` infinite.
    pub(crate) fn remainder(self, other: Decimal) -> Decimal {
        let (Some((a, a_exponent)), Some((b, b_exponent))) = (self.parts(), other.parts()) else {
            return match (self, other) {
                (Decimal::Finite { .. }, Decimal::Infinity { .. }) => self,
                _ => Decimal::NaN,
            };
        };
        if b.sign() == Sign::NoSign {
            return Decimal::NaN;
        }
        let low = a_exponent.min(b_exponent);
        round((a * power(a_exponent - low)) % (b * power(b_exponent - low)), low, false)
    }

    /// The multiple of `10^exponent` next to this number. NaN when it has more than 34 digits.
    pub(crate) fn quantize(self, exponent: i64, rounding: Rounding) -> Decimal {
        let Some((digits, own_exponent)) = self.parts() else {
            return self;
        };
        if own_exponent >= exponent {
            let negative = self.is_negative();
            let scaled = i64::from(DIGITS_MAX) >= own_exponent - exponent;
            let padded =
                scaled.then(|| u128::try_from((digits * power(own_exponent - exponent)).magnitude()).ok());
            return match padded.flatten() {
                Some(coefficient) if coefficient <= COEFFICIENT_MAX => {
                    Decimal::Finite { negative, coefficient, exponent: i32::try_from(exponent).unwrap_or(0) }
                }
                _ => self,
            };
        }
        let drop = exponent - own_exponent;
        let rounded = divide_rounding(digits, drop, false, rounding);
        match round(rounded, exponent, false) {
            // Zero keeps its sign, as -0.
            Decimal::Finite { coefficient: 0, exponent, .. } => {
                Decimal::Finite { negative: false, coefficient: 0, exponent }
            }
            other => other,
        }
    }

    /// The same number with trailing zeros dropped until its exponent reaches `preferred`.
    pub(crate) fn reduced(self, preferred: i64) -> Decimal {
        let Decimal::Finite { negative, mut coefficient, mut exponent } = self else {
            return self;
        };
        while i64::from(exponent) < preferred && coefficient % 10 == 0 && i64::from(exponent) < EXPONENT_MAX {
            coefficient /= 10;
            exponent += 1;
        }
        Decimal::Finite { negative, coefficient, exponent }
    }

    fn parts(self) -> Option<(BigInt, i64)> {
        let Decimal::Finite { negative, coefficient, exponent } = self else {
            return None;
        };
        let sign = if negative { Sign::Minus } else { Sign::Plus };
        Some((BigInt::from_biguint(sign, BigUint::from(coefficient)), i64::from(exponent)))
    }
}

/// `digits * 10^exponent` as a decimal. `sticky`: the true value lies a little further from zero.
fn round(digits: BigInt, exponent: i64, sticky: bool) -> Decimal {
    let negative = digits.sign() == Sign::Minus;
    let count = digit_count(&digits);
    let drop = (count - i64::from(DIGITS_MAX)).max(EXPONENT_MIN - exponent).max(0);
    if drop > count + 1 {
        return Decimal::Finite { negative, coefficient: 0, exponent: EXPONENT_MIN as i32 };
    }
    let mut rounded = divide_rounding(digits, drop, sticky, Rounding::HalfEven);
    let mut exponent = exponent + drop;
    if digit_count(&rounded) > i64::from(DIGITS_MAX) {
        rounded /= 10;
        exponent += 1;
    }
    let mut coefficient = u128::try_from(rounded.magnitude()).expect("34 digits fit 128 bits");
    if exponent > EXPONENT_MAX {
        let excess = exponent - EXPONENT_MAX;
        if coefficient != 0 {
            let room = i64::from(DIGITS_MAX) - i64::from(coefficient.ilog10() + 1);
            if excess > room {
                return Decimal::Infinity { negative };
            }
            coefficient *= 10_u128.pow(u32::try_from(excess).expect("at most 34"));
        }
        exponent = EXPONENT_MAX;
    }
    Decimal::Finite {
        negative,
        coefficient,
        exponent: i32::try_from(exponent).expect("checked against the range"),
    }
}

fn divide_rounding(digits: BigInt, drop: i64, sticky: bool, rounding: Rounding) -> BigInt {
    if drop <= 0 {
        return digits;
    }
    // Past every digit the remainder is below a tenth either way: a cut at count + 1 decides the same.
    let drop = drop.min(digit_count(&digits) + 1);
    let divisor = power(drop);
    let (quotient, remainder) = (&digits / &divisor, &digits % &divisor);
    let inexact = remainder.sign() != Sign::NoSign || sticky;
    let away = match rounding {
        Rounding::Truncate => false,
        Rounding::Floor => inexact && digits.sign() == Sign::Minus,
        Rounding::Ceiling => inexact && digits.sign() == Sign::Plus,
        Rounding::HalfEven => {
            let twice = remainder.magnitude() * 2_u32;
            match twice.cmp(divisor.magnitude()) {
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Equal => sticky || quotient.bit(0),
                std::cmp::Ordering::Greater => true,
            }
        }
    };
    match (away, digits.sign()) {
        (false, _) | (_, Sign::NoSign) => quotient,
        (true, Sign::Minus) => quotient - 1,
        (true, Sign::Plus) => quotient + 1,
    }
}

/// `None` for text that is no number, or one whose length or exponent is out of all bounds. The parsers behind this take
/// neither well.
fn check_digits(text: &str) -> Option<()> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    let exponent = text.split_once(['e', 'E']).map_or(Ok(0), |(_, exponent)| exponent.parse::<i64>()).ok()?;
    let bounded = text.len() <= TEXT_BYTES_MAX && exponent.unsigned_abs() <= TEXT_EXPONENT_MAX;
    (plain && bounded).then_some(())
}

fn digit_count(digits: &BigInt) -> i64 {
    match u128::try_from(digits.magnitude()) {
        Ok(0) => 1,
        Ok(small) => i64::from(small.ilog10()) + 1,
        Err(_) => i64::try_from(digits.magnitude().to_str_radix(10).len()).expect("a length in memory"),
    }
}

fn power(exponent: i64) -> BigInt {
    BigInt::from(10_u32).pow(u32::try_from(exponent).expect("aligned exponents are not negative"))
}
