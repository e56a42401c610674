//! Whether a register's operations can be put in one order that explains every answer.
//!
//! The search of Wing and Gong with the memory of Lowe: an operation may come next when no other one was answered before
//! it was asked for; states that were visited are not visited again. Fine for the few clients and the hundred or so
//! operations of a run.

use std::collections::BTreeSet;

use crate::history::{RegisterAction, RegisterOp};

/// Operations per register that the search can hold.
pub(crate) const OPERATIONS_MAX: usize = 128;

/// Whether `operations` on a register that starts at `initial` are linearizable.
pub(crate) fn is_linearizable(operations: &[RegisterOp], initial: i64) -> bool {
    assert!(operations.len() <= OPERATIONS_MAX, "a bit for each operation");
    let all = match operations.len() {
        OPERATIONS_MAX => u128::MAX,
        count => (1 << count) - 1,
    };
    let mut visited = BTreeSet::new();
    let mut stack = vec![(0u128, initial)];
    while let Some((done, value)) = stack.pop() {
        if done == all {
            return true;
        }
        if !visited.insert((done, value)) {
            continue;
        }
        let left = || operations.iter().enumerate().filter(move |(at, _)| done & (1 << at) == 0);
        let earliest_answer = left().map(|(_, operation)| operation.answered).min().unwrap_or(u64::MAX);
        for (at, operation) in left().filter(|(_, operation)| operation.invoked < earliest_answer) {
            match operation.action {
                RegisterAction::Write(written) => stack.push((done | 1 << at, written)),
                RegisterAction::Read(read) if read == value => stack.push((done | 1 << at, value)),
                RegisterAction::Read(_) => {}
            }
        }
    }
    false
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
}
