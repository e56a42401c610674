//! Whether a replica may answer reads by itself right now.
//!
//! Granted and revoked by the owner loop, checked by every read with one atomic load. A sole voter's lease has no end:
//! nobody else can be elected.

use std::sync::atomic::{AtomicBool, Ordering};

/// A leader's right to answer reads without asking anyone.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    held: AtomicBool,
}

impl Lease {
    /// Begins a lease that ends only by [`Lease::revoke`]. The caller is a sole voter that leads, has committed an entry
    /// of its own term, and has published its commit index before.
    pub(crate) fn grant_to_sole_voter(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    /// Ends the lease at once.
    pub(crate) fn revoke(&self) {
        self.held.store(false, Ordering::SeqCst);
    }

    /// Whether the lease holds.
    pub(crate) fn holds(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }
}
