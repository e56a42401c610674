//! What a node does whose disk is nearly full: others take over what it leads, and what stays takes no writes.
//!
//! Told by `server`, which watches the disk. Always holds: an engine never meets a full disk because of a client's write to a
//! primary on this node; dropping stays allowed, since it makes room.

use std::sync::Arc;
use std::time::Duration;

use base::{Code, Error, MonoTime, Result};
use replica::ShardHandle;

use crate::Router;

/// How long writes wait for another node to take over before they are refused.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);

/// Why there is no room, and since when.
pub(crate) struct NoRoom {
    reason: String,
    since: MonoTime,
}

impl Router {
    /// The disk of this node is nearly full, for the reason given, or has room again. Call it again now and then while it is
    /// full: this node may have come to lead.
    pub async fn set_room(&self, no_room: Option<String>) {
        let before = self.no_room.load_full();
        let since = before.map_or_else(|| self.clock.monotonic(), |before| before.since);
        self.no_room.store(no_room.map(|reason| Arc::new(NoRoom { reason, since })));
        if self.no_room.load().is_some() {
            self.host.hand_over().await;
        }
    }

    /// Whether this node may make or change indexes and collections. Fails with `OutOfDiskSpace` (14031).
    pub(crate) fn check_room(&self) -> Result<()> {
        self.no_room.load().as_ref().map_or(Ok(()), |no_room| Err(out_of_space(no_room)))
    }

    /// Whether the shard may take writes here. Fails as stale while another node is expected to take over, then with
    /// `OutOfDiskSpace` (14031).
    pub(crate) fn check_room_of(&self, shard: &ShardHandle) -> Result<()> {
        let no_room = self.no_room.load();
        let Some(no_room) = no_room.as_ref() else { return Ok(()) };
        let is_new = self.clock.monotonic().since(no_room.since) < HAND_OVER_MAX;
        if is_new && shard.membership().voters.len() > 1 {
            let message = "the disk of this node is nearly full, and another one takes over";
            return Err(Error::new(Code::NOT_WRITABLE_PRIMARY, message));
        }
        Err(out_of_space(no_room))
    }
}

fn out_of_space(no_room: &NoRoom) -> Error {
    Error::new(Code::OUT_OF_DISK_SPACE, no_room.reason.clone())
}
