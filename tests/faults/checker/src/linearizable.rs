//! Whether the operations on one key can be put in one order that explains every answer and agrees with real time.
//!
//! The search of Wing and Gong ("Testing and verifying concurrent objects", 1993), with the memory of configurations that
//! Lowe added ("Testing for linearizability", 2017). Keys are searched one by one, since linearizability is local (Herlihy
//! and Wing, 1990; Horn and Kroening call it P-compositionality, 2015). Called by `main`. Always holds: an unknown
//! operation takes effect at any time after its start, or never.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use crate::history::{Action, Operation};
use crate::report::Anomaly;

/// What an operation does to a state.
enum Step<S> {
    /// Its answer does not fit the state, or nothing is lost when it takes effect elsewhere.
    Refused,
    /// Its answer fits and it changes nothing, so that it may as well take effect as soon as it can.
    Looks,
    /// Its answer fits, and this is the state after it.
    Changes(S),
}

/// The sequential behaviour of a key, over the indices of its operations. A state tells which unknown operations have
/// taken effect, so that a state and the acknowledged operations make a configuration.
trait Model {
    type State: Copy + Eq + Hash;
    fn initial(&self) -> Self::State;
    fn step(&self, state: Self::State, operation: usize) -> Step<Self::State>;
}

/// An append-only list; a state is how many appends have taken effect. The longest read tells which is next.
struct ListModel {
    /// For each operation: what of the list it wants to see.
    wants: Vec<Want>,
    longest: usize,
}

enum Want {
    /// An append whose value is at this place of the longest read.
    Place(usize),
    /// An append whose value was never read: everything that was read comes before it.
    End,
    /// A read of this many values of the longest read.
    Length(usize),
    /// A read that is not the beginning of the longest one, which no order explains; or an unknown append that was never
    /// read, which need not have happened.
    Nothing,
}

impl ListModel {
    fn new(operations: &[&Operation]) -> ListModel {
        let list = |operation: &&Operation| match &operation.action {
            Action::Read(list) => list.clone(),
            _ => Vec::new(),
        };
        let longest = operations.iter().map(list).max_by_key(Vec::len).unwrap_or_default();
        let mut places = HashMap::with_capacity(longest.len());
        for (place, value) in longest.iter().enumerate() {
            places.entry(*value).or_insert(place);
        }
        let want = |operation: &&Operation| match &operation.action {
            Action::Append(value) => match places.get(value) {
                Some(place) => Want::Place(*place),
                None if operation.is_acknowledged => Want::End,
                None => Want::Nothing,
            },
            Action::Read(list) if longest.starts_with(list) => Want::Length(list.len()),
            Action::Read(_) | Action::Count(_) => Want::Nothing,
        };
        ListModel { wants: operations.iter().map(want).collect(), longest: longest.len() }
    }
}

impl Model for ListModel {
    type State = usize;

    fn initial(&self) -> usize {
        0
    }

    fn step(&self, len: usize, operation: usize) -> Step<usize> {
        match self.wants.get(operation) {
            Some(Want::Place(place)) if *place == len => Step::Changes(len + 1),
            Some(Want::End) if len >= self.longest => Step::Changes(len + 1),
            Some(Want::Length(wanted)) if *wanted == len => Step::Looks,
            _ => Step::Refused,
        }
    }
}

/// A counter that starts at zero; a state is its value and how many unknown increments have taken effect. These are
/// alike, so they do so in the order of their starts, and only where no answer needs the value.
struct CounterModel {
    /// For each operation: its answer, or its rank among the unknown ones.
    increments: Vec<Result<i64, usize>>,
    answers: HashSet<i64>,
    highest: i64,
}

impl CounterModel {
    fn new(operations: &[&Operation]) -> CounterModel {
        let mut unknown = 0..;
        let mut increment = |operation: &&Operation| match operation.action {
            Action::Count(Some(answer)) => Ok(answer),
            _ => Err(unknown.next().unwrap_or_default()),
        };
        let increments: Vec<_> = operations.iter().map(&mut increment).collect();
        let answers: HashSet<i64> = increments.iter().copied().flatten().collect();
        let highest = answers.iter().copied().max().unwrap_or_default();
        CounterModel { increments, answers, highest }
    }
}

