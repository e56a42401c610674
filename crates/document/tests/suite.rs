//! The tests of the crate's public interface, as one binary. Scripts are in `tests/scripts/<area>/`; rewrite their
//! expected output with `UPDATE_GOLDENFILES=1 cargo test -p document`, and read what changed.

mod corpus;
mod expression;
mod filter;
mod order;
mod pipeline;
mod projection;
mod split;
mod support;
mod update;
mod update_properties;
mod validate;
