//! `docs/COMPATIBILITY.md` says what the tables of the code say. `PSDB_UPDATE_DOCS=1` rewrites it.

use std::path::Path;

#[test]
fn the_compatibility_page_is_what_the_tables_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/COMPATIBILITY.md");
    let wanted = wire::compatibility::markdown();
    if std::env::var_os("PSDB_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &wanted).expect("the page can be written");
    }
    let actual = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        actual == wanted,
        "docs/COMPATIBILITY.md is out of date: run PSDB_UPDATE_DOCS=1 cargo test -p wire"
    );
}
