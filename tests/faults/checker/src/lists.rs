//! Direct checks of one list: what must hold between each read, the appends, and the longest read.
//!
//! Called by `main`. Always holds: a history without an anomaly here is linearizable, and one with an anomaly is not. The
//! longest read is the order of the appends; every pair of operations that real time orders must agree with it.

use std::collections::{HashMap, HashSet};

use crate::history::{Action, Operation};
use crate::report::Anomaly;

/// What the checks of a list say.
#[derive(Debug, Default)]
pub(crate) struct Findings<'a> {
    pub(crate) anomalies: Vec<Anomaly<'a>>,
    /// Acknowledged appends that no read shows, where no read began late enough to miss them.
    pub(crate) unverified: usize,
}

/// One list's operations, with the longest read as the order of the values.
struct List<'a> {
    key: &'a str,
    appends: Vec<(i64, &'a Operation)>,
    reads: Vec<(&'a [i64], &'a Operation)>,
    longest: &'a [i64],
    /// The first place of each value in the longest read.
    places: HashMap<i64, usize>,
}

/// Checks the list `key`.
pub(crate) fn check<'a>(key: &'a str, operations: &'a [Operation]) -> Findings<'a> {
    let list = List::new(key, operations);
    let mut findings = Findings::default();
    list.check_contents(&mut findings.anomalies);
    list.check_order_of_appends(&mut findings.anomalies);
    list.check_lost(&mut findings);
    list.check_stale_reads(&mut findings.anomalies);
    list.check_reads_that_go_back(&mut findings.anomalies);
    findings
}

