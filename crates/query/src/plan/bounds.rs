//! Bounds: which values of an indexed field can satisfy a predicate, as intervals and as ranges of keys.
//!
//! Called by the planner. Always holds: bounds hold every value under which a matching document is indexed; they may hold
//! more, since the filter is checked again on every document that a scan fetches.

use std::cmp::Ordering;

use bson::Bson;
use catalog::KeyDirection;
use document::filter::{InList, Predicate, Regex};
use document::number::Number;
use document::{Value, order};
use storage::KeyRange;
use storage::kv::prefix_end;

use crate::index::encode_field;

/// Values from `low` to `high`.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// The lowest value.
    pub low: Bson,
    /// Whether `low` itself is inside.
    pub low_inclusive: bool,
    /// The highest value.
    pub high: Bson,
    /// Whether `high` itself is inside.
    pub high_inclusive: bool,
}

/// Intervals in ascending order that do not touch each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds(pub Vec<Interval>);

impl Interval {
    /// One value.
    pub fn point(value: Bson) -> Interval {
        Interval { low: value.clone(), low_inclusive: true, high: value, high_inclusive: true }
    }

    fn closed(low: Bson, high: Bson) -> Interval {
        Interval { low, low_inclusive: true, high, high_inclusive: true }
    }

    fn full() -> Interval {
        Interval::closed(Bson::MinKey, Bson::MaxKey)
    }

    /// Whether it is one value.
    pub fn is_point(&self) -> bool {
        self.low_inclusive && self.high_inclusive && compare(&self.low, &self.high) == Ordering::Equal
    }

    fn is_empty(&self) -> bool {
        match compare(&self.low, &self.high) {
            Ordering::Less => false,
            Ordering::Equal => !(self.low_inclusive && self.high_inclusive),
            Ordering::Greater => true,
        }
    }

    fn intersect(&self, other: &Interval) -> Option<Interval> {
        let low = if compare_low(self, other) == Ordering::Less { other } else { self };
        let high = if compare_high(self, other) == Ordering::Less { self } else { other };
        let both = Interval {
            low: low.low.clone(),
            low_inclusive: low.low_inclusive,
            high: high.high.clone(),
            high_inclusive: high.high_inclusive,
        };
        (!both.is_empty()).then_some(both)
    }

    /// The keys whose next field after `prefix` lies in the interval.
    fn key_range(&self, prefix: &[u8], direction: KeyDirection) -> KeyRange {
        let encoded = |value: &Bson| {
            let mut out = prefix.to_vec();
            encode_field(Some(&Value::from(value)), direction, &mut out);
            out
        };
        let (first, first_inclusive, last, last_inclusive) = match direction {
            KeyDirection::Ascending => (&self.low, self.low_inclusive, &self.high, self.high_inclusive),
            KeyDirection::Descending => (&self.high, self.high_inclusive, &self.low, self.low_inclusive),
        };
        let (first, last) = (encoded(first), encoded(last));
        let start = if first_inclusive { Some(first.into()) } else { prefix_end(&first) };
        let end = if last_inclusive { prefix_end(&last) } else { Some(last.into()) };
        let start = start.expect("neither a key's tag nor a value's first byte is 0xFF");
        KeyRange { start, end }
    }
}

impl Bounds {
    /// Every value.
    pub fn full() -> Bounds {
        Bounds(vec![Interval::full()])
    }

    fn point(value: Bson) -> Bounds {
        Bounds(vec![Interval::point(value)])
    }

    /// Whether they are every value.
    pub fn is_full(&self) -> bool {
        matches!(&self.0[..], [only] if *only == Interval::full())
    }

    /// Whether they are single values.
    pub fn are_points(&self) -> bool {
        self.0.iter().all(Interval::is_point)
    }

    /// Sorts intervals and joins those that overlap.
    fn from_intervals(mut intervals: Vec<Interval>) -> Bounds {
        intervals.retain(|interval| !interval.is_empty());
        intervals.sort_by(compare_low);
        let mut joined: Vec<Interval> = Vec::with_capacity(intervals.len());
        for interval in intervals {
            match joined.last_mut() {
                Some(last) if reaches(last, &interval) => {
                    if compare_high(last, &interval) == Ordering::Less {
                        last.high = interval.high;
                        last.high_inclusive = interval.high_inclusive;
                    }
                }
                _ => joined.push(interval),
            }
        }
        Bounds(joined)
    }

