//! `$pull` and `$pullAll`: drop the elements of an array that meet a condition.

use base::{Error, Result};
use bson::{Bson, Document};

use super::operator::{Change, Site, kind_name};
use crate::context::{EvalContext, Variables};
use crate::filter::{self, Filter};
use crate::order;
use crate::value::{DocRef, Value};

/// The name under which an element is shown to a filter on bare values.
const ELEMENT: &str = "element";

/// Which elements go.
#[derive(Debug)]
pub(super) enum Pull {
    /// Those that equal one of these values.
    Equal(Vec<Bson>),
    /// The documents that match.
    Documents(Filter),
    /// The values that match, as the field [`ELEMENT`] of a document.
    Values(Filter),
}

impl Pull {
    /// Reads the argument of `$pull`: operators, a condition on documents, or a value.
    pub(super) fn parse(argument: &Bson, variables: &Variables) -> Result<Pull> {
        match argument {
            Bson::Document(condition) if !filter::is_operator_document(DocRef::Tree(condition)) => {
                Filter::parse(DocRef::Tree(condition), variables).map(Pull::Documents)
            }
            Bson::Document(_) | Bson::RegularExpression(_) => {
                let condition: Document = [(ELEMENT.to_owned(), argument.clone())].into_iter().collect();
                Filter::parse(DocRef::Tree(&condition), variables).map(Pull::Values)
            }
            value => Ok(Pull::Equal(vec![value.clone()])),
        }
    }

    /// Reads the argument of `$pullAll`, an array of values.
    pub(super) fn parse_all(argument: &Bson) -> Result<Pull> {
        match argument {
            Bson::Array(values) => Ok(Pull::Equal(values.clone())),
            other => Err(Error::bad_value(format!(
                "$pullAll requires an array argument but was given a {}",
                kind_name(other)
            ))),
        }
    }

    /// Drops the elements.
    pub(super) fn modify(&self, value: &mut Bson, site: &Site<'_>) -> Result<Change> {
        let Bson::Array(elements) = value else {
            return Err(Error::bad_value("Cannot apply $pull to a non-array value"));
        };
        let before = elements.len();
        let mut kept = Vec::with_capacity(before);
        for element in elements.drain(..) {
            let (goes, element) = self.matches(element, site.cx)?;
            if !goes {
                kept.push(element);
            }
        }
        *elements = kept;
        Ok(if elements.len() < before { Change::Written } else { Change::Same })
    }

    /// Gives the element back, since a filter looks at it inside a document.
    fn matches(&self, element: Bson, cx: &EvalContext) -> Result<(bool, Bson)> {
        let matches = match self {
            Pull::Equal(values) => {
                let shown = Value::from(&element);
                values.iter().any(|value| order::compare(&Value::from(value), &shown).is_eq())
            }
            Pull::Documents(filter) => match &element {
                Bson::Document(document) => filter.matches(DocRef::Tree(document), cx)?,
                _ => false,
            },
            Pull::Values(filter) => {
                let mut wrapped: Document = [(ELEMENT.to_owned(), element)].into_iter().collect();
                let matches = filter.matches(DocRef::Tree(&wrapped), cx)?;
                return Ok((matches, wrapped.remove(ELEMENT).unwrap_or(Bson::Null)));
            }
        };
        Ok((matches, element))
    }
}
