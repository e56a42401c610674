//! How long things take, counted in fixed buckets.
//!
//! `wire` counts commands in one, `storage` fsyncs; `server` shows both on the metrics page. Always holds: recording takes
//! no lock and allocates nothing; a reading is not a consistent cut, but each of its numbers only grows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds, each included; one more bucket has no bound.
pub const BOUNDS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// All buckets: one for each bound, and the one without.
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// Durations, by bucket.
#[derive(Debug, Default)]
pub struct DurationHistogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

/// What a [`DurationHistogram`] held when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurationReading {
    /// Durations within each bucket alone: those of [`BOUNDS_US`], then the one without a bound.
    pub buckets: [u64; BUCKETS],
    /// All durations together, in nanoseconds.
    pub sum_ns: u64,
}

impl DurationHistogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let micros = nanos.div_ceil(1_000);
        let bucket = BOUNDS_US.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS_US.len());
        if let Some(counter) = self.buckets.get(bucket) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn read(&self) -> DurationReading {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DurationReading { buckets: self.buckets.each_ref().map(load), sum_ns: load(&self.sum_ns) }
    }
}

impl DurationReading {
    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_whose_bound_it_does_not_pass() {
        let histogram = DurationHistogram::default();
        for nanos in [0, 100_000, 100_001, 10_000_000_000, 10_000_000_001, u64::MAX / 2] {
            histogram.record(Duration::from_nanos(nanos));
        }
        let reading = histogram.read();
        assert_eq!((reading.buckets[0], reading.buckets[1]), (2, 1));
        assert_eq!((reading.buckets[15], reading.buckets[16]), (1, 2));
        assert_eq!(reading.count(), 6);
        assert_eq!(reading.sum_ns, 20_000_200_002 + u64::MAX / 2);
    }

    #[test]
    fn bounds_ascend() {
        assert!(BOUNDS_US.is_sorted_by(|a, b| a < b));
    }
}
