//! `$setUnion $setIntersection $setDifference $setIsSubset $setEquals $anyElementTrue $allElementsTrue`.
//!
//! Always holds: results keep the order in which their elements first appear; elements that compare equal are one.

use std::collections::BTreeSet;

use base::{Code, Error, Result};
use bson::Bson;

use super::limit::Budget;
use super::{Call, Operand, Outcome, is_nullish, kind_name, null, value};
use crate::key;
use crate::value::{ArrayRef, Value};

type Keys = BTreeSet<Vec<u8>>;

fn key_of(element: &Value<'_>) -> Vec<u8> {
    let mut key = Vec::new();
    key::encode(element, &mut key);
    key
}

fn keys_of(array: ArrayRef<'_>) -> Keys {
    array.iter().map(|element| key_of(&element)).collect()
}

pub(crate) fn union<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (mut seen, mut all) = (Keys::new(), Vec::new());
    let mut budget = Budget::new("$setUnion");
    for index in 0..call.len() {
        let operand = call.get(index)?;
        if is_nullish(&operand) {
            return null();
        }
        for element in
            array(&operand, 17043, "All operands of $setUnion must be arrays. One argument is of type: ")?
                .iter()
        {
            if seen.insert(key_of(&element)) {
                let element = element.to_bson();
                budget.charge(&element)?;
                all.push(element);
            }
        }
    }
    value(all)
}

pub(crate) fn intersection<'a>(call: &Call<'a>) -> Outcome<'a> {
    let mut common: Option<Vec<(Vec<u8>, Bson)>> = None;
    for index in 0..call.len() {
        let operand = call.get(index)?;
        if is_nullish(&operand) {
            return null();
        }
        let message = "All operands of $setIntersection must be arrays. One argument is of type: ";
        let elements = array(&operand, 17047, message)?;
        match &mut common {
            None => {
                let mut seen = Keys::new();
                let distinct = elements.iter().map(|element| (key_of(&element), element.to_bson()));
                common = Some(distinct.filter(|(key, _)| seen.insert(key.clone())).collect());
            }
            Some(common) => {
                let keys = keys_of(elements);
                common.retain(|(key, _)| keys.contains(key));
            }
        }
    }
    value(common.unwrap_or_default().into_iter().map(|(_, element)| element).collect::<Vec<_>>())
}

pub(crate) fn difference<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (left, right) = (call.get(0)?, call.get(1)?);
    if is_nullish(&left) || is_nullish(&right) {
        return null();
    }
    let message = "both operands of $setDifference must be arrays. First argument is of type: ";
    let left = array(&left, 17048, message)?;
    let message = "both operands of $setDifference must be arrays. Second argument is of type: ";
    let mut seen = keys_of(array(&right, 17049, message)?);
    let rest = left.iter().filter(|element| seen.insert(key_of(element))).map(|element| element.to_bson());
    value(rest.collect::<Vec<_>>())
}

pub(crate) fn is_subset<'a>(call: &Call<'a>) -> Outcome<'a> {
    let (left, right) = (call.get(0)?, call.get(1)?);
    let message = "both operands of $setIsSubset must be arrays. First argument is of type: ";
    let left = array(&left, 17046, message)?;
    let message = "both operands of $setIsSubset must be arrays. Second argument is of type: ";
    let keys = keys_of(array(&right, 17042, message)?);
    value(left.iter().all(|element| keys.contains(&key_of(&element))))
}

pub(crate) fn equals<'a>(call: &Call<'a>) -> Outcome<'a> {
    let mut first: Option<Keys> = None;
    for index in 0..call.len() {
        let message = "All operands of $setEquals must be arrays. One argument is of type: ";
        let operand = call.get(index)?;
        let keys = keys_of(array(&operand, 17044, message)?);
        if *first.get_or_insert_with(|| keys.clone()) != keys {
            return value(false);
        }
    }
    value(true)
}

pub(crate) fn any_element_true<'a>(call: &Call<'a>) -> Outcome<'a> {
    let operand = call.get(0)?;
    let message = "$anyElementTrue's argument must be an array, but is ";
    value(array(&operand, 17041, message)?.iter().any(|element| Operand::Borrowed(element).is_true()))
}

pub(crate) fn all_elements_true<'a>(call: &Call<'a>) -> Outcome<'a> {
    let operand = call.get(0)?;
    let message = "$allElementsTrue's argument must be an array, but is ";
    value(array(&operand, 17040, message)?.iter().all(|element| Operand::Borrowed(element).is_true()))
}

fn array<'o>(operand: &'o Option<Operand<'_>>, code: i32, message: &str) -> Result<ArrayRef<'o>> {
    operand
        .as_ref()
        .and_then(Operand::array)
        .ok_or_else(|| Error::new(Code(code), format!("{message}{}", kind_name(operand))))
}
