//! The forms of a `find` projection that choose elements of an array: `$slice`, `$elemMatch`, positional `a.$`.

use base::{Code, Error, Result};
use bson::{Bson, Document};

use crate::context::{EvalContext, Variables};
use crate::filter::{Filter, MatchDetails};
use crate::number::Number;
use crate::path::{Part, Path};
use crate::value::{ArrayRef, DocRef, Value};

/// A range of an array's elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    /// How many to skip; negative counts from the end. `None`: as `limit` says.
    skip: Option<i64>,
    /// How many to keep; negative, without `skip`, keeps the last ones.
    limit: i64,
}

impl Slice {
    /// Reads `n` or `[skip, n]`. `None` when the argument is an expression's.
    pub(super) fn parse(argument: &Value<'_>) -> Result<Option<Slice>> {
        let Value::Array(array) = argument else {
            return match integer(argument) {
                Some(limit) => Ok(Some(Slice { skip: None, limit })),
                None => Err(Error::new(Code(31273), "$slice only supports numbers and [skip, limit] arrays")),
            };
        };
        let elements: Vec<Value<'_>> = array.iter().collect();
        if elements.first().is_none_or(|first| !first.is_number()) {
            return Ok(None);
        }
        let [skip, limit] = elements.as_slice() else {
            return Err(Error::new(Code(31272), "$slice array argument should be of form [skip, limit]"));
        };
        match (integer(skip), integer(limit)) {
            (Some(skip), Some(limit)) if limit > 0 => Ok(Some(Slice { skip: Some(skip), limit })),
            (Some(_), Some(_)) => Err(Error::new(Code(31259), "$slice limit must be positive")),
            _ => Err(Error::new(Code(31272), "$slice array argument should be of form [skip, limit]")),
        }
    }

    /// The chosen elements.
    pub(super) fn apply(self, array: ArrayRef<'_>) -> Vec<Bson> {
        let keep = usize::try_from(self.limit.unsigned_abs()).unwrap_or(usize::MAX);
        let skip = match self.skip {
            None if self.limit >= 0 => 0,
            None => array.len().saturating_sub(keep),
            Some(skip) => {
                let distance = usize::try_from(skip.unsigned_abs()).unwrap_or(usize::MAX);
                if skip >= 0 { distance } else { array.len().saturating_sub(distance) }
            }
        };
        array.iter().skip(skip).take(keep).map(|value| value.to_bson()).collect()
    }
}

/// Fractions are cut off, and what does not fit becomes the largest number that does.
fn integer(value: &Value<'_>) -> Option<i64> {
    let number = Number::of(value)?;
    number.truncated().or_else(|| {
        let positive = number.compare(Number::Int(0)).is_gt();
        (!number.is_nan()).then_some(if positive { i64::MAX } else { i64::MIN + 1 })
    })
}

/// The first element of a top-level array that satisfies a condition.
#[derive(Clone, Debug)]
pub(super) struct ElementMatch {
    field: String,
    filter: Filter,
}

impl ElementMatch {
    /// Reads the argument of `$elemMatch`.
    pub(super) fn parse(path: &Path, argument: &Value<'_>, variables: &Variables) -> Result<ElementMatch> {
        let Value::Document(condition) = argument else {
            return Err(Error::new(
                Code(31274),
                format!("elemMatch: Invalid argument, object required, but got {}", argument.kind().name()),
            ));
        };
        if path.parts().len() > 1 {
            return Err(Error::new(Code(31255), "Cannot use $elemMatch projection on a nested field."));
        }
        let field = path.first().to_owned();
        let operator =
            Document::from_iter([("$elemMatch".to_owned(), Bson::Document(condition.to_document()))]);
        let filter = Document::from_iter([(field.clone(), Bson::Document(operator))]);
        Ok(ElementMatch { field, filter: Filter::parse(DocRef::Tree(&filter), variables)? })
    }

    /// An array of the one element. `None` when there is none.
    pub(super) fn find(&self, doc: DocRef<'_>, cx: &EvalContext) -> Result<Option<Bson>> {
        let Some(Value::Array(array)) = doc.get(&self.field) else { return Ok(None) };
        let details = self.filter.matches_positional(doc, cx)?;
        let element = details
            .and_then(|details| details.array_index)
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| array.get(index));
        Ok(element.map(|element| Bson::Array(vec![element.to_bson()])))
    }
}

/// Leaves only the element that the filter matched in the first array on the way along `path`.
pub(super) fn keep_matched(
    document: &mut Document,
    path: &Path,
    positional: Option<&MatchDetails>,
) -> Result<()> {
    let Some(elements) = first_array(document, path.parts()) else { return Ok(()) };
    let index = positional.and_then(|details| details.array_index).ok_or_else(|| {
        Error::new(
            Code(51246),
            "Executor error during find command :: caused by :: positional operator '.$' couldn't find a \
             matching element in the array",
        )
    })?;
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    if index >= elements.len() {
        return Err(Error::new(
            Code(51247),
            "Executor error during find command :: caused by :: positional operator '.$' element mismatch",
        ));
    }
    elements.truncate(index + 1);
    elements.drain(..index);
    Ok(())
}

fn first_array<'a>(document: &'a mut Document, parts: &[Part]) -> Option<&'a mut Vec<Bson>> {
    let (part, rest) = parts.split_first()?;
    match document.get_mut(&part.name)? {
        Bson::Array(elements) => Some(elements),
        Bson::Document(inner) => first_array(inner, rest),
        _ => None,
    }
}
