//! Updates by splicing the document's bytes, so that only what they write is decoded and encoded.
//!
//! [`apply`] is the hot path of small updates: it takes the operators that look at one top-level field and nothing else.
//! [`decode_fields`] and [`replace_fields`] surround `walk` for all others. Whatever comes out is what decoding the whole
//! document gives (checked by a property test), and untouched fields keep their bytes.

use std::collections::BTreeSet;

use base::{Error, Result};
use bson::{Bson, Document};
use smallvec::SmallVec;

use super::finish;
use super::operator::{Change, Operator, Site};
use super::tree::{Fields, Node};
use crate::context::EvalContext;
use crate::value::{DocBuf, RawDoc, RawElement};

/// Most fields of an update that is spliced: each of the document's fields is compared with each of them.
const FIELDS_MAX: usize = 16;

/// Whether an update of these fields can be spliced into any document.
pub(super) fn suits(fields: &Fields) -> bool {
    fields.positional.is_none()
        && fields.named.len() <= FIELDS_MAX
        && fields.named.iter().all(|(name, node)| match node {
            Node::Leaf(leaf) => name.0 != "_id" && is_simple(&leaf.operator),
            _ => false,
        })
}

/// Applies the update. `None`: nothing changed.
pub(super) fn apply(fields: &Fields, old: RawDoc<'_>, cx: &EvalContext) -> Result<Option<DocBuf>> {
    let mut site = Site { cx, inserting: false, renamed: Vec::new(), id: None, path: Vec::new() };
    let mut splices = Splices { old: old.bytes(), pieces: SmallVec::new() };
    let targets = locate(fields, old);
    let mut appended = Vec::new();
    for (target, (name, node)) in targets.iter().zip(&fields.named) {
        let Node::Leaf(leaf) = node else { continue };
        let operator = &leaf.operator;
        match target {
            Some(target) => splices.modify(operator, &name.0, target, old, &mut site)?,
            None => append(operator, &name.0, &site, &mut appended)?,
        }
    }
    if splices.pieces.is_empty() && appended.is_empty() {
        return Ok(None);
    }
    splices.assemble(&appended).map(Some)
}

/// The fields with these names, and `_id`.
pub(super) fn decode_fields(old: RawDoc<'_>, names: &BTreeSet<String>) -> Document {
    let mut document = Document::new();
    let mut elements = old.iter();
    while let Some(element) = elements.next_element() {
        let Some(name) = name_of(&element) else { continue };
        if (names.contains(name) || name == "_id")
            && let Some(value) = element.decode()
        {
            document.entry(name).or_insert_with(|| value.to_bson());
        }
    }
    document
}

/// The old document with the fields of these names as they are in `new`: in their places, left out when they are absent
/// there, appended when they were absent before.
pub(super) fn replace_fields(old: RawDoc<'_>, names: &BTreeSet<String>, mut new: Document) -> Result<DocBuf> {
    let mut bytes = Vec::with_capacity(old.bytes().len() + 64);
    bytes.extend_from_slice(&[0; 4]);
    let mut written: SmallVec<[&str; 8]> = SmallVec::new();
    let mut elements = old.iter();
    while let Some(element) = elements.next_element() {
        match name_of(&element) {
            Some(name) if names.contains(name) && !written.contains(&name) => {
                written.push(name);
                if let Some(value) = new.get_mut(name) {
                    push_field(name, std::mem::take(value), &mut bytes)?;
                }
            }
            _ => {
                bytes.push(element.tag);
                bytes.extend_from_slice(element.name);
                bytes.push(0);
                bytes.extend_from_slice(element.value);
            }
        }
    }
    for (name, value) in new {
        if names.contains(&name) && !written.contains(&name.as_str()) {
            push_field(&name, value, &mut bytes)?;
        }
    }
    bytes.push(0);
    finish::check_size(bytes.len())?;
    let len = i32::try_from(bytes.len()).map_err(|_| too_long())?;
    bytes.splice(..4, len.to_le_bytes());
    Ok(DocBuf::from_validated(bytes.into()))
}

fn name_of<'a>(element: &RawElement<'a>) -> Option<&'a str> {
    std::str::from_utf8(element.name).ok()
}

fn push_field(name: &str, value: Bson, out: &mut Vec<u8>) -> Result<()> {
    finish::check_depth(finish::depth(&value))?;
    let mut bytes = Vec::new();
    let tag = encode_value(value, &mut bytes)?;
    out.extend_from_slice(&element(tag, name, &bytes));
    Ok(())
}

/// Appends the value's bytes and returns its type byte.
pub(super) fn encode_value(value: Bson, out: &mut Vec<u8>) -> Result<u8> {
    match value {
        Bson::Int32(number) => {
            out.extend_from_slice(&number.to_le_bytes());
            Ok(0x10)
        }
        Bson::Int64(number) => {
            out.extend_from_slice(&number.to_le_bytes());
            Ok(0x12)
        }
        Bson::Double(number) => {
            out.extend_from_slice(&number.to_le_bytes());
            Ok(0x01)
        }
        other => {
            let wrapped = DocBuf::encode(&[(String::new(), other)].into_iter().collect())?;
            let element = wrapped.as_raw().iter().next_element();
            let element = element.expect("a document of one field has an element");
            out.extend_from_slice(element.value);
            Ok(element.tag)
        }
    }
}

