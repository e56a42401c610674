//! What a real `psdb` process refuses, and how it says so: a second process on its data, damaged or missing files, a
//! disk without room.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

const PSDB: &str = env!("CARGO_BIN_EXE_psdb");
/// The exit code for storage that cannot be trusted.
const STORAGE: Option<i32> = Some(3);

#[test]
fn a_second_process_on_the_same_data_is_refused_with_the_pid_of_the_first() {
    let node = Node::start(&[]);
    let second = refused(&node.data());
    assert_eq!(second.status.code(), STORAGE);
    let pid = node.child.id();
    let reason = format!("in use by another psdb process (pid {pid})");
    assert_eq!(said(&second).matches(&reason).count(), 1, "said once: {}", said(&second));
    node.ok(&["insert", "a.b", "{_id: 1}"]);
}

#[test]
fn below_the_reserve_of_free_space_writes_are_refused_and_reads_and_drops_are_not() {
    let node = Node::start(&[]);
    node.ok(&["insert", "a.b", "{_id: 1}"]);
    // No disk has this much free, so that this node finds itself short of room at once.
    let node = node.restart(&["--disk-reserve-bytes", "9000000000000000000"]);
    for write in [
        &["insert", "a.b", "{_id: 2}"][..],
        &["update", "a.b", "{_id: 1}", "{$set: {x: 1}}"],
        &["update", "a.b", "{_id: 3}", "{$set: {x: 1}}", "--upsert"],
        &["delete", "a.b", "{_id: 1}"],
    ] {
        let output = node.run(write);
        assert_eq!(output.status.code(), Some(1), "{write:?}");
        let said = said(&output);
        assert!(said.contains("OutOfDiskSpace (14031)"), "{said}");
        assert!(said.contains("writes are refused") && said.contains("kept in reserve"), "{said}");
    }
    assert_eq!(node.ok(&["find", "a.b"]), "{\"_id\":1}\n");
    node.shell("db.b.drop()");
    assert_eq!(node.ok(&["count", "a.b"]), "0\n");
    let node = node.restart(&[]);
    node.ok(&["insert", "a.b", "{_id: 2}"]);
}

#[test]
fn a_node_whose_raft_log_is_gone_does_not_start_and_loses_nothing_when_it_comes_back() {
    let node = Node::start(&[]);
    node.ok(&["insert", "a.b", "{_id: 1}"]);
    let directory = node.stop();
    let (raft, aside) = (directory.path().join("data/raft"), directory.path().join("aside"));
    std::fs::rename(&raft, &aside).expect("moved");
    let output = refused(&directory.path().join("data"));
    assert_eq!(output.status.code(), STORAGE);
    assert!(said(&output).contains("has no Raft log any more"), "{}", said(&output));
    std::fs::remove_dir_all(&raft).expect("what the refused node made");
    std::fs::rename(&aside, &raft).expect("moved back");
    let node = Node::start_in(directory, &[]);
    assert_eq!(node.ok(&["find", "a.b"]), "{\"_id\":1}\n");
}

#[test]
fn a_node_whose_identity_is_gone_does_not_start() {
    let node = Node::start(&[]);
    let directory = node.stop();
    std::fs::remove_file(directory.path().join("data/identity.json")).expect("removed");
    let output = refused(&directory.path().join("data"));
    assert_eq!(output.status.code(), STORAGE);
    assert!(said(&output).contains("identity.json is gone"), "{}", said(&output));
}

#[test]
fn a_flipped_byte_in_the_store_is_never_served() {
    let node = Node::start(&[]);
    let pad = "p".repeat(1_000);
    let documents: Vec<String> = (0..200).map(|id| format!("{{_id: {id}, pad: '{pad}'}}")).collect();
    let arguments: Vec<&str> =
        ["insert", "a.b"].into_iter().chain(documents.iter().map(String::as_str)).collect();
    node.ok(&arguments);
    let directory = node.stop();
    let journal = directory.path().join("data/store/fjall/0.jnl");
    let mut bytes = std::fs::read(&journal).expect("the journal");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("it is not empty");
    *bytes.get_mut(end / 2).expect("within the journal") ^= 0x40;
    std::fs::write(&journal, bytes).expect("written");
    let output = refused(&directory.path().join("data"));
    assert_eq!(output.status.code(), STORAGE);
    assert!(said(&output).contains("storage fault: opening the store"), "{}", said(&output));
}

/// A running node; killed when dropped.
struct Node {
    directory: Option<TempDir>,
    child: Child,
    port: String,
}

impl Node {
    fn start(options: &[&str]) -> Node {
        Node::start_in(TempDir::new().expect("a temporary directory"), options)
    }

    fn start_in(directory: TempDir, options: &[&str]) -> Node {
        let port_file = directory.path().join("port");
        let _ = std::fs::remove_file(&port_file);
        let mut child = start(&directory.path().join("data"))
            .arg("--port-file")
            .arg(&port_file)
            .args(options)
            .spawn()
            .expect("psdb starts");
        loop {
            let written = std::fs::read_to_string(&port_file).unwrap_or_default();
            if let Some(port) = written.strip_suffix('\n') {
                return Node { directory: Some(directory), child, port: port.to_owned() };
            }
            assert!(child.try_wait().expect("a child can be waited for").is_none(), "psdb ended at start");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn restart(self, options: &[&str]) -> Node {
        Node::start_in(self.stop(), options)
    }

    /// Stops it as an operator would.
    fn stop(mut self) -> TempDir {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("the child has an id");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the child runs");
        assert!(self.child.wait().expect("the child ends").success());
        self.directory.take().expect("taken once")
    }

    fn data(&self) -> PathBuf {
        self.directory.as_ref().expect("it runs").path().join("data")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let uri = format!("mongodb://127.0.0.1:{}", self.port);
        Command::new(PSDB)
            .args(arguments)
            .args(["--uri", &uri])
            .stdin(Stdio::null())
            .output()
            .expect("psdb runs")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs one line in the shell, in database `a`.
    fn shell(&self, line: &str) {
        let uri = format!("mongodb://127.0.0.1:{}/a", self.port);
        let output = Command::new(PSDB).args(["shell", &uri, "--eval", line]).stdin(Stdio::null()).output();
        let output = output.expect("psdb runs");
        assert!(output.status.success(), "{}", said(&output));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(data: &Path) -> Command {
    let mut command = Command::new(PSDB);
    command
        .args(["start", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Starts a node that must not come up, and waits for its end.
fn refused(data: &Path) -> Output {
    start(data).stderr(Stdio::piped()).output().expect("psdb ends")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
