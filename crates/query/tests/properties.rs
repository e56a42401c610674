//! Properties on random documents, filters and writes: every plan finds what a collection scan finds, writes agree with a
//! model and leave indexes and documents consistent, and repeats change nothing.

use std::sync::Arc;

use base::SessionId;
use bson::{Bson, Document, doc};
use document::filter::Filter;
use document::{DocBuf, DocRef, Variables};
use proptest::prelude::*;
use query::evaluate::{Outcome, ReturnDocument, ShardCommand, WriteOp};

use crate::shard::{Options, Shard, describe, insert_op, request};

/// Values from a small set of every kind that indexes treat differently.
fn leaf() -> impl Strategy<Value = Bson> {
    prop_oneof![
        6 => (0..6).prop_map(Bson::Int32),
        1 => (0..6).prop_map(|number| Bson::Double(f64::from(number) / 2.0)),
        1 => prop::sample::select(vec!["", "a", "ab", "abc", "b"]).prop_map(|text| Bson::String(text.to_owned())),
        1 => prop::sample::select(vec![
            Bson::Null,
            Bson::Undefined,
            Bson::Boolean(true),
            Bson::Double(f64::NAN),
            Bson::MinKey,
            Bson::MaxKey,
            Bson::DateTime(bson::DateTime::from_millis(5)),
        ]),
    ]
}

/// Leaves, arrays of them, and documents and arrays of documents with the fields `b` and `c`.
fn value() -> impl Strategy<Value = Bson> {
    let inner = prop_oneof![
        4 => leaf(),
        1 => prop::collection::vec(leaf(), 0..3).prop_map(Bson::Array),
    ];
    let fields = || {
        prop::collection::vec((prop::sample::select(vec!["b", "c", "0"]), inner.clone()), 0..3)
            .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            .prop_map(Bson::Document)
    };
    prop_oneof![
        6 => leaf(),
        2 => prop::collection::vec(leaf(), 0..3).prop_map(Bson::Array),
        2 => fields(),
        2 => prop::collection::vec(prop_oneof![3 => fields(), 1 => leaf(), 1 => inner.clone()], 0..3)
            .prop_map(Bson::Array),
    ]
}

pub(crate) fn document() -> impl Strategy<Value = Document> {
    prop::collection::vec((prop::sample::select(vec!["a", "d", "e"]), value()), 0..4)
        .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn path() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "a.b", "a.c", "a.0", "a.0.b", "d", "e", "_id"]).prop_map(str::to_owned)
}

fn operators() -> impl Strategy<Value = Document> {
    let comparison = (prop::sample::select(vec!["$eq", "$gt", "$gte", "$lt", "$lte"]), value())
        .prop_map(|(operator, value)| doc! { operator: value });
    let list = (prop::sample::select(vec!["$in", "$nin"]), prop::collection::vec(value(), 0..4))
        .prop_map(|(operator, values)| doc! { operator: values });
    let both = (leaf(), leaf()).prop_map(|(low, high)| doc! { "$gte": low, "$lt": high });
    prop_oneof![
        4 => comparison,
        3 => list,
        2 => both,
        1 => any::<bool>().prop_map(|exists| doc! { "$exists": exists }),
        1 => value().prop_map(|value| doc! { "$ne": value }),
        1 => prop::collection::vec(leaf(), 1..3).prop_map(|values| doc! { "$all": values }),
        1 => prop::sample::select(vec!["^a", "^ab", "b", "^a?b"]).prop_map(|regex| doc! { "$regex": regex }),
        1 => (leaf(), leaf())
            .prop_map(|(low, high)| doc! { "$elemMatch": { "$gte": low, "$lte": high } }),
        1 => (leaf(), leaf())
            .prop_map(|(b, c)| doc! { "$elemMatch": { "b": b, "c": { "$gte": c } } }),
        1 => leaf().prop_map(|value| doc! { "$not": { "$gt": value } }),
    ]
}

