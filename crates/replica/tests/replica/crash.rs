//! What crashes at every step leave of creating, dropping and compacting a replica.

use storage::memory::MemoryDisk;

use crate::support::{KvCommand, Node, NodeOptions};

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
        node.host.drop_replica(crate::support::SHARD).await.expect("dropped");
        let error = handle.write(KvCommand::Get("a".into())).await.expect_err("the replica is gone");
        assert_eq!(error.code, base::Code::STALE_CONFIG);
        let error = handle.read().await.err().expect("the replica is gone");
        assert_eq!(error.code, base::Code::STALE_CONFIG);
        let node = start(&node.crash()).await;
        assert!(node.host.replicas().is_empty());
        let (store, _) = node.kill().open().expect("intact");
        assert_eq!(storage::Store::keyspaces(&store), Ok(Vec::new()));
    });
}
