//! Where a read's documents come from: scans of documents or of index entries, one range after the other.
//!
//! Called by the executor. Always holds: what was looked at last is remembered, so that a scan can go on behind it in
//! another view; a document that several entries point to is given once.

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

/// A document and its key.
pub(super) struct Found {
    pub(super) key: Bytes,
    pub(super) document: DocBuf,
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
}

/// A range still to be scanned.
struct Leg {
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
    pub(super) fn new(access: &Access, view: Arc<dyn View>) -> Source {
        let mut legs = VecDeque::new();
        let mut repeats = false;
        match access {
            Access::Nothing => {}
            Access::Document { key, .. } => {
                let range = KeyRange { start: key.clone(), end: None };
                let kind = LegKind::Document { through_index: true };
                legs.push_back(Leg { range, direction: Direction::Forward, kind, access: None });
            }
            Access::Collection { direction } => {
                let kind = LegKind::Documents { through_index: false };
                let range = encoding::document_range();
                legs.push_back(Leg { range, direction: *direction, kind, access: None });
            }
            Access::Index(access) => {
                repeats = access.index.is_multikey();
                push_legs(access, &mut legs);
            }
            Access::Union(accesses) => {
                repeats = true;
                accesses.iter().for_each(|access| push_legs(access, &mut legs));
            }
        }
        Source { view: Some(view), legs, current: None, last: None, seen: repeats.then(HashSet::new) }
    }

    /// The next document, unless more than `stop_at` entries and documents have been looked at.
    pub(super) fn next(&mut self, counters: &mut Counters, stop_at: u64) -> Result<Next<Found>, Failure> {
        loop {
            if counters.keys_examined + counters.docs_examined >= stop_at {
                return Ok(Next::Paused);
            }
            let Some(leg) = self.legs.front() else { return Ok(Next::Done) };
            let kind = leg.kind;
            let found = match kind {
                LegKind::Document { .. } => {
                    let key = leg.range.start.clone();
                    self.legs.pop_front();
                    self.fetch(&key)?.map(|document| Found { key, document })
                }
                LegKind::Documents { .. } => match self.next_pair()? {
                    Some((key, value)) => {
                        let document = encoding::decode_document(&key, &value)?.document;
                        Some(Found { key, document })
                    }
                    None => continue,
                },
                LegKind::Entries => match self.next_pair()? {
                    Some((key, value)) => {
                        counters.keys_examined += 1;
                        match self.pointed_at(&key, &value)? {
                            Some(document_key) => Some(self.follow(&key, document_key)?),
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
            return Ok(Next::Found(found));
        }
    }

    /// Passes the next document without looking at it, for bounds that say all.
    pub(super) fn next_key(&mut self, counters: &mut Counters, stop_at: u64) -> Result<Next<()>, Failure> {
        loop {
            if counters.keys_examined + counters.docs_examined >= stop_at {
                return Ok(Next::Paused);
            }
            let Some(leg) = self.legs.front() else { return Ok(Next::Done) };
            let is_new = match leg.kind {
                LegKind::Document { .. } => {
                    let key = leg.range.start.clone();
                    self.legs.pop_front();
                    self.fetch(&key)?.is_some()
                }
                LegKind::Documents { .. } => match self.next_pair()? {
                    Some(_) => true,
                    None => continue,
                },
                LegKind::Entries => match self.next_pair()? {
                    Some((key, value)) => self.pointed_at(&key, &value)?.is_some(),
                    None => continue,
                },
            };
            counters.keys_examined += 1;
            if is_new {
                return Ok(Next::Found(()));
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
            match leg.direction {
                Direction::Forward => {
                    let mut after = last.to_vec();
                    after.push(0);
                    leg.range.start = after.into();
                }
                Direction::Reverse => leg.range.end = Some(last),
            }
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

    fn follow(&self, key: &[u8], document_key: Bytes) -> Result<Found, Failure> {
        match self.fetch(&document_key)? {
            Some(document) => Ok(Found { key: document_key, document }),
            None => Err(encoding::damaged(key, "is an index entry of a document that is not there").into()),
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

/// The ranges of an index scan in the order in which it visits them.
fn push_legs(access: &IndexAccess, legs: &mut VecDeque<Leg>) {
    let on_id = access.is_on_id();
    let shared = (!on_id).then(|| Arc::new(access.clone()));
    let leg = |range: &KeyRange| {
        let single = on_id && range.end == prefix_end(&range.start) && range.start.len() > 1;
        let kind = match (on_id, single) {
            (true, true) => LegKind::Document { through_index: true },
            (true, false) => LegKind::Documents { through_index: true },
            (false, _) => LegKind::Entries,
        };
        Leg { range: range.clone(), direction: access.direction, kind, access: shared.clone() }
    };
    match access.direction {
        Direction::Forward => legs.extend(access.ranges.iter().map(leg)),
        Direction::Reverse => legs.extend(access.ranges.iter().rev().map(leg)),
    }
}
