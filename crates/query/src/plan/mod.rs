//! Index choice: which way to the documents that a filter and a sort ask for.
//!
//! Called by the router before it executes a read, or seeks candidates of a write, on a shard's view. Always holds: a plan
//! reaches every matching document of the view; the filter is checked on each, so that a plan decides speed, not results.

mod access;
mod bounds;
mod conditions;
mod continued;
mod estimate;

use base::{Error, IndexId};
use bson::{Bson, Document};
use bytes::Bytes;
use catalog::IndexSpec;
use document::filter::{Filter, Node, Predicate};
use document::sort::SortSpec;
use document::{DocRef, Value};
use storage::{Direction, View};

pub use access::IndexAccess;
pub use bounds::{Bounds, Interval};

use crate::encoding;
use crate::failure::Failure;
use crate::position::{Place, Position};
use crate::state::{IndexStatus, ShardIndex, ShardState};
use conditions::Conditions;

/// Most branches of an `$or` that a plan makes scans of.
const UNION_BRANCHES_MAX: usize = 50;
/// What fetching a document costs, next to passing an entry.
const FETCH_COST: f64 = 3.0;
/// What sorting costs for each document and doubling of their number.
const SORT_COST: f64 = 0.3;

/// What a read asks for.
#[derive(Clone, Copy, Debug)]
pub struct PlanRequest<'a> {
    /// Which documents.
    pub filter: &'a Filter,
    /// In which order.
    pub sort: Option<&'a SortSpec>,
    /// Which index the client wants.
    pub hint: Option<&'a Hint>,
    /// How many documents are enough, skipped ones included.
    pub limit: Option<u64>,
    /// What the same read has given elsewhere: the plan is then one that can go on behind it. A scan goes on in the access
    /// that it was in, whatever the hint; a sort under any access, but it stays a sort.
    pub after: Option<&'a Position>,
}

/// The index that a client names.
#[derive(Clone, Debug, PartialEq)]
pub enum Hint {
    /// By its name.
    Name(String),
    /// By its key pattern.
    Key(Document),
    /// No index: documents in `_id` order, or backwards.
    Natural(Direction),
}

/// The way to the documents.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to scan.
    pub access: Access,
    /// Whether a sort has to follow because the access does not give the order.
    pub sort_needed: bool,
    /// What was considered and not chosen.
    pub rejected: Vec<Access>,
}

/// What a plan scans.
#[derive(Clone, Debug)]
pub enum Access {
    /// Nothing can match.
    Nothing,
    /// One document, by its key.
    Document {
        /// Its key.
        key: Bytes,
        /// Its `_id`, for explain.
        id: Bson,
    },
    /// All documents.
    Collection {
        /// Ascending or descending `_id`.
        direction: Direction,
    },
    /// A part of an index, or all of it.
    Index(Box<IndexAccess>),
    /// Parts of several indexes, one after the other; a document is taken once.
    Union {
        /// Which of the filter's `$or`s the indexes serve.
        or: u16,
        /// One for each of its branches.
        accesses: Vec<IndexAccess>,
    },
}

impl Hint {
    /// Reads a `hint` field. `None` for an empty document, which asks for nothing.
    pub fn parse(value: &Value<'_>) -> base::Result<Option<Hint>> {
        match value {
            Value::String(name) => Ok(Some(Hint::Name((*name).to_owned()))),
            Value::Document(document) => Ok(Hint::of_document(*document)),
            other => Err(Error::failed_to_parse(format!(
                "Hint must be a string or an object, but is of type {}",
                other.kind().name()
            ))),
        }
    }

    fn of_document(document: DocRef<'_>) -> Option<Hint> {
        if document.is_empty() {
            return None;
        }
        let Some(natural) = document.get("$natural") else { return Some(Hint::Key(document.to_document())) };
        let backwards = matches!(natural, Value::Int32(-1) | Value::Int64(-1))
            || matches!(natural, Value::Double(number) if number < 0.0);
        Some(Hint::Natural(if backwards { Direction::Reverse } else { Direction::Forward }))
    }

    fn fits(&self, spec: &IndexSpec) -> bool {
        match self {
            Hint::Name(name) => *name == spec.name,
            Hint::Key(key) => {
                let wanted = key.iter().map(|(path, order)| (path.as_str(), order_of(order)));
                let has = spec.key_document();
                wanted.eq(has.iter().map(|(path, order)| (path.as_str(), order_of(order))))
            }
            Hint::Natural(_) => false,
        }
    }
}

