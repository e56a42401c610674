//! Dotted paths, and how a match walks them through documents and arrays.
//!
//! Called by filters, sorts and index keys (values at a path) and by updates and projections (the parts). A numeric part
//! is an array index or a field name, whichever the document has.
//!
//! Always holds: a walk goes no deeper than the document does, however many parts the path has.

use std::fmt;
use std::ops::ControlFlow;

use base::{Code, Error, Result, limits};
use serde::{Deserialize, Serialize};

use crate::value::{ArrayRef, DocRef, Value};

/// Most parts of a path from a client.
const PARTS_MAX: usize = 2 * limits::NESTING_MAX;

/// A dotted path, split into its parts. `"a..b"` has an empty part in the middle; `""` has one empty part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Path {
    parts: Vec<Part>,
}

/// One part of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    /// The part as a field name.
    pub name: String,
    /// The part as an array index: only digits, no leading zero, at most 9 of them.
    pub index: Option<u32>,
}

impl Part {
    /// Reads one part, which has no dots.
    pub fn new(name: &str) -> Part {
        let digits = !name.is_empty() && name.len() <= 9 && name.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = digits && (name == "0" || !name.starts_with('0'));
        Part { name: name.to_owned(), index: if canonical { name.parse().ok() } else { None } }
    }
}

impl Path {
    /// Splits at the dots. Takes any string; where empty parts are refused, the caller asks `has_empty_part`.
    pub fn parse(text: &str) -> Path {
        Path { parts: text.split('.').map(Part::new).collect() }
    }

    /// As [`Path::parse`] for text from a client: `Overflow` when it has more parts than any document has levels.
    pub fn parse_bounded(text: &str) -> Result<Path> {
        if memchr::memchr_iter(b'.', text.as_bytes()).nth(PARTS_MAX - 1).is_some() {
            return Err(Error::new(Code::OVERFLOW, "FieldPath is too long"));
        }
        Ok(Path::parse(text))
    }

    /// A path of these parts; at least one.
    pub fn from_parts(parts: Vec<Part>) -> Path {
        assert!(!parts.is_empty(), "a path has a part");
        Path { parts }
    }

    /// The parts, at least one.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The first part's name: the top-level field.
    pub fn first(&self) -> &str {
        self.parts.first().map_or("", |part| &part.name)
    }

    /// Whether a part is empty, as in `"a..b"`, `".a"` and `""`.
    pub fn has_empty_part(&self) -> bool {
        self.parts.iter().any(|part| part.name.is_empty())
    }

    /// Whether this path is `other` or leads to it: `a.b` is a prefix of `a.b` and of `a.b.c`.
    pub fn is_prefix_of(&self, other: &Path) -> bool {
        other.parts.starts_with(&self.parts)
    }

    /// Whether one path is a prefix of the other, so that writing both makes no sense.
    pub fn conflicts_with(&self, other: &Path) -> bool {
        self.is_prefix_of(other) || other.is_prefix_of(self)
    }

    /// This path followed by `part`.
    #[must_use]
    pub fn child(&self, part: &str) -> Path {
        let mut parts = self.parts.clone();
        parts.extend(part.split('.').map(Part::new));
        Path { parts }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.parts.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            f.write_str(&part.name)?;
        }
        Ok(())
    }
}

impl From<&str> for Path {
    fn from(text: &str) -> Path {
        Path::parse(text)
    }
}

impl From<String> for Path {
    fn from(text: String) -> Path {
        Path::parse(&text)
    }
}

impl From<Path> for String {
    fn from(path: Path) -> String {
        path.to_string()
    }
}

/// What a walk does with an array at the end of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// Visits its elements, then the array itself: comparisons.
    Traverse,
    /// Visits the array only: `$size`, `$elemMatch`.
    Whole,
}

