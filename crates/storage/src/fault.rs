//! What a storage engine reports when it cannot be trusted any more.

use std::fmt;

/// `Result` with [`Fault`].
pub type Result<T> = std::result::Result<T, Fault>;

/// A fault of this node's storage. Never sent to a client and never ignored: the node stops with this message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What failed and where, as a sentence for the operator.
    pub message: String,
    /// What kind of fault it is.
    pub kind: FaultKind,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The operating system refused a read, a write or an fsync.
    Io,
    /// Bytes came back that were not written: a checksum or a structure is wrong.
    Corruption,
    /// The data directory is in use by another process, or belongs to another node or version.
    Directory,
}

impl Fault {
    /// A fault of kind [`FaultKind::Io`].
    pub fn io(message: impl Into<String>) -> Fault {
        Fault { message: message.into(), kind: FaultKind::Io }
    }

    /// A fault of kind [`FaultKind::Corruption`].
    pub fn corruption(message: impl Into<String>) -> Fault {
        Fault { message: message.into(), kind: FaultKind::Corruption }
    }

    /// A fault of kind [`FaultKind::Directory`].
    pub fn directory(message: impl Into<String>) -> Fault {
        Fault { message: message.into(), kind: FaultKind::Directory }
    }

    /// Puts `context` and ": " before the message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Fault {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}
