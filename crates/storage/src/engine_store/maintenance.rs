//! The store's background thread: makes the journal durable once in a while, keeps the memory of unwritten changes
//! within its budget, and frees old journals that idle keyspaces pin, and with them what dropped keyspaces leave.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::{AbstractTree, PersistMode};
use parking_lot::{Condvar, Mutex};

use super::{Keyspace, Shared};
use crate::{Fault, Result};

/// The running thread.
pub(super) struct Maintenance {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// Wakes the thread before its timer does.
#[derive(Default)]
pub(super) struct Wake {
    state: Mutex<WakeState>,
    changed: Condvar,
}

#[derive(Default)]
struct WakeState {
    stop: bool,
    work: bool,
}

impl Maintenance {
    pub(super) fn start(shared: Arc<Shared>) -> Result<Maintenance> {
        let in_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || run(&in_thread))
            .map_err(|error| Fault::io(format!("starting the store's thread failed: {error}")))?;
        Ok(Maintenance { shared, thread })
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(self) {
        self.shared.wake.state.lock().stop = true;
        self.shared.wake.changed.notify_all();
        if self.thread.join().is_err() {
            tracing::error!("the store's thread panicked");
        }
    }
}

impl Wake {
    pub(super) fn wake(&self) {
        self.state.lock().work = true;
        self.changed.notify_all();
    }

    /// Waits for work or the timeout. Returns whether to stop.
    fn wait(&self, timeout: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.stop && !state.work {
            self.changed.wait_for(&mut state, timeout);
        }
        state.work = false;
        state.stop
    }
}

fn run(shared: &Shared) {
    let interval = Duration::from_millis(shared.options.persist_interval_ms);
    let mut persisted = std::time::Instant::now();
    let mut journals = 0;
    while !shared.wake.wait(interval) {
        let due = persisted.elapsed() >= interval;
        let result = (|| {
            write_largest_memtables(shared)?;
            release_dropped(shared)?;
            if due {
                persisted = std::time::Instant::now();
                journals = free_journals(shared, journals)?;
                if shared.dirty.load(Ordering::Acquire) {
                    shared.persist()?;
                } else {
                    // Learns whether the engine's own threads have failed: a writer may already wait for them in vain.
                    shared.checked(|| shared.db.persist(PersistMode::Buffer))?;
                }
            }
            Ok::<(), Fault>(())
        })();
        if let Err(fault) = result {
            // The fault is remembered: the next write answers it, and the node stops there.
            tracing::error!(%fault, "the store's background work failed");
            return;
        }
    }
}

/// Starts writing the largest memtables to tables until the others fit the budget.
fn write_largest_memtables(shared: &Shared) -> Result<()> {
    shared.unmeasured_bytes.store(0, Ordering::Relaxed);
    let mut sized: Vec<_> = keyspaces(shared).into_iter().map(|it| (memtable_bytes(&it), it)).collect();
    sized.sort_by_key(|(bytes, _)| *bytes);
    let mut total: u64 = sized.iter().map(|(bytes, _)| bytes).sum();
    while total > shared.options.memtable_bytes_max {
        let Some((bytes, keyspace)) = sized.pop() else { break };
        shared.checked(|| keyspace.tree.rotate_memtable())?;
        total -= bytes;
    }
    Ok(())
}

/// Starts writing to tables what keeps old journals from being removed: a little data of keyspaces that went idle is
/// enough for that. Returns the number of journals, and does nothing until it exceeds the number `before`.
fn free_journals(shared: &Shared, before: usize) -> Result<usize> {
    let count = shared.db.journal_count();
    if count > shared.options.journals_max && count > before {
        write_all_memtables(shared)?;
    }
    Ok(count)
}

/// Starts writing to tables what keeps the journals of dropped keyspaces. `fjall` leaves the files of a dropped keyspace
/// on the disk while an old journal names it, and looks at its journals only when it writes a table: on a full disk,
/// where nothing is written, the room would never come back. Where no keyspace has anything to write, this waits for the
/// next that has: on a node it is the catalog, which notes each drop.
fn release_dropped(shared: &Shared) -> Result<()> {
    let below = shared.release_journals_below.load(Ordering::Acquire);
    if below > 0 {
        if shared.persisting.lock().journals.oldest()? < below {
            return write_all_memtables(shared);
        }
        // Another drop may have raised the number meanwhile.
        let _ = shared.release_journals_below.compare_exchange(below, 0, Ordering::AcqRel, Ordering::Acquire);
    }
    Ok(())
}

fn write_all_memtables(shared: &Shared) -> Result<()> {
    for keyspace in keyspaces(shared) {
        if memtable_bytes(&keyspace) > 0 {
            shared.checked(|| keyspace.tree.rotate_memtable())?;
        }
    }
    Ok(())
}

fn keyspaces(shared: &Shared) -> Vec<Arc<Keyspace>> {
    shared.keyspaces.read().values().cloned().collect()
}

fn memtable_bytes(keyspace: &Keyspace) -> u64 {
    keyspace.tree.tree.active_memtable().size()
}
