//! Real `psdb` processes: a node, and the subcommands that talk to it, as a user's script would call them.
//!
//! Every test has a node of its own on a free port, with its data in a temporary directory.

// A failed test shows the log of its node.
#![allow(clippy::print_stderr)]

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

const PSDB: &str = env!("CARGO_BIN_EXE_psdb");

#[test]
fn the_cities_import_query_and_export_again() {
    let node = Node::start();
    let cities = root().join("data/cities.jsonl");
    let import = node.run(&["import", "geo.cities", "--file", path(&cities)], "");
    assert_eq!(import.code, 0, "{}", import.stderr);
    assert!(import.stderr.contains("34,006 documents"), "{}", import.stderr);
    assert_eq!(node.ok(&["count", "geo.cities"]), "34006\n");

    let largest = node.ok(&[
        "find",
        "geo.cities",
        "{population: {$gt: 20000000}}",
        "--sort",
        "{population: -1}",
        "--projection",
        "{_id: 0, name: 1}",
        "--limit",
        "1",
    ]);
    assert_eq!(largest, "{\"name\":\"Shanghai\"}\n");
    let iceland = node.ok(&["aggregate", "geo.cities", "[{$match: {country: 'IS'}}, {$count: 'cities'}]"]);
    assert_eq!(iceland, "{\"cities\":6}\n");

    let copy = node.directory.path().join("copy.jsonl");
    assert_eq!(node.run(&["export", "geo.cities", "--sort", "{_id: 1}", "--file", path(&copy)], "").code, 0);
    assert_eq!(node.run(&["import", "geo.copy", "--file", path(&copy)], "").code, 0);
    let sorted = ["--sort", "{_id: 1}"];
    let original = node.ok(&[&["find", "geo.cities"][..], &sorted].concat());
    assert!(original == node.ok(&[&["find", "geo.copy"][..], &sorted].concat()), "the copy differs");
    node.stop();
}

#[test]
fn one_shot_commands_write_read_and_say_what_the_server_refused() {
    let node = Node::start();
    let inserted = node.run(&["insert", "shop.users", "{_id: 1, name: 'Ada'}", "{_id: 2, name: 'Bob'}"], "");
    assert_eq!((inserted.code, inserted.stderr.as_str()), (0, "inserted 2 documents\n"));

    let duplicate = node.run(&["insert", "shop.users", "{_id: 1}"], "");
    assert_eq!(duplicate.code, 1);
    assert!(duplicate.stderr.contains("DuplicateKey (11000)"), "{}", duplicate.stderr);

    let updated = node.run(&["update", "shop.users", "{}", "{$set: {seen: true}}", "--multi"], "");
    assert_eq!(updated.stderr, "matched 2 documents, modified 2\n");
    let upserted = node.run(&["update", "shop.users", "{_id: 3}", "{$set: {name: 'Cy'}}", "--upsert"], "");
    assert_eq!(upserted.stderr, "inserted 1 document, _id 3\n");
    assert_eq!(node.run(&["delete", "shop.users", "{_id: 2}"], "").stderr, "deleted 1 document\n");
    let left = node.ok(&["find", "shop.users", "--sort", "{_id: 1}"]);
    assert_eq!(left, "{\"_id\":1,\"name\":\"Ada\",\"seen\":true}\n{\"_id\":3,\"name\":\"Cy\"}\n");

    let piped = node.run(&["insert", "shop.users"], "{\"_id\": 4}\n{\"_id\": 5}\n");
    assert_eq!(piped.code, 0, "{}", piped.stderr);
    assert_eq!(node.ok(&["count", "shop.users"]), "4\n");
    assert_eq!(node.run(&["find", "shop.users", "{a: "], "").code, 2);
    node.stop();
}

#[test]
fn keys_are_put_listed_and_deleted() {
    let node = Node::start();
    node.ok(&["put", "user:1", "{name: 'Ada'}"]);
    node.ok(&["put", "user:2", "hello world"]);
    node.ok(&["put", "users", "7"]);
    assert_eq!(node.run(&["put", "piped", "-"], "from a pipe").code, 0);
    assert_eq!(node.ok(&["get", "user:1"]), "{\"name\":\"Ada\"}\n");
    assert_eq!(node.ok(&["get", "piped"]), "from a pipe\n");
    assert_eq!(node.ok(&["keys", "user:"]), "user:1\nuser:2\n");
    assert_eq!(node.ok(&["keys"]), "piped\nuser:1\nuser:2\nusers\n");
    node.ok(&["del", "user:1"]);
    let missing = node.run(&["get", "user:1"], "");
    assert_eq!((missing.code, missing.stdout.as_str()), (1, ""));
    assert!(missing.stderr.contains("there is no key \"user:1\""), "{}", missing.stderr);
    node.stop();
}

