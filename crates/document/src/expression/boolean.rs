//! `$and`, `$or`, `$not`.
//!
//! Always holds: `$and` and `$or` evaluate no further argument once the answer is known.

use super::{Call, Outcome, value};

pub(crate) fn and<'a>(call: &Call<'a>) -> Outcome<'a> {
    for index in 0..call.len() {
        if !call.get(index)?.is_some_and(|operand| operand.is_true()) {
            return value(false);
        }
    }
    value(true)
}

pub(crate) fn or<'a>(call: &Call<'a>) -> Outcome<'a> {
    for index in 0..call.len() {
        if call.get(index)?.is_some_and(|operand| operand.is_true()) {
            return value(true);
        }
    }
    value(false)
}

pub(crate) fn not<'a>(call: &Call<'a>) -> Outcome<'a> {
    value(!call.get(0)?.is_some_and(|operand| operand.is_true()))
}
