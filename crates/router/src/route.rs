//! Brings an operation to the primary of its shard, and does so again until it is answered.
//!
//! Called by `front` when this node's replica does not lead. Always holds: an operation that may write is sent with the same
//! identity every time; what the caller gets is the answer of one node that led when it gave it.

use std::sync::Arc;
use std::time::Duration;

use base::{Code, CollectionId, Error, Namespace, NodeId, RequestId, Result, ShardId};
use catalog::{CollectionRecord, ShardPlacement};
use replica::ShardHandle;

use crate::catalog_access::unanswered;
use crate::command::{CursorReply, GetMoreCommand};
use crate::cursor::{Cursor, RemoteCursor};
use crate::peer::{Operation, OperationReply, PeerFailure, PeerReply, PeerRequest, RemoteOperation};
use crate::resolve::sole_shard;
use crate::retry::{Attempts, RETRY_MS_MAX, is_refusal};
use crate::{OperationContext, Router};

impl Router {
    /// The collection, if this node's replica of its shard leads, as far as it knows.
    pub(crate) fn led(&self, namespace: &Namespace) -> Option<Arc<CollectionRecord>> {
        let catalog = self.catalog_copy();
        let record = catalog.find(namespace)?;
        let replica = self.host.shard(sole_shard(record).shard)?;
        self.is_here(&replica).then(|| Arc::clone(record))
    }

    /// Has the primary execute an operation, wherever it is. Where there is no collection and `create` does not ask for
    /// one, this node answers. A write that may have been done in a collection before, as `tried` says,
    /// goes to no other.
    pub(crate) async fn route(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        create: bool,
        mut tried: Option<CollectionId>,
        operation: Operation,
    ) -> Result<OperationReply> {
        let identity = cx.identity.unwrap_or_else(|| self.next_request());
        let mut attempts = Attempts::new(self);
        loop {
            let record = match create && tried.is_none() {
                true => Some(self.collection_or_create(namespace).await?),
                false => self.collection(namespace).await?,
            };
            let is_another =
                tried.is_some_and(|tried| record.as_ref().is_none_or(|record| record.id != tried));
            if is_another && operation.is_write() {
                return Err(dropped_meanwhile(namespace));
            }
            let Some(record) = record else { return self.execute(cx, None, operation).await };
            match self.attempt(cx, &record, identity, operation.clone()).await {
                Ok(reply) => return Ok(reply),
                Err(error) => {
                    if !is_refusal(&error) {
                        tried = Some(record.id);
                    }
                    self.note_unserved(&error).await?;
                    attempts.again(self, cx, error).await?;
                }
            }
        }
    }

    /// A shard that nobody serves may be one that was dropped: then this node's copy of the catalog is behind.
    async fn note_unserved(&self, error: &Error) -> Result<()> {
        if error.code == Code::STALE_CONFIG {
            self.unreconciled.notify_one();
            self.catalog_now().await?;
        }
        Ok(())
    }

    pub(crate) async fn attempt(
        &self,
        cx: &OperationContext,
        record: &Arc<CollectionRecord>,
        identity: RequestId,
        operation: Operation,
    ) -> Result<OperationReply> {
        let placement = sole_shard(record);
        let here = self.host.shard(placement.shard);
        let Some(node) = self.primary_node(placement, here.as_ref()) else {
            let replica = here.ok_or_else(|| no_primary(placement.shard))?;
            // An election is on its way, and this replica hears of its end as soon as anybody.
            return self.await_primary(cx, &replica).await;
        };
        if node == self.node {
            return self.execute(cx, Some(record), operation).await;
        }
        let request = RemoteOperation {
            shard: placement.shard,
            timeout_ms: self.time_left_ms(cx),
            session: cx.session,
            txn_number: cx.txn_number,
            identity,
            connection: cx.connection,
            behind: None,
            operation,
        };
        match self.ask(node, here.as_ref(), request).await {
            Ok(reply) => self.adopt(cx, node, placement.shard, reply),
            Err(failure) => {
                self.note_failure(placement.shard, node, &failure);
                Err(unanswered(failure))
            }
        }
    }

    /// Where the primary of a shard should be: as this node's replica knows, else as others have said, else any node that
    /// has a replica.
    pub(crate) fn primary_node(
        &self,
        placement: &ShardPlacement,
        here: Option<&ShardHandle>,
    ) -> Option<NodeId> {
        if let Some(replica) = here {
            return replica.leader_node();
        }
        if let Some(known) = self.primaries.lock().get(&placement.shard) {
            return Some(*known);
        }
        let others = placement.members().map(|replica| replica.node).filter(|node| *node != self.node);
        let others: Vec<NodeId> = others.collect();
        let drawn = usize::try_from(self.entropy.below(others.len().max(1) as u64)).unwrap_or(0);
        others.get(drawn).copied()
    }

