//! Which failures mean "ask again", and how long the router goes on asking.

use std::time::Duration;

use base::{Code, Error, Result};

use crate::{OperationContext, Router};

/// How long an operation without a deadline of its own is retried.
pub(crate) const RETRY_MS_MAX: u64 = 30_000;
/// The pause before the second attempt; it doubles.
const PAUSE_MS_MIN: u64 = 2;
const PAUSE_MS_MAX: u64 = 50;

/// Whether the error says that the shard has moved on, been dropped or lost its primary.
pub(crate) fn is_stale(error: &Error) -> bool {
    matches!(
        error.code,
        Code::STALE_CONFIG
            | Code::NOT_WRITABLE_PRIMARY
            | Code::PRIMARY_STEPPED_DOWN
            | Code::INTERRUPTED_DUE_TO_REPL_STATE_CHANGE
            | Code::HOST_UNREACHABLE
    )
}

/// Whether the error says for sure that nothing of the operation was done. [`is_stale`] alone does not.
pub(crate) fn is_refusal(error: &Error) -> bool {
    matches!(error.code, Code::STALE_CONFIG | Code::NOT_WRITABLE_PRIMARY | Code::SHUTDOWN_IN_PROGRESS)
}

/// Whether the error is about the node or the operation as a whole, not about what one statement asks for.
pub(crate) fn ends_command(error: &Error) -> bool {
    is_stale(error)
        || matches!(
            error.code,
            Code::INTERRUPTED
                | Code::INTERRUPTED_AT_SHUTDOWN
                | Code::MAX_TIME_MS_EXPIRED
                | Code::OUT_OF_DISK_SPACE
                | Code::WRITE_CONFLICT
                | Code::SHUTDOWN_IN_PROGRESS
        )
}

/// Counts down one operation's retries.
pub(crate) struct Attempts {
    until: base::MonoTime,
    pause_ms: u64,
}

impl Attempts {
    pub(crate) fn new(router: &Router) -> Attempts {
        let until = router.clock.monotonic() + Duration::from_millis(RETRY_MS_MAX);
        Attempts { until, pause_ms: PAUSE_MS_MIN }
    }

    /// After a failed attempt: waits and returns when there should be another, or fails with what ends the operation.
    pub(crate) async fn again(&mut self, router: &Router, cx: &OperationContext, error: Error) -> Result<()> {
        if !is_stale(&error) {
            return Err(error);
        }
        let now = router.clock.monotonic();
        cx.check(now)?;
        if now >= self.until {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(self.pause_ms)).await;
        self.pause_ms = (self.pause_ms * 2).min(PAUSE_MS_MAX);
        Ok(())
    }
}
