//! Properties of the literal language over random texts and random values.
//!
//! No text makes a parser panic; every value that is printed reads back as itself, in every form that keeps types.

use bson::{Bson, Document};
use cli::literal::print::{self, Palette};
use cli::literal::{json, parse};
use cli::shell::{balance, statement};
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused_with_a_place_inside_it(text in ".{0,80}") {
        if let Err(error) = parse(&text) {
            prop_assert!(error.offset <= text.len());
            prop_assert!(error.render(&text).contains('^'));
        }
    }

    #[test]
    fn text_that_looks_like_a_statement_is_parsed_or_refused(
        text in "(db|find|insert|update|use|show)[ .a-c(){}\\[\\]:,'\"/$0-9\\\\-]{0,60}"
    ) {
        if let Err(error) = statement::parse(&text) {
            prop_assert!(error.render(&text).contains('^'));
        }
        let _ = balance::balance(&text);
    }

    #[test]
    fn a_printed_value_reads_back_as_itself(value in any_value(), width in 1usize..120) {
        let text = print::pretty(&value, width, Palette::plain());
        prop_assert_eq!(parse(&text).map_err(|error| error.render(&text)), Ok(value));
    }

    #[test]
    fn canonical_extended_json_reads_back_as_the_value(value in any_value()) {
        let text = json::line(&value, json::Form::Canonical);
        prop_assert_eq!(parse(&text).map_err(|error| error.render(&text)), Ok(value));
    }

    #[test]
    fn extended_json_stays_on_one_line(value in any_value()) {
        prop_assert!(!json::line(&value, json::Form::Relaxed).contains('\n'));
    }
}

#[test]
fn nesting_that_never_ends_is_refused() {
    for open in ["[", "{a:", "Code(\"\",", "new Date("] {
        let text = open.repeat(100_000);
        assert!(parse(&text).is_err(), "{open} was accepted");
    }
}

fn any_value() -> impl Strategy<Value = Bson> {
    let name = prop_oneof!["[a-z_][a-zA-Z0-9_]{0,6}", "[^$\0][^\0]{0,5}"];
    any_scalar().prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Bson::Array),
            prop::collection::vec((name.clone(), inner), 0..5)
                .prop_map(|fields| Bson::Document(fields.into_iter().collect::<Document>())),
        ]
    })
}

fn any_scalar() -> impl Strategy<Value = Bson> {
    prop_oneof![
        any::<i32>().prop_map(Bson::Int32),
        any::<i64>().prop_map(Bson::Int64),
        (-1000i64..1000).prop_map(Bson::Int64),
        any::<f64>().prop_filter("NaN differs from itself", |n| !n.is_nan()).prop_map(Bson::Double),
        any::<bool>().prop_map(Bson::Boolean),
        ".{0,12}".prop_map(Bson::String),
        any::<String>().prop_map(Bson::String),
        any::<i64>().prop_map(|ms| Bson::DateTime(bson::DateTime::from_millis(ms))),
        (0i64..4_000_000_000_000).prop_map(|ms| Bson::DateTime(bson::DateTime::from_millis(ms))),
        any::<[u8; 12]>().prop_map(|id| Bson::ObjectId(bson::oid::ObjectId::from_bytes(id))),
        any::<[u8; 16]>().prop_map(|id| Bson::Binary(bson::Uuid::from_bytes(id).into())),
        (0u8..8, prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(subtype, bytes)| { Bson::Binary(bson::Binary { subtype: subtype.into(), bytes }) }),
        (any::<u32>(), any::<u32>())
            .prop_map(|(time, increment)| Bson::Timestamp(bson::Timestamp { time, increment })),
        ("[^\0]{0,10}", prop::sample::select(vec!["", "i", "im", "s"])).prop_map(|(pattern, options)| {
            Bson::RegularExpression(bson::Regex {
                pattern: pattern.try_into().expect("no NUL in the pattern"),
                options: options.to_owned().try_into().expect("no NUL in the options"),
            })
        }),
        ".{0,10}".prop_map(Bson::JavaScriptCode),
        ".{0,10}".prop_map(Bson::Symbol),
        "-?[0-9]{1,30}(\\.[0-9]{1,4})?"
            .prop_map(|text| Bson::Decimal128(text.parse().expect("at most 34 digits"))),
        Just(Bson::Null),
        Just(Bson::Undefined),
        Just(Bson::MinKey),
        Just(Bson::MaxKey),
    ]
}
