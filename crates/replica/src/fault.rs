//! The latch that a storage fault closes, for all replicas of a node at once.
//!
//! Set by the log writer's callbacks, the apply side and the owner loops; awaited by the server, which stops the process
//! with the message. Always holds: once set, no request is answered with success any more, and the first fault stays.

use parking_lot::Mutex;
use storage::Fault;
use tokio::sync::Notify;

/// Holds the node's first fault.
#[derive(Debug, Default)]
pub struct FaultLatch {
    fault: Mutex<Option<Fault>>,
    is_set: std::sync::atomic::AtomicBool,
    set: Notify,
}

impl FaultLatch {
    /// Records a fault; a later one is dropped, as it is most likely a consequence of the first.
    pub fn set(&self, fault: Fault) {
        let mut held = self.fault.lock();
        if held.is_none() {
            tracing::error!(%fault, "storage fault: this node stops");
            *held = Some(fault);
            self.is_set.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        drop(held);
        self.set.notify_waiters();
    }

    /// Whether a fault was recorded.
    pub fn is_set(&self) -> bool {
        self.is_set.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// The fault, if there is one.
    pub fn get(&self) -> Option<Fault> {
        self.fault.lock().clone()
    }

    /// Resolves once there is a fault.
    pub async fn wait(&self) -> Fault {
        loop {
            let mut set = std::pin::pin!(self.set.notified());
            set.as_mut().enable();
            if let Some(fault) = self.get() {
                return fault;
            }
            set.await;
        }
    }
}
