//! The shape of the workspace: which crate may depend on which, and what every source file must have.
//!
//! The order of `members` in the root manifest is the law: a crate depends only on crates listed before it, in its
//! tests as well.

use std::path::{Path, PathBuf};

use toml::Table;

const LINES_MAX: usize = 800;
const LONGER_FILE_REASON: &str = "Longer than 800 lines because";

#[test]
fn every_crate_depends_only_on_crates_above_it() {
    let members = members();
    for (position, member) in members.iter().enumerate() {
        let manifest = table(&root().join(member).join("Cargo.toml"));
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let dependencies = manifest.get(section).and_then(|section| section.as_table());
            for dependency in dependencies.into_iter().flat_map(Table::keys) {
                let Some(other) = members.iter().position(|path| path.rsplit('/').next() == Some(dependency))
                else {
                    continue;
                };
                assert!(
                    other < position,
                    "{member}/Cargo.toml [{section}]: {dependency} is not above {member} in the root manifest",
                );
            }
        }
    }
}

#[test]
fn every_source_file_says_what_it_is_for_and_stays_short() {
    for member in members() {
        for path in source_files(&root().join(&member).join("src")) {
            let text = std::fs::read_to_string(&path).expect("a readable source file");
            let name = path.display();
            assert!(text.starts_with("//!"), "{name} does not open with a //! comment");
            let lines = text.lines().count();
            assert!(
                lines <= LINES_MAX || text.contains(LONGER_FILE_REASON),
                "{name} has {lines} lines; split it, or say \"{LONGER_FILE_REASON} ...\" at its top",
            );
        }
    }
}

#[test]
fn no_source_file_leaves_work_undone_or_switches_assertions_off() {
    // Put together at run time, so that this file does not contain them.
    let banned = [
        ["debug_", "assert!"],
        ["debug_", "assert_"],
        ["to", "do!("],
        ["unimple", "mented!("],
        ["TO", "DO"],
        ["FIX", "ME"],
    ];
    for member in members() {
        for path in source_files(&root().join(&member).join("src")) {
            let text = std::fs::read_to_string(&path).expect("a readable source file");
            for word in banned.map(|halves| halves.concat()) {
                assert!(!text.contains(&word), "{} contains {word}", path.display());
            }
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The directories of the workspace's crates that have a `src`, in the order of the root manifest.
fn members() -> Vec<String> {
    let manifest = table(&root().join("Cargo.toml"));
    let members = manifest["workspace"]["members"].as_array().expect("members is an array");
    let paths = members.iter().map(|path| path.as_str().expect("a path").to_owned());
    paths.filter(|path| root().join(path).join("src").is_dir()).collect()
}

fn table(path: &Path) -> Table {
    let text = std::fs::read_to_string(path).expect("a readable manifest");
    text.parse().expect("a manifest is TOML")
}

fn source_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a readable directory") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
