//! Read views of the store on disk. Called through [`View`]; a scan holds the snapshot it reads, so that it may outlive
//! both the view and the store.

use std::ops::Bound;

use base::LogIndex;
use bytes::Bytes;
use fjall::Readable;

use super::{fault, read_applied};
use crate::store::USER_KEYS_START;
use crate::{Direction, KeyRange, KeyspaceName, Result, Scan, View};

/// One keyspace as of one moment.
pub(super) struct EngineView {
    name: KeyspaceName,
    tree: fjall::Keyspace,
    snapshot: fjall::Snapshot,
}

impl EngineView {
    pub(super) fn new(name: KeyspaceName, tree: fjall::Keyspace, snapshot: fjall::Snapshot) -> EngineView {
        EngineView { name, tree, snapshot }
    }
}

impl View for EngineView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        if key.first().is_none_or(|&byte| byte < USER_KEYS_START) {
            return Ok(None);
        }
        let found = self.snapshot.get(&self.tree, key).map_err(|error| read_fault(self.name, &error))?;
        Ok(found.map(Bytes::from))
    }

    fn scan(&self, range: KeyRange, direction: Direction) -> Scan {
        let start = range.start.max(Bytes::from_static(&[USER_KEYS_START]));
        let end = range.end.map_or(Bound::Unbounded, Bound::Excluded);
        if matches!(&end, Bound::Excluded(end) if *end <= start) {
            return Box::new(std::iter::empty());
        }
        let items = self.snapshot.range(&self.tree, (Bound::Included(start), end));
        let name = self.name;
        let read = move |item: fjall::Guard| {
            let (key, value) = item.into_inner().map_err(|error| read_fault(name, &error))?;
            Ok((Bytes::from(key), Bytes::from(value)))
        };
        match direction {
            Direction::Forward => Box::new(items.map(read)),
            Direction::Reverse => Box::new(items.rev().map(read)),
        }
    }

    fn applied_index(&self) -> Result<LogIndex> {
        read_applied(self.name, &self.snapshot, &self.tree)
    }
}

fn read_fault(name: KeyspaceName, error: &fjall::Error) -> crate::Fault {
    fault(&format!("reading keyspace {name} failed"), error)
}