    /// The values in both.
    pub fn intersect(&self, other: &Bounds) -> Bounds {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(a), Some(b)) = (ours.peek(), theirs.peek()) {
            both.extend(a.intersect(b));
            if compare_high(a, b) == Ordering::Less {
                ours.next();
            } else {
                theirs.next();
            }
        }
        Bounds(both)
    }

    /// A rough measure of how much they leave: lower is better. Points count themselves.
    pub fn looseness(&self) -> usize {
        const CLOSED: usize = 1_000;
        const HALF_OPEN: usize = 1_000_000;
        let one = |interval: &Interval| match interval {
            point if point.is_point() => 1,
            Interval { low: Bson::MinKey, .. } | Interval { high: Bson::MaxKey, .. } => HALF_OPEN,
            Interval { low, high, .. } if is_bracket_end(low) || is_bracket_end(high) => HALF_OPEN / 2,
            _ => CLOSED,
        };
        self.0.iter().map(one).fold(0, usize::saturating_add)
    }

    /// What a predicate leaves, or `None` when it leaves every value.
    pub fn of(predicate: &Predicate) -> Option<Bounds> {
        match predicate {
            Predicate::Eq(value) => equal(value),
            Predicate::In(list) => one_of(list),
            Predicate::Gt(value) | Predicate::Gte(value) | Predicate::Lt(value) | Predicate::Lte(value) => {
                range(predicate, value)
            }
            Predicate::Exists(false) => equal(&Bson::Null),
            Predicate::Regex(regex) => Some(matching(regex)),
            _ => None,
        }
    }

    /// Whether a predicate leaves exactly its bounds, so that an entry says all about its document.
    pub(super) fn are_exact(predicate: &Predicate) -> bool {
        match predicate {
            Predicate::Eq(value) => is_plain(value),
            Predicate::Gt(value) | Predicate::Gte(value) | Predicate::Lt(value) | Predicate::Lte(value) => {
                is_plain(value) && !matches!(value, Bson::Double(number) if number.is_nan())
            }
            Predicate::In(list) => list.regexes().is_empty() && list.values().iter().all(is_plain),
            _ => false,
        }
    }
}

/// Whether an entry with the value means that the document has it, and the other way round.
fn is_plain(value: &Bson) -> bool {
    match value {
        Bson::Decimal128(number) => !number.to_string().contains("NaN"),
        _ => matches!(
            value,
            Bson::Double(_)
                | Bson::Int32(_)
                | Bson::Int64(_)
                | Bson::String(_)
                | Bson::ObjectId(_)
                | Bson::Boolean(_)
                | Bson::DateTime(_)
                | Bson::Timestamp(_)
        ),
    }
}

/// The key ranges of an index scan: every combination of single values in the leading fields, then the intervals of
/// the first field that has others. In key order; with the number of fields whose bounds they keep to.
pub(super) fn key_ranges(prefix: Vec<u8>, fields: &[(KeyDirection, &Bounds)]) -> (Vec<KeyRange>, usize) {
    /// Most ranges that combinations may make; further fields are left to the filter.
    const RANGES_MAX: usize = 2_000;
    let mut prefixes = vec![prefix];
    let mut kept = 0;
    for (direction, bounds) in fields {
        if bounds.is_full() || prefixes.len().saturating_mul(bounds.0.len()) > RANGES_MAX.max(bounds.0.len())
        {
            break;
        }
        kept += 1;
        let intervals = in_key_order(bounds, *direction);
        if !bounds.are_points() {
            let within =
                |prefix: &Vec<u8>| field_ranges(prefix, &intervals, *direction).collect::<Vec<KeyRange>>();
            return (prefixes.iter().flat_map(within).collect(), kept);
        }
        prefixes = prefixes
            .iter()
            .flat_map(|prefix| {
                intervals.iter().map(|interval| {
                    let mut longer = prefix.clone();
                    encode_field(Some(&Value::from(&interval.low)), *direction, &mut longer);
                    longer
                })
            })
            .collect();
    }
    (prefixes.into_iter().map(KeyRange::prefix).collect(), kept)
}

/// The encodings of one field that lie in its bounds.
pub(super) fn encoded_ranges(bounds: &Bounds, direction: KeyDirection) -> Vec<KeyRange> {
    field_ranges(&[], &in_key_order(bounds, direction), direction).collect()
}

fn field_ranges(
    prefix: &[u8],
    intervals: &[&Interval],
    direction: KeyDirection,
) -> impl Iterator<Item = KeyRange> {
    intervals.iter().map(move |interval| interval.key_range(prefix, direction))
}

fn in_key_order(bounds: &Bounds, direction: KeyDirection) -> Vec<&Interval> {
    match direction {
        KeyDirection::Ascending => bounds.0.iter().collect(),
        KeyDirection::Descending => bounds.0.iter().rev().collect(),
    }
}

/// An array equals a value as a whole or by an element; whole arrays are not indexed, but their elements are. An empty
/// one is indexed as undefined. An absent field is indexed as null.
fn equal(value: &Bson) -> Option<Bounds> {
    match value {
        Bson::Array(array) => {
            let first = array.first().cloned().unwrap_or(Bson::Undefined);
            let both = vec![Interval::point(first), Interval::point(value.clone())];
            Some(Bounds::from_intervals(both))
        }
        // A tree's DBPointer hides its fields.
        Bson::DbPointer(_) => None,
        _ => Some(Bounds::point(value.clone())),
    }
}

