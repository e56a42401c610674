//! The real clock and the real randomness.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base::{Clock, Entropy, MonoTime};
use rand::TryRngCore;

/// The operating system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> MonoTime {
        MonoTime(self.started.elapsed())
    }

    fn wall_ms(&self) -> i64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
    }
}

/// The operating system's randomness.
#[derive(Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn next_u64(&self) -> u64 {
        rand::rngs::OsRng.try_next_u64().expect("the operating system gives random numbers")
    }
}
