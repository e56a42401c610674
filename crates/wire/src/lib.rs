//! The MongoDB wire protocol: messages in, commands run, replies out.
//!
//! Called by `server`, which makes a [`State`] and hands a bound socket to [`serve`]; calls the router through
//! [`Backend`]. One file per command under `command`, all of them in one sorted table, from which the reply to
//! `listCommands` and `docs/COMPATIBILITY.md` come too. Nothing outside this crate knows messages.

mod backend;
mod call;
mod command;
pub mod compatibility;
pub mod compression;
mod connection;
mod dispatch;
mod fail_point;
mod fields;
mod listener;
pub mod message;
pub mod metrics;
mod read_preference;
mod reply;
mod router_backend;
mod state;
mod write_concern;

pub use backend::{Backend, Facts, Machine};
pub use listener::serve;
pub use state::{Settings, State};

/// The version of the protocol's commands that is advertised.
pub(crate) const MONGODB_VERSION: &str = "8.0.16";
/// The same, as numbers.
pub(crate) const MONGODB_VERSION_ARRAY: [i32; 4] = [8, 0, 16, 0];
/// The wire versions that are advertised.
pub(crate) const WIRE_VERSION_MAX: i32 = 25;