#[test]
fn import_reports_every_refused_record_by_its_number() {
    let node = Node::start();
    let input = "{\"_id\": 1}\n{\"_id\": 1}\n{broken\n{\"_id\": 2}\n";
    let import = node.run(&["import", "shop.items", "--format", "jsonl"], input);
    assert_eq!(import.code, 1);
    assert!(import.stderr.contains("record 2: E11000"), "{}", import.stderr);
    assert!(import.stderr.contains("record 3: expected ':'"), "{}", import.stderr);
    assert!(import.stderr.contains("2 documents in"), "{}", import.stderr);
    assert_eq!(node.ok(&["find", "shop.items", "--sort", "{_id: 1}"]), "{\"_id\":1}\n{\"_id\":2}\n");

    let stopped = node.run(&["import", "shop.first", "--stop-on-error"], input);
    assert_eq!(stopped.code, 1);
    assert_eq!(node.ok(&["find", "shop.first"]), "{\"_id\":1}\n");
    node.stop();
}

#[test]
fn arrays_and_csv_import_with_their_types_and_export_again() {
    let node = Node::start();
    let array =
        "[ {\"_id\": 1, \"s\": \"a,b}\"},\n {\"_id\": {\"$numberLong\": \"2\"}, \"n\": {\"m\": 1.5}} ]";
    assert_eq!(node.run(&["import", "shop.array"], array).code, 0);
    let found = node.ok(&["export", "shop.array", "--sort", "{_id: 1}", "--format", "json"]);
    assert_eq!(found, "[\n{\"_id\":1,\"s\":\"a,b}\"},\n{\"_id\":2,\"n\":{\"m\":1.5}}\n]\n");

    let csv = "_id,name,zip,address.city,ok\n1,\"Ada, Countess\",007,London,true\n2,Bob,,Oslo,false\n";
    assert_eq!(node.run(&["import", "shop.rows", "--format", "csv"], csv).code, 0);
    assert_eq!(
        node.ok(&["find", "shop.rows", "{ok: true}"]),
        "{\"_id\":1,\"name\":\"Ada, Countess\",\"zip\":\"007\",\"address\":{\"city\":\"London\"},\"ok\":true}\n"
    );
    assert_eq!(node.ok(&["export", "shop.rows", "--sort", "{_id: 1}", "--format", "csv"]), csv);
    node.stop();
}

#[test]
fn input_that_is_cut_off_is_reported_not_taken_for_whole() {
    let node = Node::start();
    for (format, input, reason) in [
        ("json", "[{\"_id\": 1}, {\"_id\": 2}", "record 3: the array is not closed"),
        ("json", "[{\"_id\": 1}, {\"_id\": 2}] {\"_id\": 3}", "record 3: there is more behind the end"),
        ("csv", "_id,b\n1,x\n2,\"5\"\" y\"\n3,\"z\n4,w\n", "record 3: a quote is never closed"),
    ] {
        let import = node.run(&["import", "shop.cut", "--drop", "--format", format], input);
        assert_eq!(import.code, 1, "{input}");
        assert!(import.stderr.contains(reason), "{input}: {}", import.stderr);
        assert_eq!(node.ok(&["count", "shop.cut"]), "2\n", "{input}");
    }
    let twice = node.run(&["import", "shop.twice", "--format", "csv"], "a,b,a\n1,2,3\n");
    assert_eq!(twice.code, 1);
    assert!(twice.stderr.contains("the column \"a\" is there twice"), "{}", twice.stderr);
    let plain = node.run(&["import", "shop.plain", "--format", "csv"], "_id,b\n1,5\" pipe\n");
    assert_eq!((plain.code, plain.stderr.contains("1 document in")), (0, true), "{}", plain.stderr);
    node.stop();
}

#[test]
fn fields_that_come_too_late_for_a_csv_header_are_named() {
    let node = Node::start();
    let lines: String = (0..1200).map(|id| format!("{{\"_id\": {id}, \"early\": {{\"a\": 1}}}}\n")).collect();
    let late = "{\"_id\": 1200, \"early\": {\"a\": 2}, \"late\": {\"b\": 1}}\n";
    assert_eq!(node.run(&["insert", "shop.rows"], &(lines + late)).code, 0);
    let export = node.run(&["export", "shop.rows", "--sort", "{_id: 1}", "--format", "csv"], "");
    assert_eq!(export.code, 0, "{}", export.stderr);
    assert!(export.stderr.contains("left out, see --columns: late.b\n"), "{}", export.stderr);
    let chosen = ["export", "shop.rows", "--format", "csv", "--columns", "_id"];
    assert!(!node.run(&chosen, "").stderr.contains("left out"));
    node.stop();
}

