//! Which part of a pipeline the shards do by themselves.
//!
//! Called by `router` for every aggregation, with the whole pipeline: a sort that was taken out of it before would be missed.
//! Shards filter, compute, unwind, sort and limit their own documents, and group them as far as they can; the router
//! merges their rows by the sort key, or as they come, and does the rest.
//!
//! Always holds: only stages that look at one row at a time come before the stage at which a pipeline is cut, so that what
//! a shard does is what the whole pipeline would do to its rows.

use bson::Bson;

use super::accumulator::Accumulator;
use super::stage::{Group, GroupField, Stage};
use crate::expression::Expression;
use crate::projection::Projection;
use crate::sort::SortSpec;
use crate::value::Value;

/// A pipeline, divided.
#[derive(Clone, Debug, Default)]
pub struct ShardSplit {
    /// What every shard does.
    pub shard: Vec<Stage>,
    /// The order in which every shard's rows come, and in which they are merged. Rows with equal keys may come in any.
    pub merge: Option<SortSpec>,
    /// What is done with the merged rows. A limit is on both sides: each shard sends no more than could be wanted.
    pub router: Vec<Stage>,
}

pub(crate) fn split(stages: &[Stage]) -> ShardSplit {
    let local = stages.iter().take_while(|stage| stage.is_local()).count();
    let (shard, rest) = stages.split_at(local);
    let mut shard = shard.to_vec();
    match rest.split_first() {
        Some((Stage::Group(group), rest)) => group_on_both(shard, group.clone(), &[], rest),
        Some((Stage::Count(field), rest)) => group_on_both(shard, counting(field), &[without_id()], rest),
        Some((sort @ Stage::Sort { spec, .. }, rest)) => {
            shard.push(sort.clone());
            shard.extend(leading_limit(rest).map(Stage::Limit));
            ShardSplit { shard, merge: Some(spec.clone()), router: rest.to_vec() }
        }
        _ => {
            shard.extend(leading_limit(rest).map(Stage::Limit));
            ShardSplit { shard, merge: None, router: rest.to_vec() }
        }
    }
}

/// No sort comes before the group, so that its rows may come in any order: what `$first` or `$push` make of shards one after
/// the other is as good as any.
fn group_on_both(mut shard: Vec<Stage>, group: Group, then: &[Stage], rest: &[Stage]) -> ShardSplit {
    shard.push(Stage::PartialGroup(group.clone()));
    let router = [&[Stage::MergeGroups(group)], then, rest].concat();
    ShardSplit { shard, merge: None, router }
}

/// What `$count` does, as a group of all rows. Without rows there is no group, as there is no count.
fn counting(field: &str) -> Group {
    let argument = Expression::constant(Bson::Null);
    let count = GroupField { name: field.to_owned(), accumulator: Accumulator::Count, argument };
    Group { id: Expression::constant(Bson::Null), fields: vec![count] }
}

fn without_id() -> Stage {
    Stage::Project(Projection::parse_unset(&Value::String("_id")).expect("a plain field can be left out"))
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