impl<'a> List<'a> {
    fn new(key: &'a str, operations: &'a [Operation]) -> List<'a> {
        let (mut appends, mut reads) = (Vec::new(), Vec::new());
        for operation in operations {
            match &operation.action {
                Action::Append(value) => appends.push((*value, operation)),
                Action::Read(list) => reads.push((list.as_slice(), operation)),
                Action::Count(_) => {}
            }
        }
        reads.sort_by_key(|(_, read)| read.start);
        let longest = reads.iter().map(|(list, _)| *list).max_by_key(|list| list.len()).unwrap_or_default();
        let mut places = HashMap::with_capacity(longest.len());
        for (place, value) in longest.iter().enumerate() {
            places.entry(*value).or_insert(place);
        }
        List { key, appends, reads, longest, places }
    }

    fn anomaly(&self, message: String, operations: &[&'a Operation]) -> Anomaly<'a> {
        Anomaly::new(self.key, message, operations)
    }

    /// Reads are prefixes of the longest, nothing is in them twice, nothing that nobody appended, nothing from the future.
    fn check_contents(&self, anomalies: &mut Vec<Anomaly<'a>>) {
        let appends: HashMap<i64, &Operation> = self.appends.iter().copied().collect();
        let mut others: Vec<_> =
            self.reads.iter().filter(|(list, _)| !self.longest.starts_with(list)).collect();
        if !others.is_empty() {
            let message = format!(
                "reads that are not the beginning of the longest read, shown first: {}",
                others.len()
            );
            others.splice(0..0, self.reads.iter().find(|(list, _)| *list == self.longest));
            let operations: Vec<_> = others.into_iter().map(|(_, read)| *read).collect();
            anomalies.push(self.anomaly(message, &operations));
        }
        self.check_values(&appends, anomalies);
        self.check_future_reads(&appends, anomalies);
    }

    /// Reports each value that is wrong once, with the first read that has it.
    fn check_values(&self, appends: &HashMap<i64, &'a Operation>, anomalies: &mut Vec<Anomaly<'a>>) {
        let is_longest_right = self.places.len() == self.longest.len()
            && self.longest.iter().all(|value| appends.contains_key(value));
        let mut reported = HashSet::new();
        for (list, read) in &self.reads {
            if is_longest_right && self.longest.starts_with(list) {
                continue;
            }
            let mut seen = HashSet::with_capacity(list.len());
            for value in *list {
                let append = appends.get(value).copied();
                let is_repeated = !seen.insert(*value);
                if (append.is_some() && !is_repeated) || !reported.insert(*value) {
                    continue;
                }
                let message = match append {
                    Some(_) => format!("{value} was appended once and is in the list twice"),
                    None => format!("nobody appended {value}"),
                };
                let operations: Vec<_> = append.into_iter().chain([*read]).collect();
                anomalies.push(self.anomaly(message, &operations));
            }
        }
    }

    /// A read ends before an append starts whose value it has.
    fn check_future_reads(&self, appends: &HashMap<i64, &'a Operation>, anomalies: &mut Vec<Anomaly<'a>>) {
        let latest = latest_starts(self.longest.iter().map(|value| appends.get(value).copied()));
        for (list, read) in self.reads.iter().filter(|(list, _)| self.longest.starts_with(list)) {
            let latest = list.len().checked_sub(1).and_then(|last| latest.get(last).copied().flatten());
            if let Some(append) = latest.filter(|append| read.precedes(append)) {
                let message = "a read has a value whose append began after it".to_string();
                anomalies.push(self.anomaly(message, &[read, append]));
            }
        }
    }

    /// An append that ended before another began is before it in the list.
    fn check_order_of_appends(&self, anomalies: &mut Vec<Anomaly<'a>>) {
        let mut latest: Option<&Operation> = None;
        for append in self.observed_appends() {
            if let Some(latest) = latest.filter(|latest| append.precedes(latest)) {
                let message = "appends are in the list against their order in time".to_string();
                anomalies.push(self.anomaly(message, &[append, latest]));
            }
            latest = later_start(latest, Some(append));
        }
    }

    /// The appends of the longest read, in its order.
    fn observed_appends(&self) -> Vec<&'a Operation> {
        let place = |(value, append): &(i64, &'a Operation)| Some((*self.places.get(value)?, *append));
        let mut observed: Vec<_> = self.appends.iter().filter_map(place).collect();
        observed.sort_by_key(|(place, _)| *place);
        observed.into_iter().map(|(_, append)| append).collect()
    }

    /// An acknowledged append is in the longest read, unless everything that was read or appended there may be older.
    fn check_lost(&self, findings: &mut Findings<'a>) {
        let last_read = self.reads.last().map(|(_, read)| *read);
        let last_append = self.observed_appends().into_iter().max_by_key(|append| append.start);
        for (value, append) in &self.appends {
            if !append.is_acknowledged || self.places.contains_key(value) {
                continue;
            }
            let mut witnesses = last_read.into_iter().chain(last_append);
            match witnesses.find(|witness| append.precedes(witness)) {
                Some(witness) => {
                    let message =
                        format!("lost: {value} was acknowledged and is in no read that could be last");
                    findings.anomalies.push(self.anomaly(message, &[append, witness]));
                }
                None => findings.unverified += 1,
            }
        }
    }

    /// A read has every value whose append had ended before it.
    fn check_stale_reads(&self, anomalies: &mut Vec<Anomaly<'a>>) {
        let place = |(value, append): &(i64, &'a Operation)| {
            Some((append.deadline()?, *self.places.get(value)?, *append))
        };
        let mut ended: Vec<_> = self.appends.iter().filter_map(place).collect();
        ended.sort_by_key(|(end, _, _)| *end);
        let mut ended = ended.into_iter().peekable();
        let mut furthest: Option<(usize, &Operation)> = None;
        for (list, read) in &self.reads {
            while let Some((_, place, append)) = ended.next_if(|(end, _, _)| *end < read.start) {
                if furthest.is_none_or(|(other, _)| other < place) {
                    furthest = Some((place, append));
                }
            }
            if let Some((_, append)) = furthest.filter(|(place, _)| *place >= list.len()) {
                let message = "stale read: an append had ended before the read began".to_string();
                anomalies.push(self.anomaly(message, &[append, read]));
            }
        }
    }

    /// A read is at least as long as every read that had ended before it began.
    fn check_reads_that_go_back(&self, anomalies: &mut Vec<Anomaly<'a>>) {
        let mut ended = self.reads.clone();
        ended.sort_by_key(|(_, read)| read.end);
        let mut ended = ended.into_iter().peekable();
        let mut furthest: Option<(&[i64], &Operation)> = None;
        for (list, read) in &self.reads {
            while let Some((other, earlier)) = ended.next_if(|(_, earlier)| earlier.precedes(read)) {
                if furthest.is_none_or(|(longest, _)| longest.len() < other.len()) {
                    furthest = Some((other, earlier));
                }
            }
            if let Some((_, earlier)) = furthest.filter(|(longest, _)| longest.len() > list.len()) {
                let message = "a read goes back behind one that had ended before it began".to_string();
                anomalies.push(self.anomaly(message, &[earlier, read]));
            }
        }
    }
}

/// For each operation, the one with the latest start up to and including it.
fn latest_starts<'a>(operations: impl Iterator<Item = Option<&'a Operation>>) -> Vec<Option<&'a Operation>> {
    let up_to = |latest: &mut Option<&'a Operation>, operation| {
        *latest = later_start(*latest, operation);
        Some(*latest)
    };
    operations.scan(None, up_to).collect()
}

