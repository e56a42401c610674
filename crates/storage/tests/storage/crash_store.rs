//! The store after power failures and damage: images of its directory with the unsynced tail of the journal cut, torn or
//! missing in the middle. What was flushed is there, or its loss is reported.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base::LogIndex;
use storage::fault::FaultKind;
use storage::{Direction, FjallStore, KeyRange, KvBatch, Store, StoreOptions};

use crate::support::{chooser, copy_directory, data_of, keyspace, put, small_store};

/// The batch of index `index`: says itself how far it is, and adds a key.
fn batch(index: u64) -> KvBatch {
    let mut batch = put("last", index.to_string());
    batch.put(format!("k{index:06}"), format!("value {index} ").repeat(20));
    batch
}

/// The applied index of keyspace `number`, with the contents that belong to it.
fn check(store: &FjallStore, number: u64) -> u64 {
    let view = store.view(keyspace(number)).expect("a view");
    let applied = view.applied_index().expect("readable").get();
    assert_eq!(store.applied_index(keyspace(number)), Ok(LogIndex(applied)));
    let last = view.get(b"last").expect("readable").map(|value| String::from_utf8_lossy(&value).into_owned());
    assert_eq!(last.unwrap_or("0".to_owned()), applied.to_string());
    let keys = view.scan(KeyRange::prefix("k"), Direction::Forward).map(|item| item.expect("readable"));
    assert_eq!(keys.count() as u64, applied, "no batch is missing");
    applied
}

/// A store's directory as of a moment, and where the synced part of its journal ends.
struct Image {
    directory: tempfile::TempDir,
    synced: u64,
    written: u64,
}

