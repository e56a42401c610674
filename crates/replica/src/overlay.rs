//! The writes that a leader has proposed and that are not applied to the store yet, in key order.
//!
//! Owned by one owner loop. Evaluation reads through [`OverlayReader`]: the store's view with the overlay on top. Always
//! holds while evaluation is on: every change after the view's applied index is in the overlay, and a change leaves it
//! only after the store has it.

use std::collections::{BTreeMap, VecDeque, btree_map};
use std::ops::Bound;

use base::LogIndex;
use bytes::Bytes;
use storage::{Direction, KeyRange, KvBatch, Scan, View};

/// Proposed and unapplied changes.
#[derive(Debug, Default)]
pub struct Overlay {
    changes: BTreeMap<Bytes, Change>,
    /// Which keys each entry changed, in log order, so that applying an entry finds what it may remove.
    entries: VecDeque<(LogIndex, Vec<Bytes>)>,
}

#[derive(Debug)]
struct Change {
    /// The last entry that changes the key.
    index: LogIndex,
    value: Option<Bytes>,
}

impl Overlay {
    /// Adds the changes that the entry at `index` will make. Indexes never go down.
    pub fn add(&mut self, index: LogIndex, batch: &KvBatch) {
        if self.entries.back().is_none_or(|(last, _)| *last != index) {
            assert!(
                self.entries.back().is_none_or(|(last, _)| *last < index),
                "entries are proposed in log order"
            );
            self.entries.push_back((index, Vec::with_capacity(batch.ops.len())));
        }
        for op in &batch.ops {
            self.changes.insert(op.key().clone(), Change { index, value: op.value().cloned() });
            if let Some((_, keys)) = self.entries.back_mut() {
                keys.push(op.key().clone());
            }
        }
    }

    /// Removes the changes that the store has, now that it applied up to `applied`. A view taken after the applied
    /// index was read contains them.
    pub fn remove_applied(&mut self, applied: LogIndex) {
        while let Some((_, keys)) = self.entries.pop_front_if(|(index, _)| *index <= applied) {
            for key in keys {
                if let btree_map::Entry::Occupied(change) = self.changes.entry(key)
                    && change.get().index <= applied
                {
                    change.remove();
                }
            }
        }
    }

    /// Forgets everything: the proposals may never commit.
    pub fn clear(&mut self) {
        self.changes.clear();
        self.entries.clear();
    }

    /// Whether everything proposed is applied.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn range(&self, range: &KeyRange) -> btree_map::Range<'_, Bytes, Change> {
        if range.is_empty() {
            return self.changes.range::<Bytes, _>((Bound::Unbounded, Bound::Excluded(&Bytes::new())));
        }
        let end = range.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        self.changes.range::<Bytes, _>((Bound::Included(&range.start), end))
    }
}

/// What a command is evaluated against: a view of the store with the overlay on top.
#[derive(Clone, Copy)]
pub struct OverlayReader<'a> {
    view: &'a dyn View,
    overlay: &'a Overlay,
}

impl<'a> OverlayReader<'a> {
    /// Reads `view` through `overlay`.
    pub fn new(view: &'a dyn View, overlay: &'a Overlay) -> OverlayReader<'a> {
        OverlayReader { view, overlay }
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> storage::Result<Option<Bytes>> {
        match self.overlay.changes.get(key) {
            Some(change) => Ok(change.value.clone()),
            None => self.view.get(key),
        }
    }

    /// The keys of `range` with their values.
    pub fn scan(
        &self,
        range: KeyRange,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = storage::Result<(Bytes, Bytes)>> + 'a> {
        let changes = self.overlay.range(&range);
        let view = self.view.scan(range, direction);
        if changes.clone().next().is_none() {
            return view;
        }
        Box::new(Merge { view, view_next: None, view_started: false, changes, change_next: None, direction })
    }
}

/// Two ordered sources merged; where both have a key, the overlay's word counts.
struct Merge<'a> {
    view: Scan,
    view_next: Option<(Bytes, Bytes)>,
    view_started: bool,
    changes: btree_map::Range<'a, Bytes, Change>,
    change_next: Option<(&'a Bytes, &'a Change)>,
    direction: Direction,
}

