//! What crashes at every step leave of creating, dropping and compacting a replica.

use base::{Generation, LogIndex, ReplicaId};
use storage::memory::{DiskPart, MemoryDisk};
use storage::{KeyspaceName, KvBatch, Store};

use crate::support::{KvCommand, Node, NodeOptions, REPLICA, SHARD};

fn run<R>(test: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test)
}

const OPTIONS: NodeOptions = NodeOptions { manual: false, log_entries_max: 8 };

async fn start(disk: &MemoryDisk) -> Node {
    Node::start(disk, OPTIONS).await.expect("nothing is damaged")
}

#[test]
fn a_thousand_increments_survive_crashes_with_a_compacted_log() {
    run(async {
        let disk = MemoryDisk::new();
        let mut node = start(&disk).await;
        node.create().await.expect("created");
        for round in 0..20u64 {
            for step in 1..=50 {
                let answer = node.handle().write(KvCommand::Increment("n".into())).await;
                assert_eq!(answer, Ok(Some((round * 50 + step).to_string())));
                if step % 20 == 0 {
                    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
                }
            }
            let metrics = node.host.metrics();
            assert!(metrics.compactions.load(std::sync::atomic::Ordering::Relaxed) > 0);
            let disk = node.crash();
            node = start(&disk).await;
        }
        let (view, _) = node.handle().read().await.expect("readable");
        assert_eq!(view.get(b"n"), Ok(Some("1000".into())));
    });
}

#[test]
fn a_dropped_replica_stays_gone_and_its_keyspace_too() {
    run(async {
        let node = start(&MemoryDisk::new()).await;
        let handle = node.create().await.expect("created");
        handle.write(KvCommand::Set("a".into(), "1".into())).await.expect("written");
        node.host.drop_replica(SHARD).await.expect("dropped");
        let error = handle.write(KvCommand::Get("a".into())).await.expect_err("the replica is gone");
        assert_eq!(error.code, base::Code::STALE_CONFIG);
        let error = handle.read().await.err().expect("the replica is gone");
        assert_eq!(error.code, base::Code::STALE_CONFIG);
        let error = handle.size_bytes().expect_err("the replica is gone");
        assert_eq!(error.code, base::Code::STALE_CONFIG);
        assert_eq!(node.host.fault_latch().get(), None, "a keyspace that was dropped is no fault");
        let node = start(&node.crash()).await;
        assert!(node.host.replicas().is_empty());
        let (store, _) = node.kill().open().expect("intact");
        assert_eq!(store.keyspaces(), Ok(Vec::new()));
    });
}

#[test]
fn a_replica_is_dropped_only_when_it_is_the_one_that_is_meant() {
    run(async {
        let node = start(&MemoryDisk::new()).await;
        let handle = node.create().await.expect("created");
        let another = base::ReplicaId(handle.replica().get() + 1);
        node.host.drop_this_replica(SHARD, another).await.expect("there is none");
        handle.write(KvCommand::Set("a".into(), "1".into())).await.expect("the replica is still there");
        node.host.drop_this_replica(SHARD, handle.replica()).await.expect("dropped");
        assert!(node.host.replicas().is_empty());
    });
}

#[test]
fn a_drop_that_a_fault_interrupted_is_not_acknowledged_when_it_is_asked_for_again() {
    run(async {
        let disk = MemoryDisk::new();
        let node = start(&disk).await;
        node.create().await.expect("created");
        disk.fail_next_fsync(DiskPart::RaftLog);
        node.host.drop_replica(SHARD).await.expect_err("the removal is not durable");
        node.host.drop_replica(SHARD).await.expect_err("nor is it now");
        let node = start(&node.crash()).await;
        assert_eq!(node.host.replicas().len(), 1, "nobody was told that it is gone");
    });
}

#[test]
fn what_a_killed_process_wrote_without_an_fsync_is_made_durable_before_anybody_relies_on_it() {
    run(async {
        let manual = NodeOptions { manual: true, ..OPTIONS };
        let node = Node::start(&MemoryDisk::new(), manual).await.expect("nothing is damaged");
        node.create().await.expect("created");
        for _ in 0..10 {
            node.settle().await;
            node.fsync();
            node.apply();
        }
        let host = node.host.clone();
        let dropping = tokio::spawn(async move { host.drop_replica(SHARD).await });
        node.settle().await;
        node.write_without_fsync();
        dropping.abort();
        // The page cache outlives the process: the next one finds the replica removed, and says so.
        let node = start(&node.kill()).await;
        assert!(node.host.replicas().is_empty());
        node.host.drop_replica(SHARD).await.expect("there is none");
        let node = start(&node.crash()).await;
        assert!(node.host.replicas().is_empty(), "what was said holds after the power fails");
    });
}

#[test]
fn a_keyspace_that_no_replica_names_is_removed_at_start() {
    run(async {
        let node = start(&MemoryDisk::new()).await;
        node.create().await.expect("created");
        let disk = node.kill();
        let (store, _) = disk.open().expect("intact");
        let orphan = KeyspaceName { shard: SHARD, replica: ReplicaId(71), generation: Generation(1) };
        store.create_keyspace(orphan).expect("created");
        store.flush().expect("flushed");
        let disk = start(&disk).await.kill();
        let (store, _) = disk.open().expect("intact");
        assert_eq!(store.keyspaces().expect("readable").len(), 1);
    });
}

#[test]
fn a_log_that_lost_the_catalog_stops_the_node_and_keeps_the_store() {
    run(async {
        let disk = MemoryDisk::new();
        let (store, _) = disk.open().expect("intact");
        let catalog =
            KeyspaceName { shard: base::id::CATALOG_SHARD, replica: ReplicaId(1), generation: Generation(1) };
        let shard = KeyspaceName { shard: SHARD, replica: REPLICA, generation: Generation(1) };
        for name in [catalog, shard] {
            store.create_keyspace(name).expect("created");
            store.apply(name, &KvBatch::default(), LogIndex(9)).expect("applied");
        }
        store.flush().expect("flushed");
        drop(store);
        let fault = Node::start(&disk, OPTIONS).await.err().expect("the log is empty");
        assert!(fault.message.contains("the Raft log knows nothing of r1 of the catalog"), "{fault}");
        let (store, _) = disk.open().expect("intact");
        assert_eq!(store.keyspaces().expect("readable").len(), 2, "nothing was removed");
    });
}

#[test]
fn a_store_that_lost_what_the_log_was_cut_for_stops_the_node_with_a_sentence() {
    run(async {
        let node = start(&MemoryDisk::new()).await;
        node.create().await.expect("created");
        for _ in 0..20 {
            node.handle().write(KvCommand::Increment("n".into())).await.expect("written");
        }
        tokio::time::sleep(std::time::Duration::from_secs(6)).await;
        let disk = node.crash();
        let name = KeyspaceName { shard: SHARD, replica: REPLICA, generation: Generation(1) };

        let (store, _) = disk.open().expect("intact");
        store.drop_keyspace(name).expect("dropped");
        let fault = Node::start(&disk, OPTIONS).await.err().expect("the keyspace is gone");
        assert!(fault.message.contains("the store has lost its keyspace"), "{fault}");

        let (store, _) = disk.open().expect("intact");
        store.create_keyspace(name).expect("created");
        let fault = Node::start(&disk, OPTIONS).await.err().expect("its contents are gone");
        assert!(
            fault.message.contains("the store has applied up to x0 but the Raft log begins at"),
            "{fault}"
        );
        assert!(fault.message.starts_with("opening r70 of s7"), "{fault}");
    });
}
