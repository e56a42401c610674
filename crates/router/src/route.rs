//! Brings operations to the primaries of their shards, and does so again until they are answered.
//!
//! Called by `front` when this node's replica does not lead, or there are several shards. Always holds: an operation that may
//! write is sent with the same identity every time; what the caller gets of a shard is the answer of one node that led it
//! when it gave it.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{Code, CollectionId, Error, Namespace, NodeId, Result, ShardId};
use catalog::ShardPlacement;
use futures::future::join_all;
use replica::ShardHandle;

use crate::catalog_access::unanswered;
use crate::command::ReadMode;
use crate::gather::Asked;
use crate::peer::{
    Executed, Operation, OperationReply, PeerFailure, PeerReply, PeerRequest, RemoteOperation,
};
use crate::resolve::{Place, sole_place};
use crate::retry::{Attempts, RETRY_MS_MAX, is_refusal};
use crate::{OperationContext, Router};

/// How long a node that did not answer is asked last for where a shard's primary is.
const SILENCE_REMEMBERED: Duration = Duration::from_secs(2);

impl Router {
    /// The shard, if this node's replica of it leads, as far as it knows.
    pub(crate) fn leads(&self, place: &Place) -> bool {
        self.host.shard(place.shard).is_some_and(|replica| self.is_here(&replica))
    }

