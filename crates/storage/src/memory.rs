//! The data directory in memory, for the simulator and for tests: one simulated disk that outlives the process on it.
//!
//! [`MemoryDisk`] holds what a disk would hold: the records of the store and of the Raft log, and how many of them
//! are synced. [`MemoryStore`] and [`MemoryRaftLog`] are what one process opened on it. A crash keeps what was synced
//! and, as a chooser given by the caller decides, some of the rest with the last record torn; fsyncs and writes fail,
//! bits flip and the disk fills up on demand.
//!
//! Always holds: nothing here reads a clock, draws a random number or starts a thread, and equal calls give equal
//! results.

mod disk;
mod raft_log;
mod store;

pub use disk::{DiskPart, MemoryDisk};
pub use raft_log::{MemoryLogWriter, MemoryRaftLog};
pub use store::MemoryStore;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base::{Generation, LogIndex, ReplicaId, ShardId, Term};
    use bytes::Bytes;

    use super::*;
    use crate::fault::FaultKind;
    use crate::{
        Direction, KeyRange, KeyspaceName, KvBatch, LogBatch, LogEntry, RaftLog, ReplicaWrites, Store,
    };

    const NAME: KeyspaceName =
        KeyspaceName { shard: ShardId(2), replica: ReplicaId(7), generation: Generation(1) };

    /// A chooser that walks through all small numbers, so that a loop over seeds meets every outcome.
    fn chooser(mut seed: u64) -> impl FnMut(u64) -> u64 {
        move |bound| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % bound
        }
    }

    fn batch(index: u64) -> KvBatch {
        let mut batch = KvBatch::default();
        batch.put(format!("k{index}"), format!("v{index}"));
        batch.put("last", index.to_string());
        batch
    }

    fn append(replica: u64, index: u64) -> LogBatch {
        let entry = LogEntry {
            index: LogIndex(index),
            term: Term(1),
            kind: 0,
            data: Bytes::from(format!("entry {index}")),
        };
        let writes = ReplicaWrites { entries: vec![entry], ..ReplicaWrites::default() };
        LogBatch { replicas: vec![(ReplicaId(replica), writes)], node: Vec::new() }
    }

    #[test]
    fn a_crash_leaves_the_state_after_some_batch_not_before_the_flushed_one() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let disk = MemoryDisk::new();
            let (store, _) = disk.open().expect("an empty disk");
            store.create_keyspace(NAME).expect("created");
            for index in 1..=10 {
                store.apply(NAME, &batch(index), LogIndex(index)).expect("applied");
                if index == 4 {
                    store.flush().expect("flushed");
                }
            }
            assert_eq!(store.durable_index(NAME), Ok(LogIndex(4)));
            disk.crash(&mut chooser(seed));
            store.applied_index(NAME).expect_err("the process is gone");

            let (store, _) = disk.open().expect("a crash is not damage");
            let applied = store.applied_index(NAME).expect("a number").get();
            assert!((4..=10).contains(&applied), "applied index {applied}");
            assert_eq!(store.durable_index(NAME), Ok(LogIndex(applied)));
            let view = store.view(NAME).expect("a view");
            assert_eq!(view.get(b"last"), Ok(Some(Bytes::from(applied.to_string()))));
            assert_eq!(view.scan(KeyRange::prefix("k"), Direction::Forward).count() as u64, applied);
            seen.insert(applied);
        }
        assert_eq!(seen.len(), 7, "every outcome occurs: {seen:?}");
    }

    #[test]
    fn a_crash_between_append_and_sync_keeps_a_prefix_of_the_log() {
        for seed in 0..100 {
            let disk = MemoryDisk::new();
            let (_, log) = disk.open().expect("an empty disk");
            log.write(append(7, 1)).expect("synced");
            for index in 2..=5 {
                log.append(&append(7, index)).expect("written");
            }
            disk.crash(&mut chooser(seed));
            let (_, log) = disk.open().expect("a torn tail is not damage");
            let (first, last) =
                log.bounds(ReplicaId(7)).expect("readable").expect("the synced entry at least");
            assert_eq!(first, LogIndex(1));
            let entries = log.entries(ReplicaId(7), first, last.next(), usize::MAX).expect("all readable");
            assert_eq!(entries.len() as u64, last.get());
            log.write(append(7, last.get() + 1)).expect("the log goes on where it ended");
        }
    }

    #[test]
    fn a_flipped_bit_is_reported_by_reads_and_by_the_next_open() {
        let disk = MemoryDisk::new();
        let (store, log) = disk.open().expect("an empty disk");
        store.create_keyspace(NAME).expect("created");
        store.apply(NAME, &batch(1), LogIndex(1)).expect("applied");
        store.flush().expect("flushed");
        log.write(append(7, 1)).expect("written");

        assert!(disk.flip_store_bit(NAME, b"k1", 3));
        let view = store.view(NAME).expect("a view");
        assert_eq!(view.get(b"k1").expect_err("damaged").kind, FaultKind::Corruption);
        assert!(view.scan(KeyRange::prefix("k"), Direction::Reverse).any(|item| item.is_err()));
        assert!(view.get(b"last").is_ok());

        assert!(disk.flip_log_bit(ReplicaId(7), LogIndex(1), 3));
        let read = log.entries(ReplicaId(7), LogIndex(1), LogIndex(2), 1);
        assert_eq!(read.expect_err("damaged").kind, FaultKind::Corruption);
        assert_eq!(disk.open().err().map(|fault| fault.kind), Some(FaultKind::Corruption));
    }

    #[test]
    fn after_a_failed_fsync_or_write_every_later_write_fails_with_the_same_fault() {
        let disk = MemoryDisk::new();
        let (store, log) = disk.open().expect("an empty disk");
        store.create_keyspace(NAME).expect("created");
        disk.fail_next_fsync(DiskPart::RaftLog);
        let fault = log.write(append(7, 1)).expect_err("the fsync fails");
        assert_eq!(log.write(append(7, 1)).expect_err("poisoned"), fault);
        disk.fail_next_write(DiskPart::Store);
        let fault = store.apply(NAME, &batch(1), LogIndex(1)).expect_err("the write fails");
        assert_eq!(store.apply(NAME, &batch(1), LogIndex(1)).expect_err("poisoned"), fault);
        assert_eq!(store.flush().expect_err("poisoned"), fault);
        let (store, _) = disk.open().expect("a restart finds a torn record at most");
        assert_eq!(store.applied_index(NAME), Ok(LogIndex(0)));
        store.apply(NAME, &batch(1), LogIndex(1)).expect("and goes on");
    }

    #[test]
    fn a_write_that_failed_half_way_is_no_damage_after_a_crash() {
        for seed in 0..20 {
            let disk = MemoryDisk::new();
            let (_, log) = disk.open().expect("an empty disk");
            log.write(append(7, 1)).expect("written");
            disk.fail_next_write(DiskPart::RaftLog);
            log.write(append(7, 2)).expect_err("the write fails");
            disk.crash(&mut chooser(seed));
            let (_, log) = disk.open().expect("a torn tail");
            assert_eq!(log.bounds(ReplicaId(7)), Ok(Some((LogIndex(1), LogIndex(1)))));
        }
    }

    #[test]
    fn a_full_disk_refuses_writes() {
        let disk = MemoryDisk::new();
        disk.set_capacity_bytes(Some(60));
        let (store, log) = disk.open().expect("an empty disk");
        store.create_keyspace(NAME).expect("there is room for this");
        assert!(disk.free_bytes() < 60);
        let writer = MemoryLogWriter::new(Arc::new(log));
        let (tell, told) = std::sync::mpsc::channel();
        let done = Box::new(move |result| tell.send(result).expect("the test listens"));
        crate::LogWriter::submit(&writer, append(7, 1), done);
        let fault = told.recv().expect("called").expect_err("the disk is full");
        assert!(fault.message.contains("no space left"), "{fault}");
    }

    #[test]
    fn rewriting_the_records_changes_nothing_that_is_read() {
        let disk = MemoryDisk::new();
        let (store, log) = disk.open().expect("an empty disk");
        store.create_keyspace(NAME).expect("created");
        let big = vec![7; 64 * 1024];
        for index in 1..=20 {
            let mut batch = KvBatch::default();
            batch.put("big", big.clone());
            store.apply(NAME, &batch, LogIndex(index)).expect("applied");
            store.flush().expect("flushed");
        }
        assert!(disk.used_bytes() < 400 * 1024, "{} bytes", disk.used_bytes());
        log.write(append(7, 1)).expect("written");
        disk.crash(&mut chooser(1));
        let (store, log) = disk.open().expect("intact");
        assert_eq!(store.applied_index(NAME), Ok(LogIndex(20)));
        assert_eq!(store.view(NAME).expect("a view").get(b"big"), Ok(Some(big.into())));
        assert_eq!(log.bounds(ReplicaId(7)), Ok(Some((LogIndex(1), LogIndex(1)))));
    }
}
