//! Three judges of the same histories: `stateright`'s tester, the search of `linearizable`, and the direct checks.
//!
//! Always holds: they agree on random short histories, right and wrong ones; and the search is quick on long ones, where
//! `stateright`, which remembers no configuration, takes most of a minute for a key of 400 operations.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use super::*;
use crate::history::short::{append, count, ok, read, unknown};
use crate::{counters, lists};

const CASES: u64 = 30_000;

/// A list and a counter, as `stateright` sees them.
#[derive(Clone, Debug, Default)]
struct Object {
    list: Vec<i64>,
    value: i64,
}

#[derive(Clone, Debug)]
enum Ask {
    Append(i64),
    Read,
    Count,
}

#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Appended,
    List(Vec<i64>),
    Value(i64),
}

impl SequentialSpec for Object {
    type Op = Ask;
    type Ret = Answer;

    fn invoke(&mut self, ask: &Ask) -> Answer {
        match ask {
            Ask::Append(value) => {
                self.list.push(*value);
                Answer::Appended
            }
            Ask::Read => Answer::List(self.list.clone()),
            Ask::Count => {
                self.value += 1;
                Answer::Value(self.value)
            }
        }
    }
}

fn is_linearizable_to_stateright(operations: &[Operation]) -> bool {
    let references: Vec<_> = operations.iter().collect();
    let mut tester = LinearizabilityTester::new(Object::default());
    for event in Events::new(&references).events {
        let (Event::Start(index) | Event::End(index)) = event;
        let (ask, answer) = match &operations[index].action {
            Action::Append(value) => (Ask::Append(*value), Answer::Appended),
            Action::Read(list) => (Ask::Read, Answer::List(list.clone())),
            Action::Count(value) => (Ask::Count, Answer::Value(value.unwrap_or_default())),
        };
        // Each operation is a thread of its own.
        let recorded = match event {
            Event::Start(_) => tester.on_invoke(index, ask).map(|_| ()),
            Event::End(_) => tester.on_return(index, answer).map(|_| ()),
        };
        assert_eq!(recorded, Ok(()));
    }
    tester.is_consistent()
}

/// A history of a real object in which each operation takes effect at a moment of its interval; unknown ones may not.
fn right(draw: &mut StdRng, is_list: bool) -> Vec<Operation> {
    let mut moments = Vec::new();
    for value in 1..=draw.random_range(2..=7) {
        let start = draw.random_range(0..24);
        let end = start + draw.random_range(1..8);
        let action = match draw.random_bool(0.5) {
            _ if !is_list => Action::Count(Some(0)),
            true => Action::Append(value),
            false => Action::Read(Vec::new()),
        };
        let is_unknown = !matches!(action, Action::Read(_)) && draw.random_bool(0.25);
        let latest = if is_unknown { 40 } else { end };
        let moment = (draw.random_range(start..=latest), draw.random_bool(0.5));
        let operation = Operation { is_acknowledged: !is_unknown, ..ok(action, start, end) };
        moments.push((moment, operation));
    }
    moments.sort_by_key(|(moment, _)| *moment);
    let mut object = Object::default();
    for ((_, happens), operation) in &mut moments {
        if operation.is_acknowledged || *happens {
            perform(&mut object, operation);
        }
        if let (Action::Count(value), false) = (&mut operation.action, operation.is_acknowledged) {
            *value = None;
        }
    }
    moments.into_iter().map(|(_, operation)| operation).collect()
}

fn perform(object: &mut Object, operation: &mut Operation) {
    match &mut operation.action {
        Action::Append(value) => object.list.push(*value),
        Action::Read(list) => list.clone_from(&object.list),
        Action::Count(value) => {
            object.value += 1;
            *value = Some(object.value);
        }
    }
}

/// Changes one answer, or the time of one operation.
fn damage(draw: &mut StdRng, operations: &mut [Operation]) {
    let index = draw.random_range(0..operations.len());
    let operation = &mut operations[index];
    match &mut operation.action {
        Action::Read(list) if draw.random_bool(0.7) => match draw.random_range(0..4) {
            0 => drop(list.pop()),
            1 => list.push(draw.random_range(1..=8)),
            2 if !list.is_empty() => list.rotate_left(1),
            _ => list.truncate(draw.random_range(0..=list.len())),
        },
        Action::Count(Some(value)) if draw.random_bool(0.7) => *value += draw.random_range(-1..=2),
        _ => {
            let length = operation.end - operation.start;
            operation.start = draw.random_range(0..24);
            operation.end = operation.start + length;
        }
    }
}

fn compare(is_list: bool) {
    let mut draw = StdRng::seed_from_u64(u64::from(is_list));
    let mut verdicts = [0, 0];
    for case in 0..CASES {
        let mut operations = right(&mut draw, is_list);
        for _ in 0..case % 3 {
            damage(&mut draw, &mut operations);
        }
        let expected = is_linearizable_to_stateright(&operations);
        let (search, direct) = match is_list {
            true => (check_list("", &operations), lists::check("", &operations).anomalies),
            false => (check_counter("", &operations), counters::check("", &operations)),
        };
        assert!(expected || case % 3 > 0, "a right history is refused: {operations:#?}");
        assert_eq!(search.is_none(), expected, "the search: {search:?} {operations:#?}");
        assert_eq!(direct.is_empty(), expected, "the direct checks: {direct:?} {operations:#?}");
        verdicts[usize::from(expected)] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > CASES / 5), "too few of one verdict: {verdicts:?}");
}

#[test]
fn all_agree_on_lists() {
    compare(true);
}

#[test]
fn all_agree_on_counters() {
    compare(false);
}

#[test]
fn the_search_names_the_operation_that_stops_it() {
    let operations =
        [append(1, 1, 2), read(&[1], 3, 4), append(2, 5, 6), read(&[1], 7, 8), read(&[1, 2], 9, 10)];
    let anomaly = check_list("list", &operations).expect("the second read is stale");
    assert_eq!(anomaly.operations.first().map(|operation| operation.start), Some(7));
}

/// Many clients, one of which stands still for most of the run, and many unknown increments that happen late or never.
fn long_counter(len: i64) -> Vec<Operation> {
    let mut operations = vec![count(1, 0, 1)];
    for value in 2..=len {
        let at = 10 * value.unsigned_abs();
        operations.push(match value % 50 {
            0 => unknown(Action::Count(None), at),
            _ => count(value, at, at + 70),
        });
        if value % 100 == 0 {
            operations.push(unknown(Action::Count(None), at));
        }
    }
    operations
}

#[test]
fn long_histories_are_quick_to_accept_and_to_refuse() {
    let started = Instant::now();
    let mut operations = long_counter(20_000);
    assert!(check_counter("counter", &operations).is_none());
    operations.push(count(19_999, 300_000, 300_001));
    assert!(check_counter("counter", &operations).is_some());
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}
