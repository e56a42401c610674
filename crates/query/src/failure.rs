//! Why a read on a shard's view failed.

use storage::Fault;
use thiserror::Error;

/// A client's error, which goes into the reply, or a fault of the store, which stops the node.
#[derive(Clone, Debug, Error)]
pub enum Failure {
    /// What the client did or must know.
    #[error("{0}")]
    Error(base::Error),
    /// What the store could not read.
    #[error("{0}")]
    Fault(Fault),
}

impl From<base::Error> for Failure {
    fn from(error: base::Error) -> Failure {
        Failure::Error(error)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::Fault(fault)
    }
}
