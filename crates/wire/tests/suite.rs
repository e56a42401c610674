//! The wire protocol, by scripts and on random bytes.

mod commands;
mod compatibility;
mod frames;
mod random;
mod support;
