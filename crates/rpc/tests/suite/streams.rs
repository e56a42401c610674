//! Raft messages arrive, and only where they are meant to.

use base::{BootId, NodeId, ShardId};
use replica::{Haste, Transport};
use router::peer::{PeerFailure, PeerReply, PeerRequest, Peers};
use tokio::time::Instant;

use super::support::{LONG, Node, append, eventually, identity, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_in_order_both_ways() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows([(one.id, one.address.as_str()), (two.id, two.address.as_str())]);
    two.knows([(one.id, one.address.as_str())]);
    one.connected_to(two.id).await;
    two.connected_to(one.id).await;
    for index in 0..1000 {
        let haste = if index % 3 == 0 { Haste::By(Instant::now()) } else { Haste::Now };
        one.network.send(two.id, ShardId(5), vec![append(2 * index, 10), append(2 * index + 1, 5000)], haste);
        two.network.send(one.id, ShardId(6), vec![append(index, 0)], haste);
    }
    eventually(|| two.service.received.lock().len() == 2000 && one.service.received.lock().len() == 1000)
        .await;
    let expected: Vec<_> = (0..2000).map(|index| (one.id, ShardId(5), index)).collect();
    assert_eq!(two.service.received(), expected);
    let expected: Vec<_> = (0..1000).map(|index| (two.id, ShardId(6), index)).collect();
    assert_eq!(one.service.received(), expected);
    let arrived = two.service.received.lock().pop().expect("arrived").2;
    assert_eq!(arrived, append(1999, 5000));
    let health = one.network.health();
    assert_eq!(health.keys().copied().collect::<Vec<_>>(), [two.id]);
    eventually(|| one.network.health().values().all(|health| health.round_trip.is_some())).await;
    assert_eq!(health.get(&two.id).and_then(|health| health.boot), Some(BootId(2)));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused() {
    let blue = Node::start(1).await;
    let green = Node::start_as(identity("green", 2, 2), "127.0.0.1:0", patient()).await;
    green.knows([(blue.id, blue.address.as_str())]);
    refused(&green, blue.id, "belongs to cluster blue, and n2 to cluster green").await;
    assert!(blue.service.received().is_empty());
}

#[tokio::test]
async fn a_node_that_came_back_under_another_id_gets_nothing_that_was_meant_for_the_old_one() {
    let (one, three) = (Node::start(1).await, Node::start(3).await);
    one.knows([(NodeId(2), three.address.as_str())]);
    refused(&one, NodeId(2), "this is n3, and n1 meant n2").await;
    assert!(three.service.received().is_empty());
}

#[tokio::test]
async fn a_node_that_is_taken_for_itself_is_refused() {
    let one = Node::start(1).await;
    let twin = Node::start_as(identity("blue", 1, 5), "127.0.0.1:0", patient()).await;
    twin.knows([(one.id, one.address.as_str()), (NodeId(2), one.address.as_str())]);
    assert_eq!(twin.network.health().keys().copied().collect::<Vec<_>>(), [NodeId(2)]);
    refused(&twin, NodeId(2), "meant n2").await;
}

/// Nothing reaches `to`, for a reason that contains `sentence`.
async fn refused(node: &Node, to: NodeId, sentence: &str) {
    let reason = || node.network.health().get(&to).and_then(|health| health.reason.clone());
    eventually(|| reason().is_some_and(|reason| reason.contains(sentence))).await;
    node.network.send(to, ShardId(1), vec![append(1, 1)], Haste::Now);
    match node.network.call(to, PeerRequest::Status, LONG).await {
        Err(PeerFailure::Unreachable(reason)) => assert!(reason.contains(sentence), "{reason}"),
        other => panic!("{other:?}"),
    }
    let health = node.network.health();
    let health = health.get(&to).expect("it has an address");
    assert!(!health.connected && health.dropped_messages > 0, "{health:?}");
}

#[tokio::test]
async fn a_node_that_belongs_to_no_cluster_yet_is_connected_as_soon_as_it_does() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    let identity = two.identity.send_replace(None);
    one.knows([(two.id, two.address.as_str())]);
    refused(&one, two.id, "belongs to no cluster yet").await;
    two.identity.send_replace(identity);
    one.connected_to(two.id).await;
}

#[tokio::test]
async fn a_restarted_node_is_found_again_and_its_new_process_is_seen() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows([(two.id, two.address.as_str())]);
    one.connected_to(two.id).await;
    let (id, address) = (two.id, two.address.clone());
    two.stop().await;
    eventually(|| one.network.health().values().all(|health| !health.connected)).await;
    let two = Node::start_as(identity("blue", 2, 22), &address, patient()).await;
    one.connected_to(id).await;
    let boot = one.network.health().get(&id).and_then(|health| health.boot);
    assert_eq!(boot, Some(BootId(22)));
    one.network.send(id, ShardId(1), vec![append(3, 3)], Haste::Now);
    eventually(|| two.service.received() == [(one.id, ShardId(1), 3)]).await;
}

#[tokio::test]
async fn a_node_that_moved_is_found_at_its_new_address_and_one_that_left_is_forgotten() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    let moved = Node::start_as(identity("blue", 2, 22), "127.0.0.1:0", patient()).await;
    one.knows([(two.id, two.address.as_str())]);
    one.connected_to(two.id).await;
    one.knows([(two.id, moved.address.as_str())]);
    eventually(|| one.network.health().values().all(|health| health.boot == Some(BootId(22)))).await;
    let answered = one.network.call(two.id, PeerRequest::Status, LONG).await;
    assert!(matches!(answered, Ok(PeerReply::Status(_))), "{answered:?}");
    one.knows([]);
    assert!(one.network.health().is_empty());
    let failed = one.network.call(two.id, PeerRequest::Status, LONG).await;
    assert!(matches!(failed, Err(PeerFailure::Unreachable(_))), "{failed:?}");
}
