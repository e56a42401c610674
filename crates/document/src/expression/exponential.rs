//! `$sqrt $pow $exp $ln $log $log10`.
//!
//! Doubles, except that `$pow` of integers is an integer when it is exact and fits. Decimals: `$sqrt` and powers with a
//! whole exponent are computed to 34 digits; `$exp` and logarithms go through a double and so have about 15.

use base::{Code, Error, Result};

use super::arithmetic::map_number;
use super::{Call, Operand, Outcome, is_nullish, kind_name, null, value};
use crate::number::{Decimal, Numeric};

pub(crate) fn sqrt<'a>(call: &Call<'a>) -> Outcome<'a> {
    map_number(call, |number| {
        if number.is_negative() {
            return Err(Error::new(Code(28714), "$sqrt's argument must be greater than or equal to 0"));
        }
        Ok(match number {
            Numeric::Decimal(number) => Numeric::Decimal(number.sqrt()),
            number => Numeric::Double(number.to_f64().sqrt()),
        })
    })
}

pub(crate) fn exp<'a>(call: &Call<'a>) -> Outcome<'a> {
    map_number(call, |number| Ok(through_double(number, f64::exp)))
}

pub(crate) fn ln<'a>(call: &Call<'a>) -> Outcome<'a> {
    map_number(call, |number| {
        check_positive(28766, "$ln's argument", number)?;
        Ok(through_double(number, f64::ln))
    })
}

pub(crate) fn log10<'a>(call: &Call<'a>) -> Outcome<'a> {
    map_number(call, |number| {
        check_positive(28761, "$log10's argument", number)?;
        Ok(through_double(number, f64::log10))
    })
}

pub(crate) fn log<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (argument, base) = (call.get(0)?, call.get(1)?);
    if is_nullish(&argument) || is_nullish(&base) {
        return null();
    }
    let number = number(&argument, 28756, "$log's argument")?;
    let base = self::number(&base, 28757, "$log's base")?;
    check_positive(28758, "$log's argument", number)?;
    if base.is_negative() || base.is_zero() || base.to_f64() == 1.0 {
        let shown = base.to_f64();
        let message = format!("$log's base must be a positive number not equal to 1, but is {shown}");
        return Err(Error::new(Code(28759), message));
    }
    let logarithm = number.to_f64().ln() / base.to_f64().ln();
    let is_decimal = number.is_decimal() || base.is_decimal();
    let result = Numeric::Double(logarithm);
    value(if is_decimal { Numeric::Decimal(result.to_decimal()).to_bson() } else { result.to_bson() })
}

pub(crate) fn pow<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (base, exponent) = (call.get(0)?, call.get(1)?);
    if is_nullish(&base) || is_nullish(&exponent) {
        return null();
    }
    let base = number(&base, 28762, "$pow's base")?;
    let exponent = number(&exponent, 28763, "$pow's exponent")?;
    if base.is_zero() && exponent.is_negative() {
        let message = "$pow cannot take a base of 0 and a negative exponent";
        return Err(Error::new(Code(28764), message));
    }
    if base.is_decimal() || exponent.is_decimal() {
        return value(Numeric::Decimal(decimal_power(base.to_decimal(), exponent)).to_bson());
    }
    let both_integers = base.is_integer_type() && exponent.is_integer_type();
    if let Some(power) = both_integers.then(|| integer_power(base, exponent)).flatten() {
        return value(power.to_bson());
    }
    value(base.to_f64().powf(exponent.to_f64()))
}

fn number(operand: &Option<Operand<'_>>, code: i32, what: &str) -> Result<Numeric> {
    operand
        .as_ref()
        .and_then(Operand::number)
        .ok_or_else(|| Error::new(Code(code), format!("{what} must be numeric, not {}", kind_name(operand))))
}

fn check_positive(code: i32, what: &str, number: Numeric) -> Result<()> {
    if number.is_negative() || number.is_zero() {
        let message = format!("{what} must be a positive number, but is {}", number.to_f64());
        return Err(Error::new(Code(code), message));
    }
    Ok(())
}

fn through_double(number: Numeric, f: fn(f64) -> f64) -> Numeric {
    let result = Numeric::Double(f(number.to_f64()));
    if number.is_decimal() { Numeric::Decimal(result.to_decimal()) } else { result }
}

/// `None` when the power is not whole or does not fit.
fn integer_power(base: Numeric, exponent: Numeric) -> Option<Numeric> {
    let whole_base = base.number().integer()?;
    let power = match exponent.number().integer()? {
        exponent if exponent < 0 => match whole_base {
            1 => 1,
            -1 => {
                if exponent % 2 == 0 {
                    1
                } else {
                    -1
                }
            }
            _ => return None,
        },
        exponent => match whole_base {
            0 | 1 => {
                if exponent == 0 {
                    1
                } else {
                    whole_base
                }
            }
            -1 => {
                if exponent % 2 == 0 {
                    1
                } else {
                    -1
                }
            }
            _ => whole_base.checked_pow(u32::try_from(exponent).ok()?)?,
        },
    };
    let ints = matches!((base, exponent), (Numeric::Int32(_), Numeric::Int32(_)));
    Some(if ints { Numeric::int_or_long(power) } else { Numeric::Int64(power) })
}

/// By squaring for whole exponents, otherwise through a double.
fn decimal_power(base: Decimal, exponent: Numeric) -> Decimal {
    let Some(whole) = exponent.number().integer().filter(|whole| whole.unsigned_abs() <= 100_000) else {
        return Numeric::Double(base.to_double().powf(exponent.to_f64())).to_decimal();
    };
    let mut result = Numeric::Int32(1).to_decimal();
    let (mut square, mut bits) = (base, whole.unsigned_abs());
    while bits > 0 {
        if bits & 1 == 1 {
            result = result.multiply(square);
        }
        square = square.multiply(square);
        bits >>= 1;
    }
    if whole < 0 { Numeric::Int32(1).to_decimal().divide(result) } else { result }
}
