//! The Raft log after power failures and failed writes: nothing acknowledged is missing, a batch is there as a whole or
//! not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{LogIndex, ReplicaId};
use storage::fault::FaultKind;
use storage::{EngineRaftLog, LogBatch, LogOptions, RaftLog, ReplicaWrites};

use crate::faulty_files::FaultyFiles;
use crate::support::{append, chooser, entry, small_log, state, writes};

fn open(path: &Path, files: &Arc<FaultyFiles>, options: &LogOptions) -> EngineRaftLog<FaultyFiles> {
    EngineRaftLog::open_with_file_system(path, options, files.clone()).expect("a new or intact log")
}

/// Replicas of these tests.
const REPLICAS: [u64; 3] = [5, 6, 9];

/// A batch with `count` entries from `first` on for each replica.
fn batch(first: u64, count: u64) -> LogBatch {
    let mut batch = LogBatch::default();
    for replica in REPLICAS {
        let entries = (first..first + count).map(|index| entry(index, replica)).collect();
        batch.replicas.extend(append(replica, entries).replicas);
    }
    batch
}

/// The last index, the same for all replicas, with all entries from the first one on intact.
fn check(log: &dyn RaftLog) -> u64 {
    let mut lasts = Vec::new();
    for replica in REPLICAS {
        let (first, last) = log.bounds(ReplicaId(replica)).expect("readable").expect("not empty");
        let entries = log.entries(ReplicaId(replica), first, last.next(), usize::MAX).expect("intact");
        let expected: Vec<_> = (first.get()..=last.get()).map(|index| entry(index, replica)).collect();
        assert_eq!(entries, expected);
        lasts.push(last.get());
    }
    assert!(lasts.windows(2).all(|pair| pair[0] == pair[1]), "a batch is atomic: {lasts:?}");
    lasts[0]
}

#[test]
fn a_power_failure_loses_at_most_the_batch_that_was_not_synced() {
    let mut outcomes = [0, 0];
    for seed in 0..40 {
        let mut choose = chooser(seed);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let files = Arc::new(FaultyFiles::default());
        let log = open(&directory.path().join("before"), &files, &small_log());
        for first in 1..=10 {
            log.write(batch(first, 1)).expect("synced");
        }
        files.fail_next_sync();
        log.write(batch(11, 20)).expect_err("the fsync fails");
        let image = directory.path().join("after");
        files.crash_image(&image, &mut choose);

        let log = EngineRaftLog::open(&image, &small_log()).expect("a torn tail is not damage");
        let last = check(&log);
        assert!(last == 10 || last == 30, "the last index is {last}");
        outcomes[usize::from(last == 30)] += 1;
        log.write(batch(last + 1, 3)).expect("the log goes on where it ended");
        drop(log);
        assert_eq!(check(&EngineRaftLog::open(&image, &small_log()).expect("intact")), last + 3);
    }
    assert!(outcomes[0] > 0, "some images end before the last batch");
}

#[test]
fn a_power_failure_after_files_were_recycled_loses_nothing_synced() {
    for seed in 0..4 {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let files = Arc::new(FaultyFiles::default());
        let log = open(&directory.path().join("before"), &files, &small_log());
        for round in 0..40_u64 {
            log.write(batch(round * 50 + 1, 50)).expect("synced");
            if round % 4 == 3 {
                compact(&log, round * 50);
                log.usage().expect("old files are removed");
            }
        }
        files.fail_next_sync();
        log.write(batch(2001, 50)).expect_err("the fsync fails");
        let (used, _) = log.usage().expect("a number");
        assert!(used < 2 << 20, "old files are reused: {used} bytes");

        let image = directory.path().join("after");
        files.crash_image(&image, &mut chooser(seed));
        let log = EngineRaftLog::open(&image, &small_log()).expect("a torn tail is not damage");
        let last = check(&log);
        assert!(last == 2000 || last == 2050, "the last index is {last}");
        assert_eq!(log.state(ReplicaId(5)).expect("readable"), Some(state(39 * 50, 39 * 50)));
    }
}

/// Drops the entries up to `to`.
fn compact(log: &dyn RaftLog, to: u64) {
    let mut batch = LogBatch::default();
    for replica in REPLICAS {
        let compact_to = Some(LogIndex(to));
        let writes = ReplicaWrites { state: Some(state(to, to)), compact_to, ..ReplicaWrites::default() };
        batch.replicas.push((ReplicaId(replica), writes));
    }
    log.write(batch).expect("synced");
}

#[test]
fn after_a_failed_write_or_fsync_every_later_write_fails_with_the_same_fault() {
    type Fail = fn(&FaultyFiles);
    for fail in [FaultyFiles::fail_next_sync as Fail, FaultyFiles::fail_next_write as Fail] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let files = Arc::new(FaultyFiles::default());
        let log = open(&directory.path().join("raft"), &files, &small_log());
        log.write(batch(1, 1)).expect("synced");
        fail(&files);
        let fault = log.write(batch(2, 1)).expect_err("the disk fails");
        assert!(fault.message.contains("injected"), "{fault}");
        assert_eq!(log.write(batch(2, 1)).expect_err("nothing is written any more"), fault);
        assert_eq!(log.write(LogBatch::default()).expect_err("not even nothing"), fault);
    }
}

