//! `arrayFilters`: the conditions behind `$[id]`.

use std::collections::{BTreeMap, BTreeSet};

use base::{Error, Result};
use bson::{Bson, Document};

use crate::context::{EvalContext, Variables};
use crate::display;
use crate::filter::Filter;
use crate::value::DocRef;

/// The conditions by identifier.
#[derive(Debug, Default)]
pub(super) struct ArrayFilters(BTreeMap<String, Filter>);

impl ArrayFilters {
    /// Parses each filter and finds its identifier.
    pub(super) fn parse(filters: &[DocRef<'_>], variables: &Variables) -> Result<ArrayFilters> {
        let mut parsed = BTreeMap::new();
        for filter in filters {
            let condition = Filter::parse(*filter, variables).map_err(parse_failed)?;
            let mut names = Vec::new();
            top_level_names(*filter, &mut names);
            let identifier = single_identifier(&names)?;
            if parsed.insert(identifier.clone(), condition).is_some() {
                return Err(Error::failed_to_parse(format!(
                    "Found multiple array filters with the same top-level field name {identifier}"
                )));
            }
        }
        Ok(ArrayFilters(parsed))
    }

    /// Refuses an identifier that no filter defines.
    pub(super) fn check_defined(&self, identifier: &str, path: &str) -> Result<()> {
        if identifier.is_empty() || self.0.contains_key(identifier) {
            return Ok(());
        }
        Err(Error::bad_value(format!("No array filter found for identifier '{identifier}' in path '{path}'")))
    }

    /// Refuses a filter that the update does not use.
    pub(super) fn check_all_used(&self, used: &BTreeSet<String>, update: &Document) -> Result<()> {
        match self.0.keys().find(|identifier| !used.contains(*identifier)) {
            None => Ok(()),
            Some(identifier) => Err(Error::failed_to_parse(format!(
                "The array filter for identifier '{identifier}' was not used in the update {}",
                display::show_document(DocRef::Tree(update))
            ))),
        }
    }

    /// Whether the step `$[identifier]` chooses this element. Gives the element back, since a filter looks at it inside
    /// a document.
    pub(super) fn chooses(&self, identifier: &str, element: &mut Bson, cx: &EvalContext) -> Result<bool> {
        let Some(filter) = self.0.get(identifier) else { return Ok(identifier.is_empty()) };
        let taken = std::mem::replace(element, Bson::Null);
        let mut wrapped: Document = [(identifier.to_owned(), taken)].into_iter().collect();
        let chosen = filter.matches(DocRef::Tree(&wrapped), cx);
        *element = wrapped.remove(identifier).unwrap_or(Bson::Null);
        chosen
    }
}

fn parse_failed(error: Error) -> Error {
    error.context("Error parsing array filter :: caused by :")
}

/// The first parts of all paths in the filter, those inside `$and`, `$or` and `$nor` included.
fn top_level_names(filter: DocRef<'_>, names: &mut Vec<String>) {
    for (name, value) in filter.iter() {
        if !name.starts_with('$') {
            let first = name.split('.').next().unwrap_or(name).to_owned();
            if !names.contains(&first) {
                names.push(first);
            }
        } else if let Some(clauses) = value.as_array() {
            clauses.iter().filter_map(|clause| clause.as_document()).for_each(|clause| {
                top_level_names(clause, names);
            });
        }
    }
}

fn single_identifier(names: &[String]) -> Result<String> {
    match names {
        [] => Err(Error::failed_to_parse(
            "Cannot use an expression without a top-level field name in arrayFilters",
        )),
        [name] => {
            let valid = name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if valid {
                return Ok(name.clone());
            }
            Err(parse_failed(Error::bad_value(format!(
                "The top-level field name must be an alphanumeric string beginning with a lowercase letter, \
                 found '{name}'"
            ))))
        }
        [first, second, ..] => Err(parse_failed(Error::failed_to_parse(format!(
            "Expected a single top-level field name, found '{first}' and '{second}'"
        )))),
    }
}
