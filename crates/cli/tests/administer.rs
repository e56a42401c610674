//! Shards and nodes administered by the command line, on clusters of real `psdb` processes.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PSDB: &str = env!("CARGO_BIN_EXE_psdb");
/// How long a cluster may take to become what it shall be.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_collection_is_cut_split_merged_and_listed() {
    let cluster = Cluster::start(1);
    let documents: Vec<String> = (0..100).map(|id| format!("{{_id: {id}, customer: {}}}", id % 10)).collect();
    let insert: Vec<&str> =
        ["insert", "shop.orders"].into_iter().chain(documents.iter().map(String::as_str)).collect();
    cluster.ok(&insert);
    assert_eq!(cluster.shards("shop.orders").len(), 1);
    let refused = cluster.run(&["reshard", "shop.orders"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("the shards of shop.orders are not being cut"), "{}", said(&refused));

    let cut = cluster.ok(&["reshard", "shop.orders", "--key", "{customer: 1}", "--shards", "4"]);
    assert_eq!(cut, "shop.orders has 4 shards by { \"customer\": 1 }\n");
    let shards = cluster.shards("shop.orders");
    assert_eq!(shards.len(), 4);
    assert_eq!(cluster.ok(&["count", "shop.orders"]), "100\n");

    cluster.ok(&["shard", "split", "shop.orders", shards.first().expect("there are four")]);
    cluster.ok(&["shard", "split", "shop.orders", "--find", "{customer: 7}"]);
    let split = cluster.shards("shop.orders");
    assert_eq!(split.len(), 6);
    let (first, last) = (split.first().expect("there are six"), split.last().expect("there are six"));
    cluster.ok(&["shard", "merge", "shop.orders", first, last]);
    assert_eq!(cluster.shards("shop.orders").len(), 1);

    assert_eq!(
        cluster.ok(&["reshard", "shop.orders", "--shards", "3"]),
        "shop.orders has 3 shards by { \"customer\": 1 }\n"
    );
    assert_eq!(cluster.ok(&["count", "shop.orders", "{customer: 7}"]), "10\n");
}