impl Image {
    fn path(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// The newest journal file.
    fn journal(&self) -> PathBuf {
        newest_journal(&self.path())
    }
}

/// Applies 40 batches to each of two keyspaces, flushes, applies 60 more of both in turns, and takes an image.
fn image(prepare: impl Fn(&FjallStore)) -> Image {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("store");
    let store = FjallStore::open(&path, small_store()).expect("a new store");
    let apply = |index| {
        for number in 1..=2 {
            store.apply(keyspace(number), &batch(index), LogIndex(index)).expect("applied");
        }
    };
    (1..=2).for_each(|number| store.create_keyspace(keyspace(number)).expect("created"));
    (1..=40).for_each(apply);
    prepare(&store);
    store.flush().expect("flushed");
    let synced = data_end(&newest_journal(&path));
    (41..=100).for_each(apply);
    let image = directory.path().join("image");
    copy_directory(&path, &image);
    let written = data_end(&newest_journal(&image));
    assert!(written > synced + 10_000, "most of the tail has left the program's buffer");
    Image { directory, synced, written }
}

fn newest_journal(store: &Path) -> PathBuf {
    let items = std::fs::read_dir(store.join("fjall")).expect("the tables' directory").flatten();
    let mut journals: Vec<_> =
        items.map(|item| item.path()).filter(|path| path.extension().is_some_and(|it| it == "jnl")).collect();
    journals.sort();
    journals.pop().expect("there is a journal")
}

fn data_end(path: &Path) -> u64 {
    data_of(path).iter().rposition(|&byte| byte != 0).map_or(0, |last| last as u64 + 1)
}

#[test]
fn a_journal_cut_anywhere_behind_the_last_flush_leaves_a_prefix_of_the_batches() {
    let mut seen = std::collections::BTreeSet::new();
    let original = image(|_| {});
    for seed in 0..12 {
        let mut choose = chooser(seed);
        let copy = tempfile::tempdir().expect("a temporary directory");
        copy_directory(&original.path(), copy.path());
        let journal = File::options().write(true).open(newest_journal(copy.path())).expect("the journal");
        let cut = match seed {
            0 => original.synced,
            1 => original.written,
            _ => original.synced + choose(original.written - original.synced),
        };
        let length = journal.metadata().expect("readable").len();
        journal.set_len(cut).expect("cut");
        if choose(2) == 0 {
            journal.set_len(length).expect("zeros where the tail was");
        }

        let store = FjallStore::open(copy.path(), small_store()).expect("a torn tail is not damage");
        let applied = check(&store, 1);
        assert!((40..=100).contains(&applied), "applied index {applied}");
        let other = check(&store, 2);
        assert!(applied == other || applied == other + 1, "the journal is one sequence: {applied}, {other}");
        assert_eq!(store.durable_index(keyspace(1)), Ok(LogIndex(applied)), "what was read back is durable");
        store.apply(keyspace(1), &batch(applied + 1), LogIndex(applied + 1)).expect("goes on");
        seen.insert(applied);
        drop(store);
        let store = FjallStore::open(copy.path(), small_store()).expect("closed in order");
        assert_eq!(check(&store, 1), applied + 1);
    }
    assert!(seen.len() > 3, "cuts differ: {seen:?}");
}

#[test]
fn a_hole_in_the_unsynced_tail_is_not_damage() {
    // Pages of the tail may reach the disk in any order: the end can be there where the middle is not.
    let original = image(|_| {});
    for seed in 0..8 {
        let mut choose = chooser(seed);
        let copy = tempfile::tempdir().expect("a temporary directory");
        copy_directory(&original.path(), copy.path());
        let journal = File::options().write(true).open(newest_journal(copy.path())).expect("the journal");
        let start = original.synced + choose(original.written - original.synced - 600);
        journal.write_all_at(&[0; 512], start).expect("writable");
        let store = FjallStore::open(copy.path(), small_store()).expect("nothing synced is damaged");
        assert!((40..=100).contains(&check(&store, 1)));
        assert!((40..=100).contains(&check(&store, 2)));
    }
}

#[test]
fn damage_in_the_synced_part_of_the_journal_is_reported() {
    let original = image(|_| {});
    for seed in 0..10 {
        let mut choose = chooser(seed);
        let copy = tempfile::tempdir().expect("a temporary directory");
        copy_directory(&original.path(), copy.path());
        let path = newest_journal(copy.path());
        let journal = File::options().read(true).write(true).open(&path).expect("the journal");
        let position = choose(original.synced);
        let mut byte = [0];
        journal.read_exact_at(&mut byte, position).expect("readable");
        journal.write_all_at(&[byte[0] ^ 0x10], position).expect("writable");
        match FjallStore::open(copy.path(), small_store()) {
            Err(fault) => assert_eq!(fault.kind, FaultKind::Corruption, "{fault}"),
            Ok(store) => {
                let fault = store.view(keyspace(1)).err().or_else(|| store.view(keyspace(2)).err());
                let fault = fault.expect("one of the keyspaces lost something that was flushed");
                assert!(fault.message.contains("the store lost data of keyspace"), "{fault}");
            }
        }
    }
}

#[test]
fn a_damaged_keyspace_can_be_dropped_and_made_again() {
    let original = image(|_| {});
    let journal = File::options().write(true).open(original.journal()).expect("the journal");
    journal.set_len(original.synced / 2).expect("cut");
    let store = FjallStore::open(&original.path(), small_store()).expect("the store itself opens");
    for number in 1..=2 {
        let fault = store.applied_index(keyspace(number)).expect_err("it lost flushed data");
        assert_eq!(store.apply(keyspace(number), &batch(41), LogIndex(41)).expect_err("unusable"), fault);
        store.drop_keyspace(keyspace(number)).expect("dropped");
        store.create_keyspace(keyspace(number)).expect("made again");
        assert_eq!(check(&store, number), 0);
    }
    drop(store);
    let store = FjallStore::open(&original.path(), small_store()).expect("nothing is missing now");
    assert_eq!((check(&store, 1), check(&store, 2)), (0, 0));
}

#[test]
fn what_went_to_tables_needs_no_journal() {
    let original = image(|store| store.write_tables(keyspace(1)).expect("written"));
    let journal = File::options().write(true).open(original.journal()).expect("the journal");
    journal.set_len(original.synced / 2).expect("cut");
    let store = FjallStore::open(&original.path(), small_store()).expect("the store itself opens");
    assert_eq!(check(&store, 1), 40);
    store.applied_index(keyspace(2)).expect_err("this one was only in the journal");
}

#[test]
fn a_flipped_bit_in_a_table_is_reported_by_who_reads_it() {
    let original = image(|store| {
        for number in 1..=2 {
            store.write_tables(keyspace(number)).expect("written");
        }
    });
    let folder = original.path().join("fjall").join("keyspaces").join("1").join("tables");
    let table = std::fs::read_dir(folder).expect("tables").flatten().next().expect("one table").path();
    let mut bytes = std::fs::read(&table).expect("readable");
    let text = b"value 7 value 7";
    let position =
        bytes.windows(text.len()).position(|window| window == text).expect("values are not compressed here");
    bytes[position] ^= 1;
    std::fs::write(&table, bytes).expect("writable");

    let fault = match FjallStore::open(&original.path(), small_store()) {
        Err(fault) => fault,
        Ok(store) => {
            let view = store.view(keyspace(1)).expect("a view");
            let mut items = view.scan(KeyRange::prefix("k"), Direction::Forward);
            items.find_map(|item| item.err()).expect("the scan meets the damage")
        }
    };
    assert_eq!(fault.kind, FaultKind::Corruption, "{fault}");
}

#[test]
fn when_tables_cannot_be_written_every_later_write_fails_with_the_same_fault() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = FjallStore::open(directory.path(), small_store()).expect("a new store");
    store.create_keyspace(keyspace(1)).expect("created");
    let tables = directory.path().join("fjall").join("keyspaces").join("1").join("tables");
    std::fs::remove_dir_all(tables).expect("the tables' directory");
    // The engine's threads write tables in the background: the failure shows at some later write.
    let value = vec![7; 64 << 10];
    let fault = (1..100_000)
        .find_map(|index| {
            std::thread::yield_now();
            store.apply(keyspace(1), &put("k", value.clone()), LogIndex(index)).err()
        })
        .expect("the failure is noticed");
    assert_eq!(fault.kind, FaultKind::Io, "{fault}");
    assert_eq!(store.flush().expect_err("nothing is written any more"), fault);
    assert_eq!(store.create_keyspace(keyspace(2)).expect_err("nothing is written any more"), fault);
}

#[test]
fn a_keyspace_that_went_idle_does_not_keep_old_journals() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = StoreOptions { journals_max: 1, persist_interval_ms: 10, ..small_store() };
    let store = FjallStore::open(directory.path(), options).expect("a new store");
    (1..=2).for_each(|number| store.create_keyspace(keyspace(number)).expect("created"));
    store.apply(keyspace(1), &put("idle", "1"), LogIndex(1)).expect("applied");
    let value = vec![7; 256 << 10];
    // A journal ends at 64 MB: this fills more than one.
    for index in 1..=300 {
        store.apply(keyspace(2), &put("busy", value.clone()), LogIndex(index)).expect("applied");
    }
    // The engine ends the first journal and the store frees it, both in the background.
    while directory.path().join("fjall").join("0.jnl").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let view = store.view(keyspace(1)).expect("a view");
    assert_eq!(view.get(b"idle"), Ok(Some("1".into())));
    assert_eq!(store.applied_index(keyspace(2)), Ok(LogIndex(300)));
}