#[test]
fn the_shell_runs_a_script_from_a_pipe_and_stops_at_the_first_error() {
    let node = Node::start();
    let script = "use shop\n\
        db.users.insertMany([\n  {_id: 1, age: 36},\n  {_id: 2, age: 20},\n])\n\
        find users {age: {$gt: 30}}\n\
        db.users.createIndex({age: 1})\n\
        update users {_id: 1} {$inc: {age: 1}}\n\
        db.users.findOne({_id: 1})\n\
        count users\n";
    let output = node.shell(&[], script);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(
        output.stdout,
        "inserted 2 documents\n{ _id: 1, age: 36 }\nindex age_1\nmatched 1 document, modified 1\n{ _id: 1, age: 37 }\n2\n"
    );

    let failing = "use shop\ninsert users {_id: 1}\ncount users\n";
    let stopped = node.shell(&[], failing);
    assert_eq!((stopped.code, stopped.stdout.as_str()), (1, ""));
    assert!(stopped.stderr.contains("line 2: DuplicateKey (11000)"), "{}", stopped.stderr);
    let continued = node.shell(&["--continue", "--json"], failing);
    assert_eq!((continued.code, continued.stdout.as_str()), (1, "2\n"));
    node.stop();
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let mut node = Node::start();
    node.ok(&["put", "greeting", "hello"]);
    node.child.kill().expect("a running child");
    node.child.wait().expect("a killed child");
    node.restart();
    assert_eq!(node.ok(&["get", "greeting"]), "hello\n");
    assert!(!node.log().contains("WARN"), "a kill is nothing to warn of: {}", node.log());
    node.stop();
}

#[test]
fn without_a_server_commands_say_so_and_exit_with_3() {
    let port = free_port();
    let uri = format!("mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=300");
    let output =
        finished(Command::new(PSDB).args(["count", "a.b", "--uri", &uri]).output().expect("psdb runs"));
    assert_eq!(output.code, 3, "{}", output.stderr);
    assert!(output.stderr.contains("no server answers"), "{}", output.stderr);
}

#[test]
fn the_demo_answers_its_questions_and_stops_by_itself() {
    let output = finished(Command::new(PSDB).arg("demo").stdin(Stdio::null()).output().expect("psdb runs"));
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
    for expected in [
        "Loaded 34,006 cities",
        "mongodb://127.0.0.1:",
        "Shanghai",
        "explain: index name_1",
        "What to try next",
    ] {
        assert!(output.stdout.contains(expected), "{expected} is missing in:\n{}", output.stdout);
    }
    assert!(!output.stdout.contains('\u{1b}'), "escape codes without a terminal");
}

/// What a finished process left.
struct Finished {
    code: i32,
    stdout: String,
    stderr: String,
}

/// A running node, its data in a temporary directory; killed when dropped.
struct Node {
    directory: TempDir,
    child: Child,
    port: u16,
}

impl Node {
    fn start() -> Node {
        let directory = TempDir::new().expect("a temporary directory");
        let child = spawn(&directory, 0);
        let mut node = Node { directory, child, port: 0 };
        node.port = node.wait_until_it_answers();
        node
    }

    fn restart(&mut self) {
        std::fs::remove_file(self.port_file()).expect("the port file of the first start");
        self.child = spawn(&self.directory, self.port);
        self.wait_until_it_answers();
    }

    fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}", self.port)
    }

    /// Runs a subcommand that takes `--uri`.
    fn run(&self, arguments: &[&str], input: &str) -> Finished {
        let uri = self.uri();
        run(&[arguments, &["--uri", &uri]].concat(), input)
    }

    /// Runs the shell, whose connection string is its first argument.
    fn shell(&self, flags: &[&str], input: &str) -> Finished {
        let uri = self.uri();
        run(&[&["shell", &uri], flags].concat(), input)
    }

    /// The standard output of a subcommand that must succeed.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, "");
        assert_eq!(output.code, 0, "psdb {arguments:?}: {}", output.stderr);
        output.stdout
    }

    /// Stops it as an operator would, and expects a clean end.
    fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("the child has an id");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the child runs");
        let status = self.child.wait().expect("the child ends");
        assert!(status.success(), "the node stopped with {status}");
    }

    /// The port that the node has written once it takes connections.
    fn wait_until_it_answers(&self) -> u16 {
        for _ in 0..1200 {
            let written = std::fs::read_to_string(self.port_file()).unwrap_or_default();
            if let Ok(port) = written.trim().parse() {
                return port;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the node does not answer; its log:\n{}", self.log());
    }

    fn port_file(&self) -> PathBuf {
        self.directory.path().join("port")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the node's log:\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(directory: &TempDir, port: u16) -> Child {
    let log = std::fs::File::create(directory.path().join("log")).expect("a log file");
    Command::new(PSDB)
        .args(["start", "--listen", &format!("127.0.0.1:{port}"), "--data"])
        .arg(directory.path().join("data"))
        .arg("--port-file")
        .arg(directory.path().join("port"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("psdb starts")
}

fn run(arguments: &[&str], input: &str) -> Finished {
    let mut child = Command::new(PSDB)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psdb starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that reads no input may be gone already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    finished(child.wait_with_output().expect("psdb ends"))
}

fn finished(output: Output) -> Finished {
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("a bound socket").port()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn path(path: &std::path::Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
