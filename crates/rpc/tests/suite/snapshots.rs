//! A replica comes to life on another node: its state as a snapshot, everything after that as Raft messages.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base::id::CATALOG_SHARD;
use base::{Clock, Code, MonoTime, NodeId, ReplicaId, ShardId};
use catalog::{Command, NodeFacts};
use raft::eraftpb::Message;
use replica::snapshot::{NotInstalled, SnapshotHeader};
use replica::{
    CompactionPolicy, Host, HostOptions, MemberChange, Membership, SnapshotReceiver, ThreadSpawner,
};
use router::peer::{PeerFailure, PeerReply, PeerRequest};
use rpc::{Greeting, JoinReply, JoinRequest, Network, NetworkOptions, Presence, Service};
use storage::Fault;
use storage::memory::{MemoryDisk, MemoryLogWriter};

use super::support::{Counting, Node, eventually, identity, patient};

struct SystemClock(Instant);

impl Clock for SystemClock {
    fn monotonic(&self) -> MonoTime {
        MonoTime(self.0.elapsed())
    }

    fn wall_ms(&self) -> i64 {
        1_700_000_000_000
    }
}

/// Hands everything to the replicas of a node.
#[derive(Default)]
struct Replicas(OnceLock<Host>);

impl Replicas {
    fn host(&self) -> &Host {
        self.0.get().expect("started before anybody knows its address")
    }
}

#[async_trait]
impl Service for Replicas {
    fn receive(&self, from: NodeId, shard: ShardId, messages: Vec<Message>) {
        messages.into_iter().for_each(|message| self.host().receive(from, shard, message));
    }

    async fn handle(&self, _: NodeId, _: PeerRequest) -> Result<PeerReply, PeerFailure> {
        Err(PeerFailure::Unreachable("nothing asks here".to_owned()))
    }

    async fn begin_snapshot(
        &self,
        _: NodeId,
        header: SnapshotHeader,
    ) -> Result<SnapshotReceiver, NotInstalled> {
        self.host().begin_snapshot(header).await
    }

    async fn install_snapshot(&self, receiver: SnapshotReceiver) -> Result<Message, NotInstalled> {
        self.host().install_snapshot(receiver).await
    }

    fn operations(&self) -> u64 {
        0
    }

    fn fault(&self, fault: Fault) {
        panic!("no store fails here: {fault}");
    }

    async fn join(&self, _: JoinRequest) -> base::Result<JoinReply> {
        Err(base::Error::bad_value("nobody joins here"))
    }

    async fn greet(&self) -> Greeting {
        let name = String::new();
        Greeting { cluster_id: None, node: None, name: name.clone(), version: name, empty: false }
    }
}

async fn start(node: u32, options: NetworkOptions) -> Node<Replicas> {
    let identity = identity("blue", node, u64::from(node));
    let presence = Arc::new(Presence::default());
    let network = Network::new(identity.clone(), Arc::new(Counting::default()), presence.clone(), options);
    let (store, log) = MemoryDisk::new().open().expect("the disk opens");
    let log = Arc::new(log);
    let spawner = ThreadSpawner::new(tokio::runtime::Handle::current(), 1).expect("a thread starts");
    let options = HostOptions {
        node: identity.node,
        store: Arc::new(store),
        raft_log: log.clone(),
        log_writer: Arc::new(MemoryLogWriter::new(log)),
        clock: Arc::new(SystemClock(Instant::now())),
        entropy: Arc::new(Counting::default()),
        spawner: Arc::new(spawner),
        transport: Arc::new(network.clone()),
        trace: None,
        compaction: CompactionPolicy::default(),
    };
    let service = Arc::new(Replicas::default());
    let host = Host::start(options).await.expect("the host starts");
    assert!(service.0.set(host).is_ok());
    Node::serve(identity, "127.0.0.1:0", network, presence, service).await
}

fn put(node: u32, listen: &str) -> Command {
    let facts = NodeFacts {
        name: format!("n{node}"),
        listen: listen.to_owned(),
        peer: String::new(),
        storage: true,
        labels: Default::default(),
    };
    Command::JoinNode { token: format!("t{node}"), facts }
}

/// A leader with more in its state than fits one chunk, and a second node that both know each other's address of.
async fn leader_and_other(options: NetworkOptions) -> (Node<Replicas>, Node<Replicas>) {
    let (one, two) = (start(1, options).await, start(2, options).await);
    let sole = Membership::sole_voter(ReplicaId(1), one.id);
    let catalog = one.service.host().create_catalog(ReplicaId(1), &sole, Default::default());
    let catalog = catalog.await.expect("the catalog starts");
    for node in 0..20 {
        catalog.write(put(node, &"x".repeat(50_000))).await.expect("written");
    }
    two.knows([(one.id, one.address.as_str())]);
    (one, two)
}

async fn learn(one: &Node<Replicas>, two: &Node<Replicas>) {
    let catalog = one.service.host().catalog().expect("started");
    let learner = MemberChange::AddLearner(ReplicaId(2), two.id);
    catalog.change_membership(catalog.membership(), vec![learner]).await.expect("added");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_comes_to_life_on_another_node_and_votes_there() {
    let (one, two) = leader_and_other(patient()).await;
    one.knows([(two.id, two.address.as_str())]);
    learn(&one, &two).await;
    let (leader, learner) = (one.service.host(), two.service.host());
    eventually(|| learner.catalog().is_some()).await;
    let catalog = leader.catalog().expect("started");
    // It is refused until the leader has heard how far the new replica is.
    let promote =
        || catalog.change_membership(catalog.membership(), vec![MemberChange::Promote(ReplicaId(2))]);
    while let Err(error) = promote().await {
        assert_eq!(error.code, Code::CONFLICTING_OPERATION_IN_PROGRESS);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // From now on both have to fsync what is answered.
    catalog.write(put(50, "both")).await.expect("written");
    let applied = catalog.applied_index();
    eventually(|| learner.catalog().is_some_and(|other| other.applied_index() >= applied)).await;
    assert_eq!(learner.catalog().expect("there").membership().voters, [ReplicaId(1), ReplicaId(2)]);
    let shards: Vec<_> = learner.replicas().into_iter().map(|status| status.name.shard).collect();
    assert_eq!(shards, [CATALOG_SHARD]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_does_not_arrive_is_offered_again() {
    let slow = NetworkOptions { snapshot_bytes_per_second: 32 * 1024, ..patient() };
    let (one, two) = leader_and_other(slow).await;
    // Nobody serves there: the first attempts fail.
    one.knows([(two.id, "127.0.0.1:1")]);
    learn(&one, &two).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(two.service.host().catalog().is_none());
    one.knows([(two.id, two.address.as_str())]);
    eventually(|| two.service.host().catalog().is_some()).await;
    one.stop().await;
    two.stop().await;
}
