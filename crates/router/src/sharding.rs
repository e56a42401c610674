//! Commands that say how a collection is cut into shards: `shardCollection`, `reshardCollection`, `split`, `mergeChunks`.
//!
//! Called by `wire`. Each plans a reshard, has the catalog begin it, and waits for its end; what follows goes on by itself
//! when the client does not wait. Always holds: a plan is made for the shards that the catalog has when it begins.

use std::sync::Arc;

use base::{Code, Error, Namespace, ReshardId, Result, ShardId};
use bson::{Bson, Document};
use catalog::{
    Catalog, CollectionRecord, Command, Failure, HashSpan, IndexState, Reply, ReshardPlan, ReshardStep,
    ShardPlacement,
};
use document::shard_key::SHARD_KEY_FIELDS_MAX;

use crate::{OperationContext, Router};

/// The token of what nobody asked for.
const BALANCER_TOKEN: u64 = 0;
/// Shards that one command may ask for.
const SHARDS_MAX: u32 = 8_192;

/// Which shard is meant.
#[derive(Clone, Debug, PartialEq)]
pub enum ShardSelector {
    /// By its id.
    Shard(ShardId),
    /// The one that owns a document with these values of the shard key's fields.
    Owner(Document),
    /// The one that owns the hash.
    Hash(u64),
    /// The one that owns the hashes from the first to the last of these, and no others.
    Span(u64, u64),
    /// The one whose first hash this is.
    Begin(u64),
    /// The one whose last hash this is.
    End(u64),
}

/// How a collection is to be cut.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardRequest {
    /// The collection; it is created when it is absent, if that is allowed.
    pub namespace: Namespace,
    /// The shard key as the client wrote it.
    pub key: Document,
    /// How many shards; `None` for one for each node that holds data.
    pub shards: Option<u32>,
}

impl Router {
    /// `shardCollection`. Creates the collection when it is absent. Fails with `AlreadyInitialized` (23) when it is sharded by
    /// another key, with `InvalidOptions` (72) when it has an index that shards cannot keep unique.
    pub async fn shard_collection(&self, cx: &OperationContext, request: ShardRequest) -> Result<()> {
        let fields = key_fields(&request.key)?;
        check_count(request.shards)?;
        self.collection_or_create(&request.namespace).await?;
        let record = self.existing_collection(&request.namespace).await?;
        if !record.key_pattern.is_empty() && record.key_pattern != request.key {
            let message = format!(
                "sharding already enabled for collection {} with the key {}; reshardCollection changes it",
                request.namespace, record.key_pattern
            );
            return Err(Error::new(Code::ALREADY_INITIALIZED, message));
        }
        if record.key_pattern == request.key {
            return Ok(());
        }
        self.reshard(cx, &request.namespace, |catalog, record| {
            let count = request.shards.unwrap_or_else(|| data_nodes(catalog));
            Ok(whole_plan(record, fields.clone(), request.key.clone(), count))
        })
        .await
    }

    /// `reshardCollection`: another key, or another number of shards. Fails with `NamespaceNotSharded` (118).
    pub async fn reshard_collection(&self, cx: &OperationContext, request: ShardRequest) -> Result<()> {
        let fields = key_fields(&request.key)?;
        check_count(request.shards)?;
        let record = self.existing_collection(&request.namespace).await?;
        check_sharded(&record)?;
        self.reshard(cx, &request.namespace, |_, record| {
            let now = u32::try_from(record.shard_map.shards.len()).unwrap_or(SHARDS_MAX);
            let count = request.shards.unwrap_or(now);
            Ok(whole_plan(record, fields.clone(), request.key.clone(), count))
        })
        .await
    }

    /// `split`: one shard becomes `into` shards of the same size. Fails with `CannotSplit` (147).
    pub async fn split_shard(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        selector: &ShardSelector,
        into: u32,
    ) -> Result<()> {
        check_count(Some(into))?;
        self.reshard(cx, namespace, |_, record| {
            let shard = select(record, selector)?;
            let targets = shard.span().cut(into as usize);
            if targets.len() < 2 {
                return Err(Error::new(
                    Code::CANNOT_SPLIT,
                    format!("{} cannot be split further", shard.shard),
                ));
            }
            Ok(ReshardPlan::of_key(record, vec![shard.shard], targets).to_stay(record))
        })
        .await
    }