fn one_of(list: &InList) -> Option<Bounds> {
    let mut intervals = Vec::with_capacity(list.values().len());
    for value in list.values() {
        intervals.extend(equal(value)?.0);
    }
    for regex in list.regexes() {
        intervals.extend(matching(regex).0);
    }
    Some(Bounds::from_intervals(intervals))
}

/// Comparisons hold only within the type of their operand.
fn range(predicate: &Predicate, value: &Bson) -> Option<Bounds> {
    if matches!(value, Bson::Null) && matches!(predicate, Predicate::Gte(_) | Predicate::Lte(_)) {
        return equal(value);
    }
    if Number::of(&Value::from(value)).is_some_and(Number::is_nan) {
        return Some(Bounds::point(value.clone()));
    }
    let mut bracket = bracket(value)?;
    match predicate {
        Predicate::Gt(_) | Predicate::Gte(_) => {
            bracket.low = value.clone();
            bracket.low_inclusive = matches!(predicate, Predicate::Gte(_));
        }
        _ => {
            bracket.high = value.clone();
            bracket.high_inclusive = matches!(predicate, Predicate::Lte(_));
        }
    }
    Some(Bounds::from_intervals(vec![bracket]))
}

/// All values of the type of `value`; `None` for types whose comparisons go beyond it.
fn bracket(value: &Bson) -> Option<Interval> {
    let half_open = |low, high| Interval { low, low_inclusive: true, high, high_inclusive: false };
    Some(match value {
        Bson::Double(_) | Bson::Int32(_) | Bson::Int64(_) | Bson::Decimal128(_) => {
            Interval::closed(Bson::Double(f64::NEG_INFINITY), Bson::Double(f64::INFINITY))
        }
        Bson::String(_) | Bson::Symbol(_) => half_open(Bson::String(String::new()), empty_document()),
        Bson::Document(_) => half_open(empty_document(), Bson::Array(Vec::new())),
        Bson::Binary(_) => half_open(empty_binary(), object_id(0)),
        Bson::ObjectId(_) => Interval::closed(object_id(0), object_id(0xFF)),
        Bson::Boolean(_) => Interval::closed(Bson::Boolean(false), Bson::Boolean(true)),
        Bson::DateTime(_) => Interval::closed(date(i64::MIN), date(i64::MAX)),
        Bson::Timestamp(_) => Interval::closed(timestamp(0), timestamp(u32::MAX)),
        _ => return None,
    })
}

/// Strings with the expression's literal prefix, or all, and the expression itself as a value.
fn matching(regex: &Regex) -> Bounds {
    let mut intervals = Vec::with_capacity(2);
    let prefix = regex.literal_prefix().unwrap_or_default();
    let after = after_prefix(&prefix).map_or_else(empty_document, Bson::String);
    intervals.push(Interval {
        low: Bson::String(prefix),
        low_inclusive: true,
        high: after,
        high_inclusive: false,
    });
    let value = Value::Regex { pattern: regex.pattern(), options: regex.options() };
    intervals.push(Interval::point(value.to_bson()));
    Bounds::from_intervals(intervals)
}

/// The first string after all that start with `prefix`.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut kept = prefix.to_owned();
    while let Some(last) = kept.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            kept.push(next);
            return Some(kept);
        }
    }
    None
}

fn is_bracket_end(value: &Bson) -> bool {
    bracket(value).is_some_and(|bracket| bracket.low == *value || bracket.high == *value)
        || matches!(value, Bson::Array(array) if array.is_empty())
}

fn empty_document() -> Bson {
    Bson::Document(bson::Document::new())
}

fn empty_binary() -> Bson {
    Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: Vec::new() })
}

fn object_id(byte: u8) -> Bson {
    Bson::ObjectId(bson::oid::ObjectId::from_bytes([byte; 12]))
}

fn date(millis: i64) -> Bson {
    Bson::DateTime(bson::DateTime::from_millis(millis))
}

fn timestamp(half: u32) -> Bson {
    Bson::Timestamp(bson::Timestamp { time: half, increment: half })
}

fn compare(a: &Bson, b: &Bson) -> Ordering {
    order::compare(&Value::from(a), &Value::from(b))
}

/// Which interval begins first.
fn compare_low(a: &Interval, b: &Interval) -> Ordering {
    compare(&a.low, &b.low).then(b.low_inclusive.cmp(&a.low_inclusive))
}

/// Which interval ends first.
fn compare_high(a: &Interval, b: &Interval) -> Ordering {
    compare(&a.high, &b.high).then(a.high_inclusive.cmp(&b.high_inclusive))
}

/// Whether `next`, which begins no earlier, begins inside `last` or right after it.
fn reaches(last: &Interval, next: &Interval) -> bool {
    match compare(&last.high, &next.low) {
        Ordering::Greater => true,
        Ordering::Equal => last.high_inclusive || next.low_inclusive,
        Ordering::Less => false,
    }
}
