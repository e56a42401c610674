//! What runs on this node in the background, so that each piece of work goes on once at a time.
//!
//! Used by index builds and by the copying of shards. Always holds: a piece is on the list exactly while its guard lives.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// The pieces that are going on.
pub(crate) struct Running<K> {
    keys: Arc<Mutex<BTreeSet<K>>>,
}

/// Takes pieces of work off the list when they end, on whatever path.
pub(crate) struct Guard<K: Ord> {
    list: Arc<Mutex<BTreeSet<K>>>,
    keys: Vec<K>,
}

impl<K> Default for Running<K> {
    fn default() -> Running<K> {
        Running { keys: Arc::default() }
    }
}

impl<K: Ord + Clone> Running<K> {
    /// Lists the work. `None` when part of it is going on already.
    pub(crate) fn begin(&self, keys: Vec<K>) -> Option<Guard<K>> {
        let mut running = self.keys.lock();
        if keys.iter().any(|key| running.contains(key)) {
            return None;
        }
        running.extend(keys.iter().cloned());
        Some(Guard { list: Arc::clone(&self.keys), keys })
    }
}

impl<K: Ord> Drop for Guard<K> {
    fn drop(&mut self) {
        let mut running = self.list.lock();
        self.keys.iter().for_each(|key| {
            running.remove(key);
        });
    }
}