#[test]
fn a_flipped_bit_under_an_entry_is_a_fault_for_who_reads_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("raft");
    let log = EngineRaftLog::open(&path, &small_log()).expect("a new log");
    log.write(batch(1, 1)).expect("synced");
    log.write(batch(2, 1)).expect("synced");
    flip_in_newest_file(&path, b"entry 1 of term 6");
    log.entries(ReplicaId(6), LogIndex(1), LogIndex(2), usize::MAX).expect_err("its checksum is wrong");
    log.entries(ReplicaId(6), LogIndex(2), LogIndex(3), usize::MAX).expect("the other batch is intact");
}

#[test]
fn damage_before_the_last_batch_is_never_taken_for_a_torn_tail() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("raft");
    let log = EngineRaftLog::open(&path, &small_log()).expect("a new log");
    for index in 1..=3 {
        log.write(batch(index, 1)).expect("synced");
    }
    drop(log);
    let newest = newest_file(&path);
    let intact = std::fs::read(&newest).expect("readable");
    let (start, end) = (position(&intact, b"entry 1 of term 5"), position(&intact, b"entry 3 of term 5"));
    let mut refused = 0;
    // From the first batch's entries to the third one's: headers, blocks of entries and footers.
    for offset in (start..end - 60).step_by(7) {
        let mut bytes = intact.clone();
        bytes[offset] ^= 0x20;
        std::fs::write(&newest, &bytes).expect("writable");
        match EngineRaftLog::open(&path, &small_log()) {
            Err(fault) => {
                assert_eq!(fault.kind, FaultKind::Corruption, "{fault}");
                refused += 1;
            }
            Ok(log) => {
                let bounds = log.bounds(ReplicaId(9)).expect("readable");
                assert_eq!(bounds, Some((LogIndex(1), LogIndex(3))), "nothing is dropped (byte {offset})");
                let damaged = REPLICAS.iter().any(|&replica| {
                    log.entries(ReplicaId(replica), LogIndex(1), LogIndex(4), usize::MAX).is_err()
                });
                assert!(damaged, "the flipped bit is in some entry (byte {offset})");
            }
        }
    }
    assert!(refused > 5, "headers and footers were hit: {refused} times");
}

#[test]
fn a_replica_with_fewer_entries_than_its_state_says_is_damaged_until_it_is_cleaned() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = EngineRaftLog::open(directory.path(), &small_log()).expect("a new log");
    log.write(append(1, vec![entry(1, 1)])).expect("synced");
    let untrue = ReplicaWrites { state: Some(state(2, 0)), ..ReplicaWrites::default() };
    log.write(writes(1, untrue)).expect("synced");
    log.write(writes(2, ReplicaWrites { state: Some(state(0, 0)), ..ReplicaWrites::default() }))
        .expect("synced");
    drop(log);

    let log = EngineRaftLog::open(directory.path(), &small_log()).expect("the log itself opens");
    assert_eq!(log.replicas(), Ok(vec![ReplicaId(1), ReplicaId(2)]));
    assert_eq!(log.state(ReplicaId(2)), Ok(Some(state(0, 0))));
    let fault = log.state(ReplicaId(1)).expect_err("entry 2 is committed and missing");
    assert!(fault.message.contains("the Raft log lost entries of replica r1"), "{fault}");
    assert_eq!(log.bounds(ReplicaId(1)), Err(fault));
    log.write(writes(1, ReplicaWrites { clean: true, ..ReplicaWrites::default() })).expect("synced");
    assert_eq!(log.state(ReplicaId(1)), Ok(None));
}

/// Changes one bit where `text` first stands in the newest file of a log.
fn flip_in_newest_file(directory: &Path, text: &[u8]) {
    let path = newest_file(directory);
    let mut bytes = std::fs::read(&path).expect("readable");
    let position = position(&bytes, text);
    bytes[position] ^= 1;
    std::fs::write(path, bytes).expect("writable");
}

fn newest_file(directory: &Path) -> PathBuf {
    let items = std::fs::read_dir(directory).expect("the log").flatten();
    let paths = items.map(|item| item.path());
    paths.filter(|path| path.extension().is_some_and(|it| it == "raftlog")).max().expect("the log has a file")
}

fn position(bytes: &[u8], text: &[u8]) -> usize {
    bytes.windows(text.len()).position(|window| window == text).expect("the text is there")
}

#[test]
fn two_logs_read_by_one_thread_do_not_mix() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let one = EngineRaftLog::open(&directory.path().join("one"), &small_log()).expect("a new log");
    let two = EngineRaftLog::open(&directory.path().join("two"), &small_log()).expect("a new log");
    one.write(append(1, vec![entry(1, 1)])).expect("synced");
    two.write(append(1, vec![entry(1, 2)])).expect("synced");
    for _ in 0..3 {
        let read = |log: &EngineRaftLog| {
            log.entries(ReplicaId(1), LogIndex(1), LogIndex(2), usize::MAX).expect("readable")
        };
        assert_eq!(read(&one), [entry(1, 1)]);
        assert_eq!(read(&two), [entry(1, 2)]);
    }
}
