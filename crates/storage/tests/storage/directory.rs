//! The data directory: who may open it, and what it remembers.

use base::NodeId;
use storage::fault::FaultKind;
use storage::{DataDirectory, Identity};

fn identity(node: u32) -> Identity {
    Identity { cluster_id: "6f1c2a52-6f5b-4f57-9d2b-0d5c8f2f7c11".to_owned(), node_id: NodeId(node) }
}

#[test]
fn a_new_directory_remembers_whose_it_becomes() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let path = parent.path().join("data");
    let mut directory = DataDirectory::open(&path).expect("created");
    assert_eq!(directory.identity(), None);
    directory.set_identity(identity(1)).expect("written");
    drop(directory);

    let mut directory = DataDirectory::open(&path).expect("reopened");
    assert_eq!(directory.identity(), Some(&identity(1)));
    directory.set_identity(identity(1)).expect("nothing changes");
    let fault = directory.set_identity(identity(2)).expect_err("another node's");
    assert_eq!(fault.kind, FaultKind::Directory);
    assert!(fault.message.contains("belongs to node n1"), "{fault}");
    assert!(directory.store_path().is_dir() && directory.raft_path().is_dir());
    assert!(directory.free_bytes().expect("a number") > 0);
}

#[test]
fn a_directory_in_use_is_refused_with_the_process_that_uses_it() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let _open = DataDirectory::open(parent.path()).expect("created");
    let fault = DataDirectory::open(parent.path()).err().expect("in use");
    let expected = format!(
        "The data directory {} is in use by another psdb process (pid {}).",
        parent.path().display(),
        std::process::id()
    );
    assert!(fault.message.starts_with(&expected), "{fault}");
}

#[test]
fn a_newer_or_a_damaged_directory_is_refused_with_a_sentence() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let mut directory = DataDirectory::open(parent.path()).expect("created");
    directory.set_identity(identity(1)).expect("written");
    drop(directory);
    let file = parent.path().join("identity.json");
    let text = std::fs::read_to_string(&file).expect("written");

    std::fs::write(&file, text.replace("\"format_version\": 1", "\"format_version\": 2")).expect("writable");
    let fault = DataDirectory::open(parent.path()).err().expect("too new");
    assert!(fault.message.contains("has format version 2, written by a newer psdb"), "{fault}");

    std::fs::write(&file, text.replace("\"node_id\": 1", "\"node_id\": 7")).expect("writable");
    let fault = DataDirectory::open(parent.path()).err().expect("damaged");
    assert_eq!(fault.kind, FaultKind::Corruption);
    assert!(fault.message.contains("checksum does not match"), "{fault}");

    std::fs::write(&file, text).expect("writable");
    DataDirectory::open(parent.path()).expect("as it was");
}

#[test]
fn a_directory_with_data_and_without_its_identity_is_refused() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let mut directory = DataDirectory::open(parent.path()).expect("a new directory");
    directory.set_identity(identity(1)).expect("written");
    std::fs::write(directory.raft_path().join("1.raftlog"), "entries").expect("written");
    drop(directory);
    std::fs::remove_file(parent.path().join("identity.json")).expect("removed");
    let fault = DataDirectory::open(parent.path()).err().expect("its identity is lost");
    assert!(fault.to_string().contains("identity.json is gone"), "{fault}");
}

#[test]
fn a_file_in_place_of_the_directory_is_refused_by_its_name() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let path = parent.path().join("data");
    std::fs::write(&path, "").expect("written");
    let fault = DataDirectory::open(&path).err().expect("a file is no directory");
    assert!(fault.to_string().contains("data' is not a directory"), "{fault}");
}
