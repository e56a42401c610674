//! What `explain` answers: a plan, and what a run of it did, as documents in MongoDB's terms.
//!
//! Called by the router. Always holds: what is shown is the plan that the executor runs, with the bounds that its scan
//! really uses.

use base::Namespace;
use bson::{Bson, Document, doc};
use catalog::KeyDirection;
use document::display::show_bson;
use storage::Direction;

use crate::execute::Counters;
use crate::plan::{Access, Bounds, IndexAccess, Interval, Plan};

/// The parts of the command that explain shows again.
#[derive(Clone, Copy, Debug)]
pub struct Explained<'a> {
    /// The collection.
    pub namespace: &'a Namespace,
    /// The filter as the client wrote it.
    pub filter: &'a Document,
    /// The projection as the client wrote it.
    pub projection: Option<&'a Document>,
    /// The sort as the client wrote it.
    pub sort: Option<&'a Document>,
    /// Documents left out first.
    pub skip: u64,
    /// Most documents given.
    pub limit: Option<u64>,
}

/// The `queryPlanner` section.
pub fn query_planner(plan: &Plan, explained: &Explained<'_>) -> Document {
    let rejected = plan.rejected.iter().map(|access| {
        let plan =
            Plan { access: access.clone(), sort_needed: needs_sort(access, explained), rejected: Vec::new() };
        Bson::Document(stages(&plan, explained, None))
    });
    doc! {
        "namespace": explained.namespace.to_string(),
        "parsedQuery": explained.filter.clone(),
        "indexFilterSet": false,
        "maxIndexedOrSolutionsReached": false,
        "maxIndexedAndSolutionsReached": false,
        "maxScansToExplodeReached": false,
        "winningPlan": stages(plan, explained, None),
        "rejectedPlans": rejected.collect::<Vec<_>>(),
    }
}

/// The `executionStats` section of a run that has ended.
pub fn execution_stats(
    plan: &Plan,
    explained: &Explained<'_>,
    counters: &Counters,
    execution_time_ms: u64,
) -> Document {
    doc! {
        "executionSuccess": true,
        "nReturned": number(counters.returned),
        "executionTimeMillis": number(execution_time_ms),
        "totalKeysExamined": number(counters.keys_examined),
        "totalDocsExamined": number(counters.docs_examined),
        "executionStages": stages(plan, explained, Some(counters)),
    }
}

/// The bounds as text: `[1, 5)`, from where the scan enters to where it leaves.
pub fn bounds_text(bounds: &Bounds, order: KeyDirection, direction: Direction) -> Vec<String> {
    let downwards = (order == KeyDirection::Descending) != (direction == Direction::Reverse);
    if downwards {
        bounds.0.iter().rev().map(|interval| interval_text(interval, true)).collect()
    } else {
        bounds.0.iter().map(|interval| interval_text(interval, false)).collect()
    }
}

fn interval_text(interval: &Interval, downwards: bool) -> String {
    let low = (show_bson(&interval.low), interval.low_inclusive);
    let high = (show_bson(&interval.high), interval.high_inclusive);
    let (first, last) = if downwards { (high, low) } else { (low, high) };
    let open = if first.1 { '[' } else { '(' };
    let close = if last.1 { ']' } else { ')' };
    format!("{open}{}, {}{close}", first.0, last.0)
}

/// The stages from the outermost to the scan, each with its input inside.
fn stages(plan: &Plan, explained: &Explained<'_>, counters: Option<&Counters>) -> Document {
    let mut stage = access_stage(&plan.access, explained, counters);
    let returned = counters.map(|counters| counters.returned);
    if plan.sort_needed {
        let mut sort = doc! {
            "sortPattern": explained.sort.cloned().unwrap_or_default(),
            "memLimit": number(base::limits::SORT_MEMORY_BYTES_MAX as u64),
            "type": "simple",
        };
        if let Some(limit) = explained.limit {
            sort.insert("limitAmount", number(limit.saturating_add(explained.skip)));
        }
        let sorted = counters.map(|counters| match explained.limit {
            Some(limit) => counters.matched.min(limit.saturating_add(explained.skip)),
            None => counters.matched,
        });
        stage = around("SORT", sorted, sort, stage);
    }
    if explained.skip > 0 {
        stage = around("SKIP", returned, doc! { "skipAmount": number(explained.skip) }, stage);
    }
    if let Some(limit) = explained.limit
        && !plan.sort_needed
    {
        stage = around("LIMIT", returned, doc! { "limitAmount": number(limit) }, stage);
    }
    if let Some(projection) = explained.projection.filter(|projection| !projection.is_empty()) {
        let name = if is_simple(projection) { "PROJECTION_SIMPLE" } else { "PROJECTION_DEFAULT" };
        stage = around(name, returned, doc! { "transformBy": projection.clone() }, stage);
    }
    stage
}

