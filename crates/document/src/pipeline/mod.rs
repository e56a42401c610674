//! Aggregation pipelines: parsed once, run row by row.
//!
//! Called by `router` (parsing, merging, the stages that need all shards) and `query` (the stages that a shard does by
//! itself). One file per stage under `stage`, with one sorted table of their names; `accumulator` has what `$group` sums
//! up with; `runner` moves rows through stages.
//!
//! Always holds: a pipeline without a blocking stage holds no more than one row; `$sort` and `$group` account for what
//! they hold and fail with code 292 past the limit. `$group` answers in the order in which it met its keys.

pub mod accumulator;
mod row;
mod runner;
mod split;
pub mod stage;

use base::{Code, Error, Result, limits};
use bson::Bson;

pub use row::Row;
pub use runner::{Flow, Runner};
pub use split::ShardSplit;
pub use stage::{Group, LookupSpec, Stage, Unwind, stage_names};

use crate::context::Variables;
use crate::value::Value;

/// A parsed pipeline.
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    /// The stages in order. A name that stands for several stages (`$sortByCount`) is already spelled out.
    pub stages: Vec<Stage>,
}

impl Pipeline {
    /// Reads the array of stages.
    ///
    /// Errors: MongoDB's, e.g. 40324 for a stage that does not exist.
    pub fn parse(stages: &[Bson], vars: &Variables) -> Result<Pipeline> {
        if stages.len() > limits::PIPELINE_STAGES_MAX {
            let message =
                format!("Pipeline length must be no longer than {} stages.", limits::PIPELINE_STAGES_MAX);
            return Err(Error::new(Code(7_749_501), message));
        }
        let mut parsed = Vec::with_capacity(stages.len());
        for stage in stages {
            let document = Value::from(stage).as_document().ok_or_else(|| {
                Error::type_mismatch("Each element of the 'pipeline' array must be an object")
            })?;
            let mut fields = document.iter();
            let (Some((name, argument)), None) = (fields.next(), fields.next()) else {
                let message = "A pipeline stage specification object must contain exactly one field.";
                return Err(Error::new(Code(40323), message));
            };
            stage::parse(name, &argument, vars, &mut parsed)?;
        }
        bound_sorts(&mut parsed);
        Ok(Pipeline { stages: parsed })
    }

    /// Divides the work between the shards and whoever merges their rows.
    pub fn split_for_shard(&self) -> ShardSplit {
        split::split(&self.stages)
    }

    /// Whether a stage reads other collections, so that only the router can run it.
    pub fn has_lookup(&self) -> bool {
        self.stages.iter().any(|stage| matches!(stage, Stage::Lookup(_)))
    }
}

/// Tells every sort how many of its rows the `$skip`s and the `$limit` right behind it let through.
fn bound_sorts(stages: &mut [Stage]) {
    for index in 0..stages.len() {
        let (head, tail) = stages.split_at_mut(index + 1);
        let Some(Stage::Sort { limit, .. }) = head.last_mut() else {
            continue;
        };
        let mut skipped = 0_u64;
        for stage in tail {
            match stage {
                Stage::Skip(count) => skipped = skipped.saturating_add(*count),
                Stage::Limit(count) => {
                    *limit = Some(skipped.saturating_add(*count));
                    break;
                }
                _ => break,
            }
        }
    }
}
