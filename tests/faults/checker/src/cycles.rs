//! Lists as transactions: what the published checker `adya`, a port of Elle, finds in the history of all lists together.
//!
//! Called by `main`. Each operation is a transaction of one micro-operation, and the model asked for is strict
//! serializability: versions of a list in the order of its longest read, and real time between all clients and all keys.
//! Always holds: operations that overlap are never ordered by time, nor is anything after an unknown operation.

use adya::history::{History, Interner, Mop, Op, OpType, ReadValue, Scalar};
use adya::{Opts, Valid, Workload};
use std::collections::BTreeMap;

use crate::history::{Action, Operation};
use crate::report::Anomaly;

/// Longer explanations are cut, in lines and in characters of a line: they may hold whole lists, and cycles may be long.
const LINES_SHOWN_MAX: usize = 20;
const LINE_SHOWN_MAX: usize = 200;

/// What `adya` reports when operations do not depend on each other at all.
const NOTHING_TO_SAY: &str = "empty-transaction-graph";

/// The anomalies of all lists, most severe kinds first within each component of the graph of dependencies.
pub(crate) fn check(lists: &BTreeMap<String, Vec<Operation>>) -> Vec<Anomaly<'_>> {
    let operations: Vec<_> =
        lists.iter().flat_map(|(key, operations)| operations.iter().map(move |each| (key, each))).collect();
    let report = adya::check(&transactions(&operations), Workload::ListAppend, &Opts::default());
    if report.valid == Valid::True {
        return Vec::new();
    }
    let found = report.anomalies.into_iter().filter(|(kind, _)| kind != NOTHING_TO_SAY);
    found.flat_map(|(_, anomalies)| anomalies).map(|found| translated(&found, &operations)).collect()
}

fn translated<'a>(found: &adya::Anomaly, operations: &[(&'a String, &'a Operation)]) -> Anomaly<'a> {
    let concerned = found.ops.iter().filter_map(|index| operations.get(usize::try_from(*index).ok()?));
    let (keys, concerned): (Vec<_>, Vec<_>) = concerned.copied().unzip();
    let key = keys.first().map_or("all lists", |key| key);
    // The explanation begins with the whole lists of all reads, which the operations below it show in short.
    let reasons =
        found.explanation.split_once("Then:").map_or(found.explanation.as_str(), |(_, reasons)| reasons);
    let numbered = found.ops.iter().map(|index| format!("T{index}")).collect::<Vec<_>>().join(", ");
    let of = if numbered.is_empty() { String::new() } else { format!(" of {numbered}") };
    Anomaly::new(key, format!("{}{of}, says adya:{}", found.kind, cut(reasons.trim())), &concerned)
}

fn cut(reasons: &str) -> String {
    let mut shown = String::new();
    for (index, line) in reasons.lines().enumerate() {
        shown.push_str("\n    ");
        if index == LINES_SHOWN_MAX {
            shown.push_str("...");
            break;
        }
        shown.extend(line.trim().chars().take(LINE_SHOWN_MAX));
        if line.trim().chars().count() > LINE_SHOWN_MAX {
            shown.push_str("...");
        }
    }
    shown
}

/// The history in the form of `adya`. Every operation is a process of its own, so that only real time orders them.
fn transactions(operations: &[(&String, &Operation)]) -> History {
    let mut events = Vec::with_capacity(2 * operations.len());
    for (index, (_, operation)) in operations.iter().enumerate() {
        // At equal times the question comes first: the two may have overlapped.
        events.push((operation.start, false, index));
        events.push((operation.end, true, index));
    }
    events.sort_unstable();
    let mut interner = Interner::default();
    let mut ops = Vec::with_capacity(events.len());
    for (time, is_end, index) in events {
        let Some((key, operation)) = operations.get(index) else { continue };
        let kind = match (is_end, operation.is_acknowledged) {
            (false, _) => OpType::Invoke,
            (true, true) => OpType::Ok,
            (true, false) => OpType::Info,
        };
        let value = micro_operation(key, operation, is_end, &mut interner).into_iter().collect();
        let process = i64::try_from(index).ok();
        ops.push(Op { index: index as u64, kind, process, value, time: i64::try_from(time).ok() });
    }
    History::from_ops(ops, interner)
}