fn around(name: &str, returned: Option<u64>, details: Document, input: Document) -> Document {
    let mut stage = doc! { "stage": name };
    if let Some(returned) = returned {
        stage.insert("nReturned", number(returned));
    }
    stage.extend(details);
    stage.insert("inputStage", input);
    stage
}

/// The scan, with the fetch of documents around it where it is of an index.
fn access_stage(access: &Access, explained: &Explained<'_>, counters: Option<&Counters>) -> Document {
    match access {
        Access::Nothing => with_counts(doc! { "stage": "EOF" }, counters.map(|_| 0), &[]),
        Access::Document { .. } => {
            let stage = doc! { "stage": "EXPRESS_IXSCAN", "keyPattern": "{ _id: 1 }", "indexName": "_id_" };
            with_scan_counts(stage, counters, true, true)
        }
        Access::Collection { direction } => {
            let mut stage = doc! { "stage": "COLLSCAN" };
            if !explained.filter.is_empty() {
                stage.insert("filter", explained.filter.clone());
            }
            stage.insert("direction", direction_name(*direction));
            with_scan_counts(stage, counters, false, true)
        }
        Access::Index(access) => fetch(index_stage(access, counters), explained, counters),
        Access::Union { accesses, .. } => {
            let inputs = accesses.iter().map(|access| Bson::Document(index_stage(access, None)));
            let union = doc! { "stage": "OR", "inputStages": inputs.collect::<Vec<_>>() };
            let union = with_scan_counts(union, counters, true, false);
            fetch(union, explained, counters)
        }
    }
}

fn fetch(input: Document, explained: &Explained<'_>, counters: Option<&Counters>) -> Document {
    let mut stage = doc! { "stage": "FETCH" };
    if !explained.filter.is_empty() {
        stage.insert("filter", explained.filter.clone());
    }
    let mut stage = with_scan_counts(stage, counters, false, true);
    stage.insert("inputStage", input);
    stage
}

fn index_stage(access: &IndexAccess, counters: Option<&Counters>) -> Document {
    let spec = &access.index.spec;
    let mut bounds = Document::new();
    let mut paths = Document::new();
    for (field, (path, order)) in spec.key.iter().enumerate() {
        let texts = access.bounds.get(field).map(|bounds| bounds_text(bounds, *order, access.direction));
        bounds.insert(path, texts.unwrap_or_default());
        let met = access.index.multikey.get(field).map_or(&[][..], Vec::as_slice);
        paths.insert(path, met.iter().map(|component| prefix(path, *component)).collect::<Vec<_>>());
    }
    let stage = doc! {
        "stage": "IXSCAN",
        "keyPattern": spec.key_document(),
        "indexName": spec.name.clone(),
        "isMultiKey": access.index.is_multikey(),
        "multiKeyPaths": paths,
        "isUnique": spec.unique,
        "isSparse": false,
        "isPartial": false,
        "indexVersion": 2,
        "direction": direction_name(access.direction),
        "indexBounds": bounds,
    };
    with_scan_counts(stage, counters, true, false)
}

/// The path up to and with a component.
fn prefix(path: &str, component: u16) -> String {
    path.split('.').take(usize::from(component) + 1).collect::<Vec<_>>().join(".")
}

fn with_scan_counts(stage: Document, counters: Option<&Counters>, keys: bool, documents: bool) -> Document {
    let Some(counters) = counters else { return stage };
    let mut counts = Vec::with_capacity(2);
    if keys {
        counts.push(("keysExamined", counters.keys_examined));
    }
    if documents {
        counts.push(("docsExamined", counters.docs_examined));
    }
    let returned = if documents { counters.matched } else { counters.docs_examined };
    with_counts(stage, Some(returned), &counts)
}

/// Puts counts right behind the stage's name.
fn with_counts(stage: Document, returned: Option<u64>, counts: &[(&str, u64)]) -> Document {
    let Some(returned) = returned else { return stage };
    let mut counted = Document::new();
    for (position, (name, value)) in stage.into_iter().enumerate() {
        counted.insert(name, value);
        if position == 0 {
            counted.insert("nReturned", number(returned));
            counted.extend(counts.iter().map(|(name, count)| ((*name).to_owned(), number(*count))));
        }
    }
    counted
}

fn needs_sort(access: &Access, explained: &Explained<'_>) -> bool {
    let provided = matches!(access, Access::Index(access) if access.provides_sort);
    explained.sort.is_some_and(|sort| !sort.is_empty()) && !provided
}

/// Whether a projection only names top-level fields to keep or to leave out.
fn is_simple(projection: &Document) -> bool {
    projection.iter().all(|(name, value)| {
        !name.contains('.')
            && matches!(value, Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Boolean(_))
    })
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "forward",
        Direction::Reverse => "backward",
    }
}

/// A count as MongoDB writes it: 32 bits where they suffice.
fn number(count: u64) -> Bson {
    match i32::try_from(count) {
        Ok(small) => Bson::Int32(small),
        Err(_) => Bson::Int64(i64::try_from(count).unwrap_or(i64::MAX)),
    }
}
