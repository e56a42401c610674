//! Reads that go on in fresh executors: on the same shard, on shards that it was cut into, on the shard that shards were
//! joined into. Whatever the plan, all parts together are what one executor gives.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::Code;
use bson::{Bson, Document, doc};
use document::filter::Filter;
use document::{DocRef, ShardKey, Variables};
use proptest::prelude::*;
use query::execute::{HashScope, Progress, Ranked, Slice};
use query::position::Position;
use query::state::{HashRange, IndexStatus};

use crate::properties::{document, filter, key_pattern, numbered, shard_of};
use crate::shard::{Options, Shard, describe, insert_op, request};

/// A read, and the shard that it begins on.
#[derive(Clone, Debug)]
struct Case {
    documents: Vec<Document>,
    patterns: Vec<Document>,
    filter: Document,
    sort: Option<Document>,
    hint: Option<Bson>,
}

fn case() -> impl Strategy<Value = Case> {
    let hint = prop_oneof![
        5 => Just(None),
        1 => prop::sample::select(vec![1, -1]).prop_map(|order| Some(Bson::Document(doc! { "$natural": order }))),
        1 => Just(Some(Bson::String("_id_".to_owned()))),
    ];
    (
        prop::collection::vec(document(), 0..25),
        prop::collection::vec(key_pattern(), 1..4),
        filter(),
        prop::option::of(key_pattern()),
        hint,
    )
        .prop_map(|(documents, patterns, filter, sort, hint)| Case {
            documents: numbered(&documents),
            patterns,
            filter,
            sort,
            hint,
        })
}

impl Case {
    fn filter(&self) -> Option<Arc<Filter>> {
        Filter::parse(DocRef::Tree(&self.filter), &Variables::default()).ok().map(Arc::new)
    }

    /// The read behind a position, in a scope; its position crosses the network.
    fn options(&self, after: &Position, scope: Option<&HashScope>) -> Options {
        Options {
            sort: self.sort.clone(),
            hint: self.hint.clone(),
            after: Position::decode(&after.encode()).expect("its own bytes"),
            scopes: scope.cloned().into_iter().collect(),
            ..Options::default()
        }
    }
}

/// What one executor gave before it was left.
#[derive(Debug, Default)]
struct Part {
    documents: Vec<Ranked>,
    position: Position,
    is_done: bool,
    plan: String,
}

/// The next `count` documents, or as many as there are. A slice that is full of bytes leaves a document behind.
fn part(shard: &Shard, filter: &Arc<Filter>, options: &Options, count: usize) -> base::Result<Part> {
    let plan = shard.plan(filter, options)?;
    let mut part = Part { plan: describe(&plan), ..Part::default() };
    let mut executor = shard.start(plan, Arc::clone(filter), options);
    while part.documents.len() < count && !part.is_done {
        let documents_max = count - part.documents.len();
        let slice = Slice { documents_max, bytes_max: 100, examined_max: 3 };
        let progress = executor.next_ranked_batch(&slice, &mut part.documents).expect("runs");
        part.is_done = progress == Progress::Done;
        executor.release_view();
        if !executor.is_ready() {
            executor.resume(shard.view());
        }
    }
    part.position = executor.position();
    Ok(part)
}

fn keys(documents: &[Ranked]) -> Vec<&[u8]> {
    documents.iter().map(|ranked| &ranked.document_key[..]).collect()
}

/// All of one read, in parts of these sizes, which repeat.
fn in_parts(shard: &Shard, filter: &Arc<Filter>, first: Options, sizes: &[usize]) -> (Vec<Ranked>, String) {
    let (mut options, mut given, mut plans) = (first, Vec::new(), String::new());
    for size in sizes.iter().cycle() {
        let part = part(shard, filter, &options, *size).expect("plans");
        plans = format!("{plans}; {}", part.plan);
        if let Some(limit) = &mut options.limit {
            *limit -= part.documents.len() as u64;
        }
        if !part.documents.is_empty() {
            options.skip = 0;
        }
        given.extend(part.documents);
        if part.is_done {
            break;
        }
        options.after = Position::decode(&part.position.encode()).expect("its own bytes");
    }
    (given, plans)
}

