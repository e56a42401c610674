//! Updates: parsed once for a command, applied to every document that it changes.
//!
//! Called by `query`, which evaluates writes, and by `router`, which parses them early and asks whether they touch the
//! shard key. `parse` makes a tree of the fields to write; `splice` applies simple ones to bytes, `walk` applies all to
//! a decoded document; `finish` checks what comes out. One file per family of operators.
//!
//! Always holds: an update is applied as a whole or not at all; the result is a valid document with the old `_id`, which
//! comes first; a result equal to the old document is "no change".

mod add_to_set;
mod arithmetic;
mod array_filters;
mod assign;
mod bit;
mod finish;
mod min_max;
mod operator;
mod parse;
mod pop;
mod pull;
mod push;
mod rename;
mod splice;
mod stages;
mod tree;
mod upsert;
mod walk;

use base::{Error, Result};
use bson::{Bson, Document};

use crate::context::{EvalContext, Variables};
use crate::filter::{Filter, MatchDetails};
use crate::path::Path;
use crate::pipeline::Pipeline;
use crate::value::{DocBuf, DocRef, RawDoc, Value};

use self::parse::Modifiers;
pub use self::parse::OPERATORS;
pub use self::stages::STAGES;
use self::tree::Step;

/// A parsed update.
#[derive(Debug)]
pub struct Update {
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// A whole document in place of the old one.
    Replacement(Document),
    /// Stages that compute the new document.
    Pipeline(Pipeline),
    /// Operators.
    Modifiers { modifiers: Modifiers, splices: bool },
}

