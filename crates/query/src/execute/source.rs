//! Where a read's documents come from: scans of documents or of index entries, one range after the other.
//!
//! Called by the executor. Always holds: what was looked at last is remembered, so that a scan can go on behind it in
//! another view; a document that several entries point to is given once, under the first of them, also when the scan
//! goes on behind a mark that another one has left.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use document::DocBuf;
use storage::kv::prefix_end;
use storage::{Direction, KeyRange, Scan, View};

use super::Counters;
use crate::Failure;
use crate::encoding;
use crate::plan::{Access, IndexAccess};
use crate::position::Mark;

/// A document, its key, and where the scan met it.
pub(super) struct Found {
    pub(super) key: Bytes,
    pub(super) document: DocBuf,
    pub(super) mark: Mark,
}

/// What a source has next.
pub(super) enum Next<T> {
    Found(T),
    /// As much looked at as allowed.
    Paused,
    Done,
}

/// A running scan of everything that an access names.
pub(super) struct Source {
    view: Option<Arc<dyn View>>,
    legs: VecDeque<Leg>,
    current: Option<Scan>,
    /// The last key that the current scan gave.
    last: Option<Bytes>,
    /// Keys of documents given so far, where one could come again.
    seen: Option<HashSet<Bytes>>,
    /// What was given before the source began, where a document of it could come again.
    earlier: Option<Earlier>,
}

/// An earlier scan of the same access, up to a mark.
struct Earlier {
    /// For each branch up to the one of the mark.
    accesses: Vec<IndexAccess>,
    mark: Mark,
}

/// A range still to be scanned.
struct Leg {
    /// Which branch of a union it belongs to; else zero.
    branch: u16,
    range: KeyRange,
    direction: Direction,
    kind: LegKind,
    /// What entries of the range are held against.
    access: Option<Arc<IndexAccess>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LegKind {
    /// One document, by its key.
    Document { through_index: bool },
    /// Documents; through the index on `_id`, each counts as an entry too.
    Documents { through_index: bool },
    /// Index entries.
    Entries,
}

impl Source {
    /// A scan of all that `access` names; what lies behind `after`, when that is given.
    pub(super) fn new(access: &Access, view: Arc<dyn View>, after: Option<&Mark>) -> Source {
        let mut legs = legs_of(access);
        if let Some(mark) = after {
            legs = legs.into_iter().filter_map(|leg| leg.behind(mark)).collect();
        }
        let accesses = match access {
            Access::Index(access) if access.repeats => std::slice::from_ref(&**access),
            Access::Union { accesses, .. } => accesses,
            _ => &[],
        };
        let repeats = !accesses.is_empty();
        let earlier = after.filter(|_| repeats).map(|mark| Earlier {
            accesses: accesses.iter().take(usize::from(mark.branch) + 1).cloned().collect(),
            mark: mark.clone(),
        });
        let seen = repeats.then(HashSet::new);
        Source { view: Some(view), legs, current: None, last: None, seen, earlier }
    }

    /// Whether entries alone say which documents are still to come.
    pub(super) fn knows_by_entries(&self) -> bool {
        self.earlier.is_none()
    }

