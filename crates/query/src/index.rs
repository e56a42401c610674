//! Which keys a document has in an index.
//!
//! Called by evaluation (to keep indexes up) and by validation (to check them). An array on a field's path gives one
//! key for each element, an absent field indexes as null, an empty array as undefined. Always holds: every value that
//! a filter can see under an indexed path has a key, so that a scan of the right bounds misses no document.

use base::limits::INDEX_KEYS_PER_DOCUMENT_MAX;
use base::{Code, Error, Result};
use bson::Bson;
use catalog::{IndexSpec, KeyDirection};
use document::{ArrayRef, DocRef, Value, key};
use smallvec::SmallVec;

/// A document's keys in one index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexKeys {
    /// The encoded fields of each key; sorted, without duplicates.
    pub keys: SmallVec<[Vec<u8>; 1]>,
    /// Where arrays were met: the field's position in the key and the component of its path. Sorted.
    pub arrays: SmallVec<[(u16, u16); 2]>,
}

/// The keys of `document` in the index `spec`. Fails with `CannotIndexParallelArrays` (171) when two fields would
/// expand different arrays, and with `CannotBuildIndexKeys` (201) past the limit of keys for a document.
pub fn keys(spec: &IndexSpec, document: DocRef<'_>) -> Result<IndexKeys> {
    let mut found = IndexKeys::default();
    walk(spec, document, &mut |values, arrays| {
        let mut fields = Vec::with_capacity(16 * values.len());
        for ((_, direction), value) in spec.key.iter().zip(values) {
            encode_field(value.as_ref(), *direction, &mut fields);
        }
        found.keys.push(fields);
        note_arrays(&mut found.arrays, arrays);
        check_count(found.keys.len())
    })?;
    if found.keys.len() > 1 {
        found.keys.sort_unstable();
        found.keys.dedup();
    }
    Ok(found)
}

/// The field values behind the key `fields`, as the `keyValue` of a duplicate key shows them: null for an absent one.
pub fn values_of_key(spec: &IndexSpec, document: DocRef<'_>, fields: &[u8]) -> Option<Vec<Bson>> {
    let mut found = None;
    walk(spec, document, &mut |values, _| {
        let mut encoded = Vec::new();
        for ((_, direction), value) in spec.key.iter().zip(values) {
            encode_field(value.as_ref(), *direction, &mut encoded);
        }
        if encoded == fields {
            found =
                Some(values.iter().map(|value| value.map_or(Bson::Null, |value| value.to_bson())).collect());
        }
        Ok(())
    })
    .ok()?;
    found
}

/// Appends one field of a key.
pub(crate) fn encode_field(value: Option<&Value<'_>>, direction: KeyDirection, out: &mut Vec<u8>) {
    let value = value.unwrap_or(&Value::Null);
    match direction {
        KeyDirection::Ascending => key::encode(value, out),
        KeyDirection::Descending => key::encode_descending(value, out),
    }
}

/// How far the walk of one field has come.
#[derive(Clone, Copy)]
struct Field<'a, 's> {
    /// Its dotted path.
    path: &'s str,
    /// How many bytes of the path are behind.
    consumed: usize,
    /// How many components are behind.
    component: u16,
    /// Where it stands; `None` for a field that is absent.
    at: Option<Value<'a>>,
    /// Whether `at` is final: neither a component nor an array is left to go into.
    done: bool,
}

