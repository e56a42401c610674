//! A node whose every step the test decides: a small key-value machine, a log writer that waits to be told to fsync, an
//! apply side that waits to be told to apply, a clock that stands still.

mod cluster;
mod machine;
mod node;
mod scripts;

pub(crate) use cluster::Cluster;
pub(crate) use machine::{KvCommand, KvMachine, KvReply, initial};
pub(crate) use node::{NODE, Node, NodeOptions, REPLICA, SHARD};
pub(crate) use scripts::{machine_command, run_scripts, words};
