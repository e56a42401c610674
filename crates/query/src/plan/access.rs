//! How one index can serve a filter and a sort.
//!
//! Called by the planner for every index. Always holds: the key ranges of an access hold an entry of every matching
//! document. Where arrays stand, one element may satisfy one condition and another the next, so that bounds are combined
//! only for conditions of one group.

use std::cmp::Ordering;

use base::IndexId;
use catalog::KeyDirection;
use document::sort::{SortDirection, SortSpec};
use document::{DocRef, key};
use storage::{Direction, KeyRange};

use super::bounds::{Bounds, encoded_ranges, key_ranges};
use super::conditions::{Condition, Conditions, Group};
use crate::state::ShardIndex;
use crate::{encoding, index};

/// A scan of one index.
#[derive(Clone, Debug)]
pub struct IndexAccess {
    /// The index; `IndexId(0)` is the documents themselves, in `_id` order.
    pub index: ShardIndex,
    /// For each field of its key, which values the scan visits.
    pub bounds: Vec<Bounds>,
    /// The keys that the scan visits, in ascending order.
    pub ranges: Vec<KeyRange>,
    /// Which way it goes.
    pub direction: Direction,
    /// Whether documents come out in the order that the sort asks for.
    pub provides_sort: bool,
    /// Whether the entries within the bounds are exactly those of matching documents.
    pub is_exact: bool,
    /// Whether the scan may meet a document more than once.
    pub(crate) repeats: bool,
    /// Bounds of fields behind the ranges, which each entry is held against.
    checks: Vec<FieldCheck>,
}

/// Which encodings a field of an entry may have.
#[derive(Clone, Debug)]
struct FieldCheck {
    field: usize,
    allowed: Vec<KeyRange>,
}

impl IndexAccess {
    /// The best use of `index` for these conditions and this sort.
    pub(super) fn new(
        index: &ShardIndex,
        conditions: &Conditions<'_>,
        sort: Option<&SortSpec>,
    ) -> IndexAccess {
        let bounds = choose_bounds(index, conditions);
        let fields: Vec<_> = index.spec.key.iter().map(|(_, direction)| *direction).zip(&bounds).collect();
        let (ranges, kept) = key_ranges(key_prefix(index.spec.id), &fields);
        let behind = fields.iter().enumerate().skip(kept).filter(|(_, (_, bounds))| !bounds.is_full());
        let checks = behind.map(|(field, (direction, bounds))| FieldCheck {
            field,
            allowed: encoded_ranges(bounds, *direction),
        });
        let checks = checks.collect();
        let sorted = sort.and_then(|sort| sort_direction(index, &bounds, sort));
        IndexAccess {
            index: index.clone(),
            ranges,
            direction: sorted.unwrap_or(Direction::Forward),
            provides_sort: sorted.is_some(),
            is_exact: is_exact(index, conditions),
            repeats: index.is_multikey(),
            checks,
            bounds,
        }
    }

    /// Whether the scan is of a part of the index only.
    pub fn is_bounded(&self) -> bool {
        self.bounds.first().is_some_and(|bounds| !bounds.is_full())
    }

    /// Whether the scan is over the documents themselves.
    pub fn is_on_id(&self) -> bool {
        self.index.spec.id == IndexId(0)
    }

    /// Whether at most one document can lie in the bounds: one key of a unique index.
    pub(super) fn is_of_one_key(&self) -> bool {
        self.index.spec.unique && self.ranges.len() == 1 && self.bounds.iter().all(Bounds::are_points)
    }

    /// Whether an entry with these encoded fields lies in the bounds; the ranges alone do not say so.
    pub(crate) fn accepts(&self, fields: &[u8]) -> bool {
        let mut rest = fields;
        let mut field = 0;
        self.checks.iter().all(|check| {
            while field < check.field {
                rest = self.split_field(field, rest).map_or(&[], |(_, rest)| rest);
                field += 1;
            }
            let value = self.split_field(field, rest).map_or(rest, |(value, _)| value);
            check.allowed.iter().any(|range| range.contains(value))
        })
    }

    /// Whether the scan visits the document: all of it, or no farther than the entry `until`.
    pub(crate) fn visits(&self, document_key: &[u8], document: DocRef<'_>, until: Option<&[u8]>) -> bool {
        let is_visited = |key: &[u8]| {
            let is_before = until.is_none_or(|until| match self.direction {
                Direction::Forward => key <= until,
                Direction::Reverse => key >= until,
            });
            is_before && self.is_in_ranges(key)
        };
        if self.is_on_id() {
            return is_visited(document_key);
        }
        // A document that cannot be indexed has no entries.
        let keys = index::keys(&self.index.spec, document).unwrap_or_default();
        keys.keys.iter().any(|fields| {
            let entry_key = encoding::index_entry_key(self.index.spec.id, fields, document_key);
            is_visited(&entry_key) && self.accepts(fields)
        })
    }

    fn is_in_ranges(&self, key: &[u8]) -> bool {
        let behind = self.ranges.partition_point(|range| &range.start[..] <= key);
        behind.checked_sub(1).and_then(|last| self.ranges.get(last)).is_some_and(|range| range.contains(key))
    }

    fn split_field<'b>(&self, field: usize, bytes: &'b [u8]) -> Option<(&'b [u8], &'b [u8])> {
        let (_, direction) = self.index.spec.key.get(field)?;
        let length = key::encoded_len(bytes, *direction == KeyDirection::Descending)?;
        bytes.split_at_checked(length)
    }

    /// How many leading fields have only single values.
    pub(super) fn point_fields(&self) -> usize {
        self.bounds.iter().take_while(|bounds| bounds.are_points()).count()
    }

    /// How many fields have bounds.
    pub(super) fn bounded_fields(&self) -> usize {
        self.bounds.iter().filter(|bounds| !bounds.is_full()).count()
    }
}

