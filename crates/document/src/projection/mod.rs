//! Projections: which fields of a document a result has, and which are computed.
//!
//! Called by `query` for `find` and by the stages `$project`, `$addFields`, `$set` and `$unset`. `parse` makes a tree by
//! field name; `apply` walks a document along it; `elements` has the forms that only `find` knows: `$slice`,
//! `$elemMatch` and the positional `a.$`.
//!
//! Always holds: fields that come from the document keep its order; computed fields follow in the order of the
//! specification; expressions see the document as it was.

mod apply;
mod elements;
mod parse;

use std::collections::BTreeMap;

use base::limits::DOCUMENT_INTERNAL_BYTES_MAX;
use base::{Code, Error, Result};
use bson::Document;

use self::elements::{ElementMatch, Slice};
use crate::context::{EvalContext, Variables};
use crate::expression::Expression;
use crate::filter::MatchDetails;
use crate::path::Path;
use crate::value::{DocBuf, DocRef, Value};

/// A parsed projection.
#[derive(Clone, Debug)]
pub struct Projection {
    mode: Mode,
    root: Fields,
    /// The path before a positional `.$`.
    positional: Option<Path>,
    /// Whether every entry keeps or drops a top-level field, so that bytes can be copied.
    copies: bool,
}

/// What happens to fields that the specification does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// They are left out.
    Inclusion,
    /// They stay.
    Exclusion,
}

/// The fields that are named below one path.
#[derive(Clone, Debug, Default)]
struct Fields {
    /// In the order of the specification.
    entries: Vec<(String, Node)>,
    /// Where each name is in `entries`.
    index: BTreeMap<String, usize>,
    /// Whether something below is computed.
    computes: bool,
}

/// What happens to one field.
#[derive(Clone, Debug)]
enum Node {
    Keep,
    Drop,
    Fields(Fields),
    Computed(Expression),
    Slice(Slice),
    ElementMatch(ElementMatch),
}

impl Projection {
    /// Parses the projection of a `find`. `variables` are the command's `let` variables.
    ///
    /// Errors are MongoDB's: 31253 and 31254 for inclusion mixed with exclusion, 31249 and 31250 for paths that collide,
    /// those of expressions, and others that name what was wrong.
    pub fn parse(spec: DocRef<'_>, variables: &Variables) -> Result<Projection> {
        parse::find(spec, variables)
    }

    /// Parses the argument of `$project`: as [`Projection::parse`], without the forms that only `find` has.
    pub fn parse_stage(spec: DocRef<'_>, variables: &Variables) -> Result<Projection> {
        parse::project(spec, variables)
    }

    /// Parses the argument of `$addFields` and `$set`: every value is an expression; all other fields stay.
    pub fn parse_add_fields(spec: DocRef<'_>, variables: &Variables) -> Result<Projection> {
        parse::add_fields(spec, variables)
    }

    /// Parses the argument of `$unset`: a field or an array of fields to leave out.
    pub fn parse_unset(fields: &Value<'_>) -> Result<Projection> {
        parse::unset(fields)
    }

    /// Whether the result is always the document as it is.
    pub fn is_identity(&self) -> bool {
        self.mode == Mode::Exclusion && self.root.entries.is_empty()
    }

    /// Whether the projection has a positional `.$`, so that it needs [`MatchDetails`].
    pub fn is_positional(&self) -> bool {
        self.positional.is_some()
    }

    /// The projected document, encoded. `positional` is what the filter's match told, for the positional `.$`.
    ///
    /// Errors: those of expressions; 51246 when the match went through no array that `.$` could refer to;
    /// `BSONObjectTooLarge` for a result that is too large.
    pub fn apply(
        &self,
        doc: DocRef<'_>,
        positional: Option<&MatchDetails>,
        cx: &EvalContext,
    ) -> Result<DocBuf> {
        if let (true, DocRef::Raw(raw)) = (self.copies, doc) {
            return Ok(apply::copy(&self.root, self.mode, raw));
        }
        let mut document = self.transform(doc, cx)?;
        if let Some(path) = &self.positional {
            elements::keep_matched(&mut document, path, positional)?;
        }
        let result = DocBuf::encode(&document)?;
        let bytes = result.bytes().len();
        if bytes > DOCUMENT_INTERNAL_BYTES_MAX {
            return Err(Error::new(
                Code::BSON_OBJECT_TOO_LARGE,
                format!(
                    "BSONObj size: {bytes} is invalid. Size must be between 0 and {DOCUMENT_INTERNAL_BYTES_MAX}"
                ),
            ));
        }
        Ok(result)
    }

    /// The projected document as a tree, for stages. They have no positional `.$`.
    pub fn transform(&self, doc: DocRef<'_>, cx: &EvalContext) -> Result<Document> {
        apply::transform(&self.root, self.mode, doc, cx)
    }
}

impl Fields {
    fn get(&self, name: &str) -> Option<&Node> {
        self.index.get(name).and_then(|&at| self.entries.get(at)).map(|(_, node)| node)
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        let at = *self.index.get(name)?;
        self.entries.get_mut(at).map(|(_, node)| node)
    }

    /// `name` must be new.
    fn push(&mut self, name: &str, node: Node) {
        let previous = self.index.insert(name.to_owned(), self.entries.len());
        assert!(previous.is_none(), "a projected field is added once");
        self.entries.push((name.to_owned(), node));
    }
}
