//! Reshard: the steps by which shards of a collection are replaced by others with the same documents. One mechanism for
//! split, merge and a new shard key.
//!
//! Evaluated by the catalog's leader; the nodes of the shards' primaries do what the record says (`router`). The steps, each
//! one entry of the catalog:
//! 1. `BeginReshard`: the targets exist, and receive; sources note what changes in them, and copy.
//! 2. `ReshardCaughtUp` from every source: little is left to copy. With the last one the sources are to be sealed.
//! 3. `ReshardComplete` from every source: it is sealed, and its targets have everything. With the last one the shard map
//!    has the targets in the place of the sources, which are retired: their replicas are removed.
//!
//! `AbortReshard`, at any step before the last, retires the targets instead; the sources go on. Always holds: every hash is
//! owned by exactly one shard of the shard map; a collection has one reshard at a time; what a shard owns never changes.

use base::{Code, CollectionId, Epoch, Error, IndexId, ReplicaId, ReshardId, Result, ShardId};
use bson::Document;
use serde::{Deserialize, Serialize};
use storage::KvBatch;

use crate::state::nodes::forget_retired;
use crate::state::{Counters, put_collection, put_counters};
use crate::{
    Birth, Catalog, CollectionRecord, Failure, HashSpan, IndexSpec, IndexState, ReplicaPlacement, Reply,
    ReshardStep, ShardPlacement, placement,
};

/// A reshard under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reshard {
    /// Which.
    pub id: ReshardId,
    /// The shards of the shard map that are to be replaced, in its order.
    pub sources: Vec<ShardId>,
    /// What replaces them, in the order of hashes.
    pub targets: Vec<ShardPlacement>,
    /// The fields whose hash chooses among the targets.
    pub shard_key: Vec<String>,
    /// The same as the client wrote it.
    pub key_pattern: Document,
    /// How far it is.
    pub phase: ReshardPhase,
    /// Sources of which little is left to copy.
    pub caught_up: Vec<ShardId>,
    /// Sources that are sealed and copied.
    pub complete: Vec<ShardId>,
    /// How many shards the collection shall keep at least from then on, if that changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards_min: Option<u32>,
    /// The token of the plan.
    #[serde(default)]
    pub token: u64,
    /// Whether copying stands still because somebody said so.
    pub paused: bool,
}

/// How far a reshard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReshardPhase {
    /// Documents are copied; the sources serve.
    Copying,
    /// The sources are sealed while the last changes are copied.
    Sealing,
}

/// How a reshard ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReshardOutcome {
    /// Which.
    pub id: ReshardId,
    /// Why it was given up; `None` when it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The token of its plan.
    #[serde(default)]
    pub token: u64,
}

/// What shall replace what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReshardPlan {
    /// Neighbours in the shard map, in its order; all of it where the key is another.
    pub sources: Vec<ShardId>,
    /// What the targets own, in order: together what the sources own.
    pub targets: Vec<HashSpan>,
    /// The key by which the targets own it, and the same as the client wrote it.
    pub shard_key: Vec<String>,
    /// See `shard_key`.
    pub key_pattern: Document,
    /// How many shards the collection shall keep at least from then on: who asks for shards does not want them merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards_min: Option<u32>,
    /// Drawn by the proposer, below 2^63: a plan that is sent again finds the reshard that it began. 0 for none.
    #[serde(default)]
    pub token: u64,
}

impl ReshardPlan {
    /// Cuts shards of a collection anew, by the key that it has.
    pub fn of_key(record: &CollectionRecord, sources: Vec<ShardId>, targets: Vec<HashSpan>) -> ReshardPlan {
        let (shard_key, key_pattern) = (record.shard_key.clone(), record.key_pattern.clone());
        ReshardPlan { sources, targets, shard_key, key_pattern, shards_min: None, token: 0 }
    }

    /// The same, after which the collection keeps as many shards as it has then.
    #[must_use]
    pub fn to_stay(self, record: &CollectionRecord) -> ReshardPlan {
        let shards = record.shard_map.shards.len() - self.sources.len() + self.targets.len();
        ReshardPlan { shards_min: u32::try_from(shards).ok(), ..self }
    }
}

impl Catalog {
    pub(crate) fn begin_reshard(
        &self,
        batch: &mut KvBatch,
        collection: CollectionId,
        seen: u64,
        plan: &ReshardPlan,
    ) -> Result<Reply> {
        let mut record = self.active_collection(collection)?;
        if let Some(id) = begun_before(&record, plan.token) {
            return Ok(Reply::Reshard(id));
        }
        check_free(&record)?;
        if seen != record.reshards {
            let message = "shards were cut anew since the proposer looked at the catalog";
            return Err(Error::new(Code::WRITE_CONFLICT, message));
        }
        check_plan(&record, plan)?;
        if changes_nothing(&record, plan) {
            record.key_pattern = plan.key_pattern.clone();
            record.shards_min = plan.shards_min.unwrap_or(record.shards_min);
            put_collection(batch, &record);
            return Ok(Reply::Done);
        }
        let mut counters = self.counters();
        let targets = self.new_shards(&mut counters, &record, &plan.targets)?;
        note_birth(&mut record, plan);
        record.reshards += 1;
        let id = ReshardId(record.reshards);
        record.reshard = Some(Box::new(Reshard {
            id,
            sources: plan.sources.clone(),
            targets,
            shard_key: plan.shard_key.clone(),
            key_pattern: plan.key_pattern.clone(),
            phase: ReshardPhase::Copying,
            caught_up: Vec::new(),
            complete: Vec::new(),
            shards_min: plan.shards_min,
            token: plan.token,
            paused: false,
        }));
        put_counters(batch, &counters);
        put_collection(batch, &record);
        Ok(Reply::Reshard(id))
    }

