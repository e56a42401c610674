//! Direct checks of one counter: which increments were answered with what, and who can have made the others.
//!
//! Called by `main`. Always holds: a history without an anomaly here is linearizable, and one with an anomaly is not. Each
//! value up to the highest answer was made by exactly one increment; those nobody was told of were made by unknown ones.

use crate::history::{Action, Operation};
use crate::report::Anomaly;

/// Checks the counter `key`, which starts at zero.
pub(crate) fn check<'a>(key: &'a str, operations: &'a [Operation]) -> Vec<Anomaly<'a>> {
    let answer = |operation: &'a Operation| match operation.action {
        Action::Count(Some(value)) => Some((value, operation)),
        _ => None,
    };
    let mut answers: Vec<_> = operations.iter().filter_map(answer).collect();
    answers.sort_by_key(|(value, operation)| (*value, operation.start));
    let mut unknown: Vec<_> = operations.iter().filter(|operation| !operation.is_acknowledged).collect();
    unknown.sort_by_key(|operation| operation.start);
    let mut anomalies = Vec::new();
    check_values(key, &answers, &mut anomalies);
    check_order(key, &answers, &mut anomalies);
    check_gaps(key, &answers, &unknown, &mut anomalies);
    anomalies
}

/// Answers are positive, and no two are the same.
fn check_values<'a>(key: &str, answers: &[(i64, &'a Operation)], anomalies: &mut Vec<Anomaly<'a>>) {
    for (value, operation) in answers.iter().take_while(|(value, _)| *value < 1) {
        let message = format!("no increment makes the counter {value}");
        anomalies.push(Anomaly::new(key, message, &[operation]));
    }
    for pair in answers.windows(2) {
        if let [(one, first), (two, second)] = pair
            && one == two
        {
            let message = format!("two increments were answered {one}");
            anomalies.push(Anomaly::new(key, message, &[first, second]));
        }
    }
}

/// An increment that ended before another began has the lower answer.
fn check_order<'a>(key: &str, answers: &[(i64, &'a Operation)], anomalies: &mut Vec<Anomaly<'a>>) {
    let mut latest: Option<&Operation> = None;
    for (_, operation) in answers {
        if let Some(latest) = latest.filter(|latest| operation.precedes(latest)) {
            let message = "the counter goes back: the later increment has the lower answer";
            anomalies.push(Anomaly::new(key, message, &[operation, latest]));
        }
        if latest.is_none_or(|latest| latest.start < operation.start) {
            latest = Some(operation);
        }
    }
}

/// Every value that nobody was told has an unknown increment that began before a higher value was answered.
///
/// Unknown increments are alike but for their start, and the lower a missing value, the earlier it must have been made:
/// so the earliest unknown increment goes to the lowest missing value. One gap without an increment is reported, not
/// all that follow from it.
fn check_gaps<'a>(
    key: &str,
    answers: &[(i64, &'a Operation)],
    unknown: &[&'a Operation],
    anomalies: &mut Vec<Anomaly<'a>>,
) {
    let earliest_end = earliest_ends(answers);
    let mut unknown = unknown.iter();
    let mut expected = 1;
    for ((value, operation), first_to_end) in answers.iter().zip(&earliest_end) {
        while expected < *value {
            let maker = unknown.next();
            if maker.is_none_or(|maker| first_to_end.precedes(maker)) {
                let message =
                    format!("no increment can have made the counter {expected} before it was {value}");
                let mut operations = vec![*operation, *first_to_end];
                operations.dedup_by(|one, two| std::ptr::eq(*one, *two));
                operations.extend(maker);
                anomalies.push(Anomaly::new(key, message, &operations));
                return;
            }
            expected += 1;
        }
        expected = value.saturating_add(1).max(expected);
    }
}

/// For each answer, the operation that ended first among it and all with a higher one.
fn earliest_ends<'a>(answers: &[(i64, &'a Operation)]) -> Vec<&'a Operation> {
    let mut earliest = Vec::with_capacity(answers.len());
    for (_, operation) in answers.iter().rev() {
        let previous = earliest.last().copied().unwrap_or(*operation);
        earliest.push(if operation.end < previous.end { *operation } else { previous });
    }
    earliest.reverse();
    earliest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::short::{count, unknown};

    fn messages(operations: &[Operation]) -> Vec<String> {
        check("counter", operations).into_iter().map(|anomaly| anomaly.message).collect()
    }

    fn assert_refused(operations: &[Operation], reason: &str) {
        let messages = messages(operations);
        assert!(messages.iter().any(|message| message.contains(reason)), "{reason}: {messages:?}");
    }

    fn lost(start: u64) -> Operation {
        unknown(Action::Count(None), start)
    }

    #[test]
    fn unknown_increments_fill_gaps_or_never_happen() {
        assert_eq!(messages(&[count(1, 1, 2), lost(3), count(3, 5, 6)]), [""; 0]);
        assert_eq!(messages(&[count(1, 1, 2), lost(3), count(2, 5, 6)]), [""; 0]);
        assert_eq!(messages(&[count(2, 3, 9), count(1, 4, 8)]), [""; 0]);
        // The increment answered 3 may have taken effect after the unknown one began.
        assert_eq!(messages(&[count(1, 1, 2), lost(5), count(3, 3, 6)]), [""; 0]);
    }

    #[test]
    fn a_gap_needs_an_unknown_increment_that_began_in_time() {
        assert_refused(&[count(1, 1, 2), count(3, 5, 6)], "made the counter 2");
        assert_refused(&[count(1, 1, 2), lost(7), count(3, 5, 6)], "made the counter 2");
        assert_refused(&[count(1, 1, 2), lost(3), count(4, 5, 6)], "made the counter 3");
    }

    #[test]
    fn answers_are_unique_positive_and_in_the_order_of_time() {
        assert_refused(&[count(1, 1, 2), count(1, 3, 4)], "two increments were answered 1");
        assert_refused(&[count(0, 1, 2)], "no increment makes the counter 0");
        assert_refused(&[count(2, 1, 2), count(1, 3, 4)], "goes back");
    }
}
