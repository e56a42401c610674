//! Several whole nodes in this process: one becomes three under a client, and what was acknowledged outlives each of them.

mod support;

use std::path::Path;
use std::time::Duration;

use bson::{Bson, Document, doc};
use server::{Options, Server};
use support::options;
use tokio::net::TcpStream;

/// How long anything may take that the tests wait for; far more than it does.
const PATIENCE: Duration = Duration::from_secs(60);

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

    async fn ask(&mut self, database: &str, command: Document) -> Document {
        support::ask(&mut self.0, database, command).await
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
    // Groups gain members meanwhile, which is none of this client's business.
    for number in 0..40 {
        let created = client.ask("test", doc! { "create": format!("made-{number}") }).await;
        assert!(created.get_f64("ok").is_ok_and(|ok| ok == 1.0), "{created}");
    }
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
