//! Compiles the `.proto` files. `protox` stands in for `protoc`, so that a build needs nothing but Rust.

use std::io::{Error, Result};
use std::path::Path;

const ROOT: &str = "proto";
const FILES: [&str; 7] = [
    "psdb/v1/command.proto",
    "psdb/v1/hello.proto",
    "psdb/v1/member.proto",
    "psdb/v1/peer.proto",
    "psdb/v1/raft.proto",
    "psdb/v1/reshard.proto",
    "psdb/v1/snapshot.proto",
];

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed={ROOT}");
    let files = FILES.map(|file| Path::new(ROOT).join(file));
    let descriptors = protox::compile(files, [ROOT]).map_err(Error::other)?;
    // Byte fields share the buffer that they came in.
    tonic_prost_build::configure().bytes(".").emit_rerun_if_changed(false).compile_fds(descriptors)
}
