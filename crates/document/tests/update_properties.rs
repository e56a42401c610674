//! What holds for all updates and projections, on random ones: spliced bytes equal what decoding, changing and encoding
//! gives; whatever an update says, it fails with an error or gives a valid document with the old `_id`; nothing panics.

use bson::{Bson, Document, doc};
use document::filter::{Filter, MatchDetails};
use document::projection::Projection;
use document::update::{OPERATORS, Update};
use document::{DocBuf, DocRef, Value, Variables, validate};
use proptest::prelude::*;

use crate::support::{any, context};

/// The operators that are spliced when their fields are at the top.
const SPLICED: &[&str] = &["$set", "$unset", "$inc", "$mul", "$min", "$max", "$currentDate", "$setOnInsert"];

proptest! {
    #[test]
    fn splicing_top_level_fields_gives_the_bytes_that_decoding_gives(
        old in stored_document(),
        update in operators(SPLICED, any::name()),
    ) {
        let Ok(update) = parse(&Bson::Document(update), &[]) else { return Ok(()) };
        let raw = DocBuf::encode(&old)?;
        let spliced = update.apply(raw.as_doc(), None, &context());
        let decoded = update.apply_decoded(raw.as_doc(), None, &context());
        prop_assert_eq!(&spliced, &decoded);
        if let Ok(Some(new)) = spliced {
            validate::validate(new.bytes())?;
            prop_assert_ne!(new.bytes(), raw.bytes());
        }
    }

    #[test]
    fn any_update_fails_or_gives_a_valid_document_with_the_old_id(
        old in stored_document(),
        update in operators(OPERATORS, path()),
        filters in prop::collection::vec(array_filter(), 0..2),
        array_index in prop::option::of(0_u32..3),
    ) {
        let Ok(update) = parse(&Bson::Document(update), &filters) else { return Ok(()) };
        let raw = DocBuf::encode(&old)?;
        let details = MatchDetails { array_index };
        let outcome = update.apply(raw.as_doc(), Some(&details), &context());
        prop_assert_eq!(&outcome, &update.apply_decoded(raw.as_doc(), Some(&details), &context()));
        if let Ok(Some(new)) = outcome {
            validate::validate(new.bytes())?;
            let id = new.to_document().remove("_id");
            prop_assert_eq!(id, Some(Bson::Int32(7)));
        }
    }

    #[test]
    fn any_value_as_an_update_parses_or_fails(
        old in stored_document(),
        update in prop_oneof![any::value(), any::document().prop_map(Bson::Document)],
    ) {
        let Ok(update) = parse(&update, &[]) else { return Ok(()) };
        if let Ok(Some(new)) = update.apply(DocBuf::encode(&old)?.as_doc(), None, &context()) {
            validate::validate(new.bytes())?;
        }
    }

    #[test]
    fn any_upsert_fails_or_gives_a_valid_document_with_its_id_first(
        filter in any::document(),
        update in operators(OPERATORS, path()),
    ) {
        let Ok(update) = parse(&Bson::Document(update), &[]) else { return Ok(()) };
        let Ok(filter) = Filter::parse(DocRef::Tree(&filter), &Variables::default()) else { return Ok(()) };
        if let Ok(new) = update.upsert_document(&filter, Bson::Int32(7), &context()) {
            validate::validate(new.bytes())?;
            let first = new.as_doc().iter().next().map(|(name, _)| name.to_owned());
            prop_assert_eq!(first.as_deref(), Some("_id"));
        }
    }

    #[test]
    fn an_update_touches_every_top_level_field_that_it_changes(
        old in stored_document(),
        update in operators(OPERATORS, path()),
    ) {
        let Ok(update) = parse(&Bson::Document(update), &[]) else { return Ok(()) };
        let raw = DocBuf::encode(&old)?;
        let details = MatchDetails { array_index: Some(0) };
        let Ok(Some(new)) = update.apply(raw.as_doc(), Some(&details), &context()) else { return Ok(()) };
        let new = new.to_document();
        for name in old.keys().chain(new.keys()).filter(|name| !name.is_empty()) {
            if encoded(old.get(name)) != encoded(new.get(name)) {
                prop_assert!(update.touches(&document::path::Path::parse(name)), "{}", name);
            }
        }
    }

    #[test]
    fn any_projection_fails_or_gives_a_valid_document(
        old in stored_document(),
        spec in prop::collection::vec((path(), projected()), 0..4),
        array_index in prop::option::of(0_u32..3),
    ) {
        let spec: Document = spec.into_iter().collect();
        let variables = Variables::default();
        let Ok(projection) = Projection::parse(DocRef::Tree(&spec), &variables) else { return Ok(()) };
        let raw = DocBuf::encode(&old)?;
        let details = MatchDetails { array_index };
        let outcome = projection.apply(raw.as_doc(), Some(&details), &context());
        prop_assert_eq!(&outcome, &projection.apply(DocRef::Tree(&old), Some(&details), &context()));
        if let Ok(new) = outcome {
            validate::validate(new.bytes())?;
        }
    }
}

