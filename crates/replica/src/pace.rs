//! How fast a node does what clients do not wait for: snapshots that it sends, shards that it copies into others.
//!
//! Asked by `rpc` before each part of a snapshot and by `router` around each piece of a shard. Pure: it says how long to wait. Always
//! holds: beside clients no more than a fixed number of bytes goes in a second, however many share the pace; where nobody is
//! served, several times as much, and without rests.

use std::time::Duration;

use base::MonoTime;
use parking_lot::Mutex;

/// How much faster work goes where no client is served.
const ALONE_TIMES: u64 = 8;
/// How long work that costs more than sending rests beside clients, in times of what it took: on a machine that is busy it takes
/// longer, and rests longer.
const REST_TIMES: u32 = 4;
/// How long operations are counted before it is judged whether clients are served.
const JUDGED_INTERVAL: Duration = Duration::from_millis(100);
/// Operations a second from which on clients are served: what a node looks after by itself stays below.
const SERVED_PER_S: u64 = 50;

/// See the module's comment.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When what was let through so far will have gone at that pace.
    free_at: Option<MonoTime>,
    /// What was counted when it was judged last, and when.
    judged: Option<(u64, MonoTime)>,
    is_alone: bool,
}

impl Pace {
    /// Bytes a second beside clients.
    pub fn new(bytes_per_second: u64) -> Pace {
        Pace { bytes_per_second: bytes_per_second.max(1), state: Mutex::default() }
    }

    /// How long to wait until so many further bytes may go. `operations` is how many the node has served to clients so far.
    pub fn wait(&self, bytes: u64, operations: u64, now: MonoTime) -> Duration {
        let mut state = self.state.lock();
        state.judge(operations, now);
        let times = if state.is_alone { ALONE_TIMES } else { 1 };
        let nanos =
            u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.saturating_mul(times));
        let start = state.free_at.map_or(now, |free_at| free_at.max(now));
        state.free_at = Some(start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        start.since(now)
    }

    /// How long to rest after a piece of work that took so long, as it was judged last whether clients are served.
    pub fn rest(&self, taken: Duration) -> Duration {
        if self.state.lock().is_alone { Duration::ZERO } else { taken.saturating_mul(REST_TIMES) }
    }
}

impl State {
    fn judge(&mut self, operations: u64, now: MonoTime) {
        let Some((before, at)) = self.judged else {
            self.judged = Some((operations, now));
            return;
        };
        let elapsed = now.since(at);
        if elapsed < JUDGED_INTERVAL {
            return;
        }
        let served = u128::from(operations.saturating_sub(before)) * 1_000;
        self.is_alone = served < u128::from(SERVED_PER_S) * elapsed.as_millis();
        self.judged = Some((operations, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn at_ms(ms: u64) -> MonoTime {
        MonoTime::default() + Duration::from_millis(ms)
    }

    /// Bytes that go in the tenth of a second after `from_ms`, with so many operations before and in it.
    fn sent_in_100_ms(pace: &Pace, from_ms: u64, before: u64, served: u64) -> u64 {
        let (mut now, mut sent) = (at_ms(from_ms), 0);
        while now < at_ms(from_ms + 100) {
            let part = now.since(at_ms(from_ms)).as_millis() as u64;
            now = now + pace.wait(MIB / 16, before + served * part / 100, now) + Duration::from_micros(1);
            sent += MIB / 16;
        }
        sent
    }

    #[test]
    fn beside_clients_it_keeps_to_its_pace() {
        let pace = Pace::new(32 * MIB);
        let first = sent_in_100_ms(&pace, 0, 0, 100);
        let second = sent_in_100_ms(&pace, 100, 100, 100);
        assert!(
            (3 * MIB..4 * MIB).contains(&first),
            "before anything is known, it takes clients to be there: {first}"
        );
        assert!((3 * MIB..4 * MIB).contains(&second), "{second}");
    }

    #[test]
    fn where_nobody_is_served_it_is_several_times_as_fast_until_somebody_is() {
        let pace = Pace::new(32 * MIB);
        sent_in_100_ms(&pace, 0, 0, 0);
        let alone = sent_in_100_ms(&pace, 100, 0, 0);
        assert!(alone > 20 * MIB, "{alone}");
        assert_eq!(pace.rest(Duration::from_millis(5)), Duration::ZERO);
        sent_in_100_ms(&pace, 200, 0, 100);
        let beside = sent_in_100_ms(&pace, 300, 100, 100);
        assert!(beside < 4 * MIB, "{beside}");
        assert_eq!(pace.rest(Duration::from_millis(5)), Duration::from_millis(20));
    }
}
