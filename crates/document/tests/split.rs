//! Pipelines divided between shards and the router: rows dealt over shards come to what the whole pipeline makes of them.

use bson::{Bson, Document, doc};
use document::pipeline::{Pipeline, Row, Runner, Stage};
use document::sort::SortSpec;
use document::{DocBuf, validate};
use proptest::prelude::*;

use crate::pipeline::{parsed, run_rows};
use crate::support::context;

/// Numbers of all types whose sums no rounding touches, in any grouping.
fn number() -> impl Strategy<Value = Bson> {
    prop_oneof![
        3 => (-3_i32..4).prop_map(Bson::Int32),
        1 => Just(Bson::Int32(i32::MAX)),
        1 => prop::sample::select(vec![i64::MAX, i64::MIN, 1 << 53, -5]).prop_map(Bson::Int64),
        2 => (-9_i32..9).prop_map(|quarters| Bson::Double(f64::from(quarters) / 4.0)),
        1 => prop::sample::select(vec![1e100, -1e100, f64::INFINITY, f64::NEG_INFINITY, f64::NAN])
            .prop_map(Bson::Double),
        1 => prop::sample::select(vec!["0.10", "-7", "1E+3", "NaN", "Infinity"])
            .prop_map(|text| Bson::Decimal128(text.parse().expect("a decimal"))),
    ]
}

fn value() -> impl Strategy<Value = Bson> {
    let scalar = || {
        prop_oneof![
            6 => number(),
            1 => prop::sample::select(vec![Bson::Null, Bson::Undefined, Bson::Boolean(true), Bson::MinKey]),
            1 => prop::sample::select(vec!["", "x", "y"]).prop_map(|text| Bson::String(text.to_owned())),
        ]
    };
    prop_oneof![
        6 => scalar(),
        1 => prop::collection::vec(scalar(), 0..3).prop_map(Bson::Array),
        1 => scalar().prop_map(|value| Bson::Document(doc! { "b": value })),
    ]
}

