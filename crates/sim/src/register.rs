//! Whether a register's operations can be put in one order that explains every answer.
//!
//! Every value is written once, which makes the question easy (Gibbons and Korach, 1997). A value's zone reaches from the
//! first answer to the last question among its write and its reads. When the answer comes first, the register holds the
//! value for the whole zone; otherwise it does so at some moment in it.

use std::collections::BTreeMap;

use crate::history::{RegisterAction, RegisterOp};

/// A value's operations.
#[derive(Debug)]
struct Zone {
    write: Option<u64>,
    first_answer: u64,
    last_question: u64,
    first_read_answer: u64,
}

/// Whether `operations` on a register that starts at `initial` are linearizable.
pub(crate) fn is_linearizable(operations: &[RegisterOp], initial: i64) -> bool {
    let mut zones: BTreeMap<i64, Zone> = BTreeMap::new();
    zones.insert(
        initial,
        Zone { write: Some(0), first_answer: 0, last_question: 0, first_read_answer: u64::MAX },
    );
    for RegisterOp { invoked, answered, action } in operations {
        let (RegisterAction::Write(value) | RegisterAction::Read(value)) = *action;
        let zone = zones.entry(value).or_insert(Zone {
            write: None,
            first_answer: u64::MAX,
            last_question: 0,
            first_read_answer: u64::MAX,
        });
        zone.first_answer = zone.first_answer.min(*answered);
        zone.last_question = zone.last_question.max(*invoked);
        match action {
            RegisterAction::Write(_) => zone.write = Some(*invoked),
            RegisterAction::Read(_) => zone.first_read_answer = zone.first_read_answer.min(*answered),
        }
    }
    let is_read_before_written =
        |zone: &Zone| zone.write.is_none_or(|written| zone.first_read_answer < written);
    if zones.values().any(is_read_before_written) {
        return false;
    }
    let (mut holds, passes): (Vec<_>, Vec<_>) =
        zones.values().partition(|zone| zone.first_answer < zone.last_question);
    holds.sort_by_key(|zone| zone.first_answer);
    let overlap =
        holds.windows(2).any(|pair| matches!(pair, [one, two] if two.first_answer < one.last_question));
    let is_inside = |inner: &&Zone, outer: &&Zone| {
        outer.first_answer < inner.last_question && inner.first_answer < outer.last_question
    };
    !overlap && !passes.iter().any(|inner| holds.iter().any(|outer| is_inside(inner, outer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(invoked: u64, answered: u64, action: RegisterAction) -> RegisterOp {
        RegisterOp { invoked, answered, action }
    }

    #[test]
    fn a_read_may_see_a_write_that_overlaps_it_or_the_value_before() {
        for value in [0, 1] {
            let history = [op(1, 4, RegisterAction::Write(1)), op(2, 3, RegisterAction::Read(value))];
            assert!(is_linearizable(&history, 0), "reading {value}");
        }
    }

    #[test]
    fn a_read_must_not_go_back_behind_an_answered_write_or_an_earlier_read() {
        let stale = [op(1, 2, RegisterAction::Write(1)), op(3, 4, RegisterAction::Read(0))];
        assert!(!is_linearizable(&stale, 0));
        let backwards = [
            op(1, 10, RegisterAction::Write(1)),
            op(2, 3, RegisterAction::Read(1)),
            op(4, 5, RegisterAction::Read(0)),
        ];
        assert!(!is_linearizable(&backwards, 0));
    }

    #[test]
    fn a_value_comes_from_a_write_that_began_before() {
        assert!(!is_linearizable(&[op(1, 2, RegisterAction::Read(1))], 0));
        let early = [op(1, 2, RegisterAction::Read(1)), op(3, 4, RegisterAction::Write(1))];
        assert!(!is_linearizable(&early, 0));
    }

    #[test]
    fn a_value_that_was_overwritten_between_two_reads_does_not_come_back() {
        let history = [
            op(1, 2, RegisterAction::Write(1)),
            op(3, 4, RegisterAction::Read(1)),
            op(5, 6, RegisterAction::Write(2)),
            op(7, 8, RegisterAction::Read(1)),
        ];
        assert!(!is_linearizable(&history, 0));
        let overlapping = [
            op(1, 2, RegisterAction::Write(1)),
            op(3, 9, RegisterAction::Write(2)),
            op(5, 6, RegisterAction::Read(1)),
            op(7, 8, RegisterAction::Read(2)),
        ];
        assert!(is_linearizable(&overlapping, 0));
    }
}