    fn new_shards(
        &self,
        counters: &mut Counters,
        record: &CollectionRecord,
        spans: &[HashSpan],
    ) -> Result<Vec<ShardPlacement>> {
        let nodes = placement::for_new_shards(self, spans.len());
        if nodes.iter().any(Vec::is_empty) {
            let message = "no node of this cluster holds data: each has the role of a router only";
            return Err(Error::new(Code::OPERATION_FAILED, message));
        }
        let since = record.shard_map.epoch.next();
        let shards = spans.iter().zip(nodes).map(|(span, nodes)| {
            let shard = counters.shard;
            counters.shard = shard.next();
            let replicas = nodes.into_iter().map(|node| {
                let replica = counters.replica;
                counters.replica = replica.next();
                ReplicaPlacement { replica, node, founder: true, successor: None }
            });
            ShardPlacement {
                shard,
                first: span.first,
                last: span.last,
                replicas: replicas.collect(),
                leaving: Vec::new(),
                cancels: 0,
                since,
            }
        });
        Ok(shards.collect())
    }

    pub(crate) fn step_reshard(
        &self,
        batch: &mut KvBatch,
        collection: CollectionId,
        id: ReshardId,
        step: &ReshardStep,
    ) -> Reply {
        let Some(mut record) = self.resharding(collection, id) else { return Reply::Done };
        match step {
            ReshardStep::CaughtUp { source } => caught_up(&mut record, *source),
            ReshardStep::Complete { source } => complete(&mut record, *source),
            ReshardStep::Abort { failure } => abort(&mut record, failure),
            ReshardStep::Pause { paused } => pause(&mut record, *paused),
        }
        forget_retired(&mut record, |placed| self.is_on_former_node(placed));
        put_collection(batch, &record);
        Reply::Done
    }

    /// The collection, while this reshard of it is under way.
    fn resharding(&self, collection: CollectionId, id: ReshardId) -> Option<CollectionRecord> {
        let record = self.active_collection(collection).ok()?;
        record.reshard.as_ref().is_some_and(|reshard| reshard.id == id).then_some(record)
    }

    /// A replica of a shard that is in use no more is gone.
    pub(crate) fn retired_replica_gone(
        &self,
        batch: &mut KvBatch,
        record: &CollectionRecord,
        replica: ReplicaId,
    ) {
        let mut record = record.clone();
        forget_retired(&mut record, |placed| placed.replica == replica);
        put_collection(batch, &record);
    }
}

/// Keeps what the targets begin with, and forgets that of shards that are in use no more.
fn note_birth(record: &mut CollectionRecord, plan: &ReshardPlan) {
    let since = record.shard_map.epoch.next();
    let used: Vec<Epoch> = record.shard_map.shards.iter().map(|shard| shard.since).collect();
    record.births.retain(|birth| used.contains(&birth.since));
    let ready = |(spec, state): &(IndexSpec, IndexState)| {
        (*state == IndexState::Ready && spec.id != IndexId(0)).then(|| spec.clone())
    };
    let indexes = record.indexes.iter().filter_map(ready).collect();
    let (sources, shard_key) = (plan.sources.clone(), plan.shard_key.clone());
    record.births.push(Birth { since, sources, shard_key, indexes });
}

fn reshard_of(record: &mut CollectionRecord) -> &mut Reshard {
    record.reshard.as_mut().expect("the collection was found by its reshard")
}

fn caught_up(record: &mut CollectionRecord, source: ShardId) {
    let reshard = reshard_of(record);
    note(&mut reshard.caught_up, source, &reshard.sources);
    if reshard.caught_up.len() == reshard.sources.len() && !reshard.paused {
        reshard.phase = ReshardPhase::Sealing;
    }
}

fn complete(record: &mut CollectionRecord, source: ShardId) {
    let reshard = reshard_of(record);
    if reshard.phase != ReshardPhase::Sealing {
        return;
    }
    note(&mut reshard.complete, source, &reshard.sources);
    if reshard.complete.len() == reshard.sources.len() {
        swap(record);
    }
}

fn abort(record: &mut CollectionRecord, failure: &Failure) {
    let reshard = record.reshard.take().expect("the collection was found by its reshard");
    record.retired.extend(reshard.targets);
    record.last_reshard =
        Some(ReshardOutcome { id: reshard.id, failure: Some(failure.clone()), token: reshard.token });
}

