//! Whatever comes in at the port, the node goes on.

use router::peer::{PeerReply, PeerRequest, Peers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{LONG, Node};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows([(two.id, two.address.as_str())]);
    one.connected_to(two.id).await;
    let mut seed = 1u64;
    for round in 0..200usize {
        let mut bytes = if round % 2 == 0 { PREFACE.to_vec() } else { Vec::new() };
        if round % 4 == 0 {
            // Empty SETTINGS, as a client has to begin.
            bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        }
        bytes.extend((0..round * 5).map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        }));
        let mut stream = TcpStream::connect(&two.address).await.expect("it accepts");
        // It may have hung up already.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
    }
    let answer = one.network.call(two.id, PeerRequest::Status, LONG).await;
    assert!(matches!(answer, Ok(PeerReply::Status(_))), "{answer:?}");
}