/// The scopes of two shards of a key that has arrays in some documents.
fn halves(key: &'static str, border: u64) -> [HashScope; 2] {
    let key = Arc::new(ShardKey::new([key]));
    let scope = |first, last| HashScope { key: Arc::clone(&key), range: HashRange { first, last } };
    [scope(0, border), scope(border + 1, u64::MAX)]
}

fn shard_in(case: &Case, scope: &HashScope) -> Shard {
    let inside = case.documents.iter().filter(|document| scope.contains(DocRef::Tree(document)));
    shard_of(&inside.cloned().collect::<Vec<_>>(), &case.patterns)
}

fn border() -> impl Strategy<Value = (&'static str, u64)> {
    (prop::sample::select(vec!["_id", "e"]), u64::MAX / 4..u64::MAX / 4 * 3)
}

fn ready(shard: &Shard) -> BTreeSet<String> {
    let ready = shard.state().indexes.iter().filter(|index| index.status == IndexStatus::Ready);
    ready.map(|index| index.spec.name.clone()).collect()
}

/// The rest of a read on another shard; `None` where an index is not there that could have served the part before.
fn continued(case: &Case, to: (&Shard, &Shard), after: &Position, scope: &HashScope) -> Option<Part> {
    let (from, to) = to;
    match part(to, &case.filter().expect("valid"), &case.options(after, Some(scope)), usize::MAX) {
        Ok(part) => Some(part),
        Err(error) => {
            assert_eq!(error.code, Code::QUERY_PLAN_KILLED, "{error}");
            assert!(!ready(from).is_subset(&ready(to)));
            None
        }
    }
}

/// All parts together are the expected documents, each once; in each stream, sort keys never descend.
fn check(expected: &Part, streams: &[[&Part; 2]]) -> Result<(), TestCaseError> {
    let mut found: Vec<&[u8]> = Vec::new();
    let mut plans = Vec::new();
    for [first, second] in streams {
        let sort_keys = first.documents.iter().chain(&second.documents).map(|ranked| &ranked.sort_key);
        prop_assert!(sort_keys.is_sorted(), "{} then {}", first.plan, second.plan);
        found.extend(keys(&second.documents));
        plans.push([&first.plan, &second.plan]);
    }
    let mut firsts: Vec<&Part> = streams.iter().map(|[first, _]| *first).collect();
    firsts.dedup_by(|a, b| std::ptr::eq(*a, *b));
    firsts.iter().for_each(|first| found.extend(keys(&first.documents)));
    found.sort_unstable();
    let mut expected = keys(&expected.documents);
    expected.sort_unstable();
    prop_assert_eq!(found, expected, "{:?}", plans);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn a_read_in_fresh_executors_gives_what_one_gives(
        case in case(),
        sizes in prop::collection::vec(1_usize..5, 1..4),
        (skip, limit) in (0_u64..3, prop::option::of(0_u64..9)),
    ) {
        let Some(filter) = case.filter() else { return Ok(()) };
        let shard = shard_of(&case.documents, &case.patterns);
        let names = shard.state().indexes.iter().map(|index| Some(Bson::String(index.spec.name.clone())));
        for hint in names.chain([case.hint.clone()]) {
            let options = || Options { hint: hint.clone(), skip, limit, ..case.options(&Position::start(), None) };
            let (expected, plan) = in_parts(&shard, &filter, options(), &[usize::MAX]);
            let (found, plans) = in_parts(&shard, &filter, options(), &sizes);
            prop_assert_eq!(keys(&found), keys(&expected), "{} in parts: {}", plan, plans);
        }
    }

    #[test]
    fn a_count_goes_on_where_documents_or_entries_were_counted_before(
        case in case(),
        examined in 1_u64..8,
    ) {
        let Some(filter) = case.filter() else { return Ok(()) };
        let case = Case { sort: None, ..case };
        let shard = shard_of(&case.documents, &case.patterns);
        let options = case.options(&Position::start(), None);
        let whole = shard.count(shard.plan(&filter, &options)?, Arc::clone(&filter), &options);
        let mut first = shard.start(shard.plan(&filter, &options)?, Arc::clone(&filter), &options);
        let (counted, _) = first.count_batch(examined).expect("runs");
        let options = case.options(&first.position(), None);
        let plan = shard.plan(&filter, &options)?;
        let described = describe(&plan);
        prop_assert_eq!(counted + shard.count(plan, filter, &options), whole, "{}", described);
    }

    #[test]
    fn a_read_goes_on_in_the_shards_that_its_shard_was_cut_into(
        case in case(),
        count in 0_usize..8,
        (key, border) in border(),
    ) {
        let Some(filter) = case.filter() else { return Ok(()) };
        let whole = shard_of(&case.documents, &case.patterns);
        let options = case.options(&Position::start(), None);
        let expected = part(&whole, &filter, &options, usize::MAX)?;
        let first = if count == 0 { Part::default() } else { part(&whole, &filter, &options, count)? };
        let rests = halves(key, border).map(|scope| {
            continued(&case, (&whole, &shard_in(&case, &scope)), &first.position, &scope)
        });
        let [Some(low), Some(high)] = &rests else { return Ok(()) };
        check(&expected, &[[&first, low], [&first, high]])?;
    }

    #[test]
    fn reads_of_two_shards_go_on_in_the_one_that_they_were_joined_into(
        case in case(),
        counts in (0_usize..6, 0_usize..6),
        (key, border) in border(),
    ) {
        let Some(filter) = case.filter() else { return Ok(()) };
        let whole = shard_of(&case.documents, &case.patterns);
        let expected = part(&whole, &filter, &case.options(&Position::start(), None), usize::MAX)?;
        let mut streams = Vec::new();
        for (scope, count) in halves(key, border).iter().zip([counts.0, counts.1]) {
            let shard = shard_in(&case, scope);
            let options = case.options(&Position::start(), Some(scope));
            let first = if count == 0 { Part::default() } else { part(&shard, &filter, &options, count)? };
            let Some(rest) = continued(&case, (&shard, &whole), &first.position, scope) else { return Ok(()) };
            streams.push((first, rest));
        }
        let streams: Vec<[&Part; 2]> = streams.iter().map(|(first, rest)| [first, rest]).collect();
        check(&expected, &streams)?;
    }
}

