//! The command as it is used: what it prints and how it exits.
//!
//! Always holds: 0 for right histories, 1 for wrong ones, and 2, with a reason, for what cannot be read.

use std::fs;
use std::path::Path;
use std::process::Command;

const APPEND: &str =
    r#"{"process": 1, "kind": "append", "key": "k", "value": 5, "outcome": "ok", "start": 10, "end": 20}"#;
const READ: &str = r#"{"process": 2, "kind": "read", "key": "k", "result": [5], "outcome": "ok", "start": 30, "end": 3000000040}"#;
const STALE: &str =
    r#"{"process": 2, "kind": "read", "key": "k", "result": [], "outcome": "ok", "start": 50, "end": 60}"#;
const COUNT: &str =
    r#"{"process": 2, "kind": "count", "key": "k", "result": 1, "outcome": "ok", "start": 50, "end": 60}"#;
const UNKNOWN: &str = r#"{"process": 2, "kind": "count", "key": "k", "outcome": "unknown", "error": "AutoReconnect: no", "start": 50, "end": 60}"#;

/// Runs the command over a directory with one history of these lines; returns its exit code and all that it prints.
fn check(lines: &[&str]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("psdb.toml"), "not a history").expect("the directory takes files");
    fs::write(directory.path().join("history-a-0-1.jsonl"), lines.join("\n"))
        .expect("the directory takes files");
    run(&[directory.path()])
}

fn run(arguments: &[&Path]) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_fault-checker")).args(arguments).output().expect("the command runs");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

#[test]
fn a_right_history_is_summed_up() {
    let (code, printed) = check(&[APPEND, READ, COUNT, UNKNOWN]);
    assert_eq!(code, Some(0), "{printed}");
    for part in [
        "files       1\n",
        "operations  4 (1 appends, 1 reads, 2 counts)\n",
        "unknown     1\n",
        "keys        2 (1 lists, 1 counters)\n",
        "unverified  0 acknowledged appends",
        "longest     3.000000010 s: k: history-a-0-1.jsonl:2 process 2 read [5], ok",
        "anomalies   0\n",
    ] {
        assert!(printed.contains(part), "{part:?} is not in {printed}");
    }
}

#[test]
fn a_wrong_history_is_explained_with_its_operations() {
    let (code, printed) = check(&[APPEND, STALE]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("k: lost: 5 was acknowledged"), "{printed}");
    assert!(printed.contains("history-a-0-1.jsonl:1 process 1 append 5, ok"), "{printed}");
    assert!(printed.contains("not linearizable"), "{printed}");
    assert!(printed.contains("says adya"), "{printed}");
}

#[test]
fn what_cannot_be_read_is_no_verdict() {
    let half_a_line = APPEND.get(..40).expect("the line is longer");
    let without_value = APPEND.replace(r#""value": 5, "#, "");
    let backwards = APPEND.replace("20", "2");
    for (lines, reason) in [
        (vec![READ, half_a_line], "history-a-0-1.jsonl:2: "),
        (vec![without_value.as_str()], "an append without a value"),
        (vec![backwards.as_str()], "ends before it starts"),
        (vec![APPEND, APPEND], "appended by two operations"),
        (vec![&READ.replace("[5]", "null")], "result: "),
    ] {
        let (code, printed) = check(&lines);
        assert_eq!(code, Some(2), "{printed}");
        assert!(printed.contains(reason), "{reason:?} is not in {printed}");
    }
}

#[test]
fn no_history_is_no_verdict() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for arguments in [vec![], vec![directory.path()], vec![Path::new("no-such-file.jsonl")]] {
        let (code, printed) = run(&arguments);
        assert_eq!(code, Some(2), "{printed}");
    }
}
