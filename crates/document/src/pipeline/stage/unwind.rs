//! `$unwind`: one row for each element of an array.

use base::{Code, Error, Result};
use bson::Bson;

use super::{Stage, Step};
use crate::context::{EvalContext, Variables};
use crate::expression::field;
use crate::path::Path;
use crate::pipeline::row::{Row, remove_path, set_path};
use crate::pipeline::runner::{Emit, Flow};
use crate::value::{DocRef, Value};

/// A parsed `$unwind`.
#[derive(Clone, Debug)]
pub struct Unwind {
    /// Where the array is.
    pub path: Path,
    /// Whether rows without elements stay.
    pub preserves_empty: bool,
    /// Where the element's index goes.
    pub index_field: Option<Path>,
}

pub(super) fn parse(argument: &Value<'_>, _: &Variables, out: &mut Vec<Stage>) -> Result<()> {
    let refuse = |code, message: String| Err(Error::new(Code(code), message));
    let (mut path, mut preserves_empty, mut index_field) = (None, false, None);
    match argument {
        Value::String(text) => path = Some(*text),
        Value::Document(document) => {
            for (name, value) in document.iter() {
                let kind = value.kind().name();
                match (name, value) {
                    ("path", Value::String(text)) => path = Some(text),
                    ("path", _) => {
                        return refuse(
                            28808,
                            format!("expected a string as the path for $unwind stage, got {kind}"),
                        );
                    }
                    ("preserveNullAndEmptyArrays", Value::Boolean(flag)) => preserves_empty = flag,
                    ("preserveNullAndEmptyArrays", _) => {
                        let option = "the preserveNullAndEmptyArrays option to $unwind stage";
                        return refuse(28809, format!("expected a boolean for {option}, got {kind}"));
                    }
                    ("includeArrayIndex", Value::String(text)) if !text.is_empty() => {
                        index_field = Some(text)
                    }
                    ("includeArrayIndex", _) => {
                        let option = "the includeArrayIndex  option to $unwind stage";
                        return refuse(
                            28810,
                            format!("expected a non-empty string for {option}, got {kind}"),
                        );
                    }
                    _ => return refuse(28811, format!("unrecognized option to $unwind stage: {name}")),
                }
            }
        }
        other => {
            let kind = other.kind().name();
            let message = format!(
                "expected either a string or an object as specification for $unwind stage, got {kind}"
            );
            return refuse(15981, message);
        }
    }
    let path = match path {
        Some(path) if !path.is_empty() => path,
        _ => return refuse(28812, "no path specified to $unwind stage".to_owned()),
    };
    let Some(path) = path.strip_prefix('$') else {
        return refuse(28818, format!("path option to $unwind stage should be prefixed with a '$': {path}"));
    };
    let index_field = match index_field {
        Some(text) if text.starts_with('$') => {
            let message = format!(
                "includeArrayIndex option to $unwind stage should not be prefixed with a '$': {text}"
            );
            return refuse(28822, message);
        }
        Some(text) => Some(field::parse(text)?),
        None => None,
    };
    out.push(Stage::Unwind(Unwind { path: field::parse(path)?, preserves_empty, index_field }));
    Ok(())
}

pub(super) struct UnwindStep {
    unwind: Unwind,
}

impl UnwindStep {
    pub(super) fn new(unwind: Unwind) -> UnwindStep {
        UnwindStep { unwind }
    }

    /// A row as it is, with a null index where one is wanted.
    fn emit_whole(&self, row: Row, emit: Emit<'_>) -> Result<Flow> {
        let Some(field) = &self.unwind.index_field else {
            return emit(row);
        };
        let mut document = row.into_tree();
        set_path(&mut document, field.parts(), Bson::Null);
        emit(Row::Tree(document))
    }
}

impl Step for UnwindStep {
    fn push(&mut self, row: Row, _: &EvalContext, emit: Emit<'_>) -> Result<Flow> {
        let preserves = self.unwind.preserves_empty;
        let elements: Vec<Bson> = match nested(row.as_doc(), &self.unwind.path) {
            Some(Value::Array(array)) => array.iter().map(|element| element.to_bson()).collect(),
            None | Some(Value::Null | Value::Undefined) => {
                return if preserves { self.emit_whole(row, emit) } else { Ok(Flow::More) };
            }
            Some(_) => return self.emit_whole(row, emit),
        };
        let mut document = row.into_tree();
        if elements.is_empty() {
            if !preserves {
                return Ok(Flow::More);
            }
            remove_path(&mut document, self.unwind.path.parts());
            return self.emit_whole(Row::Tree(document), emit);
        }
        // The array is not copied into every row.
        set_path(&mut document, self.unwind.path.parts(), Bson::Null);
        for (index, element) in (0_i64..).zip(elements) {
            let mut unwound = document.clone();
            set_path(&mut unwound, self.unwind.path.parts(), element);
            if let Some(field) = &self.unwind.index_field {
                set_path(&mut unwound, field.parts(), Bson::Int64(index));
            }
            if emit(Row::Tree(unwound))? == Flow::Done {
                return Ok(Flow::Done);
            }
        }
        Ok(Flow::More)
    }
}

/// The value at the path, through documents only.
fn nested<'a>(document: DocRef<'a>, path: &Path) -> Option<Value<'a>> {
    let (last, parents) = path.parts().split_last()?;
    let mut document = document;
    for parent in parents {
        document = document.get(&parent.name)?.as_document()?;
    }
    document.get(&last.name)
}