    /// `mergeChunks`: neighbours become one shard. All from the one that `first` means to the one that `last` means.
    pub async fn merge_shards(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        first: &ShardSelector,
        last: &ShardSelector,
    ) -> Result<()> {
        self.reshard(cx, namespace, |_, record| {
            let (first, last) = (select(record, first)?, select(record, last)?);
            let (first, last) =
                if first.first_hash() <= last.first_hash() { (first, last) } else { (last, first) };
            let range = first.first_hash()..=last.first_hash();
            let shards = record.shard_map.shards.iter().filter(|shard| range.contains(&shard.first_hash()));
            let sources: Vec<ShardId> = shards.map(|shard| shard.shard).collect();
            if sources.len() < 2 {
                return Err(Error::new(
                    Code::ILLEGAL_OPERATION,
                    "there is nothing to merge: the bounds lie in one shard",
                ));
            }
            let target = HashSpan { first: first.first, last: last.last };
            Ok(ReshardPlan::of_key(record, sources, vec![target]).to_stay(record))
        })
        .await
    }

    /// `abortReshardCollection`: the shards stay as they were. Does nothing when no reshard is under way.
    pub async fn abort_reshard(&self, cx: &OperationContext, namespace: &Namespace) -> Result<()> {
        let record = self.existing_collection(namespace).await?;
        let Some(reshard) = &record.reshard else { return Ok(()) };
        let error =
            Error::new(Code::INTERRUPTED, "the cutting of shards was given up because somebody said so");
        let step = ReshardStep::Abort { failure: Failure::new(&error) };
        self.change_catalog(Command::StepReshard { collection: record.id, reshard: reshard.id, step })
            .await?;
        match self.await_reshard(cx, &record, reshard.id).await {
            Err(ended) if ended == error => Ok(()),
            ended => ended,
        }
    }

    /// Stops the copying of a reshard, or lets it go on. Does nothing when none is under way.
    pub async fn pause_reshard(
        &self,
        _cx: &OperationContext,
        namespace: &Namespace,
        paused: bool,
    ) -> Result<()> {
        let record = self.existing_collection(namespace).await?;
        let Some(reshard) = &record.reshard else { return Ok(()) };
        let step = ReshardStep::Pause { paused };
        self.change_catalog(Command::StepReshard { collection: record.id, reshard: reshard.id, step })
            .await?;
        self.unreconciled.notify_one();
        Ok(())
    }

