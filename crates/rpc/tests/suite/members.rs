//! Joining and greeting.

use base::Code;
use router::peer::PeerFailure;
use rpc::{JoinRequest, greet, join};
use tokio::net::TcpListener;

use super::support::{LONG, Node};

fn request(cluster_name: Option<&str>) -> JoinRequest {
    JoinRequest {
        name: "new".to_owned(),
        listen: "a:1".to_owned(),
        peer: "a:2".to_owned(),
        roles: vec![],
        labels: [("zone".to_owned(), "x".to_owned())].into(),
        version: "0".to_owned(),
        cluster_name: cluster_name.map(str::to_owned),
        token: "t".to_owned(),
    }
}

#[tokio::test]
async fn a_node_is_taken_in_or_told_why_not() {
    let one = Node::start(1).await;
    let reply = join(&one.address, request(None), LONG).await.expect("taken in");
    assert_eq!((reply.node.get(), reply.cluster_id.as_str()), (7, "blue"));
    assert_eq!(reply.peers, [(one.id, "a:2".to_owned())].into());
    match join(&one.address, request(Some("other")), LONG).await {
        Err(PeerFailure::Refused { error, .. }) => assert_eq!(error.code, Code::ILLEGAL_OPERATION),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_node_that_belongs_to_no_cluster_says_who_it_is() {
    let one = Node::start(1).await;
    one.identity.send_replace(None);
    let greeting = greet(&one.address, LONG).await.expect("it answers");
    assert_eq!((greeting.name.as_str(), greeting.empty, greeting.node), ("node 1", true, None));
}

#[tokio::test]
async fn where_nobody_answers_both_fail() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    // It accepts and says nothing.
    let patience = std::time::Duration::from_millis(50);
    assert!(matches!(greet(&address, patience).await, Err(PeerFailure::Unreachable(_))));
    drop(listener);
    for address in [address.as_str(), "no address", ""] {
        let joined = join(address, request(None), LONG).await;
        assert!(matches!(joined, Err(PeerFailure::Unreachable(_))), "{joined:?}");
    }
}