impl Update {
    /// Parses an update: a document of operators, a replacement document, or an array of pipeline stages. `variables`
    /// are the command's `let` variables, with the constants `c` of the statement among them.
    ///
    /// Errors are MongoDB's: `FailedToParse` (9) for unknown operators and misused `arrayFilters`, `BadValue` (2) and
    /// `TypeMismatch` (14) for wrong arguments, `ConflictingUpdateOperators` (40) for equal or nested paths,
    /// `EmptyFieldName` (56), `DollarPrefixedFieldName` (52).
    pub fn parse(update: Value<'_>, array_filters: &[DocRef<'_>], variables: &Variables) -> Result<Update> {
        match update {
            Value::Document(document) => {
                Update::parse_document(&document.to_document(), array_filters, variables)
            }
            Value::Array(_) if !array_filters.is_empty() => {
                Err(Error::failed_to_parse("arrayFilters may not be specified for pipeline-style updates"))
            }
            Value::Array(stages) => Ok(Update { form: Form::Pipeline(stages::parse(stages, variables)?) }),
            _ => Err(Error::failed_to_parse("Update argument must be either an object or an array")),
        }
    }

    /// Whether the update is a whole document in place of the old one: such an update is for one document only.
    pub fn is_replacement(&self) -> bool {
        matches!(self.form, Form::Replacement(_))
    }

    /// Whether the update has a positional `$`, so that it needs [`MatchDetails`].
    pub fn is_positional(&self) -> bool {
        matches!(&self.form, Form::Modifiers { modifiers, .. } if modifiers.positional)
    }

    /// Whether the update may change a value at, above or below `path`. `true` when that depends on the document.
    pub fn touches(&self, path: &Path) -> bool {
        match &self.form {
            Form::Replacement(_) | Form::Pipeline(_) => path.first() != "_id",
            Form::Modifiers { modifiers, .. } => {
                let wanted: Vec<&str> = path.parts().iter().map(|part| part.name.as_str()).collect();
                modifiers.paths.iter().any(|written| may_overlap(written, &wanted))
            }
        }
    }

    /// Applies the update to `old`. `None`: it changes nothing. `positional` is what the filter's match told, for the
    /// positional `$`.
    ///
    /// Errors are MongoDB's, among them `PathNotViable` (28), `TypeMismatch` (14), `BadValue` (2), `ImmutableField` (66)
    /// for a changed `_id`, 17419 for a result that is too large.
    pub fn apply(
        &self,
        old: DocRef<'_>,
        positional: Option<&MatchDetails>,
        cx: &EvalContext,
    ) -> Result<Option<DocBuf>> {
        match &self.form {
            Form::Replacement(new) => {
                let new = with_time(new.clone(), cx);
                replace(&old.to_document(), new)
            }
            Form::Pipeline(pipeline) => {
                let old = old.to_document();
                let new = stages::run(pipeline, old.clone(), cx)?;
                replace(&old, new)
            }
            Form::Modifiers { modifiers, splices } => match old {
                DocRef::Raw(raw) if *splices => splice::apply(&modifiers.fields, raw, cx),
                DocRef::Raw(raw) if raw.get("_id").is_some() => {
                    apply_to_fields(modifiers, raw, positional, cx)
                }
                _ => apply_modifiers(modifiers, old, positional, cx),
            },
        }
    }

    /// As [`Update::apply`], always through a decoded document. For the test that both ways agree.
    #[doc(hidden)]
    pub fn apply_decoded(
        &self,
        old: DocRef<'_>,
        positional: Option<&MatchDetails>,
        cx: &EvalContext,
    ) -> Result<Option<DocBuf>> {
        self.apply(DocRef::Tree(&old.to_document()), positional, cx)
    }

    /// The document that an upsert inserts when nothing matched: the fields that `filter` requires to equal one value,
    /// then the update, `$setOnInsert` included. `new_id` becomes its `_id` when neither gives one. `_id` comes first.
    ///
    /// Errors as [`Update::apply`], and `NotSingleValueField` (54) when the filter gives a field two values.
    pub fn upsert_document(&self, filter: &Filter, new_id: Bson, cx: &EvalContext) -> Result<DocBuf> {
        let scope = match self.form {
            Form::Replacement(_) => upsert::Scope::IdOnly,
            Form::Modifiers { .. } | Form::Pipeline(_) => upsert::Scope::AllFields,
        };
        let base = upsert::equality_fields(filter, scope)?;
        let id = base.get("_id").cloned();
        let mut document = match &self.form {
            Form::Replacement(new) => with_id(id.as_ref(), with_time(new.clone(), cx))?,
            Form::Pipeline(pipeline) => with_id(id.as_ref(), stages::run(pipeline, base, cx)?)?,
            Form::Modifiers { modifiers, .. } => {
                let mut document = base;
                walk::apply(modifiers, &mut document, None, true, cx)?;
                check_id(modifiers, id.as_ref(), &mut document)?;
                document
            }
        };
        if !document.contains_key("_id") {
            document.insert("_id", new_id);
        }
        finish::upserted(document)
    }

    fn parse_document(
        update: &Document,
        array_filters: &[DocRef<'_>],
        variables: &Variables,
    ) -> Result<Update> {
        if update.keys().next().is_some_and(|first| first.starts_with('$')) {
            let modifiers = parse::modifiers(update, array_filters, variables)?;
            let splices = splice::suits(&modifiers.fields);
            return Ok(Update { form: Form::Modifiers { modifiers, splices } });
        }
        if !array_filters.is_empty() {
            return Err(Error::failed_to_parse(
                "arrayFilters may not be specified for replacement-style updates",
            ));
        }
        if let Some(name) = update.keys().find(|name| name.starts_with('$')) {
            return Err(finish::dollar_prefixed(name));
        }
        Ok(Update { form: Form::Replacement(update.clone()) })
    }
}

fn apply_modifiers(
    modifiers: &Modifiers,
    old: DocRef<'_>,
    positional: Option<&MatchDetails>,
    cx: &EvalContext,
) -> Result<Option<DocBuf>> {
    let mut document = old.to_document();
    let id = document.get("_id").cloned();
    let array_index = positional.and_then(|details| details.array_index);
    if !walk::apply(modifiers, &mut document, array_index, false, cx)? {
        return Ok(None);
    }
    check_id(modifiers, id.as_ref(), &mut document)?;
    finish::updated(document).map(Some)
}