    /// Has the catalog begin a reshard by a plan, once one that the balancer has begun is over, and waits for its end.
    async fn reshard(
        &self,
        cx: &OperationContext,
        namespace: &Namespace,
        plan: impl Fn(&Catalog, &CollectionRecord) -> Result<ReshardPlan> + Send + Sync,
    ) -> Result<()> {
        self.check_room()?;
        let record = self.existing_collection(namespace).await?;
        // An answer may be lost: what is sent again begins nothing new.
        let token = (self.entropy.next_u64() >> 1).max(BALANCER_TOKEN + 1);
        let command = |catalog: &Catalog| {
            let now = catalog.collection(record.id);
            let now = now.ok_or_else(|| Error::new(Code::NAMESPACE_NOT_FOUND, "ns not found"))?;
            let (collection, reshards_seen) = (now.id, now.reshards);
            let plan = ReshardPlan { token, ..plan(catalog, now)? };
            Ok(Command::BeginReshard { collection, reshards_seen, plan })
        };
        loop {
            match self.change_seen_catalog(&command).await {
                Ok(Reply::Reshard(id)) => return self.await_reshard(cx, &record, id).await,
                Ok(_) => return Ok(()),
                Err(refusal) if refusal.code == Code::CONFLICTING_OPERATION_IN_PROGRESS => {
                    if !self.await_balancer(cx, &record).await? {
                        return Err(refusal);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns once no reshard of the balancer stands in the way of another one: whether nothing does.
    async fn await_balancer(&self, cx: &OperationContext, record: &Arc<CollectionRecord>) -> Result<bool> {
        let catalog = self.catalog_now().await?;
        let Some(now) = catalog.collection(record.id) else { return Ok(true) };
        match &now.reshard {
            Some(reshard) if reshard.token == BALANCER_TOKEN => {
                // However that ends, its shards can be cut again then.
                if let Err(error) = self.await_reshard(cx, record, reshard.id).await {
                    tracing::debug!(%error, "the balancer's cutting of shards has failed");
                }
                cx.check(self.clock.monotonic())?;
                Ok(true)
            }
            Some(_) => Ok(false),
            // It has just ended, unless an index is being built.
            None => Ok(now.indexes.iter().all(|(_, state)| *state != IndexState::Building)),
        }
    }

    /// Returns when a reshard is over, with the error for which it was given up.
    async fn await_reshard(
        &self,
        cx: &OperationContext,
        record: &Arc<CollectionRecord>,
        id: ReshardId,
    ) -> Result<()> {
        let outcome = self
            .await_catalog(cx, |catalog| {
                let Some(now) = catalog.collection(record.id) else { return Some(None) };
                match &now.last_reshard {
                    Some(last) if last.id >= id => Some(Some(last.clone())),
                    _ => None,
                }
            })
            .await?;
        match outcome {
            Some(outcome) if outcome.id == id => {
                outcome.failure.map_or(Ok(()), |failure| Err(failure.error()))
            }
            Some(_) => Ok(()),
            None => Err(Error::new(
                Code::NAMESPACE_NOT_FOUND,
                format!("{} was dropped meanwhile", record.namespace),
            )),
        }
    }
}

/// All shards of a collection replaced by `count` shards of the same size.
fn whole_plan(record: &CollectionRecord, fields: Vec<String>, key: Document, count: u32) -> ReshardPlan {
    ReshardPlan {
        sources: record.shard_map.shards.iter().map(|shard| shard.shard).collect(),
        targets: HashSpan::new(0, u64::MAX).cut(count as usize),
        shard_key: fields,
        key_pattern: key,
        shards_min: Some(count),
        token: 0,
    }
}

fn data_nodes(catalog: &Catalog) -> u32 {
    let nodes = catalog.nodes().filter(|node| node.takes_replicas());
    u32::try_from(nodes.count()).unwrap_or(SHARDS_MAX).clamp(1, SHARDS_MAX)
}

fn check_count(shards: Option<u32>) -> Result<()> {
    match shards {
        Some(count) if !(1..=SHARDS_MAX).contains(&count) => Err(Error::new(
            Code::INVALID_OPTIONS,
            format!("a collection may have 1 to {SHARDS_MAX} shards, not {count}"),
        )),
        _ => Ok(()),
    }
}

fn check_sharded(record: &CollectionRecord) -> Result<()> {
    match record.is_sharded() {
        true => Ok(()),
        false => {
            let message = format!("Collection {} is not sharded", record.namespace);
            Err(Error::new(Code::NAMESPACE_NOT_SHARDED, message))
        }
    }
}

/// The fields of a shard key. Each is 1 or "hashed": documents are spread by the hash of all of them either way. Fails with
/// `BadValue` (2).
fn key_fields(key: &Document) -> Result<Vec<String>> {
    if key.is_empty() || key.len() > SHARD_KEY_FIELDS_MAX {
        return Err(Error::bad_value(format!(
            "a shard key has 1 to {SHARD_KEY_FIELDS_MAX} fields, not {}",
            key.len()
        )));
    }
    let field = |(path, order): (&String, &Bson)| {
        let is_known = match order {
            Bson::Int32(1) | Bson::Int64(1) => true,
            Bson::Double(number) => *number == 1.0,
            Bson::String(kind) => kind == "hashed",
            _ => false,
        };
        if !is_known {
            let message = format!("the field '{path}' of a shard key must be 1 or \"hashed\", not {order}");
            return Err(Error::bad_value(message));
        }
        if path.split('.').any(|part| part.is_empty() || part.starts_with('$')) {
            return Err(Error::bad_value(format!("'{path}' is no path that a shard key can have")));
        }
        Ok(path.clone())
    };
    key.iter().map(field).collect()
}

/// The shard of the map that is meant. Fails with `ShardNotFound` (70).
pub(crate) fn select<'a>(
    record: &'a CollectionRecord,
    selector: &ShardSelector,
) -> Result<&'a ShardPlacement> {
    let with = |is_meant: &dyn Fn(&ShardPlacement) -> bool| {
        let found = record.shard_map.shards.iter().find(|shard| is_meant(shard));
        found.ok_or_else(|| {
            let message = format!("{} has no shard with these bounds", record.namespace);
            Error::new(Code::SHARD_NOT_FOUND, message)
        })
    };
    match selector {
        ShardSelector::Span(first, last) => {
            with(&|shard| shard.first_hash() == *first && shard.last_hash() == *last)
        }
        ShardSelector::Begin(hash) => with(&|shard| shard.first_hash() == *hash),
        ShardSelector::End(hash) => with(&|shard| shard.last_hash() == *hash),
        ShardSelector::Shard(id) => {
            let found = record.shard_map.shards.iter().find(|shard| shard.shard == *id);
            found.ok_or_else(|| {
                Error::new(Code::SHARD_NOT_FOUND, format!("{} has no shard {id}", record.namespace))
            })
        }
        ShardSelector::Hash(hash) => Ok(record.shard_map.owner(*hash)),
        ShardSelector::Owner(values) => {
            if let Some(missing) = record.shard_key.iter().find(|field| !has_path(values, field)) {
                let message = format!("'{missing}' is a field of the shard key and has no value in {values}");
                return Err(Error::new(Code::SHARD_KEY_NOT_FOUND, message));
            }
            let key = crate::resolve::shard_key(record);
            let hash = key.hash(document::DocRef::Tree(values))?;
            Ok(record.shard_map.owner(hash))
        }
    }
}

/// Whether a document has a value at a dotted path.
fn has_path(values: &Document, path: &str) -> bool {
    match path.split_once('.') {
        None => values.contains_key(path),
        Some((first, rest)) => values.get_document(first).is_ok_and(|inner| has_path(inner, rest)),
    }
}
