//! Watches the free space of the disk: below the reserve, other nodes take over and clients' writes are refused here; they come
//! back with room.
//!
//! An engine that meets a full disk poisons itself, so that writes stop before it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use router::Router;
use storage::DataDirectory;
use tracing::{info, warn};

/// How often the free space is looked at while there is plenty.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often where little more than the reserve is free: fast writers fill hundreds of MiB in a second.
const INTERVAL_NEAR_RESERVE: Duration = Duration::from_millis(50);
/// Plenty is this many times the reserve, and at least so many bytes.
const PLENTY_RESERVES: u64 = 4;
const PLENTY_BYTES: u64 = 2 << 30;
/// Writes come back when this many sixteenths of the reserve are free on top of it, so that they do not flicker.
const HYSTERESIS_SIXTEENTHS: u64 = 1;

/// How often a node without room hands over what it has come to lead: seldom, since others may have none either.
const TELL_AGAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Free bytes of the disk as of the last look, for those who must not wait for the disk.
#[derive(Debug)]
pub(crate) struct FreeBytes(AtomicU64);

impl FreeBytes {
    pub(crate) fn new(free_bytes: u64) -> FreeBytes {
        FreeBytes(AtomicU64::new(free_bytes))
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, free_bytes: u64) {
        self.0.store(free_bytes, Ordering::Relaxed);
    }
}

/// What the last look decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    Enough,
    Low,
}

/// Watches until the task is dropped. Ends with the fault when the file system cannot be asked.
pub(crate) async fn watch(
    directory: Arc<DataDirectory>,
    reserve_bytes: u64,
    router: Arc<Router>,
    seen: Arc<FreeBytes>,
) -> storage::Fault {
    let mut space = Space::Enough;
    let mut told = tokio::time::Instant::now();
    loop {
        match directory.free_bytes() {
            Ok(free_bytes) => {
                seen.set(free_bytes);
                let next = judge(space, free_bytes, reserve_bytes);
                let again = next == Space::Low && told.elapsed() >= TELL_AGAIN_INTERVAL;
                if next != space || again {
                    tell(&router, next, free_bytes, reserve_bytes, &directory).await;
                    told = tokio::time::Instant::now();
                }
                space = next;
                tokio::time::sleep(interval(free_bytes, reserve_bytes)).await;
            }
            Err(fault) => return fault,
        }
    }
}

fn interval(free_bytes: u64, reserve_bytes: u64) -> Duration {
    let plenty = free_bytes >= reserve_bytes.saturating_mul(PLENTY_RESERVES) && free_bytes >= PLENTY_BYTES;
    if plenty { INTERVAL } else { INTERVAL_NEAR_RESERVE }
}

fn judge(space: Space, free_bytes: u64, reserve_bytes: u64) -> Space {
    let wanted = match space {
        Space::Enough => reserve_bytes,
        Space::Low => reserve_bytes.saturating_add(reserve_bytes / 16 * HYSTERESIS_SIXTEENTHS),
    };
    if free_bytes < wanted { Space::Low } else { Space::Enough }
}

async fn tell(router: &Router, space: Space, free_bytes: u64, reserve_bytes: u64, directory: &DataDirectory) {
    const MIB: u64 = 1024 * 1024;
    match space {
        Space::Low => {
            let path = directory.path().display();
            let reason = format!(
                "writes are refused: {} MiB are free on the disk of {path}, and {} MiB are kept in reserve. Make room \
                 there, or drop collections or indexes; writes are taken again then",
                free_bytes / MIB,
                reserve_bytes / MIB
            );
            warn!(free_bytes, reserve_bytes, "{reason}");
            router.set_room(Some(reason)).await;
        }
        Space::Enough => {
            info!(free_bytes, reserve_bytes, "there is room on the disk again: writes are taken");
            router.set_room(None).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_stop_below_the_reserve_and_come_back_above_it_with_a_margin() {
        assert_eq!(judge(Space::Enough, 1_600, 1_600), Space::Enough);
        assert_eq!(judge(Space::Enough, 1_599, 1_600), Space::Low);
        assert_eq!(judge(Space::Low, 1_699, 1_600), Space::Low);
        assert_eq!(judge(Space::Low, 1_700, 1_600), Space::Enough);
    }

    #[test]
    fn the_space_is_looked_at_more_often_near_the_reserve() {
        const GIB: u64 = 1 << 30;
        assert_eq!(interval(9 * GIB, 2 * GIB), INTERVAL);
        assert_eq!(interval(7 * GIB, 2 * GIB), INTERVAL_NEAR_RESERVE);
        assert_eq!(interval(GIB, 0), INTERVAL_NEAR_RESERVE);
        assert_eq!(interval(9 * GIB, u64::MAX), INTERVAL_NEAR_RESERVE);
    }
}