impl Iterator for Merge<'_> {
    type Item = storage::Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.view_started {
            self.view_started = true;
            self.change_next = self.step_changes();
            if let Err(fault) = self.step_view() {
                return Some(Err(fault));
            }
        }
        loop {
            let Some((key, change)) = self.change_next else {
                let item = self.view_next.take()?;
                return Some(self.step_view().map(|()| item));
            };
            if self.view_comes_first(key) {
                let item = self.view_next.take()?;
                return Some(self.step_view().map(|()| item));
            }
            self.change_next = self.step_changes();
            if self.view_next.as_ref().is_some_and(|(view_key, _)| view_key == key)
                && let Err(fault) = self.step_view()
            {
                return Some(Err(fault));
            }
            if let Some(value) = &change.value {
                return Some(Ok((key.clone(), value.clone())));
            }
        }
    }
}

impl<'a> Merge<'a> {
    fn view_comes_first(&self, change_key: &Bytes) -> bool {
        self.view_next.as_ref().is_some_and(|(key, _)| match self.direction {
            Direction::Forward => key < change_key,
            Direction::Reverse => key > change_key,
        })
    }

    fn step_view(&mut self) -> storage::Result<()> {
        self.view_next = self.view.next().transpose()?;
        Ok(())
    }

    fn step_changes(&mut self) -> Option<(&'a Bytes, &'a Change)> {
        match self.direction {
            Direction::Forward => self.changes.next(),
            Direction::Reverse => self.changes.next_back(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use storage::KvOp;

    use super::*;

    /// A view over a map.
    struct MapView(BTreeMap<Bytes, Bytes>);

    impl View for MapView {
        fn get(&self, key: &[u8]) -> storage::Result<Option<Bytes>> {
            Ok(self.0.get(key).cloned())
        }

        fn scan(&self, range: KeyRange, direction: Direction) -> Scan {
            let mut items: Vec<_> = self
                .0
                .iter()
                .filter(|(key, _)| range.contains(key))
                .map(|(key, value)| Ok((key.clone(), value.clone())))
                .collect();
            if direction == Direction::Reverse {
                items.reverse();
            }
            Box::new(items.into_iter())
        }

        fn applied_index(&self) -> storage::Result<LogIndex> {
            Ok(LogIndex(0))
        }
    }

    fn key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(0u8..4, 0..3).prop_map(Bytes::from)
    }

    fn batch() -> impl Strategy<Value = KvBatch> {
        let op = (key(), prop::option::of(any::<u8>())).prop_map(|(key, value)| match value {
            Some(byte) => KvOp::Put { key, value: vec![byte].into() },
            None => KvOp::Delete { key },
        });
        prop::collection::vec(op, 1..5).prop_map(|ops| KvBatch { ops })
    }

    fn apply(map: &mut BTreeMap<Bytes, Bytes>, batch: &KvBatch) {
        for op in &batch.ops {
            match op.value() {
                Some(value) => map.insert(op.key().clone(), value.clone()),
                None => map.remove(op.key()),
            };
        }
    }

    proptest! {
        /// The model is the map with everything applied; the subject has the first `applied` entries in the store (or
        /// a few more than it was told) and the rest in the overlay.
        #[test]
        fn reads_see_the_store_and_every_proposal(
            start in prop::collection::btree_map(key(), any::<u8>().prop_map(|b| Bytes::from(vec![b])), 0..10),
            batches in prop::collection::vec(batch(), 0..8),
            applied in 0usize..8,
            more_in_view in 0usize..3,
            low in key(),
            high in prop::option::of(key()),
        ) {
            let mut model = start.clone();
            let mut store = start;
            let mut overlay = Overlay::default();
            for (at, batch) in batches.iter().enumerate() {
                overlay.add(LogIndex(at as u64 + 1), batch);
                apply(&mut model, batch);
                if at < applied + more_in_view {
                    apply(&mut store, batch);
                }
            }
            overlay.remove_applied(LogIndex(applied as u64));
            let view = MapView(store);
            let reader = OverlayReader::new(&view, &overlay);
            let range = KeyRange { start: low, end: high };
            let expected: Vec<_> = model.iter().filter(|(key, _)| range.contains(key))
                .map(|(key, value)| (key.clone(), value.clone())).collect();
            let scan = |direction| reader.scan(range.clone(), direction)
                .collect::<storage::Result<Vec<_>>>().expect("a map never faults");
            prop_assert_eq!(&scan(Direction::Forward), &expected);
            let mut reversed = scan(Direction::Reverse);
            reversed.reverse();
            prop_assert_eq!(&reversed, &expected);
            for key in model.keys().chain(view.0.keys()) {
                prop_assert_eq!(reader.get(key).expect("a map never faults"), model.get(key).cloned());
            }
        }
    }
}