type Fields<'a, 's> = SmallVec<[Field<'a, 's>; 4]>;
type Arrays = SmallVec<[(u16, u16); 2]>;
type Visit<'v, 'a> = dyn FnMut(&[Option<Value<'a>>], &Arrays) -> Result<()> + 'v;

/// Calls `visit` for every combination of values that the key's fields take.
fn walk<'a>(spec: &IndexSpec, document: DocRef<'a>, visit: &mut Visit<'_, 'a>) -> Result<()> {
    let start =
        |path| Field { path, consumed: 0, component: 0, at: Some(Value::Document(document)), done: false };
    let fields = spec.key.iter().map(|(path, _)| start(path.as_str())).collect();
    expand(fields, &Arrays::new(), visit)
}

/// Moves every field on until it is done or meets an array, then expands that array.
fn expand<'a>(mut fields: Fields<'a, '_>, arrays: &Arrays, visit: &mut Visit<'_, 'a>) -> Result<()> {
    let mut array = None;
    for field in &mut fields {
        let Some(met) = field.advance() else { continue };
        match array {
            None => array = Some((met, field.prefix())),
            Some((_, prefix)) if prefix == field.prefix() => {}
            Some((_, prefix)) => return Err(parallel_arrays(field.prefix(), prefix)),
        }
    }
    let Some((array, prefix)) = array else {
        let values: SmallVec<[Option<Value<'a>>; 4]> = fields.iter().map(|field| field.at).collect();
        return visit(&values, arrays);
    };
    let mut arrays = arrays.clone();
    let standing = |field: &Field<'_, '_>| !field.done && field.prefix() == prefix;
    for (position, field) in (0_u16..).zip(&fields) {
        if standing(field) {
            note_arrays(&mut arrays, &SmallVec::from_slice(&[(position, field.component.saturating_sub(1))]));
        }
    }
    if array.is_empty() {
        let empty = fields.iter().map(|field| if standing(field) { field.of_empty_array() } else { *field });
        return expand(empty.collect(), &arrays, visit);
    }
    for element in array.iter() {
        let next =
            fields.iter().map(|field| if standing(field) { field.of_element(element) } else { *field });
        expand(next.collect(), &arrays, visit)?;
    }
    expand_positions(&fields, &standing, array, &arrays, visit)
}

/// A numeric component also names an array's position, so that `a.0` sees the first element itself.
fn expand_positions<'a>(
    fields: &Fields<'a, '_>,
    standing: &dyn Fn(&Field<'_, '_>) -> bool,
    array: ArrayRef<'a>,
    arrays: &Arrays,
    visit: &mut Visit<'_, 'a>,
) -> Result<()> {
    let mut any = false;
    let mut next = Fields::new();
    for field in fields {
        let element = standing(field).then(|| field.position()).flatten().and_then(|at| array.get(at));
        any |= element.is_some();
        next.push(match element {
            Some(element) => field.past_position(element),
            None if standing(field) => field.absent(),
            None => *field,
        });
    }
    if any { expand(next, arrays, visit) } else { Ok(()) }
}

impl<'a, 's> Field<'a, 's> {
    /// Goes down through documents. Gives the array that it meets, or `None` when it is done.
    fn advance(&mut self) -> Option<ArrayRef<'a>> {
        while !self.done {
            match self.at {
                Some(Value::Array(array)) => return Some(array),
                Some(Value::Document(document)) if !self.rest().is_empty() => self.step(document),
                _ => {
                    if !self.rest().is_empty() {
                        self.at = None;
                    }
                    self.done = true;
                }
            }
        }
        None
    }

    /// Goes one component down.
    fn step(&mut self, document: DocRef<'a>) {
        let name = self.next_component();
        self.at = document.get(name);
        self.consume(name);
    }

    fn consume(&mut self, name: &str) {
        self.consumed = (self.consumed + name.len() + 1).min(self.path.len());
        self.component = self.component.saturating_add(1);
    }

    fn rest(&self) -> &'s str {
        self.path.get(self.consumed..).unwrap_or_default()
    }

    fn next_component(&self) -> &'s str {
        let rest = self.rest();
        rest.split_once('.').map_or(rest, |(name, _)| name)
    }

    /// The part of the path that is behind.
    fn prefix(&self) -> &'s str {
        self.path.get(..self.consumed).unwrap_or_default().trim_end_matches('.')
    }

    /// The array position that the next component names.
    fn position(&self) -> Option<usize> {
        let name = self.next_component();
        let canonical = name == "0" || !name.starts_with('0');
        if canonical && name.bytes().all(|byte| byte.is_ascii_digit()) { name.parse().ok() } else { None }
    }

    fn past_position(&self, element: Value<'a>) -> Field<'a, 's> {
        let mut next = *self;
        next.consume(self.next_component());
        next.at = Some(element);
        next
    }

    /// The field inside one element: the element itself at the end of the path, else only a document goes on.
    fn of_element(&self, element: Value<'a>) -> Field<'a, 's> {
        if self.rest().is_empty() {
            return Field { at: Some(element), done: true, ..*self };
        }
        match element {
            Value::Document(_) => Field { at: Some(element), ..*self },
            _ => self.absent(),
        }
    }

    fn of_empty_array(&self) -> Field<'a, 's> {
        if self.rest().is_empty() {
            return Field { at: Some(Value::Undefined), done: true, ..*self };
        }
        self.absent()
    }

    fn absent(&self) -> Field<'a, 's> {
        Field { at: None, done: true, ..*self }
    }
}

fn note_arrays(into: &mut Arrays, met: &Arrays) {
    for array in met {
        if let Err(position) = into.binary_search(array) {
            into.insert(position, *array);
        }
    }
}

fn check_count(keys: usize) -> Result<()> {
    if keys <= INDEX_KEYS_PER_DOCUMENT_MAX {
        return Ok(());
    }
    let message = format!("Generated more than {INDEX_KEYS_PER_DOCUMENT_MAX} keys for a single document");
    Err(Error::new(Code::CANNOT_BUILD_INDEX_KEYS, message))
}

fn parallel_arrays(one: &str, other: &str) -> Error {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let message = format!("cannot index parallel arrays [{}] [{}]", last(one), last(other));
    Error::new(Code::CANNOT_INDEX_PARALLEL_ARRAYS, message)
}
