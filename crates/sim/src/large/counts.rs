//! What was sent and decided by a moment, and how much of it between two.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::id::CATALOG_SHARD;
use tokio::time::Instant;

use crate::groups::Member;
use crate::world::World;

/// See the module's comment.
pub(super) struct Counts {
    at: Instant,
    messages: u64,
    calls: u64,
    catalog_entries: u64,
}

impl Counts {
    pub(super) fn now(world: &World) -> Counts {
        let sent = world.network.sent();
        let catalogs = world.processes().into_iter().filter_map(|(_, process)| {
            Member::on(&process.host, CATALOG_SHARD).map(|member| member.commit().get())
        });
        Counts {
            at: Instant::now(),
            messages: sent.messages.load(Ordering::Relaxed),
            calls: sent.calls.load(Ordering::Relaxed),
            catalog_entries: catalogs.max().unwrap_or_default(),
        }
    }

    /// What there was from then on.
    pub(super) fn until(&self, later: &Counts) -> Between {
        Between {
            elapsed: later.at.duration_since(self.at),
            messages: later.messages - self.messages,
            calls: later.calls - self.calls,
            catalog_entries: later.catalog_entries - self.catalog_entries,
        }
    }
}

/// What there was between two moments.
pub(super) struct Between {
    elapsed: Duration,
    messages: u64,
    calls: u64,
    catalog_entries: u64,
}

impl fmt::Display for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64().max(0.001);
        let a_second = |count: u64| count as f64 / seconds;
        write!(
            f,
            "in {seconds:.1} s {} entries of the catalog, {:.1} a second; {:.1} Raft messages and {:.1} calls a second",
            self.catalog_entries,
            a_second(self.catalog_entries),
            a_second(self.messages),
            a_second(self.calls)
        )
    }
}