fn order_of(value: &Bson) -> Option<bool> {
    match value {
        Bson::Int32(number) => Some(*number >= 0),
        Bson::Int64(number) => Some(*number >= 0),
        Bson::Double(number) => Some(*number >= 0.0),
        _ => None,
    }
}

/// Chooses the way. Fails with `BadValue` when the hint names no index or the position is not of such a read, and with
/// `QueryPlanKilled` (175) when the index that the position is in cannot be read here.
pub fn plan(state: &ShardState, view: &dyn View, request: &PlanRequest<'_>) -> Result<Plan, Failure> {
    let sort = request.sort.filter(|sort| !sort.is_empty());
    match request.after.map(|position| &position.0) {
        None | Some(Place::Start) => choose(state, view, request, sort),
        Some(Place::Scan(place)) => continued::plan(state, request.filter, sort, place),
        // An index that gives the order has another order among ties.
        Some(Place::Sort(_)) if sort.is_some() => {
            let unsorted = choose(state, view, &PlanRequest { limit: None, ..*request }, None)?;
            Ok(Plan { sort_needed: true, ..unsorted })
        }
        Some(Place::Sort(_)) => Err(continued::foreign()),
    }
}

fn choose(
    state: &ShardState,
    view: &dyn View,
    request: &PlanRequest<'_>,
    sort: Option<&SortSpec>,
) -> Result<Plan, Failure> {
    if matches!(request.filter.root(), Node::False) {
        return Ok(Plan { access: Access::Nothing, sort_needed: false, rejected: Vec::new() });
    }
    if request.hint.is_none()
        && let Some(access) = by_id(request.filter)
    {
        return Ok(Plan { access, sort_needed: false, rejected: Vec::new() });
    }
    if let Some(hint) = request.hint {
        return hinted(state, request.filter, sort, hint);
    }
    choose_by_cost(state, view, request.filter, sort, request.limit)
}

/// The document that a filter on nothing but `_id` names.
fn by_id(filter: &Filter) -> Option<Access> {
    let Node::Field { path, predicate: Predicate::Eq(id) } = filter.root() else { return None };
    let plain = !matches!(
        id,
        Bson::Array(_) | Bson::Null | Bson::Undefined | Bson::RegularExpression(_) | Bson::DbPointer(_)
    );
    if !plain || path.parts().len() != 1 || path.first() != "_id" {
        return None;
    }
    let key = encoding::document_key(&Value::from(id)).into();
    Some(Access::Document { key, id: id.clone() })
}

fn hinted(
    state: &ShardState,
    filter: &Filter,
    sort: Option<&SortSpec>,
    hint: &Hint,
) -> Result<Plan, Failure> {
    if let Hint::Natural(direction) = hint {
        let access = Access::Collection { direction: *direction };
        return Ok(Plan { access, sort_needed: sort.is_some(), rejected: Vec::new() });
    }
    let indexes = readable(state);
    let Some(index) = indexes.iter().find(|index| hint.fits(&index.spec)) else {
        return Err(Error::bad_value(
            "error processing query: planner returned error :: caused by :: hint provided does not correspond to an \
             existing index",
        )
        .into());
    };
    Ok(finish(IndexAccess::new(index, &Conditions::of(filter), sort), sort, Vec::new()))
}

/// The index on `_id` and those that are complete.
fn readable(state: &ShardState) -> Vec<ShardIndex> {
    let id_index = ShardIndex::new(IndexSpec::id_index(), IndexStatus::Ready);
    let ready = state
        .indexes
        .iter()
        .filter(|index| index.status == IndexStatus::Ready && index.spec.id != IndexId(0));
    std::iter::once(id_index).chain(ready.cloned()).collect()
}

/// A way with what the planner thinks of it.
struct Candidate {
    access: Access,
    provides_sort: bool,
    entries: f64,
    bounded: bool,
}

