//! `$sum $avg $min $max` as expressions: over their arguments, or over the elements of one array.

use std::cmp::Ordering;

use base::Result;

use super::{Call, Operand, Outcome, null, value};
use crate::number::Numeric;
use crate::number::summation::Summation;
use crate::order;
use crate::value::Value;

pub(crate) fn sum<'a>(call: &Call<'a>) -> Outcome<'a> {
    let mut sum = Summation::default();
    for_each(call, &mut |item| {
        if let Some(number) = Numeric::of(&item) {
            sum.add(number);
        }
    })?;
    value(sum.total().to_bson())
}

pub(crate) fn avg<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (mut sum, mut count) = (Summation::default(), 0);
    for_each(call, &mut |item| {
        if let Some(number) = Numeric::of(&item) {
            sum.add(number);
            count += 1;
        }
    })?;
    sum.mean(count).map_or_else(null, |mean| value(mean.to_bson()))
}

pub(crate) fn max<'a>(call: &Call<'a>) -> Outcome<'a> {
    extreme(call, Ordering::Greater)
}

pub(crate) fn min<'a>(call: &Call<'a>) -> Outcome<'a> {
    extreme(call, Ordering::Less)
}

fn extreme<'a>(call: &Call<'a>, wanted: Ordering) -> Outcome<'a> {
    let mut best = None;
    for_each(call, &mut |item| {
        if matches!(item, Value::Null | Value::Undefined) {
            return;
        }
        let wins = best.as_ref().is_none_or(|best| order::compare(&item, &Value::from(best)) == wanted);
        if wins {
            best = Some(item.to_bson());
        }
    })?;
    best.map_or_else(null, value)
}

/// The elements of the argument when there is one and it is an array; otherwise the arguments.
fn for_each(call: &Call<'_>, f: &mut dyn FnMut(Value<'_>)) -> Result<()> {
    let single = if call.len() == 1 { call.get(0)? } else { None };
    match single.as_ref().map(Operand::value) {
        Some(Value::Array(array)) => array.iter().for_each(f),
        Some(other) => f(other),
        None => {
            for index in 0..call.len() {
                if let Some(operand) = call.get(index)? {
                    f(operand.value());
                }
            }
        }
    }
    Ok(())
}
