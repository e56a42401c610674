//! `$rename`: moves a field to another path.
//!
//! In the tree it holds both paths. Before the walk [`Rename::source`] takes the value under the old name; the walk
//! writes it under the new one; then [`remove`] drops the old field.

use base::{Error, Result};
use bson::{Bson, Document};

use super::assign::shown;
use super::parse::parse_steps;
use super::tree::Step;
use crate::display;
use crate::value::Value;

/// One renamed field.
#[derive(Debug)]
pub(super) struct Rename {
    /// The old name, as its parts.
    pub(super) from: Vec<String>,
    /// The new name, as its parts.
    pub(super) to: Vec<String>,
}

impl Rename {
    /// Checks an entry `from: "to"` of `$rename`.
    pub(super) fn parse(from: &str, to: &Bson) -> Result<Rename> {
        let Bson::String(to_path) = to else {
            return Err(Error::bad_value(format!(
                "The 'to' field for $rename must be a string: {}",
                display::show_field(from, &Value::from(to)).trim_matches(['{', '}'])
            )));
        };
        if to_path.contains('\0') {
            return Err(Error::bad_value("The 'to' field for $rename cannot contain an embedded null byte"));
        }
        let argument = shown(from, to);
        let argument = argument.trim_start_matches('{').trim_end_matches('}');
        if from == to_path {
            return Err(Error::bad_value(format!(
                "The source and target field for $rename must differ: {argument}"
            )));
        }
        let (from_parts, to_parts) = (plain(from, "source")?, plain(to_path, "destination")?);
        if from_parts.starts_with(&to_parts) || to_parts.starts_with(&from_parts) {
            return Err(Error::bad_value(format!(
                "The source and target field for $rename must not be on the same path: {argument}"
            )));
        }
        Ok(Rename { from: from_parts, to: to_parts })
    }

    /// The value to move. `None` when there is none. Fails when either path leads through an array.
    pub(super) fn source(&self, document: &Document) -> Result<Option<Bson>> {
        let Some(value) = look_up(document, &self.from, "source")? else { return Ok(None) };
        let value = value.clone();
        look_up(document, &self.to, "destination")?;
        Ok(Some(value))
    }
}

/// Drops the field. No array is on the way: [`Rename::source`] looked.
pub(super) fn remove(document: &mut Document, path: &[String]) {
    match path {
        [last] => drop(document.remove(last)),
        [first, rest @ ..] => {
            if let Some(Bson::Document(inner)) = document.get_mut(first) {
                remove(inner, rest);
            }
        }
        [] => {}
    }
}

fn plain(path: &str, role: &str) -> Result<Vec<String>> {
    parse_steps(path)?
        .into_iter()
        .map(|step| match step {
            Step::Field(name) => Ok(name.0),
            _ => Err(Error::bad_value(format!("The {role} field for $rename may not be dynamic: {path}"))),
        })
        .collect()
}

fn look_up<'a>(document: &'a Document, path: &[String], role: &str) -> Result<Option<&'a Bson>> {
    let mut current = document;
    for (i, name) in path.iter().enumerate() {
        match current.get(name) {
            Some(value) if i + 1 == path.len() => return Ok(Some(value)),
            Some(Bson::Document(inner)) => current = inner,
            Some(Bson::Array(_)) => {
                let id = document
                    .get("_id")
                    .map_or_else(|| "no id".to_owned(), |id| format!("_id: {}", display::show_bson(id)));
                return Err(Error::bad_value(format!(
                    "The {role} field cannot be an array element, '{}' in doc with {id} has an array field \
                     called '{name}'",
                    path.join(".")
                )));
            }
            _ => return Ok(None),
        }
    }
    Ok(None)
}
