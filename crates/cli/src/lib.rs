//! The `psdb` command line: starting a database, its shell, one-shot commands, import and export, benchmark, demo.
//!
//! `src/main.rs` calls [`main`]. One file per subcommand in `command`; `shell` is the language and the line editor,
//! `literal` the relaxed JSON that both read, `bench` the load generator. Everything that talks to a server does so
//! over the wire protocol through the official driver: there is no private door. This crate and `server` are the
//! only ones that print.

mod bench;
mod command;
pub mod connection;
pub mod failure;
pub mod literal;
pub mod output;
pub mod shell;

pub use command::main;
