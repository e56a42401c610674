//! Where an evaluation writes: the batch in the making, and the view of the store that includes it.
//!
//! Called by every step of an evaluation. Always holds: what a step staged is invisible and unwritten until it is
//! kept, so that a step that fails half-way leaves nothing behind.

use std::collections::BTreeMap;
use std::ops::Bound;

use base::IndexId;
use bytes::Bytes;
use storage::{Direction, KeyRange, KvBatch, KvOp, Result};

use super::{Evaluation, Reader, ShardReply};
use crate::encoding::{self, CountChange};
use crate::state::ShardState;

/// The changes of one document's write, not yet kept.
#[derive(Default)]
pub(super) struct Staged {
    ops: Vec<KvOp>,
    documents: i64,
    bytes: i64,
    arrays: Vec<ArrayMet>,
}

/// An array on the path of an index's field, where none had been before.
struct ArrayMet {
    index: IndexId,
    field: u16,
    component: u16,
}

impl Staged {
    pub(super) fn put(&mut self, key: impl Into<Bytes>, value: Bytes) {
        self.ops.push(KvOp::Put { key: key.into(), value });
    }

    pub(super) fn delete(&mut self, key: impl Into<Bytes>) {
        self.ops.push(KvOp::Delete { key: key.into() });
    }

    /// Notes that a document of this step has an array where its index had met none.
    pub(super) fn met_array(&mut self, index: IndexId, field: u16, component: u16) {
        self.arrays.push(ArrayMet { index, field, component });
    }

    /// Counts a document of `new` bytes in the place of one of `old`.
    pub(super) fn count(&mut self, old: Option<usize>, new: Option<usize>) {
        let signed = |bytes: Option<usize>| {
            bytes.map_or(0, |bytes| i64::try_from(bytes).expect("a document is shorter than 2^63 bytes"))
        };
        self.documents += i64::from(new.is_some()) - i64::from(old.is_some());
        self.bytes += signed(new) - signed(old);
    }
}

/// The batch of one evaluation over what it reads.
pub(super) struct Scratch<'r> {
    reader: &'r dyn Reader,
    batch: KvBatch,
    /// What the batch does to each key. Filled only when something is read after it.
    written: BTreeMap<Bytes, Option<Bytes>>,
    remember: bool,
    documents: i64,
    bytes: i64,
    arrays: Vec<ArrayMet>,
}

impl<'r> Scratch<'r> {
    /// `remember` says whether later steps of this evaluation read what earlier ones wrote.
    pub(super) fn new(reader: &'r dyn Reader, remember: bool) -> Scratch<'r> {
        Scratch {
            reader,
            batch: KvBatch::default(),
            written: BTreeMap::new(),
            remember,
            documents: 0,
            bytes: 0,
            arrays: Vec::new(),
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match self.written.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.reader.get(key),
        }
    }

    /// The first entry under `prefix` that `wanted` accepts.
    pub(super) fn find_entry(
        &self,
        prefix: Vec<u8>,
        wanted: &mut dyn FnMut(&[u8], &Bytes) -> Result<bool>,
    ) -> Result<Option<Bytes>> {
        let range = KeyRange::prefix(prefix);
        let end = range.end.clone().map_or(Bound::Unbounded, Bound::Excluded);
        for (key, value) in self.written.range((Bound::Included(range.start.clone()), end)) {
            let Some(value) = value else { continue };
            if wanted(key, value)? {
                return Ok(Some(key.clone()));
            }
        }
        for entry in self.reader.scan(range, Direction::Forward) {
            let (key, value) = entry?;
            if !self.written.contains_key(&key) && wanted(&key, &value)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Makes a step's changes part of the batch.
    pub(super) fn keep(&mut self, staged: Staged) {
        self.documents += staged.documents;
        self.bytes += staged.bytes;
        self.arrays.extend(staged.arrays);
        if self.remember {
            let pairs = staged.ops.iter().map(|op| (op.key().clone(), op.value().cloned()));
            self.written.extend(pairs);
        }
        if self.batch.ops.is_empty() {
            self.batch.ops = staged.ops;
        } else {
            self.batch.ops.extend(staged.ops);
        }
    }

    pub(super) fn is_unchanged(&self) -> bool {
        self.batch.is_empty()
    }

    /// Adds a record that belongs to no document.
    pub(super) fn put(&mut self, key: Vec<u8>, value: Bytes) {
        self.batch.put(key, value);
    }

    /// Sets a key that belongs to no document to a value, or removes it.
    pub(super) fn set(&mut self, key: &Bytes, value: Option<Bytes>) {
        match value {
            Some(value) => self.batch.put(key.clone(), value),
            None => self.batch.delete(key.clone()),
        }
    }

    /// The evaluation with this new state.
    pub(super) fn finish_with(mut self, old: &ShardState, new: ShardState, reply: ShardReply) -> Evaluation {
        self.arrays.clear();
        let mut evaluation = self.finish(old, reply);
        if new != *old {
            evaluation.batch.put(encoding::STATE_KEY, new.encode());
            evaluation.new_state = Some(new);
        }
        evaluation
    }

    /// The evaluation: the batch with the shard's state in it when it changed, and what is to be counted.
    pub(super) fn finish(mut self, state: &ShardState, reply: ShardReply) -> Evaluation {
        let counted = CountChange { documents: self.documents, bytes: self.bytes };
        let new_state = (!self.arrays.is_empty()).then(|| self.state_with_arrays(state));
        if let Some(state) = &new_state {
            self.batch.put(encoding::STATE_KEY, state.encode());
        }
        Evaluation { new_state, counted, ..Evaluation::new(self.batch, Ok(reply)) }
    }

    /// The shard's state with the arrays in it that were met.
    pub(super) fn state_with_arrays(&self, state: &ShardState) -> ShardState {
        let mut state = state.clone();
        for met in &self.arrays {
            let components =
                state.index_mut(met.index).and_then(|index| index.multikey.get_mut(usize::from(met.field)));
            let components = components.expect("an array is met in a field of an index of this state");
            if let Err(position) = components.binary_search(&met.component) {
                components.insert(position, met.component);
            }
        }
        state
    }
}