fn is_simple(operator: &Operator) -> bool {
    matches!(
        operator,
        Operator::Set(_)
            | Operator::SetOnInsert(_)
            | Operator::Unset
            | Operator::CurrentDate(_)
            | Operator::Arithmetic(_)
            | Operator::MinMax(_)
    )
}

/// Where an updated field is in the old bytes.
#[derive(Clone, Copy)]
struct Target<'a> {
    start: usize,
    element: RawElement<'a>,
}

impl Target<'_> {
    fn value_start(&self) -> usize {
        self.start + 1 + self.element.name.len() + 1
    }

    fn end(&self) -> usize {
        self.value_start() + self.element.value.len()
    }
}

/// One entry for each updated field, in their order.
fn locate<'a>(fields: &Fields, old: RawDoc<'a>) -> SmallVec<[Option<Target<'a>>; 4]> {
    let mut targets: SmallVec<[Option<Target<'a>>; 4]> = SmallVec::from_elem(None, fields.named.len());
    let mut missing = fields.named.len();
    let mut elements = old.iter();
    let mut start = 4;
    while missing > 0 {
        let Some(element) = elements.next_element() else { break };
        for (target, name) in targets.iter_mut().zip(fields.named.keys()) {
            if target.is_none() && name.0.as_bytes() == element.name {
                *target = Some(Target { start, element });
                missing -= 1;
            }
        }
        start += 1 + element.name.len() + 1 + element.value.len();
    }
    targets
}

/// Replacements of byte ranges of the old document.
struct Splices<'a> {
    old: &'a [u8],
    /// Start and end in the old bytes, new bytes.
    pieces: SmallVec<[(usize, usize, Vec<u8>); 4]>,
}

impl Splices<'_> {
    fn modify(
        &mut self,
        operator: &Operator,
        name: &str,
        target: &Target<'_>,
        old: RawDoc<'_>,
        site: &mut Site<'_>,
    ) -> Result<()> {
        match operator {
            Operator::SetOnInsert(_) => {}
            Operator::Set(assign) => {
                let (tag, bytes) = (assign.encoded.0, assign.encoded.1.as_slice());
                if tag != target.element.tag || bytes != target.element.value {
                    finish::check_depth(assign.depth)?;
                    self.replace(target, name, tag, bytes);
                }
            }
            Operator::Unset => self.pieces.push((target.start, target.end(), Vec::new())),
            other => {
                let Some(value) = target.element.decode() else { return Ok(()) };
                let mut value = value.to_bson();
                let change = other.modify(&mut value, site).or_else(|_| {
                    // Only messages name the document and the field: ask again with both.
                    site.id = old.get("_id").map(|id| id.to_bson());
                    site.path = vec![name.to_owned()];
                    other.modify(&mut value, site)
                })?;
                if change == Change::Written {
                    finish::check_depth(finish::depth(&value))?;
                    let mut bytes = Vec::new();
                    let tag = encode_value(value, &mut bytes)?;
                    self.replace(target, name, tag, &bytes);
                }
            }
        }
        Ok(())
    }

    fn replace(&mut self, target: &Target<'_>, name: &str, tag: u8, bytes: &[u8]) {
        let end = target.end();
        if tag == target.element.tag {
            self.pieces.push((target.value_start(), end, bytes.to_vec()));
        } else {
            self.pieces.push((target.start, end, element(tag, name, bytes)));
        }
    }

    fn assemble(mut self, appended: &[u8]) -> Result<DocBuf> {
        self.pieces.sort_by_key(|piece| piece.0);
        let added: usize = self.pieces.iter().map(|piece| piece.2.len()).sum();
        let removed: usize = self.pieces.iter().map(|piece| piece.1 - piece.0).sum();
        let len = self.old.len() - removed + added + appended.len();
        finish::check_size(len)?;
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&i32::try_from(len).map_err(|_| too_long())?.to_le_bytes());
        let mut copied = 4;
        for (start, end, new) in &self.pieces {
            bytes.extend_from_slice(self.old.get(copied..*start).unwrap_or_default());
            bytes.extend_from_slice(new);
            copied = *end;
        }
        let body_end = self.old.len().saturating_sub(1);
        bytes.extend_from_slice(self.old.get(copied..body_end).unwrap_or_default());
        bytes.extend_from_slice(appended);
        bytes.push(0);
        assert_eq!(bytes.len(), len, "a spliced document has the length that its pieces add up to");
        Ok(DocBuf::from_validated(bytes.into()))
    }
}

fn append(operator: &Operator, name: &str, site: &Site<'_>, out: &mut Vec<u8>) -> Result<()> {
    if let Operator::Set(assign) = operator {
        finish::check_depth(assign.depth)?;
        out.extend_from_slice(&element(assign.encoded.0, name, &assign.encoded.1));
        return Ok(());
    }
    match operator.create(site)? {
        Some(value) => push_field(name, value, out),
        None => Ok(()),
    }
}

fn element(tag: u8, name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + value.len() + 2);
    bytes.push(tag);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(value);
    bytes
}

fn too_long() -> Error {
    Error::bad_value("the document is too long")
}