fn micro_operation(key: &str, operation: &Operation, is_end: bool, interner: &mut Interner) -> Option<Mop> {
    let key = interner.intern(Scalar::Str(key.into()));
    match &operation.action {
        Action::Append(value) => Some(Mop::Append { key, value: interner.intern(Scalar::Int(*value)) }),
        Action::Read(_) if !is_end => Some(Mop::Read { key, value: ReadValue::Nil }),
        Action::Read(list) => {
            let list = list.iter().map(|value| interner.intern(Scalar::Int(*value))).collect();
            Some(Mop::Read { key, value: ReadValue::List(list) })
        }
        Action::Count(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::short::{append, read, unknown};

    fn found(operations: Vec<Operation>) -> Vec<String> {
        let lists = BTreeMap::from([("list".to_string(), operations)]);
        check(&lists).into_iter().map(|anomaly| anomaly.message).collect()
    }

    #[test]
    fn right_histories_are_accepted() {
        let sequential = vec![append(1, 1, 2), read(&[1], 3, 4), append(2, 5, 6), read(&[1, 2], 7, 8)];
        let overlapping = vec![append(1, 1, 9), append(2, 2, 8), read(&[2], 3, 4), read(&[2, 1], 5, 6)];
        let too_late_for_the_read = vec![append(1, 1, 2), append(2, 3, 9), read(&[1], 4, 5)];
        let unobserved = vec![append(1, 1, 2), append(2, 3, 4)];
        for history in [sequential, overlapping, too_late_for_the_read, unobserved] {
            assert_eq!(found(history.clone()), [""; 0], "{history:?}");
        }
    }

    #[test]
    fn an_unknown_append_may_take_effect_late_or_never() {
        let never = vec![unknown(Action::Append(1), 1), append(2, 5, 6), read(&[2], 7, 8)];
        let late =
            vec![unknown(Action::Append(1), 1), append(2, 5, 6), read(&[2], 7, 8), read(&[2, 1], 9, 10)];
        for history in [never, late] {
            assert_eq!(found(history.clone()), [""; 0], "{history:?}");
        }
    }

    #[test]
    fn wrong_histories_are_refused() {
        let lost = vec![append(1, 1, 2), append(2, 3, 4), read(&[2], 5, 6)];
        let twice = vec![append(1, 1, 2), append(2, 3, 4), read(&[1, 2, 1], 5, 6)];
        let stale = vec![append(1, 1, 2), append(2, 3, 4), read(&[1], 5, 6), read(&[1, 2], 7, 8)];
        let reordered = vec![append(1, 1, 4), append(2, 2, 5), read(&[1, 2], 6, 7), read(&[2, 1], 8, 9)];
        let back = vec![append(1, 1, 9), read(&[1], 2, 3), read(&[], 4, 5)];
        let against_time = vec![append(1, 1, 2), append(2, 3, 4), read(&[2, 1], 5, 6)];
        for history in [lost, twice, stale, reordered, back, against_time] {
            assert_ne!(found(history.clone()), [""; 0], "{history:?}");
        }
    }

    #[test]
    fn an_aborted_read_is_refused() {
        // The campaign knows no operation that has surely failed, so this one is in the form of `adya`.
        let history = History::from_json(
            r#"{"type":"invoke","process":0,"value":[["append","x",1]]}
               {"type":"fail","process":0,"value":[["append","x",1]]}
               {"type":"invoke","process":1,"value":[["r","x",null]]}
               {"type":"ok","process":1,"value":[["r","x",[1]]]}"#,
        )
        .expect("the history is well formed");
        let report = adya::check(&history, Workload::ListAppend, &Opts::default());
        assert_eq!(report.valid, Valid::False, "{report:?}");
        assert!(report.anomaly_types.iter().any(|kind| kind == "G1a"), "{report:?}");
    }

    #[test]
    fn an_anomaly_names_its_operations() {
        let lists = BTreeMap::from([("list".to_string(), vec![append(1, 1, 2), read(&[], 5, 6)])]);
        let anomalies = check(&lists);
        let operations = anomalies.first().map(|anomaly| anomaly.operations.len());
        assert_eq!((anomalies.len(), operations), (1, Some(2)), "{anomalies:?}");
    }
}