fn parse(update: &Bson, array_filters: &[Document]) -> base::Result<Update> {
    let filters: Vec<DocRef<'_>> = array_filters.iter().map(DocRef::Tree).collect();
    Update::parse(Value::from(update), &filters, &Variables::default())
}

/// The bytes of a value, since NaN differs from itself.
fn encoded(value: Option<&Bson>) -> Option<DocBuf> {
    value.map(|value| DocBuf::encode(&doc! { "": value.clone() }).expect("encodes"))
}

/// A document with an `_id`.
fn stored_document() -> impl Strategy<Value = Document> {
    any::document().prop_map(|fields| {
        let mut document = doc! { "_id": 7 };
        document.extend(fields);
        document
    })
}

/// An update with some of these operators, most with arguments that they take.
fn operators(
    names: &'static [&'static str],
    path: impl Strategy<Value = String> + 'static,
) -> impl Strategy<Value = Document> {
    let fields = prop::collection::vec((path, argument()), 1..4)
        .prop_map(|fields| Bson::Document(fields.into_iter().collect()));
    prop::collection::vec((prop::sample::select(names), fields), 1..3)
        .prop_map(|operators| operators.into_iter().map(|(name, fields)| (name.to_owned(), fields)).collect())
}

fn argument() -> impl Strategy<Value = Bson> {
    let values = || prop::collection::vec(any::value(), 0..3).prop_map(Bson::Array);
    prop_oneof![
        2 => any::value(),
        2 => any::number(),
        1 => prop::sample::select(vec![1, -1]).prop_map(Bson::Int32),
        1 => values(),
        1 => path().prop_map(Bson::String),
        1 => any::number().prop_map(|number| Bson::Document(doc! { "and": 5, "xor": number })),
        1 => values().prop_map(|values| Bson::Document(doc! { "$each": values })),
        1 => (values(), -3_i32..3, -3_i32..3).prop_map(|(values, position, slice)| {
            Bson::Document(doc! { "$each": values, "$position": position, "$slice": slice, "$sort": 1 })
        }),
        1 => any::value().prop_map(|value| Bson::Document(doc! { "$gte": value })),
    ]
}

fn path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "c", "0", "1", "2", "_id", "$", "$[]", "$[e]", "", "$x"]);
    let first = prop::sample::select(vec!["a", "b", "c", "0", "é", "_id"]);
    (first, prop::collection::vec(part, 0..3)).prop_map(|(first, rest)| {
        let parts: Vec<&str> = std::iter::once(first).chain(rest).collect();
        parts.join(".")
    })
}

fn array_filter() -> impl Strategy<Value = Document> {
    any::value().prop_map(|value| doc! { "e": { "$gte": value } })
}

fn projected() -> impl Strategy<Value = Bson> {
    prop_oneof![
        4 => prop::sample::select(vec![0, 1]).prop_map(Bson::Int32),
        1 => any::value(),
        1 => path().prop_map(|path| Bson::String(format!("${path}"))),
        1 => (-3_i32..3).prop_map(|limit| Bson::Document(doc! { "$slice": limit })),
        1 => (-3_i32..3, 1_i32..3).prop_map(|(skip, limit)| Bson::Document(doc! { "$slice": [skip, limit] })),
        1 => any::value().prop_map(|value| Bson::Document(doc! { "$elemMatch": { "$gte": value } })),
        1 => path().prop_map(|path| Bson::Document(doc! { path: 1 })),
    ]
}
