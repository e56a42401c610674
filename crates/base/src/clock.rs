//! Where time and randomness come from. Everything below `server` is handed these and never asks the system.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A reading of a monotonic clock: the time since some fixed moment of this process. Never goes backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoTime(pub Duration);

impl MonoTime {
    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: MonoTime) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for MonoTime {
    type Output = MonoTime;

    fn add(self, rhs: Duration) -> MonoTime {
        MonoTime(self.0.saturating_add(rhs))
    }
}

impl Sub for MonoTime {
    type Output = Duration;

    fn sub(self, rhs: MonoTime) -> Duration {
        self.since(rhs)
    }
}

/// Source of time. The real one is in `server`, the simulated one in `sim`.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time of this process; leases and timeouts are measured with it.
    fn monotonic(&self) -> MonoTime;

    /// Wall-clock time in milliseconds since the Unix epoch; may jump. Used for dates that users see and as the
    /// physical part of [`crate::HybridClock`].
    fn wall_ms(&self) -> i64;
}

/// Source of randomness. Seeded in the simulator, from the operating system otherwise.
pub trait Entropy: Send + Sync + 'static {
    /// 64 random bits.
    fn next_u64(&self) -> u64;

    /// A value below `bound`; `bound` must not be zero. The bias of the modulo is below 2^-32 for bounds below 2^32.
    fn below(&self, bound: u64) -> u64 {
        assert!(bound > 0, "a random value needs a non-empty range");
        self.next_u64() % bound
    }
}