/// Twenty documents under an index that a position is in.
fn read_in_an_index() -> (Shard, Arc<Filter>, Position) {
    let mut shard = Shard::new();
    shard.create_index(&doc! { "a": 1 }, false).expect("an empty shard takes any index");
    let documents: Vec<Document> = (0..20).map(|id| doc! { "_id": id, "a": id % 7 }).collect();
    shard.write(request(documents.iter().map(insert_op).collect()));
    let tree = doc! { "a": { "$gte": 0 } };
    let filter = Arc::new(Filter::parse(DocRef::Tree(&tree), &Variables::default()).expect("valid"));
    let position = part(&shard, &filter, &Options::default(), 5).expect("plans").position;
    (shard, filter, position)
}

#[test]
fn a_read_whose_index_was_dropped_is_killed() {
    let (mut shard, filter, after) = read_in_an_index();
    let options = Options { after, ..Options::default() };
    assert_eq!(part(&shard, &filter, &options, usize::MAX).expect("plans").documents.len(), 15);
    shard.drop_index_by_name("a_1");
    let error = shard.plan(&filter, &options).expect_err("the index is gone");
    assert_eq!(error.code, Code::QUERY_PLAN_KILLED);
}

#[test]
fn a_position_of_another_read_is_refused() {
    let (shard, filter, after) = read_in_an_index();
    let sorted = Options { after, sort: Some(doc! { "b": 1 }), ..Options::default() };
    assert_eq!(shard.plan(&filter, &sorted).expect_err("not sorted").code, Code::BAD_VALUE);
    let after =
        part(&shard, &filter, &Options { after: Position::start(), ..sorted }, 1).expect("plans").position;
    let unsorted = Options { after, ..Options::default() };
    assert_eq!(shard.plan(&filter, &unsorted).expect_err("sorted").code, Code::BAD_VALUE);
}
