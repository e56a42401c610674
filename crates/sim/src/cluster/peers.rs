//! The way from a router to those of other nodes: late, and broken where the network is.
//!
//! Called by routers. Always holds: what is asked runs as a task of the other node's process; a request whose answer does not
//! come fails, though it may have been executed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use base::NodeId;
use router::peer::{Operation, PeerFailure, PeerReply, PeerRequest, Peers};
use tokio::sync::oneshot;

use crate::process::Process;
use crate::world::World;

/// How long a connection may be silent before it counts as broken, at most, in milliseconds.
const SILENCE_MS_MAX: u64 = 800;

/// See the module's comment.
pub(super) struct Way {
    pub(super) world: Arc<World>,
    pub(super) from: NodeId,
}

#[async_trait]
impl Peers for Way {
    async fn call(
        &self,
        to: NodeId,
        request: PeerRequest,
        timeout: Duration,
    ) -> Result<PeerReply, PeerFailure> {
        let answer = tokio::time::timeout(timeout, self.ask(to, request)).await;
        answer.unwrap_or_else(|_| Err(PeerFailure::Unreachable(format!("{to} did not answer in time"))))
    }
}

/// Whether a router may send the request more than once.
fn may_repeat(request: &PeerRequest) -> bool {
    let continues = |operation: &Operation| matches!(operation, Operation::Continue { .. });
    match request {
        PeerRequest::Operation(remote) => !continues(&remote.operation),
        PeerRequest::Operations(many) => !many.iter().any(|remote| continues(&remote.operation)),
        _ => true,
    }
}

impl Way {
    async fn ask(&self, to: NodeId, request: PeerRequest) -> Result<PeerReply, PeerFailure> {
        self.world.network.sent().calls.fetch_add(1, Ordering::Relaxed);
        if !self.world.hop(self.from, to).await {
            return Err(self.silence(to).await);
        }
        let Some(process) = self.world.node(to).process() else {
            return Err(PeerFailure::Unreachable(format!("nobody listens on {to}")));
        };
        let doubled = may_repeat(&request) && self.world.network.doubles(&self.world);
        if doubled {
            // As if it had been sent again while the first one is still being executed, whose answer is lost.
            drop(self.deliver(&process, request.clone()));
        }
        let answering = self.deliver(&process, request);
        drop(process);
        let answer = tokio::select! {
            biased;
            answer = answering => answer,
            () = self.is_broken(to) => return Err(self.silence(to).await),
        };
        match answer {
            // What was refused was perhaps done before.
            Ok(Err(_)) if doubled => Err(self.silence(to).await),
            Ok(answer) if self.world.hop(to, self.from).await => answer,
            _ => Err(self.silence(to).await),
        }
    }

    fn deliver(
        &self,
        process: &Process,
        request: PeerRequest,
    ) -> oneshot::Receiver<Result<PeerReply, PeerFailure>> {
        let (tell, told) = oneshot::channel();
        let (from, router) = (self.from, process.router());
        process.spawn(Box::pin(async move {
            let answer = match router {
                Some(router) => router.serve_peer(from, request).await,
                None => Err(PeerFailure::Unreachable("the node is starting".to_owned())),
            };
            // Whoever asked may wait no more.
            let _ = tell.send(answer);
        }));
        told
    }

    /// Resolves when nothing has come from the other node for so long that it counts as gone.
    async fn is_broken(&self, to: NodeId) {
        let network = &self.world.network;
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let paused = self.world.node(to).process().is_none_or(|process| process.is_paused());
            if paused || network.is_cut(self.from, to) || network.is_cut(to, self.from) {
                return;
            }
        }
    }

    /// What a connection ends with that carries nothing any more.
    async fn silence(&self, to: NodeId) -> PeerFailure {
        self.world.pause(SILENCE_MS_MAX).await;
        PeerFailure::Unreachable(format!("the connection to {to} broke"))
    }
}