pub(crate) fn filter() -> impl Strategy<Value = Document> {
    let simple = || {
        prop::collection::vec((path(), prop_oneof![operators().prop_map(Bson::Document), value()]), 0..4)
            .prop_map(|fields| fields.into_iter().collect::<Document>())
    };
    prop_oneof![
        4 => simple(),
        1 => prop::collection::vec(simple(), 1..3).prop_map(|branches| doc! { "$or": branches }),
        1 => (simple(), prop::collection::vec(simple(), 1..3)).prop_map(|(mut all, branches)| {
            all.insert("$or", branches);
            all
        }),
        1 => prop::collection::vec(simple(), 1..3).prop_map(|all| doc! { "$and": all }),
    ]
}

pub(crate) fn key_pattern() -> impl Strategy<Value = Document> {
    prop::collection::vec((path(), prop::sample::select(vec![1, -1])), 1..4)
        .prop_map(|fields| fields.into_iter().map(|(path, order)| (path, Bson::Int32(order))).collect())
}

fn ids(documents: &[Document]) -> Vec<i32> {
    documents.iter().map(|document| document.get_i32("_id").expect("an int")).collect()
}

/// The documents with their numbers as `_id`.
pub(crate) fn numbered(documents: &[Document]) -> Vec<Document> {
    let with_id = |(document, id): (&Document, i32)| {
        let mut with_id = doc! { "_id": id };
        with_id.extend(document.clone());
        with_id
    };
    documents.iter().zip(0..).map(with_id).collect()
}

/// A shard of these documents, with those of the indexes that can be built. Documents with parallel arrays for an index
/// are refused, as they should be.
pub(crate) fn shard_of(documents: &[Document], patterns: &[Document]) -> Shard {
    let mut shard = Shard::new();
    let (early, late) = patterns.split_at(patterns.len() / 2);
    for pattern in early {
        shard.create_index(pattern, false).expect("an empty shard takes any index");
    }
    for document in documents {
        shard.write(request(vec![insert_op(document)]));
    }
    for pattern in late {
        // Parallel arrays of earlier documents fail the build.
        let _ = shard.create_index(pattern, false);
    }
    shard
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn every_plan_finds_what_a_collection_scan_finds(
        documents in prop::collection::vec(document(), 0..25),
        patterns in prop::collection::vec(key_pattern(), 1..4),
        filter in filter(),
        sort in prop::option::of(key_pattern()),
        (skip, limit) in (0_u64..4, prop::option::of(1_u64..6)),
    ) {
        let shard = shard_of(&numbered(&documents), &patterns);
        let report = shard.validate();
        prop_assert!(report.is_valid(), "{:?}", report.errors);
        let Ok(parsed) = Filter::parse(DocRef::Tree(&filter), &Variables::default()) else { return Ok(()) };
        let natural = Options { hint: Some(Bson::Document(doc! { "$natural": 1 })), ..Options::default() };
        let expected = shard.find(&filter, &natural).expect("scans");
        let mut hints: Vec<Option<Bson>> =
            shard.state().indexes.iter().map(|index| Some(Bson::String(index.spec.name.clone()))).collect();
        hints.extend([None, Some(Bson::String("_id_".to_owned()))]);
        for hint in hints {
            let unsorted = Options { hint: hint.clone(), ..Options::default() };
            let plan = shard.plan(&parsed, &unsorted).expect("plans");
            let mut found = ids(&shard.find(&filter, &unsorted).expect("runs"));
            found.sort_unstable();
            prop_assert_eq!(&found, &ids(&expected), "{}", describe(&plan));
            let (described, cut) = (describe(&plan), Options { skip, limit, ..Options::default() });
            let counted = shard.count(plan, Arc::new(parsed.clone()), &cut);
            let rest = (expected.len() as u64).saturating_sub(skip);
            prop_assert_eq!(counted, rest.min(limit.unwrap_or(u64::MAX)), "count of {}", described);
            check_sorted(&shard, &filter, &expected, sort.as_ref(), (skip, limit), hint)?;
        }
    }

    #[test]
    fn writes_agree_with_a_model_and_keep_indexes_consistent(
        patterns in prop::collection::vec(key_pattern(), 1..4),
        unique in prop::sample::select(vec!["a", "d"]),
        writes in prop::collection::vec(write(), 1..25),
    ) {
        let mut shard = Shard::new();
        for pattern in &patterns {
            shard.create_index(pattern, false).expect("an empty shard takes any index");
        }
        let unique_key: Document = [(unique.to_owned(), Bson::Int32(-1)), ("u".to_owned(), Bson::Int32(1))].into_iter().collect();
        shard.create_index(&unique_key, true).expect("an empty shard takes any index");
        let mut late = false;
        for (txn, write) in (1_i64..).zip(&writes) {
            let Some(op) = op_of(&shard, write) else { continue };
            let before = shard.documents();
            let mut request = request(vec![op]);
            request.session = Some((SessionId([1; 16]), txn));
            let first = shard.write(request.clone());
            check_counts(&before, &shard.documents(), &first[0].outcome)?;
            check_repeat(&mut shard, request, first)?;
            if txn == 10 {
                late = shard.create_index(&doc! { "e": 1, "_id": -1 }, false).is_ok();
            }
            let report = shard.validate();
            prop_assert!(report.is_valid(), "{:?}", report.errors);
        }
        if late {
            shard.drop_index_by_name("e_1__id_-1");
        }
        prop_assert!(shard.validate().is_valid());
    }
}

