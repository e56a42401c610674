//! What tests of whole nodes share: options for a small node on free ports, and a client that speaks just enough of the protocol.

use std::path::Path;

use bson::Document;
use server::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A node on free ports of this machine, with its data in `data`.
pub(crate) fn options(data: &Path) -> Options {
    Options {
        data: Some(data.to_owned()),
        listen: Some("127.0.0.1:0".to_owned()),
        cache_bytes: Some(8 << 20),
        disk_reserve_bytes: Some(0),
        ..Options::default()
    }
}

/// Sends one command to `database` and waits for its reply.
pub(crate) async fn ask(stream: &mut TcpStream, database: &str, mut command: Document) -> Document {
    command.insert("$db", database);
    let body = bson::serialize_to_vec(&command).expect("encodes");
    let length = i32::try_from(body.len() + 21).expect("short");
    let mut message = Vec::new();
    for number in [length, 1, 0, 2013, 0] {
        message.extend_from_slice(&number.to_le_bytes());
    }
    message.push(0);
    message.extend_from_slice(&body);
    stream.write_all(&message).await.expect("sends");
    let length = stream.read_i32_le().await.expect("a reply");
    let mut reply = vec![0; usize::try_from(length).expect("a length") - 4];
    stream.read_exact(&mut reply).await.expect("the whole reply");
    bson::deserialize_from_slice(&reply[17..]).expect("valid BSON")
}