impl Model for CounterModel {
    type State = (i64, usize);

    fn initial(&self) -> (i64, usize) {
        (0, 0)
    }

    fn step(&self, (value, used): (i64, usize), operation: usize) -> Step<(i64, usize)> {
        let next = value + 1;
        match self.increments.get(operation) {
            Some(Ok(answer)) if *answer == next => Step::Changes((next, used)),
            Some(Err(rank)) if *rank == used && next < self.highest && !self.answers.contains(&next) => {
                Step::Changes((next, used + 1))
            }
            _ => Step::Refused,
        }
    }
}

/// Checks the list `key`.
pub(crate) fn check_list<'a>(key: &str, operations: &'a [Operation]) -> Option<Anomaly<'a>> {
    check(key, operations, ListModel::new)
}

/// Checks the counter `key`.
pub(crate) fn check_counter<'a>(key: &str, operations: &'a [Operation]) -> Option<Anomaly<'a>> {
    check(key, operations, CounterModel::new)
}

fn check<'a, M: Model>(
    key: &str,
    operations: &'a [Operation],
    model: impl Fn(&[&'a Operation]) -> M,
) -> Option<Anomaly<'a>> {
    let mut operations: Vec<_> = operations.iter().collect();
    operations.sort_by_key(|operation| operation.start);
    let blocked = Search::new(&model(&operations), &operations).run()?;
    let message = "not linearizable: no order of the operations explains the answers up to this one";
    Some(Anomaly::new(key, message, &operations.get(blocked).copied().into_iter().collect::<Vec<_>>()))
}

#[derive(Clone, Copy)]
enum Event {
    Start(usize),
    End(usize),
}

/// The events that are left, in the order of time, as a linked list in which removed events can be put back. The last
/// entry is the list's head.
struct Events {
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Where each operation's events are.
    start: Vec<usize>,
    end: Vec<Option<usize>>,
}

impl Events {
    fn new(operations: &[&Operation]) -> Events {
        let mut timed = Vec::with_capacity(2 * operations.len());
        for (index, operation) in operations.iter().enumerate() {
            // At equal times starts come first: the two may have overlapped.
            timed.push((operation.start, 0, index));
            timed.extend(operation.deadline().map(|end| (end, 1, index)));
        }
        timed.sort_unstable();
        let (mut start, mut end) = (vec![0; operations.len()], vec![None; operations.len()]);
        for (at, (_, is_end, index)) in timed.iter().enumerate() {
            if *is_end == 1 { end[*index] = Some(at) } else { start[*index] = at }
        }
        let events: Vec<_> = timed
            .into_iter()
            .map(|(_, is_end, index)| if is_end == 1 { Event::End(index) } else { Event::Start(index) })
            .collect();
        let len = events.len();
        let next = (0..=len).map(|at| if at == len { 0 } else { at + 1 }).collect();
        let previous = (0..=len).map(|at| if at == 0 { len } else { at - 1 }).collect();
        Events { events, next, previous, start, end }
    }

    fn first(&self) -> usize {
        self.next[self.events.len()]
    }

