//! The tests of the crate's public interface, as one binary. Scripts are in `tests/scripts/<area>/`; rewrite their
//! expected output with `UPDATE_GOLDENFILES=1 cargo test -p query`, and read what changed.

mod copying;
mod positions;
mod properties;
mod requests;
mod scripts;
mod shard;
// Values in shell syntax and the running of scripts are shared with the crate that documents come from.
#[allow(dead_code)]
#[path = "../../document/tests/support/mod.rs"]
mod support;
