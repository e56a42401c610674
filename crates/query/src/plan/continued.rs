//! The plan of a read that goes on where a scan of it stopped elsewhere.
//!
//! Called by the planner when it is given such a position. Always holds: the access visits the same entries in the same
//! order as the one that the position was in, for documents that did not change in between: its bounds are those of the
//! arrays that the earlier plan knew of, not of those that this shard has met.

use base::{Code, Error, IndexId};
use document::filter::Filter;
use document::sort::SortSpec;
use storage::Direction;

use super::conditions::Conditions;
use super::{Access, IndexAccess, Plan, by_id, without_empty};
use crate::Failure;
use crate::position::{ScanPlace, Scanned, UsedIndex};
use crate::state::{IndexStatus, ShardIndex, ShardState};

/// The plan of the access that `place` is in. Fails with `QueryPlanKilled` (175) when one of its indexes is gone or not ready,
/// and with `BadValue` when the filter or the sort cannot be those of the position.
pub(super) fn plan(
    state: &ShardState,
    filter: &Filter,
    sort: Option<&SortSpec>,
    place: &ScanPlace,
) -> Result<Plan, Failure> {
    let access = match &place.scanned {
        Scanned::Documents => documents(filter, sort, place.direction)?,
        Scanned::Index(used) => {
            let access = index_access(state, used, &Conditions::of(filter), sort)?;
            let is_same = access.direction == place.direction && access.provides_sort == sort.is_some();
            if !is_same {
                return Err(foreign());
            }
            without_empty(Access::Index(Box::new(access)))
        }
        Scanned::Union { or, indexes } if sort.is_none() => union(state, filter, *or, indexes)?,
        Scanned::Union { .. } => return Err(foreign()),
    };
    Ok(Plan { access, sort_needed: false, rejected: Vec::new() })
}

/// Scans of documents all have one order, so that any that the filter allows goes on behind any other.
fn documents(filter: &Filter, sort: Option<&SortSpec>, direction: Direction) -> Result<Access, Failure> {
    if let Some(access) = by_id(filter) {
        return Ok(access);
    }
    let index = ShardIndex::new(catalog::IndexSpec::id_index(), IndexStatus::Ready);
    let mut access = IndexAccess::new(&index, &Conditions::of(filter), sort);
    if sort.is_some() && !(access.provides_sort && access.direction == direction) {
        return Err(foreign());
    }
    access.direction = direction;
    match access.is_bounded() {
        true => Ok(without_empty(Access::Index(Box::new(access)))),
        false => Ok(Access::Collection { direction }),
    }
}

fn union(state: &ShardState, filter: &Filter, or: u16, indexes: &[UsedIndex]) -> Result<Access, Failure> {
    let conditions = Conditions::of(filter);
    let branches = conditions.ors.get(usize::from(or)).filter(|branches| branches.len() == indexes.len());
    let pairs = branches.ok_or_else(foreign)?.iter().zip(indexes);
    let accesses = pairs.map(|(branch, used)| index_access(state, used, &Conditions::of_node(branch), None));
    Ok(Access::Union { or, accesses: accesses.collect::<Result<_, Failure>>()? })
}

/// The use of an index as the position knows it.
fn index_access(
    state: &ShardState,
    used: &UsedIndex,
    conditions: &Conditions<'_>,
    sort: Option<&SortSpec>,
) -> Result<IndexAccess, Failure> {
    let current = if used.id == IndexId(0) {
        ShardIndex::new(catalog::IndexSpec::id_index(), IndexStatus::Ready)
    } else {
        state.index(used.id).filter(|index| index.status == IndexStatus::Ready).ok_or_else(gone)?.clone()
    };
    if used.multikey.len() != current.spec.key.len() {
        return Err(foreign());
    }
    let repeats = current.is_multikey();
    let known = ShardIndex { multikey: used.multikey.clone(), ..current };
    let mut access = IndexAccess::new(&known, conditions, sort);
    // A document that changed in between may have more entries than the earlier plan thought possible.
    access.repeats |= repeats;
    Ok(access)
}

fn gone() -> Failure {
    let message = "The index that the read was using was dropped or is not ready where the read goes on";
    Error::new(Code::QUERY_PLAN_KILLED, message).into()
}

/// The error for a position that no read with this filter and this sort can have.
pub(super) fn foreign() -> Failure {
    Error::bad_value("The position is not one of a read with this filter and this sort").into()
}
