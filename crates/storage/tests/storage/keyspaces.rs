//! What keyspaces cost once they are gone: dropped ones leave neither tables nor journals on the disk while the store is
//! open.

use std::path::Path;

use base::LogIndex;
use storage::{FjallStore, Store, StoreOptions};

use crate::support::{keyspace, put, small_store};

/// The sizes of all files below a directory.
fn file_sizes(directory: &Path) -> Vec<u64> {
    let items = std::fs::read_dir(directory).expect("a directory of the store").flatten();
    let sizes = items.flat_map(|item| match item.path() {
        path if path.is_dir() => file_sizes(&path),
        // Files come and go while the store works.
        path => path.metadata().map(|metadata| metadata.len()).into_iter().collect(),
    });
    sizes.collect()
}

#[test]
fn a_dropped_keyspace_leaves_the_disk_although_an_idle_one_pins_old_journals() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = StoreOptions { persist_interval_ms: 10, ..small_store() };
    let store = FjallStore::open(directory.path(), options).expect("a store");
    let (idle, large) = (keyspace(1), keyspace(2));
    store.create_keyspace(idle).expect("created");
    store.create_keyspace(large).expect("created");
    store.apply(idle, &put("a", "1"), LogIndex(1)).expect("applied");
    let value = vec![b'v'; 256 << 10];
    let mut index = 0;
    while store.journal_count() < 2 {
        index += 1;
        store.apply(large, &put(format!("{index:06}"), value.clone()), LogIndex(index)).expect("applied");
    }
    let held = || file_sizes(&directory.path().join("fjall/keyspaces")).iter().sum::<u64>();
    assert!(held() > 16 << 20, "the large keyspace has tables of {} bytes", held());
    store.drop_keyspace(large).expect("dropped");
    // The rest happens on the store's own threads, without another write.
    while store.journal_count() > 1 || held() > 1 << 20 {
        std::thread::yield_now();
    }
    let view = store.view(idle).expect("a view");
    assert_eq!(view.get(b"a"), Ok(Some("1".into())));
}
