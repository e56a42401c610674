//! Commit timestamps: a hybrid logical clock whose reading is a BSON Timestamp.
//!
//! Source: Kulkarni, Demirbas et al., "Logical Physical Clocks" (2014). The physical part is seconds, the logical
//! part a counter within the second, so that a reading fits BSON's Timestamp. Readings strictly increase.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A reading of the hybrid clock: seconds high, counter low.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp {
    /// Seconds since the Unix epoch.
    pub seconds: u32,
    /// Counts readings within the second.
    pub counter: u32,
}

impl Timestamp {
    /// The 64-bit form, whose order is the order of timestamps.
    pub const fn to_u64(self) -> u64 {
        ((self.seconds as u64) << 32) | self.counter as u64
    }

    /// The inverse of [`Timestamp::to_u64`].
    pub const fn from_u64(value: u64) -> Timestamp {
        Timestamp { seconds: (value >> 32) as u32, counter: value as u32 }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.seconds, self.counter)
    }
}

/// One shard's clock. Owned by its owner loop.
#[derive(Clone, Debug, Default)]
pub struct HybridClock {
    last: Timestamp,
}

impl HybridClock {
    /// A clock that reads above `last`, the newest timestamp in the shard's log.
    pub fn starting_above(last: Timestamp) -> HybridClock {
        HybridClock { last }
    }

    /// The next reading, above every earlier one and not behind the wall clock.
    pub fn tick(&mut self, wall_ms: i64) -> Timestamp {
        let seconds = u32::try_from(wall_ms.max(0) / 1000).unwrap_or(u32::MAX);
        let fresh = Timestamp { seconds, counter: 1 };
        self.last = fresh.max(Timestamp::from_u64(self.last.to_u64() + 1));
        self.last
    }

    /// Raises the clock to at least `seen`, so that the next reading is above it.
    pub fn observe(&mut self, seen: Timestamp) {
        self.last = self.last.max(seen);
    }

    /// The newest reading.
    pub fn last(&self) -> Timestamp {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_increase_when_the_wall_clock_stands_still_or_jumps_back() {
        let mut clock = HybridClock::default();
        let readings: Vec<_> = [5_000, 5_000, 1_000, 5_999, 6_000].map(|wall_ms| clock.tick(wall_ms)).into();
        assert!(readings.is_sorted_by(|a, b| a < b), "{readings:?}");
        assert_eq!(readings[4], Timestamp { seconds: 6, counter: 1 });
    }

    #[test]
    fn a_new_leader_starts_above_its_log() {
        let mut clock = HybridClock::starting_above(Timestamp { seconds: 9, counter: u32::MAX });
        assert_eq!(clock.tick(1_000), Timestamp { seconds: 10, counter: 0 });
    }
}
