//! Many clients at once: on the threads that production uses, and with more bytes than may be in flight.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::{Clock, Entropy, MonoTime, NodeId};
use futures::future::join_all;
use replica::{CompactionPolicy, HostOf, HostOptions, Membership, NoPeers, ThreadSpawner};
use storage::memory::{MemoryDisk, MemoryLogWriter};

use crate::support::{Cluster, KvCommand, KvMachine, NODE, Node, NodeOptions, REPLICA, SHARD, initial};

/// A clock that stands still, and numbers that are always the same.
struct Still;

impl Clock for Still {
    fn monotonic(&self) -> MonoTime {
        MonoTime::default()
    }

    fn wall_ms(&self) -> i64 {
        1_000
    }
}

impl Entropy for Still {
    fn next_u64(&self) -> u64 {
        4
    }
}

#[test]
fn increments_of_many_threads_are_all_counted_and_every_read_sees_what_was_answered() {
    run_on_threads(async |host| {
        let membership = Membership::sole_voter(REPLICA, NODE);
        let handle = host.create_replica(SHARD, REPLICA, &membership, initial()).await.expect("created");
        let client = |number: usize| {
            let handle = handle.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    let answer = handle.write(KvCommand::Increment("n".into())).await.expect("written");
                    let answered: u64 = answer.expect("a number").parse().expect("a number");
                    // Every few writes change the published state, which must go together with the view.
                    let sealed = format!("{number}-{answered}");
                    if answered.is_multiple_of(10) {
                        handle.write(KvCommand::Set("state".into(), sealed)).await.expect("written");
                    }
                    let (view, state) = handle.read().await.expect("readable");
                    let read = view.get(b"n").expect("readable").expect("written");
                    let read: u64 = String::from_utf8_lossy(&read).parse().expect("a number");
                    assert!(read >= answered, "read {read} after {answered} was answered");
                    assert_eq!(*state, view.get(b"state").expect("readable"));
                }
            })
        };
        for finished in join_all((0..16).map(client)).await {
            finished.expect("no client panics");
        }
        let (view, _) = handle.read().await.expect("readable");
        assert_eq!(view.get(b"n"), Ok(Some("1600".into())));
        host.shutdown().await.expect("a clean end");
    });
}

#[test]
fn dropping_a_replica_under_load_is_no_fault() {
    run_on_threads(async |host| {
        for round in 0..50 {
            let membership = Membership::sole_voter(REPLICA, NODE);
            let handle = host.create_replica(SHARD, REPLICA, &membership, initial()).await.expect("created");
            let client = |_| {
                let handle = handle.clone();
                tokio::spawn(async move {
                    loop {
                        let written = handle.write(KvCommand::Increment("n".into())).await;
                        if written.is_err() || handle.read().await.is_err() {
                            return;
                        }
                    }
                })
            };
            let clients: Vec<_> = (0..4).map(client).collect();
            handle.write(KvCommand::Set("round".into(), round.to_string())).await.expect("written");
            host.drop_replica(SHARD).await.expect("dropped");
            for finished in join_all(clients).await {
                finished.expect("no client panics");
            }
            assert_eq!(host.fault_latch().get(), None);
        }
    });
}

/// Runs a test on threads, with a host on an empty disk.
fn run_on_threads(test: impl AsyncFnOnce(HostOf<KvMachine, KvMachine>)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build();
    let runtime = runtime.expect("threads");
    runtime.block_on(async {
        let (store, log) = MemoryDisk::new().open().expect("an empty disk");
        let log = Arc::new(log);
        let host = HostOf::start(HostOptions {
            node: NODE,
            store: Arc::new(store),
            raft_log: log.clone(),
            log_writer: Arc::new(MemoryLogWriter::new(log)),
            clock: Arc::new(Still),
            entropy: Arc::new(Still),
            spawner: Arc::new(ThreadSpawner::new(runtime.handle().clone(), 2).expect("threads")),
            transport: Arc::new(NoPeers),
            trace: None,
            compaction: CompactionPolicy {
                entries_max: 50,
                flush_interval_ms: 1,
                ..CompactionPolicy::default()
            },
            #[cfg(feature = "bugs")]
            bug: None,
        });
        test(host.await.expect("an empty disk")).await;
    });
}

/// What a leader proposed in vain counts no more when it leads again: it would wait for ever for that to be applied.
#[test]
fn proposals_that_were_lost_hold_nothing_up_when_the_role_comes_back() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let nodes = [NodeId(1), NodeId(2), NodeId(3)];
        let mut cluster = Cluster::new(u64::MAX);
        for node in nodes {
            cluster.start(node).await;
        }
        cluster.create(&nodes).await;
        let pass = |ms: u64| tokio::time::sleep(Duration::from_millis(ms));
        pass(900).await;
        let leading = || {
            let leads = |node: &NodeId| cluster.node(*node).host.replicas().iter().any(|here| here.is_leader);
            nodes.into_iter().find(leads).expect("one leads")
        };
        let first = leading();
        for other in nodes.into_iter().filter(|other| *other != first) {
            cluster.cut(first, other);
            cluster.cut(other, first);
        }
        for number in 0..40 {
            let handle = cluster.handle(first);
            let set = KvCommand::Set(format!("lost-{number}"), "x".to_owned());
            tokio::spawn(async move { handle.write(set).await });
            cluster.node(first).settle().await;
        }
        pass(3_000).await;
        cluster.heal();
        pass(3_000).await;
        let second = leading();
        assert_ne!(second, first);
        cluster.handle(second).transfer_to(Cluster::replica_on(first)).await;
        pass(1_000).await;
        assert_eq!(leading(), first);
        let large = "x".repeat(5 * 1024 * 1024);
        for number in 0..16 {
            let handle = cluster.handle(first);
            let written = handle.write(KvCommand::Set(format!("k{number}"), large.clone()));
            let answer = tokio::time::timeout(Duration::from_secs(60), written).await;
            answer.unwrap_or_else(|_| panic!("write {number} is never answered")).expect("written");
        }
    });
}

#[test]
fn large_commands_are_split_into_entries_and_wait_when_too_much_is_in_flight() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let options = NodeOptions { manual: true, log_entries_max: u64::MAX };
        let node = Node::start(&MemoryDisk::new(), options).await.expect("an empty disk");
        node.create().await.expect("created");
        node.settle().await;
        node.fsync();
        node.settle().await;
        node.apply();
        let large = "x".repeat(5 * 1024 * 1024);
        let write = |number: usize| {
            let (handle, value) = (node.handle(), large.clone());
            tokio::spawn(async move { handle.write(KvCommand::Set(format!("k{number}"), value)).await })
        };
        let clients: Vec<_> = (0..16).map(write).collect();
        node.settle().await;
        let metrics = node.host.metrics();
        let evaluated = metrics.commands_evaluated.load(Ordering::Relaxed);
        assert_eq!(evaluated, 13, "13 commands of 5 MiB exceed 64 MiB");
        assert_eq!(metrics.entries_proposed.load(Ordering::Relaxed), 13, "two do not fit into one entry");
        assert!(metrics.throttled.load(Ordering::Relaxed) > 0);
        node.fsync();
        node.settle().await;
        assert_eq!(metrics.commands_evaluated.load(Ordering::Relaxed), 13, "committed is not applied");
        node.apply();
        node.settle().await;
        node.fsync();
        node.settle().await;
        for finished in join_all(clients).await {
            finished.expect("no client panics").expect("written");
        }
    });
}
