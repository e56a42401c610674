//! Group commit: what waits shares an fsync, order is kept, and a failed write fails everything after it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use base::{LogIndex, ReplicaId};
use storage::{
    DiskPart, GroupCommitOptions, GroupCommitWriter, LogBatch, LogEntry, LogWriter, MemoryDisk,
    MemoryRaftLog, RaftLog, ReplicaLogState, Result,
};

use crate::support::{append, entry};

/// A Raft log that tells when a write begins and lets it go on when told.
struct Gated {
    log: MemoryRaftLog,
    begun: Mutex<Sender<usize>>,
    go_on: Mutex<Receiver<()>>,
}

impl RaftLog for Gated {
    fn replicas(&self) -> Result<Vec<ReplicaId>> {
        self.log.replicas()
    }

    fn state(&self, replica: ReplicaId) -> Result<Option<ReplicaLogState>> {
        self.log.state(replica)
    }

    fn bounds(&self, replica: ReplicaId) -> Result<Option<(LogIndex, LogIndex)>> {
        self.log.bounds(replica)
    }

    fn entries(
        &self,
        replica: ReplicaId,
        low: LogIndex,
        high: LogIndex,
        max: usize,
    ) -> Result<Vec<LogEntry>> {
        self.log.entries(replica, low, high, max)
    }

    fn node_value(&self, key: &str) -> Result<Option<bytes::Bytes>> {
        self.log.node_value(key)
    }

    fn write(&self, batch: LogBatch) -> Result<()> {
        self.begun.lock().expect("one thread").send(batch.replicas.len()).expect("the test listens");
        self.go_on.lock().expect("one thread").recv().expect("the test answers");
        self.log.write(batch)
    }

    fn usage(&self) -> Result<(u64, Vec<ReplicaId>)> {
        self.log.usage()
    }
}

struct Setup {
    disk: MemoryDisk,
    log: MemoryRaftLog,
    writer: GroupCommitWriter,
    begun: Receiver<usize>,
    go_on: Sender<()>,
    done: Receiver<(u64, Result<()>)>,
    tell: Sender<(u64, Result<()>)>,
}

impl Setup {
    fn new(options: GroupCommitOptions) -> Setup {
        let disk = MemoryDisk::new();
        let (_, log) = disk.open().expect("an empty disk");
        let (begun_sender, begun) = channel();
        let (go_on, go_on_receiver) = channel();
        let gated =
            Gated { log: log.clone(), begun: Mutex::new(begun_sender), go_on: Mutex::new(go_on_receiver) };
        let writer = GroupCommitWriter::start(Arc::new(gated), options).expect("started");
        let (tell, done) = channel();
        Setup { disk, log, writer, begun, go_on, done, tell }
    }

    /// Submits entry `index` of replica 1.
    fn submit(&self, index: u64) {
        submit(&self.writer, &self.tell, index);
    }

    fn finished(&self, count: usize) -> Vec<u64> {
        let take = |(index, result): (u64, Result<()>)| result.map(|()| index).expect("durable");
        (0..count).map(|_| take(self.done.recv().expect("called"))).collect()
    }
}

fn submit(writer: &GroupCommitWriter, tell: &Sender<(u64, Result<()>)>, index: u64) {
    let tell = tell.clone();
    let done = Box::new(move |result| tell.send((index, result)).expect("the test listens"));
    writer.submit(append(1, vec![entry(index, 1)]), done);
}

#[test]
fn what_arrives_during_an_fsync_shares_the_next_one() {
    let setup = Setup::new(GroupCommitOptions::default());
    setup.submit(1);
    assert_eq!(setup.begun.recv(), Ok(1), "an idle writer starts with the first batch");
    (2..=40).for_each(|index| setup.submit(index));
    setup.go_on.send(()).expect("the writer waits");
    assert_eq!(setup.finished(1), [1]);
    assert_eq!(setup.begun.recv(), Ok(39));
    setup.go_on.send(()).expect("the writer waits");
    assert_eq!(setup.finished(39), (2..=40).collect::<Vec<_>>(), "in the order of submission");

    assert_eq!(setup.log.bounds(ReplicaId(1)), Ok(Some((LogIndex(1), LogIndex(40)))));
    let statistics = setup.writer.statistics();
    assert_eq!((statistics.fsyncs, statistics.batches, statistics.entries), (2, 40, 40));
    assert_eq!(statistics.durations.count(), 2);
    assert_eq!(statistics.batches_per_fsync[0], 1);
    assert_eq!(statistics.batches_per_fsync[5], 1, "39 batches lie between 32 and 63");
}

#[test]
fn after_a_failed_fsync_every_later_batch_fails_with_the_same_fault() {
    let setup = Setup::new(GroupCommitOptions::default());
    setup.disk.fail_next_fsync(DiskPart::RaftLog);
    setup.submit(1);
    setup.begun.recv().expect("the write begins");
    setup.submit(2);
    setup.go_on.send(()).expect("the writer waits");
    let (_, first) = setup.done.recv().expect("called");
    let fault = first.expect_err("the fsync fails");
    setup.submit(3);
    for index in 2..=3 {
        assert_eq!(
            setup.done.recv().expect("called"),
            (index, Err(fault.clone())),
            "nothing is written any more"
        );
    }
    assert_eq!(setup.writer.statistics().fsyncs, 0);
}

#[test]
fn a_full_queue_holds_submitters_back_until_there_is_room() {
    let setup = Setup::new(GroupCommitOptions { queue_batches_max: 2, ..GroupCommitOptions::default() });
    setup.submit(1);
    setup.begun.recv().expect("the write begins");
    std::thread::scope(|scope| {
        let (writer, tell) = (&setup.writer, setup.tell.clone());
        scope.spawn(move || (2..=9).for_each(|index| submit(writer, &tell, index)));
        // As many as there could be writes at most; the writer takes what it needs.
        (0..9).for_each(|_| setup.go_on.send(()).expect("the writer listens"));
        assert_eq!(setup.finished(9), (1..=9).collect::<Vec<_>>());
    });
    assert!(setup.begun.try_iter().all(|batches| batches <= 2));
}

#[test]
fn dropping_the_writer_finishes_what_was_submitted() {
    let setup = Setup::new(GroupCommitOptions::default());
    (1..=5).for_each(|index| setup.submit(index));
    (0..5).for_each(|_| setup.go_on.send(()).expect("the writer waits"));
    drop(setup.writer);
    assert_eq!(setup.done.try_iter().count(), 5);
}