    /// The next document, unless more than `stop_at` entries and documents have been looked at.
    pub(super) fn next(&mut self, counters: &mut Counters, stop_at: u64) -> Result<Next<Found>, Failure> {
        loop {
            if counters.keys_examined + counters.docs_examined >= stop_at {
                return Ok(Next::Paused);
            }
            let Some(leg) = self.legs.front() else { return Ok(Next::Done) };
            let (kind, branch) = (leg.kind, leg.branch);
            let at = |key: &Bytes| Mark { branch, key: key.clone() };
            let found = match kind {
                LegKind::Document { .. } => {
                    let key = leg.range.start.clone();
                    self.legs.pop_front();
                    self.fetch(&key)?.map(|document| Found { mark: at(&key), key, document })
                }
                LegKind::Documents { .. } => match self.next_pair()? {
                    Some((key, value)) => {
                        let document = encoding::decode_document(&key, &value)?.document;
                        Some(Found { mark: at(&key), key, document })
                    }
                    None => continue,
                },
                LegKind::Entries => match self.next_pair()? {
                    Some((key, value)) => {
                        counters.keys_examined += 1;
                        match self.pointed_at(&key, &value)? {
                            Some(document_key) => Some(self.follow(at(&key), document_key)?),
                            None => None,
                        }
                    }
                    None => continue,
                },
            };
            let Some(found) = found.filter(|found| kind == LegKind::Entries || self.is_new(&found.key))
            else {
                continue;
            };
            let through_index = LegKind::Documents { through_index: true };
            if kind == through_index || kind == (LegKind::Document { through_index: true }) {
                counters.keys_examined += 1;
            }
            counters.docs_examined += 1;
            if !self.earlier.as_ref().is_some_and(|earlier| earlier.gave(&found)) {
                return Ok(Next::Found(found));
            }
        }
    }

    /// Passes the next document without looking at it, for bounds that say all.
    pub(super) fn next_key(&mut self, counters: &mut Counters, stop_at: u64) -> Result<Next<Mark>, Failure> {
        loop {
            if counters.keys_examined + counters.docs_examined >= stop_at {
                return Ok(Next::Paused);
            }
            let Some(leg) = self.legs.front() else { return Ok(Next::Done) };
            let branch = leg.branch;
            let (key, is_new) = match leg.kind {
                LegKind::Document { .. } => {
                    let key = leg.range.start.clone();
                    self.legs.pop_front();
                    let is_there = self.fetch(&key)?.is_some();
                    (key, is_there)
                }
                LegKind::Documents { .. } => match self.next_pair()? {
                    Some((key, _)) => (key, true),
                    None => continue,
                },
                LegKind::Entries => match self.next_pair()? {
                    Some((key, value)) => {
                        let is_new = self.pointed_at(&key, &value)?.is_some();
                        (key, is_new)
                    }
                    None => continue,
                },
            };
            counters.keys_examined += 1;
            if is_new {
                return Ok(Next::Found(Mark { branch, key }));
            }
        }
    }

    pub(super) fn release_view(&mut self) {
        self.view = None;
        self.current = None;
    }

    pub(super) fn has_view(&self) -> bool {
        self.view.is_some()
    }

    /// Goes on behind the last key in another view.
    pub(super) fn resume(&mut self, view: Arc<dyn View>) {
        self.view = Some(view);
        self.current = None;
        if let (Some(last), Some(leg)) = (self.last.take(), self.legs.front_mut()) {
            leg.go_behind(last);
        }
    }

    /// The next pair of the first leg; `None` when the leg has ended.
    fn next_pair(&mut self) -> Result<Option<(Bytes, Bytes)>, Failure> {
        let view = self.view.as_ref().expect("a read that goes on has a view");
        let Some(leg) = self.legs.front() else { return Ok(None) };
        let scan = self.current.get_or_insert_with(|| view.scan(leg.range.clone(), leg.direction));
        match scan.next() {
            Some(pair) => {
                let pair = pair?;
                self.last = Some(pair.0.clone());
                Ok(Some(pair))
            }
            None => {
                self.current = None;
                self.last = None;
                self.legs.pop_front();
                Ok(None)
            }
        }
    }

    /// The key of the document that an entry points to; `None` when the entry lies outside the bounds or the document
    /// was given before.
    fn pointed_at(&mut self, key: &[u8], value: &[u8]) -> Result<Option<Bytes>, Failure> {
        let entry = encoding::decode_index_entry(key, value)?;
        let access = self.legs.front().and_then(|leg| leg.access.as_ref());
        if access.is_some_and(|access| !access.accepts(entry.fields)) {
            return Ok(None);
        }
        let document_key = Bytes::from(entry.document_key());
        Ok(self.is_new(&document_key).then_some(document_key))
    }