    fn remove(&mut self, operation: usize) {
        for at in [Some(self.start[operation]), self.end[operation]].into_iter().flatten() {
            let (previous, next) = (self.previous[at], self.next[at]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    /// Undoes `remove`, in the opposite order.
    fn put_back(&mut self, operation: usize) {
        for at in [self.end[operation], Some(self.start[operation])].into_iter().flatten() {
            let (previous, next) = (self.previous[at], self.next[at]);
            self.next[previous] = at;
            self.previous[next] = at;
        }
    }
}

/// Which acknowledged operations have taken effect. Those that start early have done so, but for a few that are open,
/// and those that start late have not: a key of the memory is the words in between, however long the history.
struct Done {
    words: Vec<u64>,
    /// All words before this one are full.
    first: usize,
    /// All words from this one on are empty.
    end: usize,
}

impl Done {
    fn set(&mut self, bit: usize, is_done: bool) {
        let (word, mask) = (bit / 64, 1 << (bit % 64));
        if is_done {
            self.words[word] |= mask;
        } else {
            self.words[word] &= !mask;
        }
        self.first = self.first.min(word);
        self.end = self.end.max(word + 1);
        while self.words.get(self.first) == Some(&u64::MAX) {
            self.first += 1;
        }
        while self.end > self.first && self.words[self.end - 1] == 0 {
            self.end -= 1;
        }
    }

    fn key(&self) -> (usize, Box<[u64]>) {
        (self.first, self.words.get(self.first..self.end).unwrap_or_default().into())
    }
}

/// A step that the search took, and what it takes to undo it.
struct Taken<S> {
    operation: usize,
    before: S,
    is_forced: bool,
}

struct Search<'a, M: Model> {
    model: &'a M,
    events: Events,
    /// Each acknowledged operation's place among these.
    bits: Vec<Option<usize>>,
    done: Done,
    state: M::State,
    taken: Vec<Taken<M::State>>,
    seen: HashSet<(usize, Box<[u64]>, M::State)>,
    /// Acknowledged operations that have not taken effect.
    left: usize,
    /// The fewest that were left when the search could not go on, and the operation that stopped it there.
    closest: Option<(usize, usize)>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, operations: &[&Operation]) -> Search<'a, M> {
        let mut acknowledged = 0..;
        let mut bit =
            |operation: &&Operation| operation.is_acknowledged.then(|| acknowledged.next()).flatten();
        let bits: Vec<Option<usize>> = operations.iter().map(&mut bit).collect();
        let left = bits.iter().flatten().count();
        Search {
            model,
            events: Events::new(operations),
            bits,
            done: Done { words: vec![0; left.div_ceil(64)], first: 0, end: 0 },
            state: model.initial(),
            taken: Vec::new(),
            seen: HashSet::new(),
            left,
            closest: None,
        }
    }

    /// Searches for an order, and returns the operation at which the best attempt failed when there is none.
    fn run(mut self) -> Option<usize> {
        let mut at = self.events.first();
        while self.left > 0 {
            let event = self.events.events[at];
            at = match event {
                Event::Start(operation) if self.take(operation) => self.events.first(),
                Event::Start(_) => self.events.next[at],
                Event::End(operation) => {
                    if self.closest.is_none_or(|(left, _)| self.left < left) {
                        self.closest = Some((self.left, operation));
                    }
                    match self.back() {
                        Some(after) => after,
                        None => return self.closest.map(|(_, operation)| operation),
                    }
                }
            };
        }
        None
    }

    /// Lets an operation take effect now, unless it cannot or that leads where the search has been.
    fn take(&mut self, operation: usize) -> bool {
        let before = self.state;
        let (state, is_forced) = match self.model.step(before, operation) {
            Step::Refused => return false,
            Step::Looks => (before, true),
            Step::Changes(state) => (state, false),
        };
        self.mark(operation, true);
        let (first, words) = self.done.key();
        if !self.seen.insert((first, words, state)) {
            self.mark(operation, false);
            return false;
        }
        self.events.remove(operation);
        self.state = state;
        self.taken.push(Taken { operation, before, is_forced });
        true
    }

    /// Undoes steps up to the last one that could have been another, and returns the event to go on with.
    fn back(&mut self) -> Option<usize> {
        loop {
            let Taken { operation, before, is_forced } = self.taken.pop()?;
            self.events.put_back(operation);
            self.mark(operation, false);
            self.state = before;
            if !is_forced {
                return Some(self.events.next[self.events.start[operation]]);
            }
        }
    }

    fn mark(&mut self, operation: usize, is_done: bool) {
        if let Some(bit) = self.bits[operation] {
            self.done.set(bit, is_done);
            self.left = if is_done { self.left - 1 } else { self.left + 1 };
        }
    }
}

#[cfg(test)]
#[path = "linearizable_tests.rs"]
mod tests;