fn later_start<'a>(one: Option<&'a Operation>, two: Option<&'a Operation>) -> Option<&'a Operation> {
    one.into_iter().chain(two).max_by_key(|operation| operation.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::short::{append, read, unknown};

    fn messages(operations: &[Operation]) -> Vec<String> {
        check("list", operations).anomalies.into_iter().map(|anomaly| anomaly.message).collect()
    }

    fn assert_refused(operations: &[Operation], reason: &str) {
        let messages = messages(operations);
        assert!(messages.iter().any(|message| message.contains(reason)), "{reason}: {messages:?}");
    }

    #[test]
    fn overlapping_operations_may_be_seen_or_not() {
        assert_eq!(messages(&[append(1, 1, 9), read(&[], 2, 3), read(&[1], 4, 5)]), [""; 0]);
        assert_eq!(messages(&[append(1, 1, 9), append(2, 2, 8), read(&[2, 1], 10, 11)]), [""; 0]);
        assert_eq!(messages(&[unknown(Action::Append(1), 1), read(&[], 5, 6), read(&[1], 7, 8)]), [""; 0]);
        assert_eq!(messages(&[unknown(Action::Append(1), 1), read(&[], 5, 6)]), [""; 0]);
    }

    #[test]
    fn an_append_after_the_last_read_is_unverified() {
        let operations = [read(&[], 1, 2), append(1, 3, 4)];
        let findings = check("list", &operations);
        assert_eq!((findings.anomalies.len(), findings.unverified), (0, 1));
    }

    #[test]
    fn a_lost_append_is_found_by_a_read_or_by_a_later_append() {
        assert_refused(&[append(1, 1, 2), append(2, 1, 9), read(&[2], 5, 6)], "lost: 1");
        assert_refused(&[append(1, 3, 4), append(2, 5, 9), read(&[2], 2, 8)], "lost: 1");
    }

    #[test]
    fn a_read_must_not_repeat_or_make_up_values() {
        assert_refused(&[append(1, 1, 2), read(&[1, 1], 3, 4)], "twice");
        assert_refused(&[append(1, 1, 2), read(&[1, 7], 3, 4)], "nobody appended 7");
        let each_is_reported_once = [append(1, 1, 2), read(&[1, 1], 3, 4), read(&[1, 1, 1], 5, 6)];
        assert_eq!(messages(&each_is_reported_once).len(), 1);
    }

    #[test]
    fn reads_agree_with_each_other_and_with_time() {
        let appends = || [append(1, 1, 9), append(2, 1, 9)];
        let with = |reads: &[Operation]| [&appends()[..], reads].concat();
        assert_refused(&with(&[read(&[1], 2, 3), read(&[2, 1], 4, 5)]), "shown first: 1");
        assert_refused(&with(&[read(&[1, 2], 2, 3), read(&[1], 4, 5)]), "goes back");
        assert_refused(&with(&[read(&[1, 2], 20, 21), read(&[1], 10, 11)]), "stale read");
        assert_refused(&[read(&[1], 1, 2), append(1, 3, 4)], "began after it");
        assert_refused(&[append(1, 1, 2), append(2, 3, 4), read(&[2, 1], 5, 6)], "against their order");
    }
}
