//! Random values for property tests: all types, small alphabets so that equal and nearly equal values are common,
//! extreme numbers.

use bson::{Bson, Document};
use proptest::prelude::*;

/// Any value, nested a few levels deep.
pub(crate) fn value() -> impl Strategy<Value = Bson> {
    scalar().prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Bson::Array),
            prop::collection::vec((name(), inner), 0..4)
                .prop_map(|fields| Bson::Document(fields.into_iter().collect())),
        ]
    })
}

/// Any document, with field names from a small alphabet.
pub(crate) fn document() -> impl Strategy<Value = Document> {
    prop::collection::vec((name(), value()), 0..5).prop_map(|fields| fields.into_iter().collect())
}

pub(crate) fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "0", "1", "", "\u{1}", "é"]).prop_map(str::to_owned)
}

fn scalar() -> impl Strategy<Value = Bson> {
    prop_oneof![
        4 => number(),
        2 => text().prop_map(Bson::String),
        1 => other(),
    ]
}

/// A number of any of the four types; often one that is near to others.
pub(crate) fn number() -> impl Strategy<Value = Bson> {
    let int = prop_oneof![
        any::<i64>(),
        -3_i64..3,
        (0_u32..63, -2_i64..3).prop_map(|(shift, offset)| (1_i64 << shift).saturating_add(offset)),
        (0_u32..63, -2_i64..3).prop_map(|(shift, offset)| (-(1_i64 << shift)).saturating_add(offset)),
    ];
    let special_doubles = vec![
        0.0,
        -0.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN,
        5e-324,
        -5e-324,
        0.1,
        1e22,
    ];
    let decimal_texts = vec![
        "0",
        "-0",
        "0E+6111",
        "NaN",
        "-Infinity",
        "Infinity",
        "0.1",
        "-0.1",
        "1.0",
        "1E-6176",
        "-1E-6176",
        "9.999999999999999999999999999999999E+6144",
        "9007199254740993",
        "9007199254740993.5",
        "9.3E+18",
        "1.797693134862315708145274237317043E+308",
        "1.797693134862315708145274237317044E+308",
        "4.94E-324",
        "5E-324",
        "2.2250738585072014E-308",
        "0.1000000000000000055511151231257827",
        "0.1000000000000000055511151231257828",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775809",
    ];
    prop_oneof![
        any::<i32>().prop_map(Bson::Int32),
        (-3_i32..3).prop_map(Bson::Int32),
        int.prop_map(Bson::Int64),
        any::<f64>().prop_map(Bson::Double),
        (-8_i32..8).prop_map(|quarters| Bson::Double(f64::from(quarters) / 4.0)),
        prop::sample::select(special_doubles).prop_map(Bson::Double),
        prop::sample::select(decimal_texts)
            .prop_map(|text| Bson::Decimal128(text.parse().expect("a decimal"))),
        any::<[u8; 16]>().prop_map(|bytes| Bson::Decimal128(bson::Decimal128::from_bytes(bytes))),
        (-2000_i64..2000, -3_i32..3).prop_map(|(coefficient, exponent)| {
            Bson::Decimal128(format!("{coefficient}E{exponent}").parse().expect("a decimal"))
        }),
        (any::<i64>(), -330_i32..310).prop_map(|(coefficient, exponent)| {
            Bson::Decimal128(format!("{coefficient}E{exponent}").parse().expect("a decimal"))
        }),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec!['a', 'b', '\0', '\u{1}', '\u{2}', 'é', '\u{10FFFF}']),
        0..4,
    )
    .prop_map(|chars| chars.into_iter().collect())
}

fn other() -> impl Strategy<Value = Bson> {
    let c_string = || {
        prop::sample::select(vec!["", "a", "b", "ab"])
            .prop_map(|text| bson::raw::CString::try_from(text).expect("no NUL"))
    };
    prop_oneof![
        prop::sample::select(vec![
            Bson::Null,
            Bson::Undefined,
            Bson::MinKey,
            Bson::MaxKey,
            Bson::Boolean(true),
            Bson::Boolean(false),
        ]),
        any::<[u8; 12]>().prop_map(|bytes| Bson::ObjectId(bson::oid::ObjectId::from_bytes(bytes))),
        any::<i64>().prop_map(|millis| Bson::DateTime(bson::DateTime::from_millis(millis))),
        (any::<u32>(), any::<u32>())
            .prop_map(|(time, increment)| Bson::Timestamp(bson::Timestamp { time, increment })),
        (prop::sample::select(vec![0_u8, 4, 5, 0x80]), prop::collection::vec(any::<u8>(), 0..3))
            .prop_map(|(subtype, bytes)| Bson::Binary(bson::Binary { subtype: subtype.into(), bytes })),
        (c_string(), c_string())
            .prop_map(|(pattern, options)| Bson::RegularExpression(bson::Regex { pattern, options })),
        text().prop_map(Bson::Symbol),
        text().prop_map(Bson::JavaScriptCode),
        (text(), -2_i32..2).prop_map(|(code, x)| {
            let scope = bson::doc! { "x": x };
            Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope { code, scope })
        }),
    ]
}
