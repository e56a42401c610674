//! When the clock of a replica's group ticks.
//!
//! All groups of a node tick at the same moments, so that a node at rest wakes up once a tick and not once for each group, and so
//! that what they send then shares the way. Always holds: ticks that were missed are never caught up, and however late some of
//! them are, any `n` ticks that follow one take at least `n` times [`TICK_MS`] less [`TICK_SLACK_MS`]. Leases rely on that.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::group::{TICK_MS, TICK_SLACK_MS};

/// A clock that was late finds its way back in steps of this many milliseconds, each of which makes a tick longer.
const STEP_MS: u64 = 10;

/// For how many milliseconds after a tick what has time leaves at once.
const DEPARTURE_MS: u64 = 10;

/// A group's ticks.
pub(super) struct Ticks {
    /// The node's.
    origin: Instant,
    /// When the next tick is due, in milliseconds since the origin.
    due_ms: u64,
    sleep: Pin<Box<Sleep>>,
}

impl Ticks {
    /// The first tick comes about [`TICK_MS`] from now.
    pub(super) fn new(origin: Instant) -> Ticks {
        let due_ms = next_ms(now_ms(origin));
        Ticks { origin, due_ms, sleep: Box::pin(sleep_until(origin + Duration::from_millis(due_ms))) }
    }

    /// Waits for the next tick, and returns the number of it among those of the node, more or less. May be dropped while it
    /// waits.
    pub(super) async fn tick(&mut self) -> u64 {
        self.sleep.as_mut().await;
        let number = self.due_ms / TICK_MS;
        self.begin_anew();
        number
    }

    /// The next tick comes about [`TICK_MS`] from now.
    pub(super) fn begin_anew(&mut self) {
        self.due_ms = next_ms(now_ms(self.origin));
        self.sleep.as_mut().reset(self.origin + Duration::from_millis(self.due_ms));
    }
}

/// When messages that nobody waits for leave a node: with its ticks, all of them together, so that it wakes up for them neither
/// itself nor others once for each. At most [`TICK_MS`] from now.
pub(super) fn departure(origin: Instant) -> Instant {
    origin + Duration::from_millis(departure_ms(now_ms(origin)))
}

fn departure_ms(now_ms: u64) -> u64 {
    match now_ms % TICK_MS < DEPARTURE_MS {
        true => now_ms,
        false => now_ms.next_multiple_of(TICK_MS),
    }
}

fn now_ms(origin: Instant) -> u64 {
    u64::try_from(origin.elapsed().as_micros().div_ceil(1000))
        .expect("a process runs for less than centuries")
}

/// When the tick after one at `now_ms` is due. The first multiple of [`TICK_MS`] that is neither too early nor much too late, or
/// else a step nearer to one.
fn next_ms(now_ms: u64) -> u64 {
    let even = (now_ms + TICK_MS - TICK_SLACK_MS).next_multiple_of(TICK_MS);
    match even <= now_ms + TICK_MS + STEP_MS {
        true => even,
        false => (now_ms + TICK_MS).next_multiple_of(STEP_MS),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn groups_that_begin_at_different_times_tick_together() {
        for start_ms in 0..200 {
            let third = (0..3).fold(start_ms, |now_ms, _| next_ms(now_ms));
            let later = (0..5).fold(third, |now_ms, _| next_ms(now_ms + 1));
            assert_eq!(later % TICK_MS, 0, "one that begins at {start_ms}");
        }
    }

    #[test]
    fn what_has_time_leaves_with_a_tick() {
        let departures: Vec<_> = [100, 109, 110, 149, 150].map(departure_ms).into();
        assert_eq!(departures, [100, 109, 150, 150, 150]);
    }

    proptest! {
        #[test]
        fn late_ticks_are_not_caught_up(start_ms in 0..1000_u64, late_ms in proptest::collection::vec(0..120_u64, 1..40)) {
            let mut ticks = vec![start_ms];
            for late_ms in late_ms {
                ticks.push(next_ms(ticks[ticks.len() - 1]) + late_ms);
            }
            for (position, from) in ticks.iter().enumerate() {
                for (count, to) in ticks[position..].iter().enumerate() {
                    prop_assert!(to - from + TICK_SLACK_MS >= count as u64 * TICK_MS);
                }
            }
        }
    }
}