fn choose_by_cost(
    state: &ShardState,
    view: &dyn View,
    filter: &Filter,
    sort: Option<&SortSpec>,
    limit: Option<u64>,
) -> Result<Plan, Failure> {
    let conditions = Conditions::of(filter);
    let indexes = readable(state);
    let mut accesses: Vec<IndexAccess> = indexes
        .iter()
        .map(|index| IndexAccess::new(index, &conditions, sort))
        .filter(|access| access.is_bounded() || access.provides_sort)
        .collect();
    accesses.sort_by(access::by_shape);
    let ors = (0..).zip(&conditions.ors);
    let unions = ors.filter_map(|(or, branches)| Some((or, union_of(&indexes, branches)?)));
    let unions: Vec<(u16, Vec<IndexAccess>)> = unions.collect();
    if let ([_], true) = (&accesses[..], unions.is_empty()) {
        let only = accesses.pop().expect("there is one");
        return Ok(finish(only, sort, Vec::new()));
    }
    if accesses.is_empty() && unions.is_empty() {
        let access = Access::Collection { direction: Direction::Forward };
        return Ok(Plan { access, sort_needed: sort.is_some(), rejected: Vec::new() });
    }
    if let Some(position) = accesses.iter().position(IndexAccess::is_of_one_key) {
        let only = accesses.remove(position);
        let rejected = accesses.into_iter().map(|access| Access::Index(Box::new(access)));
        return Ok(finish(only, sort, rejected.collect()));
    }
    let documents = estimate::documents(view)?;
    let mut probe = estimate::PROBE_ENTRIES;
    let mut candidates = Vec::with_capacity(accesses.len() + unions.len());
    for access in accesses {
        let entries = estimate::entries(view, &access, documents, probe)?;
        // What is already much worse than another need not be known better, unless an order may make up for it.
        if sort.is_none() {
            probe = probe.min(4 * entries as u64 + 20);
        }
        let (provides_sort, bounded) = (access.provides_sort, access.is_bounded());
        candidates.push(Candidate {
            access: Access::Index(Box::new(access)),
            provides_sort,
            entries,
            bounded,
        });
    }
    for (or, accesses) in unions {
        let mut entries = 0.0;
        for access in &accesses {
            entries += estimate::entries(view, access, documents, probe)?;
        }
        candidates.push(Candidate {
            access: Access::Union { or, accesses },
            provides_sort: false,
            entries,
            bounded: true,
        });
    }
    Ok(cheapest(candidates, sort.is_some(), limit))
}

/// An index scan for each branch of an `$or`, when each has one.
fn union_of(indexes: &[ShardIndex], branches: &[Node]) -> Option<Vec<IndexAccess>> {
    if branches.len() > UNION_BRANCHES_MAX {
        return None;
    }
    branches
        .iter()
        .map(|branch| {
            let conditions = Conditions::of_node(branch);
            let accesses = indexes.iter().map(|index| IndexAccess::new(index, &conditions, None));
            accesses.filter(IndexAccess::is_bounded).min_by(access::by_shape)
        })
        .collect()
}

fn cheapest(mut candidates: Vec<Candidate>, sorted: bool, limit: Option<u64>) -> Plan {
    let fewest = candidates.iter().map(|candidate| candidate.entries).fold(f64::INFINITY, f64::min);
    let cost = |candidate: &Candidate| {
        let entries = candidate.entries;
        let ordered = candidate.provides_sort || !sorted;
        // With a limit, an ordered scan ends early: the sooner, the more of what it passes matches.
        let visited = match limit {
            Some(limit) if ordered => entries.min(limit as f64 * entries / fewest.max(1.0)),
            _ => entries,
        };
        let sort_cost = if ordered { 0.0 } else { entries * (entries + 2.0).log2() * SORT_COST };
        visited * FETCH_COST + sort_cost + if candidate.bounded { 0.0 } else { f64::EPSILON }
    };
    let best = (0..candidates.len())
        .min_by(|&a, &b| cost_at(&candidates, a, &cost).total_cmp(&cost_at(&candidates, b, &cost)))
        .expect("there is a candidate");
    let chosen = candidates.remove(best);
    Plan {
        sort_needed: sorted && !chosen.provides_sort,
        access: without_empty(chosen.access),
        rejected: candidates.into_iter().map(|candidate| candidate.access).collect(),
    }
}

fn cost_at(candidates: &[Candidate], position: usize, cost: &dyn Fn(&Candidate) -> f64) -> f64 {
    candidates.get(position).map_or(f64::INFINITY, cost)
}

fn finish(access: IndexAccess, sort: Option<&SortSpec>, rejected: Vec<Access>) -> Plan {
    let sort_needed = sort.is_some() && !access.provides_sort;
    Plan { access: without_empty(Access::Index(Box::new(access))), sort_needed, rejected }
}

/// Bounds that contradict each other leave nothing to scan.
fn without_empty(access: Access) -> Access {
    match access {
        Access::Index(access) if access.ranges.is_empty() => Access::Nothing,
        other => other,
    }
}
