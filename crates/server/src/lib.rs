//! One node: configuration, wiring, signals, logs, metrics and health.
//!
//! Called by `cli` (`psdb start`, `psdb demo`) and by tests that want a whole server in their process. [`Server::start`]
//! opens the data directory, finds the node's place in a cluster, then opens the engines, the replicas and the router, and
//! serves clients last: whoever gets an answer finds everything in place. [`main`] adds a runtime, logs and signals. Always holds: a storage fault ends the node with
//! its message; nothing is acknowledged after it.

mod admin;
mod config;
mod disk;
mod engines;
mod facts;
mod logging;
mod node;
mod options;
mod peers;
mod place;
mod process;
mod system;

pub use config::check_config;
pub use logging::LogFormat;
pub use node::Server;
pub use options::{Options, Settings};
pub use process::main;
pub use system::{OsEntropy, SystemClock};

/// Why a node did not start or had to stop; a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The options or the configuration file are wrong.
    #[error("{0}")]
    Options(String),
    /// The address cannot be listened on.
    #[error("{0}")]
    Listen(String),
    /// The storage cannot be trusted.
    #[error("storage fault: {0}")]
    Storage(storage::Fault),
    /// The node's own services did not start.
    #[error("{0}")]
    Start(String),
}

impl Failure {
    /// The exit code of the process: 2 for options, 3 for storage, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Options(_) => 2,
            Failure::Storage(_) => 3,
            Failure::Listen(_) | Failure::Start(_) => 1,
        }
    }
}

impl From<storage::Fault> for Failure {
    fn from(fault: storage::Fault) -> Failure {
        Failure::Storage(fault)
    }
}
