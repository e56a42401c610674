//! Applies a projection's tree to a document: first what comes from the document, in its order, then what is computed.

use base::limits::DOCUMENT_BYTES_MAX;
use base::{Code, Error, Result};
use bson::{Bson, Document};

use super::{Fields, Mode, Node};
use crate::context::EvalContext;
use crate::expression::memory_bytes;
use crate::value::{ArrayRef, DocBuf, DocRef, RawDoc, Value};

/// Most memory of the values computed for the elements of arrays, in bytes. Trees take several times their encoding.
const COMPUTED_BYTES_MAX: usize = 8 * DOCUMENT_BYTES_MAX;

/// The projected document.
pub(super) fn transform(fields: &Fields, mode: Mode, doc: DocRef<'_>, cx: &EvalContext) -> Result<Document> {
    let mut out = project(fields, mode, doc);
    if fields.computes {
        Computation { root: doc, cx, in_array: false, bytes: 0 }.fields(fields, &mut out)?;
    }
    Ok(out)
}

/// Copies the bytes of the fields that stay. Every node must be `Keep` or `Drop`.
pub(super) fn copy(fields: &Fields, mode: Mode, raw: RawDoc<'_>) -> DocBuf {
    let mut bytes = Vec::with_capacity(raw.bytes().len());
    bytes.extend_from_slice(&[0; 4]);
    let mut elements = raw.iter();
    while let Some(element) = elements.next_element() {
        let node = std::str::from_utf8(element.name).ok().and_then(|name| fields.get(name));
        if stays(node, mode) {
            bytes.push(element.tag);
            bytes.extend_from_slice(element.name);
            bytes.push(0);
            bytes.extend_from_slice(element.value);
        }
    }
    bytes.push(0);
    let len = i32::try_from(bytes.len()).expect("no longer than the document it was copied from");
    bytes.splice(..4, len.to_le_bytes());
    DocBuf::from_validated(bytes.into())
}

fn stays(node: Option<&Node>, mode: Mode) -> bool {
    match node {
        Some(Node::Keep) => true,
        Some(_) => false,
        None => mode == Mode::Exclusion,
    }
}

fn project(fields: &Fields, mode: Mode, doc: DocRef<'_>) -> Document {
    let mut out = Document::new();
    for (name, value) in doc.iter() {
        let projected = match fields.get(name) {
            Some(Node::Fields(inner)) => project_value(inner, mode, &value),
            Some(Node::Slice(slice)) => match value {
                Value::Array(array) => Some(Bson::Array(slice.apply(array))),
                other => Some(other.to_bson()),
            },
            // In `$addFields` a computed field takes the place of an existing one.
            Some(Node::Computed(_)) if mode == Mode::Exclusion => Some(value.to_bson()),
            node => stays(node, mode).then(|| value.to_bson()),
        };
        if let Some(projected) = projected {
            out.insert(name, projected);
        }
    }
    out
}

/// `None`: the value is left out.
fn project_value(fields: &Fields, mode: Mode, value: &Value<'_>) -> Option<Bson> {
    match value {
        Value::Document(doc) => Some(Bson::Document(project(fields, mode, *doc))),
        Value::Array(array) => Some(project_array(fields, mode, *array)),
        scalar => (mode == Mode::Exclusion).then(|| scalar.to_bson()),
    }
}

fn project_array(fields: &Fields, mode: Mode, array: ArrayRef<'_>) -> Bson {
    Bson::Array(array.iter().filter_map(|element| project_value(fields, mode, &element)).collect())
}

/// The second pass: adds the computed fields.
struct Computation<'a> {
    /// What expressions see: the whole original document.
    root: DocRef<'a>,
    cx: &'a EvalContext,
    /// Whether the fields at work are computed for each element of an array.
    in_array: bool,
    /// Bytes of memory of what was computed for elements of arrays.
    bytes: usize,
}

impl Computation<'_> {
    /// In the order of the specification.
    fn fields(&mut self, fields: &Fields, out: &mut Document) -> Result<()> {
        for (name, node) in &fields.entries {
            match node {
                Node::Computed(expression) => match expression.evaluate(self.root, self.cx)? {
                    Some(value) => {
                        self.charge(&value)?;
                        out.insert(name.clone(), value);
                    }
                    None => drop(out.remove(name)),
                },
                Node::ElementMatch(element_match) => {
                    if let Some(value) = element_match.find(self.root, self.cx)? {
                        out.insert(name.clone(), value);
                    }
                }
                Node::Fields(inner) if inner.computes => {
                    let value = out.entry(name.clone()).or_insert_with(|| Bson::Document(Document::new()));
                    self.value(inner, value)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A scalar gives way to a document with the computed fields.
    fn value(&mut self, fields: &Fields, value: &mut Bson) -> Result<()> {
        match value {
            Bson::Document(document) => self.fields(fields, document),
            Bson::Array(elements) => {
                let outer = std::mem::replace(&mut self.in_array, true);
                elements.iter_mut().try_for_each(|element| self.value(fields, element))?;
                self.in_array = outer;
                Ok(())
            }
            scalar => {
                let mut document = Document::new();
                self.fields(fields, &mut document)?;
                *scalar = Bson::Document(document);
                Ok(())
            }
        }
    }

    /// One expression in a large array makes many values: refused before they take too much memory.
    fn charge(&mut self, value: &Bson) -> Result<()> {
        if !self.in_array {
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(memory_bytes(value));
        if self.bytes > COMPUTED_BYTES_MAX {
            return Err(Error::new(
                Code::BSON_OBJECT_TOO_LARGE,
                format!(
                    "the fields computed for the elements of an array take more than {COMPUTED_BYTES_MAX} bytes"
                ),
            ));
        }
        Ok(())
    }
}