    async fn await_primary(&self, cx: &OperationContext, replica: &ShardHandle) -> Result<OperationReply> {
        let wait = Duration::from_millis(self.time_left_ms(cx).min(1_000));
        // However the wait ends, the next attempt looks again.
        let _ = tokio::time::timeout(wait, replica.leader_changed(None)).await;
        Err(no_primary(replica.shard()))
    }

    /// Sends an operation to `node`, and stops waiting when this node's replica hears of another primary: the answer of the
    /// old one may never come.
    pub(crate) async fn ask(
        &self,
        node: NodeId,
        here: Option<&ShardHandle>,
        request: RemoteOperation,
    ) -> Result<OperationReply, PeerFailure> {
        let (shard, timeout) = (request.shard, Duration::from_millis(request.timeout_ms));
        let call = self.peers.call(node, PeerRequest::Operation(Box::new(request)), timeout);
        let moved = async {
            match here {
                Some(replica) => replica.leader_changed(replica.leader()).await,
                None => std::future::pending().await,
            }
        };
        let answer = tokio::select! {
            biased;
            answer = call => answer?,
            () = moved => return Err(PeerFailure::Unreachable("the shard's primary has changed".to_owned())),
        };
        match answer {
            PeerReply::Operation { reply, applied } => {
                self.note_seen(shard, applied);
                Ok(*reply)
            }
            other => {
                let message = format!("{node} answered something else than it was asked: {other:?}");
                let error = Error::new(Code::INTERNAL_ERROR, message);
                Err(PeerFailure::Refused { error, primary: None })
            }
        }
    }

    fn note_failure(&self, shard: ShardId, asked: NodeId, failure: &PeerFailure) {
        let mut primaries = self.primaries.lock();
        match failure {
            PeerFailure::Refused { primary: Some(primary), .. } => {
                primaries.insert(shard, *primary);
            }
            _ if primaries.get(&shard) == Some(&asked) => {
                primaries.remove(&shard);
            }
            _ => {}
        }
    }

    /// Registers a cursor that another node holds.
    pub(crate) fn adopt(
        &self,
        cx: &OperationContext,
        node: NodeId,
        shard: ShardId,
        reply: OperationReply,
    ) -> Result<OperationReply> {
        match reply {
            OperationReply::Cursor(CursorReply { cursor: Some(cursor), namespace, batch }) => {
                let remote = Cursor::Remote(RemoteCursor { node, shard, cursor });
                self.reply(cx, namespace, Some(remote), batch).map(OperationReply::Cursor)
            }
            other => Ok(other),
        }
    }

    /// Asks the node that holds a cursor for its next batch. A cursor ends with its node.
    pub(crate) async fn continue_remote(
        &self,
        cx: &OperationContext,
        remote: &RemoteCursor,
        command: GetMoreCommand,
    ) -> Result<CursorReply> {
        let request = RemoteOperation {
            shard: remote.shard,
            timeout_ms: self.time_left_ms(cx),
            session: cx.session,
            txn_number: None,
            identity: self.next_request(),
            connection: cx.connection,
            behind: None,
            operation: Operation::GetMore(command),
        };
        match self.ask(remote.node, None, request).await {
            Ok(OperationReply::Cursor(reply)) => Ok(reply),
            Ok(other) => {
                Err(Error::new(Code::INTERNAL_ERROR, format!("not an answer to getMore: {other:?}")))
            }
            Err(PeerFailure::Unreachable(reason)) => {
                let message = format!("cursor id {} was on a node that is gone: {reason}", remote.cursor.0);
                Err(Error::new(Code::CURSOR_NOT_FOUND, message))
            }
            Err(PeerFailure::Refused { error, .. }) => Err(error),
        }
    }

    /// Milliseconds until nobody waits for the operation any more.
    pub(crate) fn time_left_ms(&self, cx: &OperationContext) -> u64 {
        let now = self.clock.monotonic();
        let left = cx.deadline.map(|deadline| deadline.since(now).as_millis());
        left.map_or(RETRY_MS_MAX, |left| u64::try_from(left).unwrap_or(RETRY_MS_MAX).clamp(1, RETRY_MS_MAX))
    }
}

fn dropped_meanwhile(namespace: &Namespace) -> Error {
    let message = format!(
        "collection {namespace} was dropped while this write was on its way: it was done before that, or not at all"
    );
    Error::new(Code::QUERY_PLAN_KILLED, message)
}

pub(crate) fn no_primary(shard: ShardId) -> Error {
    Error::new(Code::NOT_WRITABLE_PRIMARY, format!("{shard} has no primary right now"))
}