/// With a sort, all plans give the same documents in the same order of sort keys.
fn check_sorted(
    shard: &Shard,
    filter: &Document,
    expected: &[Document],
    sort: Option<&Document>,
    (skip, limit): (u64, Option<u64>),
    hint: Option<Bson>,
) -> Result<(), TestCaseError> {
    let Some(sort) = sort else { return Ok(()) };
    let spec = document::sort::SortSpec::parse(DocRef::Tree(sort)).expect("valid");
    let options = Options { sort: Some(sort.clone()), skip, limit, hint, ..Options::default() };
    let parsed = Filter::parse(DocRef::Tree(filter), &Variables::default()).expect("valid");
    let plan = shard.plan(&parsed, &options).expect("plans");
    let found = shard.find(filter, &options).expect("runs");
    let keys_of = |documents: &[Document]| -> Vec<Vec<u8>> {
        documents.iter().map(|document| spec.key(DocRef::Tree(document))).collect()
    };
    let mut expected = keys_of(expected);
    expected.sort();
    let rest = expected.into_iter().skip(skip as usize);
    let expected: Vec<Vec<u8>> = rest.take(limit.map_or(usize::MAX, |limit| limit as usize)).collect();
    prop_assert_eq!(keys_of(&found), expected, "{}", describe(&plan));
    Ok(())
}

#[derive(Clone, Debug)]
enum Write {
    Insert(Document),
    Update { filter: Document, update: Document, multi: bool, upsert: bool },
    Delete { filter: Document, multi: bool },
}

fn write() -> impl Strategy<Value = Write> {
    let update = prop_oneof![
        (prop::sample::select(vec!["a", "a.b", "d", "e"]), value())
            .prop_map(|(path, value)| doc! { "$set": { path: value } }),
        prop::sample::select(vec!["a", "a.b", "d"]).prop_map(|path| doc! { "$unset": { path: "" } }),
        (prop::sample::select(vec!["a", "d"]), leaf())
            .prop_map(|(path, value)| doc! { "$push": { path: value } }),
        document(),
    ];
    prop_oneof![
        3 => (0..12, document()).prop_map(|(id, document)| {
            let mut with_id = doc! { "_id": id };
            with_id.extend(document);
            Write::Insert(with_id)
        }),
        3 => (filter(), update, any::<bool>(), any::<bool>())
            .prop_map(|(filter, update, multi, upsert)| Write::Update { filter, update, multi, upsert }),
        1 => (filter(), any::<bool>()).prop_map(|(filter, multi)| Write::Delete { filter, multi }),
    ]
}