/// Visits every value that a condition at the path `parts` looks at: through arrays on the way to documents in them, and
/// at the end as `leaf` says. `None` stands for a document that lacks the field. Arrays on the way that hold no documents
/// yield nothing. The callback also gets the index in the outermost array that the walk went through, beginning with
/// `index`.
pub fn walk<'a, F>(
    doc: DocRef<'a>,
    parts: &[Part],
    leaf: Leaf,
    index: Option<u32>,
    f: &mut F,
) -> ControlFlow<()>
where
    F: FnMut(Option<Value<'a>>, Option<u32>) -> ControlFlow<()> + ?Sized,
{
    let Some((part, rest)) = parts.split_first() else {
        return f(Some(Value::Document(doc)), index);
    };
    let Some(value) = doc.get(&part.name) else {
        return f(None, index);
    };
    if rest.is_empty() {
        return at_leaf(value, leaf, index, f);
    }
    match value {
        Value::Document(inner) => walk(inner, rest, leaf, index, f),
        Value::Array(array) => walk_array(array, rest, leaf, index, f),
        _ => f(None, index),
    }
}

/// Visits a value that the path ends at.
pub(crate) fn at_leaf<'a, F>(value: Value<'a>, leaf: Leaf, index: Option<u32>, f: &mut F) -> ControlFlow<()>
where
    F: FnMut(Option<Value<'a>>, Option<u32>) -> ControlFlow<()> + ?Sized,
{
    if let (Value::Array(array), Leaf::Traverse) = (value, leaf) {
        for (position, element) in (0..).zip(array.iter()) {
            f(Some(element), index.or(Some(position)))?;
        }
    }
    f(Some(value), index)
}

/// `parts` is not empty.
fn walk_array<'a, F>(
    array: ArrayRef<'a>,
    parts: &[Part],
    leaf: Leaf,
    index: Option<u32>,
    f: &mut F,
) -> ControlFlow<()>
where
    F: FnMut(Option<Value<'a>>, Option<u32>) -> ControlFlow<()> + ?Sized,
{
    let Some((part, rest)) = parts.split_first() else {
        return ControlFlow::Continue(());
    };
    for (position, element) in (0..).zip(array.iter()) {
        if let Value::Document(inner) = element {
            walk(inner, parts, leaf, index.or(Some(position)), f)?;
        }
        if part.index != Some(position) {
            continue;
        }
        match element {
            // An array named by its index is looked at as a whole.
            _ if rest.is_empty() => f(Some(element), index.or(Some(position)))?,
            Value::Document(inner) => walk(inner, rest, leaf, index.or(Some(position)), f)?,
            Value::Array(inner) => walk_array(inner, rest, leaf, index, f)?,
            _ => {}
        }
    }
    ControlFlow::Continue(())
}

/// Visits the values that a sort takes from `path`, at least one: null where the field is missing, undefined for an
/// empty array at the end, each element of another array there. Elements on the way that are no documents count as
/// documents without the field.
pub(crate) fn sort_values<'a>(doc: DocRef<'a>, path: &Path, f: &mut dyn FnMut(Value<'a>)) {
    sort_document(doc, path.parts(), f);
}

fn sort_document<'a>(doc: DocRef<'a>, parts: &[Part], f: &mut dyn FnMut(Value<'a>)) {
    let value = parts.split_first().and_then(|(part, rest)| Some((doc.get(&part.name)?, rest)));
    match value {
        Some((value, rest)) => sort_value(value, rest, f),
        None => f(Value::Null),
    }
}

fn sort_value<'a>(value: Value<'a>, rest: &[Part], f: &mut dyn FnMut(Value<'a>)) {
    match value {
        Value::Array(array) => sort_array(array, rest, f),
        value if rest.is_empty() => f(value),
        Value::Document(inner) => sort_document(inner, rest, f),
        _ => f(Value::Null),
    }
}

fn sort_array<'a>(array: ArrayRef<'a>, parts: &[Part], f: &mut dyn FnMut(Value<'a>)) {
    let Some((part, rest)) = parts.split_first() else {
        if array.is_empty() {
            f(Value::Undefined);
        }
        return array.iter().for_each(f);
    };
    if let Some(element) = part.index.and_then(|index| array.get(index as usize)) {
        return sort_value(element, rest, f);
    }
    if array.is_empty() {
        f(Value::Null);
    }
    for element in array.iter() {
        match element {
            Value::Document(inner) => sort_document(inner, parts, f),
            _ => f(Value::Null),
        }
    }
}
