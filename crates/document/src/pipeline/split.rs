//! Which part of a pipeline the shards do by themselves.
//!
//! Called by `router` for every aggregation. Shards filter, compute, unwind, sort and limit their own documents; the
//! router merges their rows by the sort key, or as they come, and does the rest.

use super::stage::Stage;
use crate::sort::SortSpec;

/// A pipeline, divided.
#[derive(Clone, Debug, Default)]
pub struct ShardSplit {
    /// What every shard does.
    pub shard: Vec<Stage>,
    /// The order in which every shard's rows come, and in which they are merged.
    pub merge: Option<SortSpec>,
    /// What is done with the merged rows. A limit is on both sides: each shard sends no more than could be wanted.
    pub router: Vec<Stage>,
}

pub(crate) fn split(stages: &[Stage]) -> ShardSplit {
    let local = stages.iter().take_while(|stage| stage.is_local()).count();
    let (shard, rest) = stages.split_at(local);
    let mut shard = shard.to_vec();
    let (merge, rest) = match rest.split_first() {
        Some((sort @ Stage::Sort { spec, .. }, rest)) => {
            shard.push(sort.clone());
            (Some(spec.clone()), rest)
        }
        _ => (None, rest),
    };
    if let Some(limit) = leading_limit(rest) {
        shard.push(Stage::Limit(limit));
    }
    ShardSplit { shard, merge, router: rest.to_vec() }
}

/// How many rows pass the `$skip`s and the `$limit` that come first.
fn leading_limit(stages: &[Stage]) -> Option<u64> {
    let mut skipped = 0_u64;
    for stage in stages {
        match stage {
            Stage::Skip(count) => skipped = skipped.saturating_add(*count),
            Stage::Limit(count) => return Some(skipped.saturating_add(*count)),
            _ => return None,
        }
    }
    None
}
