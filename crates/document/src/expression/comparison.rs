//! `$eq`, `$ne`, `$gt`, `$gte`, `$lt`, `$lte`, `$cmp`: BSON order across types, a missing value below all others.

use std::cmp::Ordering;

use base::Result;

use super::{Call, Operand, Outcome, value};
use crate::order;

pub(crate) fn cmp<'a>(call: &Call<'a>) -> Outcome<'a> {
    value(compare_arguments(call)? as i32)
}

pub(crate) fn eq<'a>(call: &Call<'a>) -> Outcome<'a> {
    value(compare_arguments(call)?.is_eq())
}

pub(crate) fn ne<'a>(call: &Call<'a>) -> Outcome<'a> {
    value(compare_arguments(call)?.is_ne())
}

pub(crate) fn gt<'a>(call: &Call<'a>) -> Outcome<'a> {
    value(compare_arguments(call)?.is_gt())
}

pub(crate) fn gte<'a>(call: &Call<'a>) -> Outcome<'a> {
    value(compare_arguments(call)?.is_ge())
}

pub(crate) fn lt<'a>(call: &Call<'a>) -> Outcome<'a> {
    value(compare_arguments(call)?.is_lt())
}

pub(crate) fn lte<'a>(call: &Call<'a>) -> Outcome<'a> {
    value(compare_arguments(call)?.is_le())
}

fn compare_arguments(call: &Call<'_>) -> Result<Ordering> {
    Ok(compare(&call.get(0)?, &call.get(1)?))
}

/// BSON order, with missing values below all others.
pub(crate) fn compare(a: &Option<Operand<'_>>, b: &Option<Operand<'_>>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => order::compare(&a.value(), &b.value()),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}