    /// Has the primaries of the shards that an operation is about execute it, wherever they are, and merges what they
    /// answer. Where there is no collection and `create` does not ask for one, this node answers. A write that may have been
    /// done in a collection before, as `tried` says, goes to no other.
    pub(crate) async fn route(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        create: bool,
        mut tried: Option<CollectionId>,
        operation: Operation,
    ) -> Result<OperationReply> {
        let mut cx = cx.clone();
        cx.identity.get_or_insert_with(|| self.next_request());
        let cx = &cx;
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
            let executed = match sole_place(&record) {
                Some(place) => self.attempt(cx, &place, operation.clone()).await,
                None => self.spread(cx, &record, operation.clone()).await,
            };
            match executed {
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
    pub(crate) async fn note_unserved(&self, error: &Error) -> Result<()> {
        if error.code == Code::STALE_CONFIG {
            self.unreconciled.notify_one();
            self.catalog_now().await?;
        }
        Ok(())
    }

    /// Has a replica that the operation may go to execute it, once.
    pub(crate) async fn attempt(
        &self,
        cx: &OperationContext,
        place: &Place,
        operation: Operation,
    ) -> Result<OperationReply> {
        let asked = Asked { place: place.clone(), node: None, operation };
        self.attempt_one(cx, asked).await.map(|(_, reply)| reply)
    }

    /// The same, with the node that answered.
    pub(crate) async fn attempt_one(
        &self,
        cx: &OperationContext,
        asked: Asked,
    ) -> Result<(NodeId, OperationReply)> {
        let Asked { place, node, operation } = asked;
        if node.is_none() && cx.reads.mode != ReadMode::Primary {
            return self.read_by_preference(cx, &place, operation).await;
        }
        let here = self.host.shard(place.shard);
        let Some(node) = node.or_else(|| self.primary_node(place.placement(), here.as_ref())) else {
            let replica = here.ok_or_else(|| no_primary(place.shard))?;
            // An election is on its way, and this replica hears of its end as soon as anybody.
            return Err(self.await_primary(cx, &replica).await);
        };
        if node == self.node {
            let reply = self.execute(cx, Some(&place), operation).await?;
            return Ok((node, reply));
        }
        let request = self.remote_operation(cx, place.shard, operation);
        match self.ask(node, here.as_ref(), request).await {
            Ok(reply) => {
                self.note_answer(place.shard, node, here.is_some());
                Ok((node, reply))
            }
            Err(failure) => {
                self.note_failure(place.shard, node, &failure);
                Err(unanswered(failure))
            }
        }
    }

    /// Has several shards execute an operation each, all at the same time, with one call for all shards of a node. The
    /// answers come in the order of what was asked.
    pub(crate) async fn attempt_all(
        &self,
        cx: &OperationContext,
        asked: Vec<Asked>,
        calls: &mut u64,
    ) -> Vec<Result<(NodeId, OperationReply)>> {
        let mut by_node: BTreeMap<NodeId, Vec<(usize, Asked)>> = BTreeMap::new();
        let mut single = Vec::new();
        let count = asked.len();
        for (at, one) in asked.into_iter().enumerate() {
            match self.other_node(cx, &one) {
                Some(node) => by_node.entry(node).or_default().push((at, one)),
                None => single.push((at, one)),
            }
        }
        // What is done on this node counts as one, however many shards it is about.
        let apart = if cx.reads.mode == ReadMode::Primary { single.len().min(1) } else { single.len() };
        *calls += (by_node.len() + apart) as u64;
        let singles =
            single.into_iter().map(|(at, one)| async move { vec![(at, self.attempt_one(cx, one).await)] });
        let together = by_node.into_iter().map(|(node, many)| self.attempt_on(cx, node, many));
        let (singles, together) = futures::join!(join_all(singles), join_all(together));
        let mut answers: Vec<_> = singles.into_iter().chain(together).flatten().collect();
        answers.sort_by_key(|(at, _)| *at);
        assert_eq!(answers.len(), count, "whatever is asked is answered");
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// The node that an operation goes to, if that is another one for sure.
    fn other_node(&self, cx: &OperationContext, asked: &Asked) -> Option<NodeId> {
        let by_role = || match cx.reads.mode {
            ReadMode::Primary => {
                let here = self.host.shard(asked.place.shard);
                self.primary_node(asked.place.placement(), here.as_ref())
            }
            _ => None,
        };
        asked.node.or_else(by_role).filter(|node| *node != self.node)
    }

    /// One call to another node.
    async fn attempt_on(
        &self,
        cx: &OperationContext,
        node: NodeId,
        many: Vec<(usize, Asked)>,
    ) -> Vec<(usize, Result<(NodeId, OperationReply)>)> {
        let shards: Vec<(usize, ShardId)> = many.iter().map(|(at, asked)| (*at, asked.place.shard)).collect();
        let here = shards.first().and_then(|(_, shard)| self.host.shard(*shard));
        let requests: Vec<RemoteOperation> = many
            .into_iter()
            .map(|(_, asked)| self.remote_operation(cx, asked.place.shard, asked.operation))
            .collect();
        let answers = self.ask_many(node, here.as_ref(), requests).await;
        let note = |((at, shard), answer): ((usize, ShardId), Result<OperationReply, PeerFailure>)| {
            let answer = answer.map_err(|failure| {
                self.note_failure(shard, node, &failure);
                unanswered(failure)
            });
            if answer.is_ok() {
                self.note_answer(shard, node, self.host.shard(shard).is_some());
            }
            (at, answer.map(|reply| (node, reply)))
        };
        shards.into_iter().zip(answers).map(note).collect()
    }

    /// An operation as it goes to another node.
    pub(crate) fn remote_operation(
        &self,
        cx: &OperationContext,
        shard: ShardId,
        operation: Operation,
    ) -> RemoteOperation {
        RemoteOperation {
            shard,
            timeout_ms: self.time_left_ms(cx),
            session: cx.session,
            txn_number: cx.txn_number,
            identity: cx.identity.unwrap_or_else(|| self.next_request()),
            connection: cx.connection,
            found: cx.found.clone(),
            behind: None,
            operation,
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
        let others: Vec<NodeId> = self.likely(others.collect());
        let drawn = usize::try_from(self.entropy.below(others.len().max(1) as u64)).unwrap_or(0);
        others.get(drawn).copied()
    }

    async fn await_primary(&self, cx: &OperationContext, replica: &ShardHandle) -> Error {
        let wait = Duration::from_millis(self.time_left_ms(cx).min(1_000));
        // However the wait ends, the next attempt looks again.
        let _ = tokio::time::timeout(wait, replica.leader_changed(None)).await;
        no_primary(replica.shard())
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
        match self.call(node, here, PeerRequest::Operation(Box::new(request)), timeout).await? {
            PeerReply::Operation(executed) => Ok(self.noted(shard, *executed)),
            other => Err(wrong_answer(node, &other)),
        }
    }

    /// Sends several operations to `node` in one call. `here` is a replica of the first one's shard.
    async fn ask_many(
        &self,
        node: NodeId,
        here: Option<&ShardHandle>,
        requests: Vec<RemoteOperation>,
    ) -> Vec<Result<OperationReply, PeerFailure>> {
        let shards: Vec<ShardId> = requests.iter().map(|request| request.shard).collect();
        let timeout_ms = requests.iter().map(|request| request.timeout_ms).max().unwrap_or_default();
        let timeout = Duration::from_millis(timeout_ms);
        let failure = match self.call(node, here, PeerRequest::Operations(requests), timeout).await {
            Ok(PeerReply::Operations(answers)) if answers.len() == shards.len() => {
                let note = |(shard, answer): (&ShardId, Result<Executed, PeerFailure>)| {
                    answer.map(|executed| self.noted(*shard, executed))
                };
                return shards.iter().zip(answers).map(note).collect();
            }
            Ok(other) => wrong_answer(node, &other),
            Err(failure) => failure,
        };
        shards.iter().map(|_| Err(failure.clone())).collect()
    }

    async fn call(
        &self,
        node: NodeId,
        here: Option<&ShardHandle>,
        request: PeerRequest,
        timeout: Duration,
    ) -> Result<PeerReply, PeerFailure> {
        let call = self.peers.call(node, request, timeout);
        let moved = async {
            match here {
                Some(replica) => replica.leader_changed(replica.leader()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = call => answer,
            () = moved => Err(PeerFailure::Unreachable("the shard's primary has changed".to_owned())),
        }
    }

    /// An answer, once it is noted how far the replica was that gave it.
    fn noted(&self, shard: ShardId, executed: Executed) -> OperationReply {
        self.note_seen(shard, executed.applied);
        executed.reply
    }

    /// Those of the nodes that were not found silent just now; all of them when all were.
    fn likely(&self, nodes: Vec<NodeId>) -> Vec<NodeId> {
        let (now, silent) = (self.clock.monotonic(), self.silent.lock());
        let is_silent =
            |node: &NodeId| silent.get(node).is_some_and(|since| now.since(*since) < SILENCE_REMEMBERED);
        let likely: Vec<NodeId> = nodes.iter().copied().filter(|node| !is_silent(node)).collect();
        if likely.is_empty() { nodes } else { likely }
    }

    /// Remembers who answered for a shard that has no replica here.
    fn note_answer(&self, shard: ShardId, node: NodeId, has_replica: bool) {
        if !has_replica {
            self.primaries.lock().insert(shard, node);
        }
    }

    fn note_failure(&self, shard: ShardId, asked: NodeId, failure: &PeerFailure) {
        if matches!(failure, PeerFailure::Unreachable(_)) {
            self.silent.lock().insert(asked, self.clock.monotonic());
        }
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

    /// Milliseconds until nobody waits for the operation any more.
    pub(crate) fn time_left_ms(&self, cx: &OperationContext) -> u64 {
        let now = self.clock.monotonic();
        let left = cx.deadline.map(|deadline| deadline.since(now).as_millis());
        left.map_or(RETRY_MS_MAX, |left| u64::try_from(left).unwrap_or(RETRY_MS_MAX).clamp(1, RETRY_MS_MAX))
    }
}

fn wrong_answer(node: NodeId, reply: &PeerReply) -> PeerFailure {
    let message = format!("{node} answered something else than it was asked: {reply:?}");
    let error = Error::new(Code::INTERNAL_ERROR, message);
    PeerFailure::Refused { error, primary: None }
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
