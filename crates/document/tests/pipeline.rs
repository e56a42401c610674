//! Pipelines, by scripts. `documents` declares the rows, `let` a variable; `run` prints the rows that come out, `split`
//! what shards do of a pipeline and what is left.

use std::error::Error;

use base::limits;
use bson::{Bson, Document, doc};
use document::pipeline::{Flow, Pipeline, Row, Runner, Stage, stage_names};
use document::{DocBuf, DocRef, Variables};
use proptest::prelude::*;

use crate::support::{self, any, context, parse, show};

#[test]
fn pipelines_run_as_their_scripts_say() {
    support::run_scripts("pipeline", || {
        let mut documents: Vec<Document> = Vec::new();
        let mut variables = Variables::default();
        move |name: &str, arguments: &[&str]| match (name, arguments) {
            ("documents", texts) => {
                documents = texts.iter().map(|text| support::tree(text)).collect();
                Ok(String::new())
            }
            ("let", [name, text]) => {
                variables.insert(*name, parse(text)?);
                Ok(String::new())
            }
            ("run", [text]) => {
                let pipeline = Pipeline::parse(&stages(text)?, &variables)?;
                let rows = run(&pipeline.stages, &documents)?;
                let shown: Vec<_> = rows.into_iter().map(|row| show(&Bson::Document(row))).collect();
                Ok(shown.join("\n"))
            }
            ("split", [text]) => {
                let split = Pipeline::parse(&stages(text)?, &variables)?.split_for_shard();
                let merge = split.merge.map_or("as they come".to_owned(), |spec| {
                    format!("by {}", show(&Bson::Document(spec.to_document())))
                });
                Ok(format!("shards: {}\nmerged {merge}: {}", names(&split.shard), names(&split.router)))
            }
            _ => Err(format!("unknown command {name}").into()),
        }
    });
}

fn stages(text: &str) -> Result<Vec<Bson>, Box<dyn Error>> {
    match parse(text)? {
        Bson::Array(stages) => Ok(stages),
        _ => Err("a pipeline is an array".into()),
    }
}