#[test]
fn what_cannot_be_done_with_shards_is_said_in_a_sentence() {
    let cluster = Cluster::start(1);
    cluster.ok(&["insert", "shop.orders", "{_id: 1}"]);
    for (arguments, sentence) in [
        (&["shard", "list", "shop.other"][..], "there is no collection shop.other"),
        (&["shard", "split", "shop.orders", "s999"], "shop.orders has no shard s999"),
        (&["shard", "split", "shop.orders", "--find", "{customer: 7}"], "ShardKeyNotFound (61)"),
        (&["reshard", "shop.orders", "--key", "{a: 2}"], "must be 1 or \"hashed\""),
        (&["reshard", "shop.orders", "--shards", "9000"], "InvalidOptions (72)"),
        (&["node", "drain", "n9"], "the cluster has no node named 'n9'"),
        (&["node", "drain", "n1"], "IllegalOperation (20)"),
        (&["node", "remove", "n1"], "ask another one"),
    ] {
        let output = cluster.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(sentence), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn the_balancer_is_switched_and_explained() {
    let cluster = Cluster::start(1);
    assert!(cluster.ok(&["balancer", "status"]).starts_with("balancer        on\n"));
    assert_eq!(cluster.ok(&["balancer", "stop"]), "the balancer is off\n");
    assert!(cluster.ok(&["balancer", "status", "--json"]).starts_with("{\"enabled\":false,"));
    assert_eq!(cluster.ok(&["balancer", "start"]), "the balancer is on\n");
    assert_eq!(cluster.ok(&["balancer", "explain"]), "there is nothing to do\n");
}

#[test]
fn a_primary_moves_and_a_drained_node_leaves_the_cluster() {
    let mut cluster = Cluster::start(4);
    cluster.ok(&["insert", "shop.orders", "{_id: 1}", "{_id: 2}", "{_id: 3}"]);
    cluster.ok(&["reshard", "shop.orders", "--shards", "2"]);
    let shards = cluster.shards("shop.orders");
    let shard = shards.first().expect("there are two");
    for node in ["n2", "n3", "n4"] {
        let moved = cluster.ok(&["shard", "move", "shop.orders", shard, "--to", node]);
        assert_eq!(moved, format!("the primary of {shard} is on {node}\n"));
        assert_eq!(cluster.ok(&["count", "shop.orders"]), "3\n");
    }
    let drained = cluster.ok(&["node", "drain", "n4"]);
    assert!(drained.starts_with("n4 holds nothing any more"), "{drained}");
    assert!(cluster.ok(&["node", "list"]).contains("n4 is being drained"));
    let listed = cluster.ok(&["shard", "list", "shop.orders", "--json"]);
    assert!(!listed.contains("n4"), "{listed}");
    let removed = cluster.ok(&["node", "remove", "n4"]);
    assert_eq!(removed, "n4 does not belong to the cluster any more and may be stopped\n");
    cluster.stop_last();
    assert_eq!(cluster.ok(&["count", "shop.orders"]), "3\n");
    assert!(!cluster.ok(&["node", "list"]).contains("n4"));
}

/// Running nodes n1, n2, ...; killed when dropped.
struct Cluster {
    _directory: TempDir,
    nodes: Vec<Child>,
    uri: String,
}

impl Cluster {
    /// Returns once all nodes belong to the cluster.
    fn start(count: u32) -> Cluster {
        let directory = TempDir::new().expect("a temporary directory");
        let join = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let peer = join.expect("loopback has a free port").to_string();
        let mut cluster = Cluster { _directory: directory, nodes: Vec::new(), uri: String::new() };
        for number in 1..=count {
            let name = format!("n{number}");
            let place = cluster._directory.path().join(&name);
            let port_file = cluster._directory.path().join(format!("{name}.port"));
            let (option, own) =
                if number == 1 { (None, peer.as_str()) } else { (Some(&peer), "127.0.0.1:0") };
            cluster.nodes.push(start(&name, &place, &port_file, own, option.map(String::as_str)));
            let port = await_port(&port_file);
            if number == 1 {
                cluster.uri = format!("mongodb://127.0.0.1:{port}");
            }
        }
        let began = Instant::now();
        while cluster.ok(&["node", "list", "--json"]).matches("\"health\":\"up\"").count() < count as usize {
            assert!(began.elapsed() < PATIENCE, "the nodes do not become one cluster");
            std::thread::sleep(Duration::from_millis(50));
        }
        cluster
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PSDB);
        command.args(arguments).args(["--uri", &self.uri]).stdin(Stdio::null());
        command.output().expect("psdb runs")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The names of a collection's shards, in the order of their hashes.
    fn shards(&self, namespace: &str) -> Vec<String> {
        let listed = self.ok(&["shard", "list", namespace, "--json"]);
        let name = |line: &str| {
            let shard: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            shard["shard"].as_str().expect("a shard has a name").to_owned()
        };
        listed.lines().map(name).collect()
    }

    fn stop_last(&mut self) {
        let mut last = self.nodes.pop().expect("there is one");
        last.kill().expect("it runs");
        last.wait().expect("it ends");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

fn start(name: &str, place: &Path, port_file: &Path, peer: &str, join: Option<&str>) -> Child {
    let mut command = Command::new(PSDB);
    command.args(["start", "--listen", "127.0.0.1:0", "--peer-listen", peer, "--name", name, "--data"]);
    command.arg(place).arg("--port-file").arg(port_file);
    if let Some(join) = join {
        command.args(["--join", join]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("psdb starts")
}

fn await_port(port_file: &Path) -> String {
    let began = Instant::now();
    loop {
        let written = std::fs::read_to_string(port_file).unwrap_or_default();
        if let Some(port) = written.strip_suffix('\n') {
            return port.to_owned();
        }
        assert!(began.elapsed() < PATIENCE, "a node does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
