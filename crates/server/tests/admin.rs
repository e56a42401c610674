//! The admin address of a whole node: its metrics and whether they say what happened, its health, what it refuses, and that
//! `docs/OPERATING.md` lists what is served (`PSDB_UPDATE_DOCS=1` rewrites the list).

mod exposition;
mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bson::{Document, doc};
use exposition::{Family, parse};
use server::{Options, Server};
use support::{ask, options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long anything may take that the tests wait for; far more than it does.
const PATIENCE: Duration = Duration::from_secs(60);
const LIST_BEGINS: &str = "<!-- The list below is made by a test. -->\n";
const LIST_ENDS: &str = "<!-- The list ends here. -->\n";

/// A node with an admin address.
struct Node {
    server: Server,
    admin: SocketAddr,
    clients: TcpStream,
}

impl Node {
    async fn start(data: &Path) -> Node {
        let options = Options { admin: Some("127.0.0.1:0".to_owned()), ..options(data) };
        let server = Server::start(options.resolve().expect("valid options")).await.expect("starts");
        let admin = server.admin_address().expect("one was asked for");
        let clients = TcpStream::connect(server.address()).await.expect("connects");
        Node { server, admin, clients }
    }

    async fn ask(&mut self, command: Document) -> Document {
        ask(&mut self.clients, "test", command).await
    }

    /// Sends bytes and takes what comes until the node closes the connection.
    async fn send(&self, bytes: &[u8]) -> String {
        let exchange = async {
            let mut stream = TcpStream::connect(self.admin).await.expect("connects");
            // The node may have refused the request, and be gone, before it has come whole.
            drop(stream.write_all(bytes).await);
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer).await);
            String::from_utf8(answer).expect("text")
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("in time")
    }

    async fn request(&self, method: &str, path: &str) -> Answer {
        let answer = self.send(format!("{method} {path} HTTP/1.1\r\nHost: psdb\r\n\r\n").as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    async fn metrics(&self) -> BTreeMap<String, Family> {
        let answer = self.request("GET", "/metrics").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
        parse(&answer.body)
    }

    async fn await_ready(&self) {
        let waiting = async {
            while self.request("GET", "/readyz").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("ready in time");
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_move_with_what_clients_do() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut node = Node::start(directory.path()).await;
    node.ask(doc! { "insert": "c", "documents": [{ "_id": 0 }] }).await;
    let before = node.metrics().await;
    node.ask(doc! { "insert": "c", "documents": [{ "_id": 1 }, { "_id": 2 }] }).await;
    node.ask(doc! { "find": "c", "batchSize": 1 }).await;
    node.ask(doc! { "find": "c", "filter": { "$nonsense": 1 } }).await;
    node.ask(doc! { "ping": 1 }).await;
    let after = node.metrics().await;
    let rose = |name: &str, labels: &str| after[name].value(labels) - before[name].value(labels);

    assert_eq!(rose("psdb_commands_total", "command=\"insert\""), 1.0);
    assert_eq!(rose("psdb_commands_total", "command=\"find\""), 2.0);
    assert_eq!(rose("psdb_commands_failed_total", "command=\"find\""), 1.0);
    assert_eq!(rose("psdb_commands_failed_total", "command=\"insert\""), 0.0);
    assert_eq!(rose("psdb_operations_total", "operation=\"insert\""), 2.0);
    for (kind, times) in [("read", 2.0), ("write", 1.0), ("command", 1.0)] {
        let count = |page: &BTreeMap<String, Family>| {
            page["psdb_command_duration_seconds"].sample("_count", &format!("kind=\"{kind}\""))
        };
        assert_eq!(count(&after) - count(&before), times, "{kind}");
    }
    for name in [
        "psdb_received_bytes_total",
        "psdb_sent_bytes_total",
        "psdb_requests_total",
        "psdb_raft_log_fsyncs_total",
        "psdb_raft_log_fsynced_batches_total",
        "psdb_raft_log_fsynced_entries_total",
        "psdb_raft_log_fsynced_bytes_total",
        "psdb_raft_entries_proposed_total",
        "psdb_raft_proposed_bytes_total",
        "psdb_shard_commands_evaluated_total",
        "psdb_uptime_seconds",
    ] {
        assert!(rose(name, "") > 0.0, "{name} did not move");
    }
    assert_eq!(after["psdb_connections"].value(""), 1.0);
    assert_eq!(after["psdb_cursors_open"].value(""), 1.0);
    assert_eq!(after["psdb_replicas"].value("role=\"leader\""), 2.0, "the catalog and one shard");
    assert_eq!(after["psdb_replicas"].value("role=\"learner\""), 0.0);
    assert_eq!(after["psdb_cluster_nodes"].value(""), 1.0);
    assert_eq!(after["psdb_cluster_shards"].value(""), 1.0);
    assert!(after["psdb_disk_free_bytes"].value("") > 0.0);
    assert!(after["psdb_store_cache_max_bytes"].value("") > 0.0);
    assert!(after["process_resident_memory_bytes"].value("") > 0.0);
    let samples =
        |page: &BTreeMap<String, Family>| page.values().map(|family| family.samples.len()).sum::<usize>();
    assert_eq!(samples(&before), samples(&after), "what clients do adds no series");
    node.server.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_and_what_is_not_there_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut node = Node::start(directory.path()).await;
    node.await_ready().await;
    assert_eq!(node.metrics().await["psdb_ready"].value(""), 1.0);
    let healthy = node.request("GET", "/healthz").await;
    assert_eq!((healthy.status, healthy.body.as_str()), (200, "ok\n"));
    let healthy = node.request("GET", "/healthz?verbose").await;
    assert_eq!(healthy.status, 200, "a query changes nothing");
    let head = node.request("HEAD", "/metrics").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    for path in ["/", "/metrics/", "/healthz/x", "/../metrics"] {
        assert_eq!(node.request("GET", path).await.status, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "ANYTHING"] {
        let refused = node.request(method, "/metrics").await;
        assert!(refused.status == 405 && refused.head.contains("allow: get, head"), "{method}");
    }

    let status = ask(&mut node.clients, "admin", doc! { "psdbStatus": 1 }).await;
    let listed = status.get_array("nodes").expect("nodes")[0].as_document().expect("a document");
    assert_eq!(listed.get_str("admin").ok(), Some(node.admin.to_string().as_str()));
    node.server.stop().await.expect("stops");
    assert!(TcpStream::connect(node.admin).await.is_err(), "nothing listens there any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_no_http_is_refused_and_harms_nobody() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(directory.path()).await;
    let long_header = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many_headers = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100_000));
    let long_path = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
    let long_body = format!("GET /nowhere HTTP/1.1\r\nContent-Length: {}\r\n\r\n", u64::MAX);
    let garbage: Vec<u8> = (0..=255).cycle().take(4_096).collect();
    let oversized = [long_header, many_headers, long_path, long_body].map(String::into_bytes);
    for bytes in oversized.iter().chain([&garbage, &b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_vec()]) {
        let answer = node.send(bytes).await;
        // A connection that is closed before everything was read may lose the refusal on its way.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert_eq!(node.request("GET", "/healthz").await.status, 200);
    }
    node.server.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_serves_no_admin_address_that_nobody_asked_for_and_names_one_that_is_taken() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let start =
        |options: Options| async move { Server::start(options.resolve().expect("valid options")).await };
    let server = start(options(directory.path())).await.expect("starts");
    assert_eq!(server.admin_address(), None);
    server.stop().await.expect("stops");
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = taken.local_addr().expect("an address").to_string();
    let failure = start(Options { admin: Some(address.clone()), ..options(directory.path()) }).await;
    assert!(failure.err().expect("the port is taken").to_string().contains(&address));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_metrics_in_the_documentation_is_what_is_served() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(directory.path()).await;
    let mut list = "| metric | type | unit | meaning |\n|---|---|---|---|\n".to_owned();
    for (name, family) in node.metrics().await {
        let label = family.label.as_ref().map_or(String::new(), |label| format!("{{{label}}}"));
        let unit = unit(&name);
        list.push_str(&format!("| `{name}{label}` | {} | {unit} | {} |\n", family.kind, family.help));
    }
    node.server.stop().await.expect("stops");

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/OPERATING.md");
    let page = std::fs::read_to_string(&path).expect("the page is there");
    let (before, rest) = page.split_once(LIST_BEGINS).expect("the list begins");
    let (_, after) = rest.split_once(LIST_ENDS).expect("the list ends");
    let wanted = format!("{before}{LIST_BEGINS}{list}{LIST_ENDS}{after}");
    if std::env::var_os("PSDB_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &wanted).expect("the page can be written");
        return;
    }
    assert!(page == wanted, "docs/OPERATING.md is out of date: run PSDB_UPDATE_DOCS=1 cargo test -p server");
}

/// What a metric's name says of its unit.
fn unit(name: &str) -> &'static str {
    let name = name.trim_end_matches("_total").trim_end_matches("_max");
    match name.rsplit('_').next() {
        Some("seconds") => "seconds",
        Some("bytes") => "bytes",
        _ => "count",
    }
}
