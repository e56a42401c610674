//! Shards split that are too large or have too much to do, and small neighbours merged.
//!
//! Always holds: one change of a collection at a time; what a split leaves is too large to be merged again unless it shrinks, and
//! what a merge makes is far too small to be split; a collection keeps as many shards as its user asked for.

use std::ops::Range;

use super::{Action, Model, Proposal};
use crate::CollectionRecord;

/// Neighbours are merged when together they are below this part of what is split.
const MERGE_PART: u64 = 4;
/// A shard becomes at most so many at once.
const SPLIT_INTO_MAX: u64 = 16;
/// A shard with fewer documents than this is not split for its load: a few documents would be hot afterwards as before.
const SPLIT_DOCUMENTS_MIN: u64 = 1_000;

pub(super) fn plan(model: &mut Model<'_>) -> Vec<Proposal> {
    let mut proposals = Vec::new();
    let at_most = usize::try_from(model.settings.moves_per_node_max).unwrap_or(usize::MAX);
    let mut first = 0;
    while let Some(shard) = model.shards.get(first) {
        // The shards of a collection follow each other.
        let record = shard.record;
        let shards = first..first + record.shard_map.shards.len();
        first += record.kept_shards().count();
        let is_resharding = record.reshard.is_some() || model.resharding.contains(&record.id);
        if proposals.len() < at_most && !is_resharding {
            proposals.extend(split(model, shards.clone()).or_else(|| merge(model, record, shards)));
        }
    }
    proposals
}

/// Whether nothing is under way with a shard, and how it is is known.
fn is_settled(model: &Model<'_>, shard: usize) -> bool {
    let held = &model.shards[shard];
    !held.is_busy && held.is_known
}

/// How many times a shard has what one may have, the larger of bytes and operations.
fn excess(model: &Model<'_>, shard: usize) -> u64 {
    let load = model.shards[shard].load;
    let by_bytes = load.bytes.div_ceil(model.settings.split_bytes);
    let is_divisible = load.documents >= SPLIT_DOCUMENTS_MIN;
    let by_operations = load.operations_per_s.div_ceil(model.settings.split_operations_per_s);
    by_bytes.max(if is_divisible { by_operations } else { 0 })
}

fn split(model: &Model<'_>, shards: Range<usize>) -> Option<Proposal> {
    let worst = shards
        .filter(|shard| is_settled(model, *shard))
        .max_by_key(|shard| (excess(model, *shard), usize::MAX - shard))?;
    let held = &model.shards[worst];
    let hashes = held.placement.last_hash() - held.placement.first_hash();
    let into = excess(model, worst).next_power_of_two().min(SPLIT_INTO_MAX);
    if into < 2 || held.load.documents < into || hashes < into {
        return None;
    }
    let what = if held.load.bytes > model.settings.split_bytes {
        format!("{} bytes, more than {}", held.load.bytes, model.settings.split_bytes)
    } else {
        format!(
            "{} operations a second, more than {}",
            held.load.operations_per_s, model.settings.split_operations_per_s
        )
    };
    let reason = format!("{} has {what}: it is split into {into}", model.title(worst));
    let into = u32::try_from(into).expect("a shard is split into a few");
    Some(Proposal { action: Action::Split { shard: held.placement.shard, into }, reason })
}

fn merge(model: &Model<'_>, record: &CollectionRecord, shards: Range<usize>) -> Option<Proposal> {
    let kept = usize::try_from(record.shards_min).unwrap_or(usize::MAX).max(1);
    if shards.len() <= kept {
        return None;
    }
    let together = |first: &usize| {
        let (one, other) = (model.shards[*first].load, model.shards[first + 1].load);
        (one.bytes + other.bytes, one.operations_per_s + other.operations_per_s)
    };
    let is_small = |first: &usize| {
        if !is_settled(model, *first) || !is_settled(model, first + 1) {
            return false;
        }
        let (bytes, operations) = together(first);
        bytes < model.settings.split_bytes / MERGE_PART
            && operations <= model.settings.split_operations_per_s / MERGE_PART
    };
    let pairs = shards.start..shards.end - 1;
    let first = pairs.filter(is_small).min_by_key(|first| (together(first), *first))?;
    let (one, other) = (model.shards[first].placement.shard, model.shards[first + 1].placement.shard);
    let reason = format!(
        "shards {} and {} of {} have {} bytes together: they are merged",
        one.get(),
        other.get(),
        record.namespace,
        together(&first).0
    );
    Some(Proposal { action: Action::Merge { shards: vec![one, other] }, reason })
}