fn key_prefix(id: IndexId) -> Vec<u8> {
    if id == IndexId(0) { vec![encoding::TAG_DOCUMENT] } else { encoding::index_prefix(id) }
}

/// One field's bounds, and the conditions that they come from.
struct Chosen {
    field: usize,
    group: Group,
}

fn choose_bounds(index: &ShardIndex, conditions: &Conditions<'_>) -> Vec<Bounds> {
    let mut chosen: Vec<Chosen> = Vec::new();
    let mut all = Vec::with_capacity(index.spec.key.len());
    for (field, (path, _)) in index.spec.key.iter().enumerate() {
        let on_field: Vec<&Condition<'_>> =
            conditions.all.iter().filter(|condition| condition.path == *path).collect();
        let best = alternatives(arrays_of(index, field), &on_field)
            .into_iter()
            .filter(|(group, _)| chosen.iter().all(|earlier| may_combine(index, earlier, field, *group)))
            .min_by_key(|(_, bounds)| bounds.looseness());
        match best {
            Some((group, bounds)) => {
                chosen.push(Chosen { field, group });
                all.push(bounds);
            }
            None => all.push(Bounds::full()),
        }
    }
    all
}

/// The bounds that one field can have: the intersection of a group's where no array comes between, else each alone.
fn alternatives(arrays: &[u16], conditions: &[&Condition<'_>]) -> Vec<(Group, Bounds)> {
    let mut found: Vec<(Group, Bounds)> = Vec::new();
    for condition in conditions {
        let Some(bounds) = Bounds::of(condition.predicate) else { continue };
        let group = condition.group;
        let same = |other: &Group| arrays.is_empty() || *other == group;
        let combines = arrays.iter().all(|&component| usize::from(component) < group.fixed_components);
        match found.iter_mut().find(|(other, _)| combines && same(other)) {
            Some((_, earlier)) => *earlier = earlier.intersect(&bounds),
            None => found.push((group, bounds)),
        }
    }
    found
}

/// Whether a field's bounds from `group` may stand beside those of an earlier field: not when the two paths go through
/// one array, unless both speak of the same element of it.
fn may_combine(index: &ShardIndex, earlier: &Chosen, field: usize, group: Group) -> bool {
    let path = |field: usize| index.spec.key.get(field).map_or("", |(path, _)| path.as_str());
    let common =
        path(earlier.field).split('.').zip(path(field).split('.')).take_while(|(a, b)| a == b).count();
    let shared = arrays_of(index, earlier.field)
        .iter()
        .chain(arrays_of(index, field))
        .filter(|component| usize::from(**component) < common);
    let same_element =
        |component: &u16| earlier.group == group && usize::from(*component) < group.fixed_components;
    shared.into_iter().all(same_element)
}

fn arrays_of(index: &ShardIndex, field: usize) -> &[u16] {
    index.multikey.get(field).map_or(&[], Vec::as_slice)
}

/// Whether the bounds say all that the filter does. Where arrays stand, a second predicate may be left to the filter.
fn is_exact(index: &ShardIndex, conditions: &Conditions<'_>) -> bool {
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_indexed = |condition: &Condition<'_>| {
        index.spec.key.iter().any(|(path, _)| *path == condition.path)
            && !condition.path.split('.').any(is_number)
            && Bounds::are_exact(condition.predicate)
    };
    !conditions.opaque
        && (!index.is_multikey() || conditions.all.len() <= 1)
        && conditions.all.iter().all(is_indexed)
}

/// Which way to scan so that documents come out sorted; `None` when they do not.
fn sort_direction(index: &ShardIndex, bounds: &[Bounds], sort: &SortSpec) -> Option<Direction> {
    let mut wanted = sort.keys.iter().map(|(path, direction)| (path.to_string(), *direction)).peekable();
    let mut scan: Option<Direction> = None;
    for (field, ((path, order), bounds)) in index.spec.key.iter().zip(bounds).enumerate() {
        let fixed = matches!(&bounds.0[..], [only] if only.is_point());
        let Some((sort_path, sort_order)) = wanted.peek() else { break };
        if sort_path == path && arrays_of(index, field).is_empty() {
            if !fixed {
                let needed =
                    if same_order(*order, *sort_order) { Direction::Forward } else { Direction::Reverse };
                if scan.is_some_and(|scan| scan != needed) {
                    return None;
                }
                scan = Some(needed);
            }
            wanted.next();
        } else if !fixed {
            return None;
        }
    }
    match wanted.peek() {
        None => Some(scan.unwrap_or(Direction::Forward)),
        Some(_) => None,
    }
}

fn same_order(index: KeyDirection, sort: SortDirection) -> bool {
    matches!(
        (index, sort),
        (KeyDirection::Ascending, SortDirection::Ascending)
            | (KeyDirection::Descending, SortDirection::Descending)
    )
}

/// Which of two accesses with equal estimates to prefer.
pub(super) fn by_shape(a: &IndexAccess, b: &IndexAccess) -> Ordering {
    b.point_fields()
        .cmp(&a.point_fields())
        .then(b.bounded_fields().cmp(&a.bounded_fields()))
        .then_with(|| a.index.spec.key.len().cmp(&b.index.spec.key.len()))
        .then(a.index.spec.id.cmp(&b.index.spec.id))
}
