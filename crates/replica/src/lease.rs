//! Until when a replica may answer reads by itself.
//!
//! Extended and revoked by the owner loop, checked by every read with one atomic load and a reading of the clock. A lease
//! is proved by a round of messages that a quorum acknowledged: it runs from the moment before they were sent, for as
//! long as no voter of that quorum votes for another (Raft dissertation, section 6.4.1). A sole voter's lease has no end:
//! nobody else can be elected.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{Clock, MonoTime};

/// The value of a lease without an end, in microseconds.
const FOR_EVER: u64 = u64::MAX;

/// A leader's right to answer reads without asking anyone.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// End of the lease in microseconds of the node's monotonic clock; 0 for none.
    until_us: AtomicU64,
}

impl Lease {
    /// Begins a lease that ends only by [`Lease::revoke`]. The caller is a sole voter that leads, has committed an entry
    /// of its own term, and has published its commit index before.
    pub(crate) fn grant_to_sole_voter(&self) {
        self.until_us.store(FOR_EVER, Ordering::SeqCst);
    }

    /// Extends the lease to `until`. The caller leads, has committed an entry of its own term, has published its commit
    /// index before, and holds the proof.
    pub(crate) fn extend(&self, until: MonoTime) {
        let until_us = u64::try_from(until.0.as_micros()).unwrap_or(FOR_EVER - 1);
        // A lease without an end belonged to a group of one, which it is no longer.
        let current = self.until_us.load(Ordering::SeqCst);
        if current == FOR_EVER || current < until_us {
            self.until_us.store(until_us, Ordering::SeqCst);
        }
    }

    /// Ends the lease at once.
    pub(crate) fn revoke(&self) {
        self.until_us.store(0, Ordering::SeqCst);
    }

    /// Whether the lease holds now.
    pub(crate) fn holds(&self, clock: &dyn Clock) -> bool {
        match self.until_us.load(Ordering::SeqCst) {
            0 => false,
            FOR_EVER => true,
            until_us => clock.monotonic().0 < Duration::from_micros(until_us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that stands still, in milliseconds.
    struct At(u64);

    impl Clock for At {
        fn monotonic(&self) -> MonoTime {
            MonoTime(Duration::from_millis(self.0))
        }

        fn wall_ms(&self) -> i64 {
            0
        }
    }

    #[test]
    fn a_lease_holds_until_its_end_and_an_older_proof_does_not_shorten_it() {
        let lease = Lease::default();
        assert!(!lease.holds(&At(0)));
        lease.extend(At(300).monotonic());
        lease.extend(At(200).monotonic());
        assert!(lease.holds(&At(299)) && !lease.holds(&At(300)));
        lease.revoke();
        assert!(!lease.holds(&At(100)));
    }

    #[test]
    fn a_sole_voters_lease_gets_an_end_when_others_may_vote() {
        let lease = Lease::default();
        lease.grant_to_sole_voter();
        assert!(lease.holds(&At(u64::from(u32::MAX))));
        lease.extend(At(300).monotonic());
        assert!(!lease.holds(&At(301)));
    }
}
