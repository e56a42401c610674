//! Which refusals of a shard mean "ask again", and how long the router goes on asking.

use std::time::Duration;

use base::{Code, Error, Result};

use crate::{OperationContext, Router};

/// How long an operation without a deadline of its own is retried.
const RETRY_MS_MAX: u64 = 30_000;
/// The pause between two attempts.
const PAUSE_MS: u64 = 5;

/// Whether the error says that the shard has moved on, been dropped or lost its leader, and nothing was done.
pub(crate) fn is_stale(error: &Error) -> bool {
    matches!(error.code, Code::STALE_CONFIG | Code::NOT_WRITABLE_PRIMARY | Code::PRIMARY_STEPPED_DOWN)
}

/// Whether the error is about the node or the operation as a whole, not about what one statement asks for.
pub(crate) fn ends_command(error: &Error) -> bool {
    is_stale(error)
        || matches!(
            error.code,
            Code::INTERRUPTED
                | Code::INTERRUPTED_AT_SHUTDOWN
                | Code::INTERRUPTED_DUE_TO_REPL_STATE_CHANGE
                | Code::MAX_TIME_MS_EXPIRED
                | Code::OUT_OF_DISK_SPACE
                | Code::SHUTDOWN_IN_PROGRESS
        )
}

/// Counts down one operation's retries.
pub(crate) struct Attempts {
    until: base::MonoTime,
}

impl Attempts {
    pub(crate) fn new(router: &Router) -> Attempts {
        Attempts { until: router.clock.monotonic() + Duration::from_millis(RETRY_MS_MAX) }
    }

    /// After a failed attempt: waits and returns when there should be another, or fails with what ends the operation.
    pub(crate) async fn again(&self, router: &Router, cx: &OperationContext, error: Error) -> Result<()> {
        if !is_stale(&error) {
            return Err(error);
        }
        let now = router.clock.monotonic();
        cx.check(now)?;
        if now >= self.until {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
        Ok(())
    }
}
