//! Validation: accepts what encodes, refuses what is damaged, and never panics.

use base::Code;
use bson::{Bson, Document, doc};
use document::filter::Filter;
use document::{DocBuf, DocRef, Variables, validate};
use proptest::prelude::*;

use crate::support::{any, context, document};

#[test]
fn a_document_of_all_types_is_valid() {
    let text = r#"{a: 1.5, b: "é", c: {d: [1, {}]}, e: BinData(2, "0102"), f: undefined, g: true, h: /a/i, i: Code("f", {x: 1}),
        j: Symbol("s"), k: Timestamp(1, 2), l: NumberLong(3), m: NumberDecimal("1.5"), n: MinKey, o: MaxKey, p: null,
        q: ObjectId("000000000000000000000000"), r: ISODate("2020-01-01T00:00:00Z")}"#;
    validate::validate(document(text).bytes()).expect("valid");
}

#[test]
fn nesting_at_the_limit_is_valid_and_one_level_more_overflows() {
    let nested = |levels: usize| (1..levels).fold(doc! {}, |inner, _| doc! { "a": inner });
    let check = |levels| validate::validate(&bytes_of(&nested(levels)));
    assert_eq!(check(base::limits::NESTING_MAX), Ok(()));
    assert_eq!(check(base::limits::NESTING_MAX + 1).map_err(|error| error.code), Err(Code::OVERFLOW));
}

#[test]
fn a_million_open_documents_are_refused_without_recursion() {
    let mut bytes = Vec::new();
    for _ in 0..1_000_000 {
        bytes.extend_from_slice(&[0xFF, 0xFF, 0xFF, 0x00, 0x03, 0x00]);
    }
    assert!(validate::validate(&bytes).is_err());
}

#[test]
fn damaged_documents_are_refused_with_the_reason() {
    let cases: [(&str, &[u8]); 12] = [
        ("length is out of range", &[4, 0, 0, 0]),
        ("not the length of its bytes", &[5, 0, 0, 0, 0, 0]),
        ("length is negative", &[0xFF, 0xFF, 0xFF, 0xFF, 0]),
        ("bytes end within a length", &[5, 0]),
        ("name does not end with NUL", &[7, 0, 0, 0, 0x0A, b'a', b'b']),
        ("type 0x20 is unknown", &[8, 0, 0, 0, 0x20, b'a', 0, 0]),
        ("boolean is neither 0 nor 1", &[9, 0, 0, 0, 0x08, b'a', 0, 2, 0]),
        ("text is not UTF-8", &[8, 0, 0, 0, 0x0A, 0xFF, 0, 0]),
        ("string does not end with NUL", &[14, 0, 0, 0, 0x02, b'a', 0, 2, 0, 0, 0, b'x', b'y', 0]),
        ("value is longer than the bytes", &[14, 0, 0, 0, 0x02, b'a', 0, 9, 0, 0, 0, b'x', 0, 0]),
        ("ends before its length says", &[9, 0, 0, 0, 0, 0x0A, b'a', 0, 0]),
        ("ends after the one around it", &[13, 0, 0, 0, 0x03, b'a', 0, 6, 0, 0, 0, 0, 0]),
    ];
    for (reason, bytes) in cases {
        let error = validate::validate(bytes).expect_err(reason);
        assert_eq!(error.code, Code::INVALID_BSON, "{reason}");
        assert!(error.message.contains(reason), "{reason}: {}", error.message);
    }
}

fn bytes_of(document: &Document) -> Vec<u8> {
    DocBuf::encode(document).expect("encodes").into_bytes().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn whatever_encodes_is_valid_and_reads_back(tree in any::document()) {
        let bytes = bytes_of(&tree);
        prop_assert_eq!(validate::validate(&bytes), Ok(()));
        // Compared as bytes, in which NaN equals itself.
        prop_assert_eq!(bytes_of(&DocBuf::from_validated(bytes.clone().into()).to_document()), bytes);
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_and_never_panic(
        tree in any::document(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = bytes_of(&tree);
        for (position, byte) in damage {
            let position = position.index(bytes.len());
            bytes[position] = byte;
        }
        if let Ok(damaged) = validate::into_document(bytes.into()) {
            prop_assert!(damaged.to_document().len() <= damaged.bytes().len());
        }
    }

    #[test]
    fn any_document_as_a_filter_parses_or_fails_and_never_panics(
        fields in prop::collection::vec((any::name(), operators()), 0..3),
        subject in any::document(),
    ) {
        let filter: Document = fields.into_iter().collect();
        if let Ok(filter) = Filter::parse(DocRef::Tree(&filter), &Variables::default()) {
            let raw = DocBuf::encode(&subject)?;
            let of_tree = filter.matches_positional(DocRef::Tree(&subject), &context())?;
            prop_assert_eq!(filter.matches_positional(raw.as_doc(), &context())?, of_tree);
        }
    }
}

/// `{$operator: anything}`, for every operator.
fn operators() -> impl Strategy<Value = Bson> {
    let names = vec![
        "$eq",
        "$ne",
        "$gt",
        "$gte",
        "$lt",
        "$lte",
        "$in",
        "$nin",
        "$not",
        "$exists",
        "$type",
        "$regex",
        "$options",
        "$size",
        "$all",
        "$elemMatch",
        "$mod",
        "$bitsAllSet",
        "$bitsAnySet",
        "$bitsAllClear",
        "$bitsAnyClear",
    ];
    let operand = prop_oneof![any::value(), prop::collection::vec(any::number(), 0..3).prop_map(Bson::Array)];
    let one = (prop::sample::select(names), operand);
    prop::collection::vec(one, 1..3).prop_map(|fields| {
        Bson::Document(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    })
}
