//! The stages of a pipeline: one file each, one sorted table of their names.
//!
//! Called by the pipeline's parser and its runner. A stage parses into a [`Stage`], which is shared and immutable, and
//! makes a [`Step`], which holds one run's state.

mod add_fields;
mod count;
mod group;
mod limit;
mod lookup;
mod matching;
mod project;
mod replace_root;
mod set;
mod skip;
mod sort;
mod sort_by_count;
mod unset;
mod unwind;

use base::{Code, Error, Result};

pub use group::{Group, GroupField};
pub use lookup::LookupSpec;
pub use replace_root::ReplaceRoot;
pub use unwind::Unwind;

use super::row::Row;
use super::runner::{Emit, Flow};
use crate::context::{EvalContext, Variables};
use crate::filter::Filter;
use crate::projection::Projection;
use crate::sort::SortSpec;
use crate::value::Value;
use group::{GroupStep, Part};

/// A parsed stage.
#[derive(Clone, Debug)]
pub enum Stage {
    /// `$match`
    Match(Filter),
    /// `$project` and `$unset`
    Project(Projection),
    /// `$addFields` and `$set`
    AddFields(Projection),
    /// `$group`
    Group(Group),
    /// A shard's part of a `$group`: a row of states for each key. Only a split makes it.
    PartialGroup(Group),
    /// The other part: makes groups of the shards' states. Only a split makes it.
    MergeGroups(Group),
    /// `$sort`
    Sort {
        /// By what.
        spec: SortSpec,
        /// How many of the first rows are wanted, when stages behind the sort say so.
        limit: Option<u64>,
    },
    /// `$limit`
    Limit(u64),
    /// `$skip`
    Skip(u64),
    /// `$unwind`
    Unwind(Unwind),
    /// `$count`, with the name of its field
    Count(String),
    /// `$replaceRoot` and `$replaceWith`
    ReplaceRoot(ReplaceRoot),
    /// `$lookup`
    Lookup(LookupSpec),
}

/// A stage's run.
pub(crate) trait Step: Send {
    /// Takes a row and emits what comes of it at once. What `emit` answers is passed on.
    fn push(&mut self, row: Row, cx: &EvalContext, emit: Emit<'_>) -> Result<Flow>;

    /// The input has ended. Called once, before `next_held`.
    fn seal(&mut self, _cx: &EvalContext) -> Result<()> {
        Ok(())
    }

    /// The next row that was held back until the input ended.
    fn next_held(&mut self) -> Result<Option<Row>> {
        Ok(None)
    }

    /// Whether no further row can change what comes out.
    fn is_done(&self) -> bool {
        false
    }
}

type Parse = fn(&Value<'_>, &Variables, &mut Vec<Stage>) -> Result<()>;

static STAGES: &[(&str, Parse)] = &[
    ("$addFields", add_fields::parse),
    ("$count", count::parse),
    ("$group", group::parse),
    ("$limit", limit::parse),
    ("$lookup", lookup::parse),
    ("$match", matching::parse),
    ("$project", project::parse),
    ("$replaceRoot", replace_root::parse_root),
    ("$replaceWith", replace_root::parse_with),
    ("$set", set::parse),
    ("$skip", skip::parse),
    ("$sort", sort::parse),
    ("$sortByCount", sort_by_count::parse),
    ("$unset", unset::parse),
    ("$unwind", unwind::parse),
];

/// The names of all stages, sorted.
pub fn stage_names() -> impl Iterator<Item = &'static str> {
    STAGES.iter().map(|(name, _)| *name)
}

/// Reads the stage called `name` and appends what it stands for.
pub(crate) fn parse(name: &str, argument: &Value<'_>, vars: &Variables, out: &mut Vec<Stage>) -> Result<()> {
    let unknown = || Error::new(Code(40324), format!("Unrecognized pipeline stage name: '{name}'"));
    let index = STAGES.binary_search_by(|(known, _)| (*known).cmp(name)).map_err(|_| unknown())?;
    let (_, parse) = STAGES.get(index).ok_or_else(unknown)?;
    parse(argument, vars, out)
}

impl Stage {
    /// Whether what comes out of a row depends on that row alone.
    pub fn is_local(&self) -> bool {
        match self {
            Stage::Match(_)
            | Stage::Project(_)
            | Stage::AddFields(_)
            | Stage::Unwind(_)
            | Stage::ReplaceRoot(_) => true,
            Stage::Group(_)
            | Stage::PartialGroup(_)
            | Stage::MergeGroups(_)
            | Stage::Sort { .. }
            | Stage::Limit(_)
            | Stage::Skip(_)
            | Stage::Count(_)
            | Stage::Lookup(_) => false,
        }
    }

    /// The stage's name, as `explain` shows it.
    pub fn name(&self) -> &'static str {
        match self {
            Stage::Match(_) => "$match",
            Stage::Project(_) => "$project",
            Stage::AddFields(_) => "$addFields",
            Stage::Group(_) => "$group",
            Stage::PartialGroup(_) => "partial $group",
            Stage::MergeGroups(_) => "merging $group",
            Stage::Sort { .. } => "$sort",
            Stage::Limit(_) => "$limit",
            Stage::Skip(_) => "$skip",
            Stage::Unwind(_) => "$unwind",
            Stage::Count(_) => "$count",
            Stage::ReplaceRoot(_) => "$replaceRoot",
            Stage::Lookup(_) => "$lookup",
        }
    }

    /// A fresh run.
    pub(crate) fn step(&self) -> Box<dyn Step> {
        match self {
            Stage::Match(filter) => Box::new(matching::MatchStep::new(filter.clone())),
            Stage::Project(projection) | Stage::AddFields(projection) => {
                Box::new(project::ProjectStep::new(projection.clone()))
            }
            Stage::Group(group) => Box::new(GroupStep::new(group.clone(), Part::Whole)),
            Stage::PartialGroup(group) => Box::new(GroupStep::new(group.clone(), Part::States)),
            Stage::MergeGroups(group) => Box::new(GroupStep::new(group.clone(), Part::Groups)),
            Stage::Sort { spec, limit } => Box::new(sort::SortStep::new(spec.clone(), *limit)),
            Stage::Limit(count) => Box::new(limit::LimitStep::new(*count)),
            Stage::Skip(count) => Box::new(skip::SkipStep::new(*count)),
            Stage::Unwind(unwind) => Box::new(unwind::UnwindStep::new(unwind.clone())),
            Stage::Count(field) => Box::new(count::CountStep::new(field.clone())),
            Stage::ReplaceRoot(root) => Box::new(replace_root::ReplaceRootStep::new(root.clone())),
            Stage::Lookup(_) => panic!("the router runs $lookup, between two runners"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_a_search_finds_every_stage() {
        assert!(STAGES.is_sorted_by(|a, b| a.0 < b.0));
    }
}
