//! Requests are answered, or fail as soon as it is known that they will not be.

use std::sync::atomic::Ordering;
use std::time::Duration;

use base::limits::{PEER_MESSAGE_BYTES_MAX, PEER_REQUEST_BYTES_MAX, PEER_REQUEST_BYTES_MIN};
use base::{BootId, Code, Error, LogIndex, Namespace, NodeId, RequestId, ShardId};
use bson::doc;
use document::DocBuf;
use futures::future::join_all;
use replica::{Haste, Transport};
use router::command::InsertCommand;
use router::peer::{Operation, PeerFailure, PeerReply, PeerRequest, Peers, RemoteOperation};
use rpc::NetworkOptions;

use super::support::{LONG, Node, Proxy, append, eventually, identity};

async fn pair() -> (Node, Node) {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows([(two.id, two.address.as_str())]);
    one.connected_to(two.id).await;
    (one, two)
}

/// An insert of as many megabytes.
fn insert(megabytes: usize) -> PeerRequest {
    let document = DocBuf::encode(&doc! { "filler": "x".repeat(1024 * 1024) }).expect("encodes");
    let insert = InsertCommand {
        namespace: Namespace::new("a", "b").expect("valid"),
        documents: vec![document; megabytes],
        ordered: true,
        statement_ids: vec![],
    };
    PeerRequest::Operation(Box::new(RemoteOperation {
        shard: ShardId(3),
        timeout_ms: 1,
        session: None,
        txn_number: None,
        identity: RequestId { boot: BootId(1), sequence: 1 },
        connection: 1,
        found: None,
        behind: None,
        operation: Operation::Insert(insert),
    }))
}

fn is_unreachable(answer: &Result<PeerReply, PeerFailure>) -> bool {
    matches!(answer, Err(PeerFailure::Unreachable(_)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_request_holds_up_nothing() {
    let (one, two) = pair().await;
    let (network, to) = (one.network.clone(), two.id);
    let slow = tokio::spawn(async move { network.call(to, PeerRequest::CatalogIndex, LONG).await });
    eventually(|| two.service.waiting.load(Ordering::Relaxed) == 1).await;
    for answer in join_all((0..500).map(|_| one.network.call(two.id, PeerRequest::Status, LONG))).await {
        let Ok(PeerReply::Status(status)) = answer else { panic!("{answer:?}") };
        assert_eq!(status, doc! { "node": 2u32, "from": 1u32, "filler": "x" });
    }
    one.network.send(two.id, ShardId(1), vec![append(1, 1)], Haste::Now);
    eventually(|| two.service.received().len() == 1).await;
    two.service.gate.send_replace(true);
    let answer = slow.await.expect("no panic");
    assert!(matches!(answer, Ok(PeerReply::Index(LogIndex(7)))), "{answer:?}");
}

#[tokio::test]
async fn refusals_arrive_as_they_were() {
    let (one, two) = pair().await;
    let error = Error::new(Code::NOT_WRITABLE_PRIMARY, "not here");
    let expected = PeerFailure::Refused { error, primary: Some(NodeId(9)) };
    // As large as a client's largest command.
    let answer = one.network.call(two.id, insert(45), LONG).await;
    assert_eq!(answer.expect_err("refused"), expected);
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_connection_stays() {
    let (one, two) = pair().await;
    let megabytes = PEER_MESSAGE_BYTES_MAX / 1024 / 1024;
    let answer = one.network.call(two.id, insert(megabytes), LONG).await;
    assert!(too_large(&answer), "{answer:?}");
    two.service.status_bytes.store(PEER_MESSAGE_BYTES_MAX, Ordering::Relaxed);
    let answer = one.network.call(two.id, PeerRequest::Status, LONG).await;
    assert!(too_large(&answer), "{answer:?}");
    two.service.status_bytes.store(16 * 1024 * 1024, Ordering::Relaxed);
    let answer = one.network.call(two.id, PeerRequest::Status, LONG).await;
    assert!(matches!(answer, Ok(PeerReply::Status(_))), "{answer:?}");
}

fn too_large(answer: &Result<PeerReply, PeerFailure>) -> bool {
    let Err(PeerFailure::Refused { error, .. }) = answer else { return false };
    error.code == Code::BSON_OBJECT_TOO_LARGE
}

#[tokio::test]
async fn a_request_that_nobody_answers_ends_with_its_timeout_or_with_its_panic() {
    let (one, two) = pair().await;
    let answer = one.network.call(two.id, PeerRequest::CatalogIndex, Duration::from_millis(1)).await;
    assert!(is_unreachable(&answer), "{answer:?}");
    let forget = catalog::Command::DropCollection { collection: base::CollectionId(1) };
    let answer = one.network.call(two.id, PeerRequest::CatalogWrite(Box::new(forget)), LONG).await;
    assert!(is_unreachable(&answer), "{answer:?}");
    let answer = one.network.call(NodeId(77), PeerRequest::Status, LONG).await;
    assert!(is_unreachable(&answer), "{answer:?}");
}

#[tokio::test]
async fn a_peer_that_goes_away_fails_the_requests_that_wait_for_it() {
    let (one, two) = pair().await;
    let to = two.id;
    let calls = (0..10).map(|_| one.network.call(to, PeerRequest::CatalogIndex, LONG));
    let stop = async {
        eventually(|| two.service.waiting.load(Ordering::Relaxed) == 10).await;
        two.stop().await;
    };
    let (answers, ()) = futures::join!(join_all(calls), stop);
    assert!(answers.iter().all(is_unreachable), "{answers:?}");
}

#[tokio::test]
async fn a_peer_that_falls_silent_fails_the_requests_that_wait_for_it() {
    let two = Node::start(2).await;
    let proxy = Proxy::start(two.address.clone()).await;
    let options = NetworkOptions::default();
    let one = Node::start_as(identity("blue", 1, 1), "127.0.0.1:0", options).await;
    let address = proxy.address.to_string();
    one.knows([(two.id, address.as_str())]);
    one.connected_to(two.id).await;
    let call = one.network.call(two.id, PeerRequest::CatalogIndex, LONG);
    let cut = async {
        eventually(|| two.service.waiting.load(Ordering::Relaxed) > 0).await;
        proxy.cut();
    };
    let (answer, ()) = futures::join!(call, cut);
    assert!(is_unreachable(&answer), "{answer:?}");
}

#[tokio::test]
async fn a_node_that_stops_fails_its_own_requests() {
    let (one, two) = pair().await;
    let call = one.network.call(two.id, PeerRequest::CatalogIndex, LONG);
    let stop = async {
        eventually(|| two.service.waiting.load(Ordering::Relaxed) == 1).await;
        one.network.stop();
    };
    let (answer, ()) = futures::join!(call, stop);
    assert!(is_unreachable(&answer), "{answer:?}");
    one.knows([(two.id, two.address.as_str())]);
    assert!(one.network.health().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_requests_run_at_a_time_and_all_are_answered() {
    let (one, two) = pair().await;
    let at_a_time = PEER_REQUEST_BYTES_MAX / PEER_REQUEST_BYTES_MIN;
    let calls = (0..2 * at_a_time + 10).map(|_| one.network.call(two.id, PeerRequest::CatalogIndex, LONG));
    let open = async {
        eventually(|| two.service.waiting.load(Ordering::Relaxed) == at_a_time).await;
        two.service.gate.send_replace(true);
    };
    let (answers, ()) = futures::join!(join_all(calls), open);
    assert!(answers.iter().all(Result::is_ok));
    assert!(two.service.waiting_max.load(Ordering::Relaxed) <= at_a_time);
}
