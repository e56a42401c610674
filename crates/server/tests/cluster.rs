//! Several whole nodes in this process: one becomes three under a client, and what was acknowledged outlives each of them.

use std::path::Path;
use std::time::Duration;

use bson::{Bson, Document, doc};
use server::{Options, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long anything may take that the tests wait for; far more than it does.
const PATIENCE: Duration = Duration::from_secs(60);

fn options(data: &Path) -> Options {
    Options {
        data: Some(data.to_owned()),
        listen: Some("127.0.0.1:0".to_owned()),
        cache_bytes: Some(8 << 20),
        disk_reserve_bytes: Some(0),
        ..Options::default()
    }
}

async fn start(options: &Options) -> Server {
    let started = Server::start(options.resolve().expect("valid options"));
    tokio::time::timeout(PATIENCE, started).await.expect("in time").expect("starts")
}

/// A node that joins the cluster of another, at addresses that it keeps.
async fn join(data: &Path, other: &Server) -> (Options, Server) {
    let options = Options { join: vec![other.peer_address().to_string()], ..options(data) };
    let server = start(&options).await;
    let kept = Options {
        listen: Some(server.address().to_string()),
        peer_listen: Some(server.peer_address().to_string()),
        ..options
    };
    (kept, server)
}

struct Client(TcpStream);

impl Client {
    async fn of(server: &Server) -> Client {
        Client(TcpStream::connect(server.address()).await.expect("connects"))
    }

    /// Sends one command to `database` and waits for its reply.
    async fn ask(&mut self, database: &str, mut command: Document) -> Document {
        command.insert("$db", database);
        let body = bson::serialize_to_vec(&command).expect("encodes");
        let length = i32::try_from(body.len() + 21).expect("short");
        let mut message = Vec::new();
        for number in [length, 1, 0, 2013, 0] {
            message.extend_from_slice(&number.to_le_bytes());
        }
        message.push(0);
        message.extend_from_slice(&body);
        self.0.write_all(&message).await.expect("sends");
        let length = self.0.read_i32_le().await.expect("a reply");
        let mut reply = vec![0; usize::try_from(length).expect("a length") - 4];
        self.0.read_exact(&mut reply).await.expect("the whole reply");
        bson::deserialize_from_slice(&reply[17..]).expect("valid BSON")
    }

    async fn insert(&mut self, ids: std::ops::Range<i32>) {
        let documents: Vec<Bson> = ids.clone().map(|id| bson::bson!({ "_id": id })).collect();
        let reply = self.ask("test", doc! { "insert": "c", "documents": documents }).await;
        assert_eq!(reply, doc! { "n": i32::try_from(ids.len()).expect("few"), "ok": 1.0 });
    }

    async fn count(&mut self) -> i32 {
        let reply = self.ask("test", doc! { "count": "c" }).await;
        reply.get_i32("n").unwrap_or_else(|_| panic!("no count: {reply}"))
    }

    /// Waits until every group has `voters` voters on nodes that answer.
    async fn await_voters(&mut self, voters: usize) {
        let waiting = async {
            loop {
                let status = self.ask("admin", doc! { "psdbStatus": 1 }).await;
                if fewest_voters(&status) == Some(voters) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the replicas come about in time");
    }
}

fn parts<'d>(document: &'d Document, name: &str) -> Vec<&'d Document> {
    document.get_array(name).into_iter().flatten().filter_map(Bson::as_document).collect()
}

/// Voters of the group that has the fewest, as its primary says; `None` while one has no primary.
fn fewest_voters(status: &Document) -> Option<usize> {
    let voters = |shard: &&Document| {
        let number = shard.get_i64("shard").expect("a number");
        let replicas = parts(status, "nodes").into_iter().flat_map(|node| parts(node, "replicas"));
        let primary = replicas.into_iter().find(|replica| {
            replica.get_i64("shard").is_ok_and(|found| found == number)
                && replica.get_str("role").is_ok_and(|role| role == "primary")
        })?;
        let members = parts(primary, "members").into_iter();
        Some(members.filter(|member| member.get_bool("votes").unwrap_or(false)).count())
    };
    let all: Option<Vec<usize>> = parts(status, "shards").iter().map(voters).collect();
    all?.into_iter().min()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_becomes_three_under_a_client_and_outlives_each_of_them() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = |name: &str| directory.path().join(name);
    let first = start(&options(&data("d1"))).await;
    let mut client = Client::of(&first).await;
    client.insert(0..100).await;

    let (second_options, second) = join(&data("d2"), &first).await;
    client.insert(100..200).await;
    let (_, third) = join(&data("d3"), &first).await;
    client.insert(200..300).await;
    client.await_voters(3).await;
    for server in [&first, &second, &third] {
        let mut client = Client::of(server).await;
        assert_eq!(client.count().await, 300, "every node answers every client");
    }

    let mut client = Client::of(&second).await;
    client
        .ask("test", doc! { "createIndexes": "c", "indexes": [{ "key": { "a": 1 }, "name": "a_1" }] })
        .await;
    first.stop().await.expect("stops in good order");
    client.insert(300..400).await;
    assert_eq!(client.count().await, 400);

    second.stop().await.expect("stops in good order");
    let mut client = Client::of(&third).await;
    let second = start(&second_options).await;
    assert_eq!(client.count().await, 400, "the third node served the whole time, and has a majority again");
    client.insert(400..410).await;
    let mut client = Client::of(&second).await;
    assert_eq!(client.count().await, 410);
    let dropped = client.ask("test", doc! { "drop": "c" }).await;
    assert!(dropped.get_f64("ok").is_ok_and(|ok| ok == 1.0), "{dropped}");
    assert_eq!(client.count().await, 0);
    second.stop().await.expect("stops in good order");
    third.stop().await.expect("stops in good order");
}