fn names(stages: &[Stage]) -> String {
    let name = |stage: &Stage| match stage {
        Stage::Limit(count) => format!("$limit {count}"),
        Stage::Sort { limit: Some(limit), .. } => format!("$sort of {limit}"),
        other => other.name().to_owned(),
    };
    stages.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Runs over raw documents; trees must come to the same.
fn run(stages: &[Stage], documents: &[Document]) -> base::Result<Vec<Document>> {
    let raw =
        documents.iter().map(|document| DocBuf::encode(document).map(Row::Raw)).collect::<Result<_, _>>()?;
    let of_raw = run_rows(stages, raw);
    let of_trees = run_rows(stages, documents.iter().cloned().map(Row::Tree).collect());
    assert_eq!(format!("{of_raw:?}"), format!("{of_trees:?}"));
    of_raw
}

pub(crate) fn run_rows(stages: &[Stage], rows: Vec<Row>) -> base::Result<Vec<Document>> {
    let mut runner = Runner::new(stages, context());
    let mut out = Vec::new();
    for row in rows {
        if runner.push(row, &mut out)? == Flow::Done {
            break;
        }
    }
    runner.finish()?;
    loop {
        let before = out.len();
        let more = runner.drain(2, &mut out)?;
        assert!(out.len() <= before + 2, "drain gives no more than was asked for");
        if !more {
            return Ok(out.into_iter().map(Row::into_tree).collect());
        }
    }
}

/// A stage by its name, with an argument that often suits it.
fn any_stage() -> impl Strategy<Value = Document> {
    let names: Vec<&'static str> = stage_names().collect();
    let argument = prop_oneof![
        any::value(),
        any::document().prop_map(Bson::Document),
        (0..3_i32).prop_map(Bson::Int32),
        Just(Bson::String("$a".into())),
        Just(Bson::String("a".into())),
        Just(Bson::Document(doc! { "_id": "$a", "n": { "$sum": "$b" }, "all": { "$push": "$$ROOT" } })),
        Just(Bson::Document(doc! { "a": 1, "b": -1 })),
        Just(Bson::Document(
            doc! { "path": "$a", "includeArrayIndex": "b.i", "preserveNullAndEmptyArrays": true }
        )),
        Just(Bson::Document(doc! { "newRoot": { "$ifNull": ["$a", "$$ROOT"] } })),
    ];
    (proptest::sample::select(names), argument).prop_map(|(name, argument)| {
        let mut stage = Document::new();
        stage.insert(name, argument);
        stage
    })
}

pub(crate) fn parsed(stages: Vec<Document>) -> Pipeline {
    let stages: Vec<Bson> = stages.into_iter().map(Bson::Document).collect();
    Pipeline::parse(&stages, &Variables::default()).expect("a valid pipeline")
}

/// Feeds rows of a megabyte until the runner refuses; how many it took.
fn rows_until_refused(stages: &[Stage]) -> (usize, base::Error) {
    let mut runner = Runner::new(stages, context());
    let text = "x".repeat(1024 * 1024);
    let mut out = Vec::new();
    for count in 0.. {
        let row = Row::Tree(doc! { "_id": count, "text": text.as_str() });
        if let Err(error) = runner.push(row, &mut out) {
            return (usize::try_from(count).expect("counts up"), error);
        }
        assert!(count < 1_000, "the limit is not enforced");
    }
    unreachable!("the loop ends by returning")
}

#[test]
fn a_sort_past_its_memory_fails_with_code_292() {
    let (rows, error) = rows_until_refused(&parsed(vec![doc! { "$sort": { "_id": 1 } }]).stages);
    assert_eq!(error.code.0, 292);
    assert!(error.message.contains("Sort exceeded memory limit of 104857600 bytes"), "{error}");
    assert!(rows <= limits::SORT_MEMORY_BYTES_MAX / (1024 * 1024));
}

#[test]
fn a_group_past_its_memory_fails_with_code_292() {
    let group = doc! { "$group": { "_id": null, "all": { "$push": "$text" } } };
    let pipeline = parsed(vec![group]);
    for stages in [pipeline.stages.clone(), pipeline.split_for_shard().shard] {
        let (_, error) = rows_until_refused(&stages);
        assert_eq!(error.code.0, 292);
        assert!(error.message.contains("Exceeded memory limit for $group"), "{error}");
    }
}

#[test]
fn a_sort_with_a_limit_behind_it_holds_no_more_than_that() {
    let pipeline = parsed(vec![doc! { "$sort": { "_id": -1 } }, doc! { "$limit": 3 }]);
    let mut runner = Runner::new(&pipeline.stages, context());
    let text = "x".repeat(1024 * 1024);
    let mut out = Vec::new();
    for id in 0..300 {
        let flow = runner.push(Row::Tree(doc! { "_id": id, "text": text.as_str() }), &mut out);
        assert_eq!(flow, Ok(Flow::More));
    }
    runner.finish().expect("finishes");
    assert_eq!(runner.drain(10, &mut out), Ok(false));
    let ids: Vec<_> = out.into_iter().map(|row| row.into_tree().get_i32("_id").expect("an id")).collect();
    assert_eq!(ids, [299, 298, 297]);
}

#[test]
fn a_limit_ends_the_input_and_a_blocking_stage_before_it_does_not() {
    let row = || Row::Tree(doc! { "_id": 1 });
    let mut out = Vec::new();
    let streaming = parsed(vec![doc! { "$match": {} }, doc! { "$limit": 2 }, doc! { "$count": "n" }]);
    let mut runner = Runner::new(&streaming.stages, context());
    assert_eq!(runner.push(row(), &mut out), Ok(Flow::More));
    assert_eq!(runner.push(row(), &mut out), Ok(Flow::Done));
    runner.finish().expect("finishes");
    assert_eq!(runner.drain(10, &mut out), Ok(false));
    assert_eq!(out.pop().map(Row::into_tree), Some(doc! { "n": 2 }));

    let blocking = parsed(vec![doc! { "$sort": { "_id": 1 } }, doc! { "$limit": 1 }]);
    let mut runner = Runner::new(&blocking.stages, context());
    assert_eq!(runner.push(row(), &mut out), Ok(Flow::More));
    assert_eq!(runner.push(row(), &mut out), Ok(Flow::More));
}

#[test]
fn a_lookup_finds_equal_values_elements_of_arrays_and_null_for_what_is_missing() {
    let lookup = doc! { "from": "other", "localField": "a.b", "foreignField": "f", "as": "x.found" };
    let pipeline = parsed(vec![doc! { "$lookup": lookup }]);
    let [Stage::Lookup(lookup)] = pipeline.stages.as_slice() else {
        panic!("one lookup: {:?}", pipeline.stages);
    };
    let others = [doc! { "f": 1 }, doc! { "f": [2, 3] }, doc! { "f": null }, doc! { "g": 1 }];
    let found = |row: &Document| -> Vec<usize> {
        let filter = lookup.foreign_filter(DocRef::Tree(row));
        let matches = |other: &Document| filter.matches(DocRef::Tree(other), &context()).expect("matches");
        (0..).zip(&others).filter(|(_, other)| matches(other)).map(|(index, _)| index).collect()
    };
    assert_eq!(found(&doc! { "a": { "b": 1.0 } }), [0]);
    assert_eq!(found(&doc! { "a": { "b": [1, 3] } }), [0, 1]);
    assert_eq!(found(&doc! { "a": [{ "b": 1 }, { "b": 2 }] }), [0, 1]);
    assert_eq!(found(&doc! {}), [2, 3]);
    let attached = lookup.attach(Row::Tree(doc! { "_id": 1, "x": 5 }), vec![doc! { "f": 1 }]);
    assert_eq!(attached.into_tree(), doc! { "_id": 1, "x": { "found": [{ "f": 1 }] } });
}

#[test]
fn an_array_that_unwinds_into_a_limit_is_not_unwound_further() {
    let pipeline = parsed(vec![doc! { "$unwind": "$a" }, doc! { "$limit": 2 }]);
    let text = "x".repeat(8 * 1024 * 1024);
    let row = doc! { "a": (0..100_000).collect::<Vec<i32>>(), "text": text };
    let rows = run_rows(&pipeline.stages, vec![Row::Tree(row)]).expect("runs");
    assert_eq!(rows.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn the_first_rows_of_a_sort_are_those_of_the_whole_sort(
        values in proptest::collection::vec((0..6_i32, 0..4_i32), 0..40),
        limit in 1..12_i64,
        skip in 0..4_i64,
    ) {
        let rows: Vec<_> = (0_i32..)
            .zip(values)
            .map(|(id, (a, b))| doc! { "_id": id, "a": a, "b": b })
            .collect();
        let sort = doc! { "$sort": { "a": 1, "b": -1 } };
        let whole = run(&parsed(vec![sort.clone()]).stages, &rows).expect("sorts");
        let stages = vec![sort, doc! { "$skip": skip }, doc! { "$limit": limit }];
        let first = run(&parsed(stages).stages, &rows).expect("sorts");
        let expected: Vec<_> = whole
            .into_iter()
            .skip(usize::try_from(skip).expect("small"))
            .take(usize::try_from(limit).expect("small"))
            .collect();
        prop_assert_eq!(first, expected);
    }

    #[test]
    fn no_pipeline_panics_and_trees_agree_with_bytes(
        stages in proptest::collection::vec(any_stage(), 1..4),
        documents in proptest::collection::vec(any::document(), 0..4),
    ) {
        let stages: Vec<Bson> = stages.into_iter().map(Bson::Document).collect();
        let pipeline = Pipeline::parse(&stages, &Variables::default()).unwrap_or_default();
        if !pipeline.has_lookup() {
            let raw = documents.iter().map(|document| DocBuf::encode(document).map(Row::Raw));
            let of_raw = run_rows(&pipeline.stages, raw.collect::<Result<_, _>>()?);
            let of_trees = run_rows(&pipeline.stages, documents.into_iter().map(Row::Tree).collect());
            prop_assert_eq!(of_raw.map(|rows| rows.len()), of_trees.map(|rows| rows.len()));
        }
    }

    #[test]
    fn the_sum_of_the_groups_is_the_sum_of_the_rows(values in proptest::collection::vec((0..6_i32, -100..100_i32), 0..40)) {
        let rows: Vec<_> = values.iter().map(|(key, number)| doc! { "key": key, "n": number }).collect();
        let group = doc! { "$group": { "_id": "$key", "sum": { "$sum": "$n" }, "count": { "$count": {} } } };
        let groups = run(&parsed(vec![group]).stages, &rows).expect("groups");
        let total = |field: &str| groups.iter().map(|group| group.get_i32(field).expect("an int")).sum::<i32>();
        prop_assert_eq!(total("sum"), values.iter().map(|(_, number)| number).sum::<i32>());
        prop_assert_eq!(total("count"), i32::try_from(values.len()).expect("small"));
    }
}
