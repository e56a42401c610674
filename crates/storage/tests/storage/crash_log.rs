//! The Raft log after power failures and failed writes: nothing acknowledged is missing, a batch is there as a whole or
//! not at all.

use std::path::Path;
use std::sync::Arc;

use base::{LogIndex, ReplicaId};
use storage::{EngineRaftLog, LogBatch, LogOptions, RaftLog, ReplicaWrites};

use crate::faulty_files::FaultyFiles;
use crate::support::{append, chooser, entry, small_log, state};

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

/// Changes one bit where `text` first stands in the newest file of a log.
fn flip_in_newest_file(directory: &Path, text: &[u8]) {
    let mut files: Vec<_> =
        std::fs::read_dir(directory).expect("the log").flatten().map(|it| it.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "raftlog"));
    files.sort();
    let path = files.last().expect("the log has a file");
    let mut bytes = std::fs::read(path).expect("readable");
    let position = bytes.windows(text.len()).position(|window| window == text).expect("the text is there");
    bytes[position] ^= 1;
    std::fs::write(path, bytes).expect("writable");
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