    fn follow(&self, mark: Mark, document_key: Bytes) -> Result<Found, Failure> {
        match self.fetch(&document_key)? {
            Some(document) => Ok(Found { key: document_key, document, mark }),
            None => {
                Err(encoding::damaged(&mark.key, "is an index entry of a document that is not there").into())
            }
        }
    }

    /// Remembers the document, where it could come again, and says whether it did not come before.
    fn is_new(&mut self, document_key: &Bytes) -> bool {
        self.seen.as_mut().is_none_or(|seen| seen.insert(document_key.clone()))
    }

    fn fetch(&self, key: &Bytes) -> Result<Option<DocBuf>, Failure> {
        let view = self.view.as_ref().expect("a read that goes on has a view");
        let Some(value) = view.get(key)? else { return Ok(None) };
        Ok(Some(encoding::decode_document(key, &value)?.document))
    }
}

impl Earlier {
    /// Whether the earlier scan met the document. One that did not change since has the same entries as it had then.
    fn gave(&self, found: &Found) -> bool {
        (0_u16..).zip(&self.accesses).any(|(branch, access)| {
            let until = (branch == self.mark.branch).then_some(&self.mark.key[..]);
            access.visits(&found.key, found.document.as_doc(), until)
        })
    }
}

impl Leg {
    /// What of the leg a scan that has come to `mark` has not visited.
    fn behind(mut self, mark: &Mark) -> Option<Leg> {
        if self.branch != mark.branch {
            return (self.branch > mark.branch).then_some(self);
        }
        if matches!(self.kind, LegKind::Document { .. }) {
            let is_behind = match self.direction {
                Direction::Forward => self.range.start > mark.key,
                Direction::Reverse => self.range.start < mark.key,
            };
            return is_behind.then_some(self);
        }
        self.go_behind(mark.key.clone());
        (!self.range.is_empty()).then_some(self)
    }

    /// Leaves out `last` and what the leg visits before it.
    fn go_behind(&mut self, last: Bytes) {
        match self.direction {
            Direction::Forward if last >= self.range.start => {
                let mut after = last.to_vec();
                after.push(0);
                self.range.start = after.into();
            }
            Direction::Reverse if self.range.end.as_ref().is_none_or(|end| last < *end) => {
                self.range.end = Some(last);
            }
            _ => {}
        }
    }
}

/// What an access visits, in that order.
fn legs_of(access: &Access) -> VecDeque<Leg> {
    let mut legs = VecDeque::new();
    match access {
        Access::Nothing => {}
        Access::Document { key, .. } => {
            let range = KeyRange { start: key.clone(), end: None };
            let kind = LegKind::Document { through_index: true };
            legs.push_back(Leg { branch: 0, range, direction: Direction::Forward, kind, access: None });
        }
        Access::Collection { direction } => {
            let kind = LegKind::Documents { through_index: false };
            let range = encoding::document_range();
            legs.push_back(Leg { branch: 0, range, direction: *direction, kind, access: None });
        }
        Access::Index(access) => push_legs(0, access, &mut legs),
        Access::Union { accesses, .. } => {
            (0..).zip(accesses).for_each(|(branch, access)| push_legs(branch, access, &mut legs));
        }
    }
    legs
}

/// The ranges of an index scan in the order in which it visits them.
fn push_legs(branch: u16, access: &IndexAccess, legs: &mut VecDeque<Leg>) {
    let on_id = access.is_on_id();
    let shared = (!on_id).then(|| Arc::new(access.clone()));
    let leg = |range: &KeyRange| {
        let single = on_id && range.end == prefix_end(&range.start) && range.start.len() > 1;
        let kind = match (on_id, single) {
            (true, true) => LegKind::Document { through_index: true },
            (true, false) => LegKind::Documents { through_index: true },
            (false, _) => LegKind::Entries,
        };
        Leg { branch, range: range.clone(), direction: access.direction, kind, access: shared.clone() }
    };
    match access.direction {
        Direction::Forward => legs.extend(access.ranges.iter().map(leg)),
        Direction::Reverse => legs.extend(access.ranges.iter().rev().map(leg)),
    }
}
