//! The document that an upsert starts from: the fields that the filter requires to equal one value.

use std::collections::BTreeMap;

use base::{Code, Error, Result};
use bson::{Bson, Document};

use crate::filter::{Filter, Node, Predicate};
use crate::path::Path;

/// Which equalities count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All of them: updates with operators and pipelines.
    AllFields,
    /// Only that on `_id`: replacements.
    IdOnly,
}

/// The fields in the order of their paths.
pub(super) fn equality_fields(filter: &Filter, scope: Scope) -> Result<Document> {
    let mut equalities = BTreeMap::new();
    collect(filter.root(), scope, &mut equalities)?;
    let mut document = Document::new();
    for (path, value) in &equalities {
        let parts: Vec<&str> = path.split('.').collect();
        insert(&mut document, &parts, value);
    }
    Ok(document)
}

/// The one value of `path` that the filter admits, if it says so.
fn collect(node: &Node, scope: Scope, equalities: &mut BTreeMap<String, Bson>) -> Result<()> {
    match node {
        Node::And(children) => children.iter().try_for_each(|child| collect(child, scope, equalities)),
        Node::Or(children) => match children.as_slice() {
            [only] => collect(only, scope, equalities),
            _ => Ok(()),
        },
        Node::Field { path, predicate } => collect_predicate(path, predicate, scope, equalities),
        _ => Ok(()),
    }
}

fn collect_predicate(
    path: &Path,
    predicate: &Predicate,
    scope: Scope,
    equalities: &mut BTreeMap<String, Bson>,
) -> Result<()> {
    match predicate {
        Predicate::Eq(value) => add(path, value, scope, equalities),
        Predicate::In(list) => match (list.values(), list.regexes()) {
            ([value], []) => add(path, value, scope, equalities),
            _ => Ok(()),
        },
        Predicate::All(predicates) => {
            predicates.iter().try_for_each(|predicate| collect_predicate(path, predicate, scope, equalities))
        }
        _ => Ok(()),
    }
}

fn add(path: &Path, value: &Bson, scope: Scope, equalities: &mut BTreeMap<String, Bson>) -> Result<()> {
    if scope == Scope::IdOnly && path.first() != "_id" {
        return Ok(());
    }
    let dotted = path.to_string();
    if scope == Scope::IdOnly && dotted != "_id" {
        return Err(Error::new(
            Code::NOT_EXACT_VALUE_FIELD,
            format!("field at '_id' must be exactly specified, field at sub-path '{dotted}' found"),
        ));
    }
    if path.parts().len() > base::limits::NESTING_MAX {
        return Err(super::finish::too_deep());
    }
    if path.has_empty_part() {
        return Err(Error::new(
            Code::EMPTY_FIELD_NAME,
            format!("The path '{dotted}' contains an empty field name, which is not allowed."),
        ));
    }
    if equalities.contains_key(&dotted) {
        return Err(Error::new(
            Code::NOT_SINGLE_VALUE_FIELD,
            format!("cannot infer query fields to set, path '{dotted}' is matched twice"),
        ));
    }
    if let Some(other) = equalities.keys().find(|other| Path::parse(other).conflicts_with(path)) {
        let (first, second) = if other.len() < dotted.len() { (other, &dotted) } else { (&dotted, other) };
        return Err(Error::new(
            Code::NOT_SINGLE_VALUE_FIELD,
            format!("cannot infer query fields to set, both paths '{first}' and '{second}' are matched"),
        ));
    }
    equalities.insert(dotted, value.clone());
    Ok(())
}

/// No two paths conflict, so that only documents are on the way.
fn insert(document: &mut Document, parts: &[&str], value: &Bson) {
    match parts {
        [last] => drop(document.insert(*last, value.clone())),
        [first, rest @ ..] => {
            let inner = document.entry(*first).or_insert_with(|| Bson::Document(Document::new()));
            if let Bson::Document(inner) = inner {
                insert(inner, rest, value);
            }
        }
        [] => {}
    }
}
