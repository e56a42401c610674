//! A blocking sort with a memory limit; with a limit on the documents, it keeps only the best.
//!
//! Called by the executor when no index gives the order. Always holds: documents with equal sort keys come out in the order
//! of their own keys, whichever replica or plan they came from, so that a sort can go on elsewhere behind the last document
//! that one has given.

use std::collections::BinaryHeap;
use std::sync::Arc;

use base::limits::SORT_MEMORY_BYTES_MAX;
use base::{Code, Error, Result};
use document::DocBuf;
use document::sort::SortSpec;

use super::Located;
use crate::position::Rank;

/// Documents being sorted.
pub(super) struct Sorter {
    spec: Arc<SortSpec>,
    keep: Option<u64>,
    /// What sorts no later than this was given before.
    after: Option<Rank>,
    /// The greatest is on top, to be dropped for a smaller one.
    best: BinaryHeap<Sorted>,
    bytes: usize,
}

/// A document and what it is ordered by.
pub(super) struct Sorted {
    pub(super) rank: Rank,
    pub(super) document: DocBuf,
}

impl Sorter {
    pub(super) fn new(spec: Arc<SortSpec>, keep: Option<u64>, after: Option<Rank>) -> Sorter {
        Sorter { spec, keep, after, best: BinaryHeap::new(), bytes: 0 }
    }

    /// Adds a document. Fails with code 292 when what has to be kept exceeds the memory limit.
    pub(super) fn push(&mut self, located: Located) -> Result<()> {
        let sort_key = self.spec.key(located.document.as_doc()).into();
        let rank = Rank { sort_key, document_key: located.key };
        if self.after.as_ref().is_some_and(|after| rank <= *after) {
            return Ok(());
        }
        let sorted = Sorted { rank, document: located.document };
        if self.keep.is_some_and(|keep| self.best.len() as u64 >= keep) {
            if self.best.peek().is_none_or(|worst| *worst <= sorted) {
                return Ok(());
            }
            self.bytes -= self.best.pop().map_or(0, |worst| worst.bytes());
        }
        self.bytes += sorted.bytes();
        self.best.push(sorted);
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
    pub(super) fn finish(&mut self) -> Vec<Sorted> {
        std::mem::take(&mut self.best).into_sorted_vec()
    }
}

impl Sorted {
    fn bytes(&self) -> usize {
        let keys = self.rank.sort_key.len() + self.rank.document_key.len();
        keys + self.document.bytes().len() + size_of::<Sorted>()
    }
}

impl PartialEq for Sorted {
    fn eq(&self, other: &Sorted) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Sorted {}

impl PartialOrd for Sorted {
    fn partial_cmp(&self, other: &Sorted) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sorted {
    fn cmp(&self, other: &Sorted) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}
