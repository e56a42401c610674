//! The `psdb` binary.
fn main() {}