/// The write for the shard; `None` for one that a client could not send.
fn op_of(shard: &Shard, write: &Write) -> Option<WriteOp> {
    match write {
        Write::Insert(document) => Some(insert_op(document)),
        Write::Update { filter, update, multi, upsert } => {
            let is_replacement = !update.keys().any(|name| name.starts_with('$'));
            let upsert = upsert.then_some(Bson::Int32(100));
            shard.update_op(filter, update, *multi && !is_replacement, upsert, ReturnDocument::After).ok()
        }
        Write::Delete { filter, multi } => shard.delete_op(filter, *multi, ReturnDocument::Before).ok(),
    }
}

/// What an outcome says is what happened to the documents.
fn check_counts(
    before: &[Document],
    after: &[Document],
    outcome: &base::Result<Outcome>,
) -> Result<(), TestCaseError> {
    let encode = |document: &Document| DocBuf::encode(document).expect("encodes");
    let (before, after): (Vec<DocBuf>, Vec<DocBuf>) =
        (before.iter().map(encode).collect(), after.iter().map(encode).collect());
    let added = after.iter().filter(|document| !before.contains(document)).count() as u64;
    match outcome {
        Ok(Outcome::Inserted) => prop_assert_eq!((added, after.len()), (1, before.len() + 1)),
        Ok(Outcome::Updated { modified, upserted, document, .. }) => {
            prop_assert_eq!(added, modified + u64::from(upserted.is_some()));
            prop_assert_eq!(after.len(), before.len() + usize::from(upserted.is_some()));
            prop_assert!(document.as_ref().is_none_or(|document| after.contains(document)));
        }
        Ok(Outcome::Deleted { deleted, document }) => {
            prop_assert_eq!(after.len() as u64 + deleted, before.len() as u64);
            prop_assert!(document.as_ref().is_none_or(|document| !after.contains(document)));
        }
        Ok(Outcome::LostCandidate) => prop_assert!(after == before),
        // A statement for many documents keeps what it did before it failed.
        Err(_) => prop_assert_eq!(after.len(), before.len()),
    }
    Ok(())
}

/// The same request again answers the same and writes nothing, unless it wrote nothing the first time.
fn check_repeat(
    shard: &mut Shard,
    request: query::evaluate::WriteRequest,
    first: Vec<query::evaluate::StatementResult>,
) -> Result<(), TestCaseError> {
    let wrote = match &first[0].outcome {
        Ok(Outcome::Inserted) => true,
        Ok(Outcome::Updated { modified, upserted, .. }) => *modified > 0 || upserted.is_some(),
        Ok(Outcome::Deleted { deleted, .. }) => *deleted > 0,
        Ok(Outcome::LostCandidate) | Err(_) => false,
    };
    if !wrote {
        return Ok(());
    }
    let evaluation = shard.run(&ShardCommand::Write(request));
    prop_assert!(evaluation.batch.is_empty());
    let query::evaluate::ShardReply::Write(again) = evaluation.reply.expect("not refused") else {
        return Err(TestCaseError::fail("not an answer to a write"));
    };
    prop_assert!(again[0].repeated);
    // By their text, since a NaN in an `_id` does not equal itself.
    prop_assert_eq!(format!("{:?}", again[0].outcome), format!("{:?}", first[0].outcome));
    Ok(())
}

#[test]
fn the_position_of_a_read_survives_a_change_of_view() {
    let mut shard = Shard::new();
    shard.create_index(&doc! { "a": 1 }, false).expect("an empty shard takes any index");
    let documents: Vec<Document> = (0..50).map(|id| doc! { "_id": id, "a": [id % 7, id % 5] }).collect();
    shard.write(request(documents.iter().map(insert_op).collect()));
    let filter = Arc::new(
        Filter::parse(DocRef::Tree(&doc! { "a": { "$gte": 0 } }), &Variables::default()).expect("valid"),
    );
    let options = Options::default();
    let plan = shard.plan(&filter, &options).expect("plans");
    let (found, counters) = shard.execute(plan, filter, &options);
    assert_eq!(found.len(), 50);
    assert_eq!(counters.docs_examined, 50);
}