/// As [`apply_modifiers`], for stored documents: decodes only the top-level fields that are written, and copies the
/// bytes of all others.
fn apply_to_fields(
    modifiers: &Modifiers,
    old: RawDoc<'_>,
    positional: Option<&MatchDetails>,
    cx: &EvalContext,
) -> Result<Option<DocBuf>> {
    let mut document = splice::decode_fields(old, &modifiers.top_level);
    let id = document.get("_id").cloned();
    let array_index = positional.and_then(|details| details.array_index);
    if !walk::apply(modifiers, &mut document, array_index, false, cx)? {
        return Ok(None);
    }
    check_id(modifiers, id.as_ref(), &mut document)?;
    splice::replace_fields(old, &modifiers.top_level, document).map(Some)
}

/// Operators must leave an `_id` that there was as it was. An equal number of another type counts as the same.
fn check_id(modifiers: &Modifiers, old: Option<&Bson>, document: &mut Document) -> Result<()> {
    let Some(old) = old else { return Ok(()) };
    if let Some(new) = document.get_mut("_id")
        && crate::order::compare(&Value::from(old), &Value::from(&*new)).is_eq()
    {
        *new = old.clone();
        return Ok(());
    }
    let is_id = |steps: &&Vec<Step>| matches!(steps.first(), Some(Step::Field(name)) if name.0 == "_id");
    let path = modifiers.paths.iter().find(is_id).map_or_else(|| "_id".to_owned(), |steps| dotted(steps));
    Err(finish::id_is_immutable(&path))
}

fn replace(old: &Document, new: Document) -> Result<Option<DocBuf>> {
    let result = finish::updated(with_id(old.get("_id"), new)?)?;
    Ok((!assign::identical_documents(old, &result.to_document())).then_some(result))
}

/// Fills in the time where a replacement asks for it with an empty timestamp.
fn with_time(mut new: Document, cx: &EvalContext) -> Document {
    for (name, value) in new.iter_mut() {
        if matches!(value, Bson::Timestamp(time) if time.time == 0 && time.increment == 0) && name != "_id" {
            *value = assign::CurrentDate::Timestamp.value(cx);
        }
    }
    new
}

/// The new document with the old one's `_id`.
fn with_id(id: Option<&Bson>, mut new: Document) -> Result<Document> {
    let Some(old) = id else { return Ok(new) };
    if let Some(given) = new.get("_id")
        && !crate::order::compare(&Value::from(old), &Value::from(given)).is_eq()
    {
        return Err(finish::id_was_altered(given));
    }
    new.insert("_id", old.clone());
    Ok(new)
}

/// Whether a written path and a path in a document may name the same value, one inside the other included. Numbers and
/// array steps of the written path may be elements of an array that the other path walks through unnamed.
fn may_overlap(written: &[Step], wanted: &[&str]) -> bool {
    let (Some((step, rest)), Some((name, wanted_rest))) = (written.split_first(), wanted.split_first())
    else {
        return true;
    };
    let numeric = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match step {
        Step::Field(field) => {
            (field.0 == *name && may_overlap(rest, wanted_rest))
                || (numeric(&field.0) && may_overlap(rest, wanted))
                || (numeric(name) && may_overlap(written, wanted_rest))
        }
        Step::Positional | Step::Elements(_) => {
            may_overlap(rest, wanted) || (numeric(name) && may_overlap(rest, wanted_rest))
        }
    }
}

fn dotted(steps: &[Step]) -> String {
    let parts: Vec<String> = steps
        .iter()
        .map(|step| match step {
            Step::Field(name) => name.0.clone(),
            Step::Positional => "$".to_owned(),
            Step::Elements(identifier) => format!("$[{identifier}]"),
        })
        .collect();
    parts.join(".")
}