fn pause(record: &mut CollectionRecord, paused: bool) {
    let reshard = reshard_of(record);
    // Sealed sources wait for nobody.
    reshard.paused = paused && reshard.phase == ReshardPhase::Copying;
    // What had caught up before may be far behind by the time that copying goes on.
    reshard.caught_up.clear();
}

/// Puts the targets in the place of the sources.
fn swap(record: &mut CollectionRecord) {
    let reshard = record.reshard.take().expect("a reshard that is complete is there");
    let map = &mut record.shard_map;
    let is_source = |shard: &mut ShardPlacement| reshard.sources.contains(&shard.shard);
    record.retired.extend(map.shards.extract_if(.., is_source));
    map.shards.extend(reshard.targets);
    map.shards.sort_by_key(ShardPlacement::first_hash);
    map.epoch = map.epoch.next();
    assert!(map.covers_every_hash_once(), "a reshard keeps every hash owned by exactly one shard");
    record.shards_min = reshard.shards_min.unwrap_or(record.shards_min);
    record.shard_key = reshard.shard_key;
    record.key_pattern = reshard.key_pattern;
    record.last_reshard = Some(ReshardOutcome { id: reshard.id, failure: None, token: reshard.token });
}

fn note(list: &mut Vec<ShardId>, source: ShardId, sources: &[ShardId]) {
    if sources.contains(&source) && !list.contains(&source) {
        list.push(source);
    }
}

/// The reshard that a plan with this token began, if it is the last one.
fn begun_before(record: &CollectionRecord, token: u64) -> Option<ReshardId> {
    let under_way = record.reshard.as_ref().map(|reshard| (reshard.id, reshard.token));
    let over = record.last_reshard.as_ref().map(|last| (last.id, last.token));
    let known = [under_way, over].into_iter().flatten().find(|(_, known)| *known == token && token != 0);
    known.map(|(id, _)| id)
}

/// Whether nothing else is going on in the collection that a reshard would have to carry along.
fn check_free(record: &CollectionRecord) -> Result<()> {
    let conflict = |message: String| Err(Error::new(Code::CONFLICTING_OPERATION_IN_PROGRESS, message));
    let namespace = &record.namespace;
    if record.reshard.is_some() {
        return conflict(format!(
            "shards of {namespace} are being cut anew already; wait for that, or abort it"
        ));
    }
    match record.indexes.iter().find(|(_, state)| *state == IndexState::Building) {
        Some((spec, _)) => conflict(format!(
            "index {} of {namespace} is being built; its shards can be cut after that",
            spec.name
        )),
        None => Ok(()),
    }
}

/// Whether the shards own what they would own afterwards.
fn changes_nothing(record: &CollectionRecord, plan: &ReshardPlan) -> bool {
    let owned: Vec<HashSpan> = sources(record, &plan.sources).iter().map(|shard| shard.span()).collect();
    plan.shard_key == record.shard_key && owned == plan.targets
}

fn check_plan(record: &CollectionRecord, plan: &ReshardPlan) -> Result<()> {
    let refuse = |message: &str| Err(Error::new(Code::CANNOT_SPLIT, message));
    let shards = &record.shard_map.shards;
    let sources = sources(record, &plan.sources);
    let (Some(first), Some(last)) = (sources.first(), sources.last()) else {
        return refuse("a reshard has a source");
    };
    if sources.len() != plan.sources.len() {
        return refuse("the shard map has no such shards any more");
    }
    let span = HashSpan { first: first.first, last: last.last };
    if !HashSpan::follow_each_other(sources.iter().map(|shard| shard.span())) {
        return refuse("only neighbours can be merged");
    }
    let covers = plan.targets.first().map(|target| target.first) == Some(span.first)
        && plan.targets.last().map(|target| target.last) == Some(span.last)
        && HashSpan::follow_each_other(plan.targets.iter().copied());
    if !covers {
        return refuse("the new shards must own what the old ones do");
    }
    if plan.shard_key != record.shard_key && sources.len() != shards.len() {
        return refuse("a new shard key concerns every shard");
    }
    if shards.len() - sources.len() + plan.targets.len() > 1 {
        check_unique(record, &plan.shard_key)?;
    }
    Ok(())
}

/// The shards of the map with these ids, in the map's order.
fn sources<'a>(record: &'a CollectionRecord, ids: &[ShardId]) -> Vec<&'a ShardPlacement> {
    record.shard_map.shards.iter().filter(|shard| ids.contains(&shard.shard)).collect()
}

/// Fails when an index cannot be kept unique by shards that know their own documents only.
fn check_unique(record: &CollectionRecord, shard_key: &[String]) -> Result<()> {
    for (spec, state) in &record.indexes {
        if state.is_live() && !spec.is_unique_by_shard(shard_key) {
            let message = format!(
                "can't shard collection '{}' with unique index on {}: its fields do not include the shard key ({}), so \
                 that documents of different shards could have equal values",
                record.namespace,
                spec.key_document(),
                shard_key.join(", ")
            );
            return Err(Error::new(Code::INVALID_OPTIONS, message));
        }
    }
    Ok(())
}

/// The version of the shard map under which a shard serves that has been there from the beginning.
pub(crate) fn first_epoch() -> Epoch {
    Epoch(1)
}