fn row() -> impl Strategy<Value = Document> {
    prop::collection::vec((prop::sample::select(vec!["a", "b", "c"]), value()), 0..4)
        .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn group() -> impl Strategy<Value = Document> {
    let id = prop::sample::select(vec![
        Bson::Null,
        Bson::String("$a".to_owned()),
        Bson::String("$b".to_owned()),
        Bson::Document(doc! { "a": "$a", "c": "$c" }),
    ]);
    let operator =
        prop::sample::select(vec!["$sum", "$avg", "$min", "$max", "$first", "$last", "$push", "$addToSet"]);
    let argument = prop::sample::select(vec!["$a", "$b", "$c", "$c.b"]);
    let field = (prop::sample::select(vec!["a", "b", "c"]), operator, argument).prop_map(
        |(name, operator, argument)| (name.to_owned(), Bson::Document(doc! { operator: argument })),
    );
    let other = prop::sample::select(vec![
        // No other stage looks at this field: the last digit of a deviation depends on the grouping.
        ("deviation", doc! { "$stdDevPop": "$b" }),
        ("deviation", doc! { "$stdDevSamp": "$a" }),
        ("all", doc! { "$mergeObjects": "$$ROOT" }),
        ("n", doc! { "$count": {} }),
    ]);
    let other = other.prop_map(|(name, argument)| (name.to_owned(), Bson::Document(argument)));
    (id, prop::collection::vec(prop_oneof![3 => field, 1 => other], 0..4)).prop_map(|(id, fields)| {
        let mut group = doc! { "_id": id };
        group.extend(fields);
        doc! { "$group": group }
    })
}

fn stage() -> impl Strategy<Value = Document> {
    prop_oneof![
        3 => group(),
        3 => prop::sample::select(vec![
            doc! { "$match": { "a": { "$gte": 0 } } },
            doc! { "$match": { "b": { "$ne": 1 } } },
            doc! { "$project": { "a": 1, "c": "$b" } },
            doc! { "$addFields": { "c": { "$ifNull": ["$c", "$a"] } } },
            doc! { "$unset": "b" },
            doc! { "$unwind": "$a" },
            doc! { "$unwind": { "path": "$c", "preserveNullAndEmptyArrays": true } },
            doc! { "$replaceWith": { "a": "$b", "b": "$a" } },
        ]),
        2 => prop::sample::select(vec![
            doc! { "$sort": { "a": 1 } },
            doc! { "$sort": { "b": -1, "a": 1 } },
            doc! { "$count": "a" },
            doc! { "$sortByCount": "$b" },
        ]),
        1 => (1..8_i32).prop_map(|count| doc! { "$limit": count }),
        1 => (0..4_i32).prop_map(|count| doc! { "$skip": count }),
    ]
}

/// Rows as they arrive from another node.
fn sent(rows: Vec<Document>) -> Vec<Row> {
    let sent = rows.into_iter().map(|row| {
        let bytes = DocBuf::encode(&row).expect("encodes").into_bytes();
        validate::validate(&bytes).expect("valid BSON");
        Row::Raw(DocBuf::from_validated(bytes))
    });
    sent.collect()
}

/// The shards' rows by their sort keys; of equal ones, those of an earlier shard first.
fn merged(mut shards: Vec<Vec<Row>>, merge: Option<&SortSpec>) -> Vec<Row> {
    if let Some(spec) = merge {
        for rows in &shards {
            assert!(rows.is_sorted_by_key(|row| spec.key(row.as_doc())), "every shard's rows are sorted");
        }
    }
    let mut rows: Vec<Row> = shards.drain(..).flatten().collect();
    if let Some(spec) = merge {
        rows.sort_by_cached_key(|row| spec.key(row.as_doc()));
    }
    rows
}

/// Runs a pipeline in two parts.
fn divided(pipeline: &Pipeline, shards: &[Vec<Document>]) -> base::Result<Vec<Document>> {
    let split = pipeline.split_for_shard();
    let parts = shards.iter().map(|rows| run_rows(&split.shard, sent(rows.clone())).map(sent));
    run_rows(&split.router, merged(parts.collect::<base::Result<_>>()?, split.merge.as_ref()))
}

/// Equal, but for the last digits of a finite deviation.
fn same(a: &Document, b: &Document) -> bool {
    let close = |a: &Bson, b: &Bson| match (a, b) {
        (Bson::Double(a), Bson::Double(b)) if a.is_finite() && b.is_finite() => {
            (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
        }
        (a, b) => format!("{a:?}") == format!("{b:?}"),
    };
    let equal = |(name, a): (&String, &Bson), (other, b): (&String, &Bson)| {
        name == other && if name == "deviation" { close(a, b) } else { format!("{a:?}") == format!("{b:?}") }
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    /// Of rows in the order of the shards, so that what depends on order is the same too.
    #[test]
    fn rows_dealt_over_shards_come_to_what_the_whole_pipeline_makes_of_them(
        shards in prop::collection::vec(prop::collection::vec(row(), 0..8), 1..6),
        stages in prop::collection::vec(stage(), 0..6),
    ) {
        let pipeline = parsed(stages);
        let whole = run_rows(&pipeline.stages, sent(shards.concat()));
        let parts = divided(&pipeline, &shards);
        let (Ok(whole), Ok(parts)) = (&whole, &parts) else {
            prop_assert_eq!(whole.is_ok(), parts.is_ok());
            return Ok(());
        };
        let equal = whole.len() == parts.len() && whole.iter().zip(parts).all(|(a, b)| same(a, b));
        prop_assert!(equal, "{whole:?}\nin parts: {parts:?}");
    }

    #[test]
    fn a_row_that_no_shard_made_is_an_error_and_not_a_panic(row in row(), parts in prop::collection::vec(value(), 0..4)) {
        let group = doc! { "_id": "$a", "sum": { "$sum": "$b" }, "avg": { "$avg": "$b" }, "last": { "$last": "$b" } };
        let router = parsed(vec![doc! { "$group": group }]).split_for_shard().router;
        for row in [row.clone(), doc! { "_id": 1, "p": parts }, doc! { "p": [row] }] {
            prop_assert!(run_rows(&router, sent(vec![row])).is_err());
        }
    }
}

#[test]
fn a_sum_over_shards_keeps_its_type_and_its_digits() {
    let pipeline = parsed(vec![doc! { "$group": { "_id": null, "n": { "$sum": "$n" } } }]);
    let total_of = |shards: &[&[Bson]]| {
        let rows = |numbers: &&[Bson]| numbers.iter().map(|number| doc! { "n": number.clone() }).collect();
        let shards: Vec<Vec<Document>> = shards.iter().map(rows).collect();
        divided(&pipeline, &shards).expect("runs").pop().and_then(|mut group| group.remove("n"))
    };
    let total = |numbers: &[Bson]| total_of(&numbers.chunks(1).collect::<Vec<_>>());
    assert_eq!(total(&[1e100.into(), 1.0.into(), (-1e100).into()]), Some(Bson::Double(1.0)));
    let (large, small) = ([1e100.into(), 1.0.into()], [(-1e100).into(), 2.0.into()]);
    assert_eq!(total_of(&[&large, &small]), Some(Bson::Double(3.0)));
    assert_eq!(total(&[i64::MAX.into(), i64::MAX.into(), (-i64::MAX).into()]), Some(Bson::Int64(i64::MAX)));
    assert_eq!(total(&[i32::MAX.into(), 1.into()]), Some(Bson::Int64(i64::from(i32::MAX) + 1)));
    let decimal = |text: &str| Bson::Decimal128(text.parse().expect("a decimal"));
    assert_eq!(total(&[decimal("0.10"), 1.into(), decimal("0.20")]), Some(decimal("1.30")));
}

#[test]
fn a_deviation_over_shards_of_large_numbers_that_differ_little_keeps_its_digits() {
    let group = doc! { "_id": null, "pop": { "$stdDevPop": "$n" }, "samp": { "$stdDevSamp": "$n" } };
    let pipeline = parsed(vec![doc! { "$group": group }]);
    let shards: Vec<Vec<Document>> = (0..4)
        .map(|shard| (0..25).map(|n| doc! { "n": 1e9 + f64::from(shard * 25 + n) }).collect())
        .collect();
    let found = divided(&pipeline, &shards).expect("runs").pop().expect("a group");
    let close = |name: &str, expected: f64| (found.get_f64(name).expect("a double") - expected).abs() < 1e-6;
    // The variance of 0, 1, ..., n - 1 is (n * n - 1) / 12.
    assert!(
        close("pop", (9_999.0_f64 / 12.0).sqrt())
            && close("samp", (9_999.0_f64 / 12.0 * 100.0 / 99.0).sqrt())
    );
}

#[test]
fn groups_of_many_shards_past_their_memory_fail_with_code_292() {
    let group = doc! { "_id": null, "all": { "$push": "$text" } };
    let router = parsed(vec![doc! { "$group": group }]).split_for_shard().router;
    assert!(matches!(router.as_slice(), [Stage::MergeGroups(_)]));
    let mut runner = Runner::new(&router, context());
    let text = "x".repeat(1024 * 1024);
    let refused = (0..1_000).find_map(|_| {
        let row = Row::Tree(doc! { "_id": null, "p": [[text.as_str()]] });
        runner.push(row, &mut Vec::new()).err()
    });
    assert_eq!(refused.map(|error| error.code.0), Some(292));
}
