//! `$bitsAllSet $bitsAnySet $bitsAllClear $bitsAnyClear`: tests of single bits of integers and binary data.
//!
//! Called by `parse` and `matching`. Bit 0 is the least significant bit of a number and of the first byte of binary data;
//! negative numbers are in two's complement and extend their sign.

use base::{Error, Result};

use crate::display::show_value;
use crate::number::Number;
use crate::value::{ArrayRef, Value};

/// Which of the four operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitTest {
    /// `$bitsAllSet`
    AllSet,
    /// `$bitsAnySet`
    AnySet,
    /// `$bitsAllClear`
    AllClear,
    /// `$bitsAnyClear`
    AnyClear,
}

/// The bits that a test looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BitMask {
    /// A list of positions.
    Positions(Vec<u32>),
    /// The bits set in these bytes, least significant byte first.
    Bytes(Vec<u8>),
}

impl BitTest {
    /// Whether the value is an integer or binary data whose bits pass.
    pub(super) fn matches(self, mask: &BitMask, value: &Value<'_>) -> bool {
        if let Value::Binary { bytes, .. } = value {
            return self.passes(mask, |position| {
                bytes.get(position as usize / 8).is_some_and(|byte| byte >> (position % 8) & 1 == 1)
            });
        }
        Number::of(value)
            .and_then(Number::integer)
            .is_some_and(|integer| self.passes(mask, |position| integer >> position.min(63) & 1 == 1))
    }

    fn passes(self, mask: &BitMask, is_set: impl Fn(u32) -> bool) -> bool {
        match self {
            BitTest::AllSet => mask.all(is_set),
            BitTest::AnySet => !mask.all(|position| !is_set(position)),
            BitTest::AllClear => mask.all(|position| !is_set(position)),
            BitTest::AnyClear => !mask.all(is_set),
        }
    }
}

impl BitMask {
    fn all(&self, test: impl Fn(u32) -> bool) -> bool {
        match self {
            BitMask::Positions(positions) => positions.iter().all(|position| test(*position)),
            BitMask::Bytes(bytes) => (0..).zip(bytes).all(|(index, byte)| {
                let index: u32 = index;
                (0..8).all(|bit| byte >> bit & 1 == 0 || test(index * 8 + bit))
            }),
        }
    }

    /// Reads the operand of `operator`: a number, binary data, or an array of positions.
    pub(super) fn parse(operator: &str, operand: &Value<'_>) -> Result<BitMask> {
        match operand {
            Value::Array(positions) => positions_of(*positions),
            Value::Binary { bytes, .. } => Ok(BitMask::Bytes(bytes.to_vec())),
            value => match Number::of(value) {
                Some(number) => mask_of_number(operator, number, value),
                None => Err(Error::bad_value(format!(
                    "{operator} takes an Array, a number, or a BinData but received: {operator}: {}",
                    show_value(value)
                ))),
            },
        }
    }
}

fn mask_of_number(operator: &str, number: Number, value: &Value<'_>) -> Result<BitMask> {
    let shown = || format!("{operator}: {}", show_value(value));
    match number.integer() {
        Some(mask) if mask >= 0 => Ok(BitMask::Bytes(mask.to_le_bytes().to_vec())),
        Some(_) => Err(Error::failed_to_parse(format!("Expected a non-negative number in: {}", shown()))),
        None if number.truncated().is_some() => {
            Err(Error::failed_to_parse(format!("Expected an integer: {}", shown())))
        }
        None => Err(Error::failed_to_parse(format!("Cannot represent as a 64-bit integer: {}", shown()))),
    }
}

fn positions_of(positions: ArrayRef<'_>) -> Result<BitMask> {
    let position = |value: Value<'_>| {
        let refused =
            |what: &str| Error::bad_value(format!("bit positions {what} but got: {}", show_value(&value)));
        let number = Number::of(&value).ok_or_else(|| refused("must be an integer"))?;
        let integer = number.integer().ok_or_else(|| refused("must be an integer"))?;
        if integer < 0 {
            return Err(refused("must be >= 0"));
        }
        i32::try_from(integer)
            .map(i32::unsigned_abs)
            .map_err(|_| refused("cannot be represented as a 32-bit signed integer"))
    };
    positions.iter().map(position).collect::<Result<_>>().map(BitMask::Positions)
}
