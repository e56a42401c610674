//! A blocking sort with a memory limit; with a limit on the documents, it keeps only the best.
//!
//! Called by the executor when no index gives the order. Always holds: documents with equal sort keys come out in the
//! order in which they went in.

use std::collections::BinaryHeap;
use std::sync::Arc;

use base::limits::SORT_MEMORY_BYTES_MAX;
use base::{Code, Error, Result};
use document::sort::SortSpec;

use super::Located;

/// Documents being sorted.
pub(super) struct Sorter {
    spec: Arc<SortSpec>,
    keep: Option<u64>,
    /// The greatest is on top, to be dropped for a smaller one.
    best: BinaryHeap<Keyed>,
    arrived: u64,
    bytes: usize,
}

struct Keyed {
    key: Vec<u8>,
    arrived: u64,
    located: Located,
}

impl Sorter {
    pub(super) fn new(spec: Arc<SortSpec>, keep: Option<u64>) -> Sorter {
        Sorter { spec, keep, best: BinaryHeap::new(), arrived: 0, bytes: 0 }
    }

    /// Adds a document. Fails with code 292 when what has to be kept exceeds the memory limit.
    pub(super) fn push(&mut self, located: Located) -> Result<()> {
        let keyed = Keyed { key: self.spec.key(located.document.as_doc()), arrived: self.arrived, located };
        self.arrived += 1;
        if self.keep.is_some_and(|keep| self.best.len() as u64 >= keep) {
            if self.best.peek().is_none_or(|worst| *worst <= keyed) {
                return Ok(());
            }
            self.bytes -= self.best.pop().map_or(0, |worst| worst.bytes());
        }
        self.bytes += keyed.bytes();
        self.best.push(keyed);
        if self.bytes > SORT_MEMORY_BYTES_MAX {
            return Err(Error::new(
                Code::QUERY_EXCEEDED_MEMORY_LIMIT,
                format!(
                    "Executor error during find command :: caused by :: Sort exceeded memory limit of \
                     {SORT_MEMORY_BYTES_MAX} bytes, but did not opt in to external sorting."
                ),
            ));
        }
        Ok(())
    }

    /// The documents in order.
    pub(super) fn finish(&mut self) -> Vec<Located> {
        let best = std::mem::take(&mut self.best);
        best.into_sorted_vec().into_iter().map(|keyed| keyed.located).collect()
    }
}

impl Keyed {
    fn bytes(&self) -> usize {
        self.key.len() + self.located.key.len() + self.located.document.bytes().len() + size_of::<Keyed>()
    }

    fn rank(&self) -> (&[u8], u64) {
        (&self.key, self.arrived)
    }
}

impl PartialEq for Keyed {
    fn eq(&self, other: &Keyed) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Keyed {}

impl PartialOrd for Keyed {
    fn partial_cmp(&self, other: &Keyed) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Keyed {
    fn cmp(&self, other: &Keyed) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}
