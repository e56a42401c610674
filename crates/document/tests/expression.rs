//! Expressions, by scripts. `document` declares the document, `let` a variable of the command; `eval` prints what an
//! expression makes of the document, `paths` the fields that it reads, `let-of` what a command's `let` defines.

use std::error::Error;

use bson::{Bson, Document, doc};
use document::expression::{Expression, command_variables, operator_names};
use document::number::Numeric;
use document::{DocBuf, DocRef, Value, Variables};
use proptest::prelude::*;

use crate::support::{self, any, context, parse, show};

#[test]
fn expressions_evaluate_as_their_scripts_say() {
    support::run_scripts("expression", || {
        let mut document = Document::new();
        let mut variables = Variables::default();
        move |name: &str, arguments: &[&str]| match (name, arguments) {
            ("document", [text]) => {
                document = support::tree(text);
                Ok(String::new())
            }
            ("let", [name, text]) => {
                variables.insert(*name, parse(text)?);
                Ok(String::new())
            }
            ("let-of", [text]) => {
                let values = command_variables(DocRef::Tree(&support::tree(text)), &context())?;
                Ok(show(&Bson::Document(values.0.into_iter().collect())))
            }
            ("eval", [text]) => evaluate(&parse(text)?, &document, &variables),
            ("paths", [text]) => {
                let expression = Expression::parse(&Value::from(&parse(text)?), &variables)?;
                let paths =
                    expression.field_paths().map(|paths| paths.iter().map(ToString::to_string).collect());
                Ok(paths.map_or("the whole document".to_owned(), |paths: Vec<_>| paths.join(" ")))
            }
            _ => Err(format!("unknown command {name}").into()),
        }
    });
}

/// Raw documents and trees, as documents and as expressions, must agree.
fn evaluate(value: &Bson, document: &Document, variables: &Variables) -> Result<String, Box<dyn Error>> {
    let cx = context();
    let raw = DocBuf::encode(document)?;
    let wrapped = DocBuf::encode(&doc! { "e": value.clone() })?;
    let expression = Expression::parse(&Value::from(value), variables)?;
    let expression_of_raw = Expression::parse(&wrapped.as_doc().get("e").expect("just put"), variables)?;
    let result = expression.evaluate(raw.as_doc(), &cx);
    let shown = |result: &base::Result<Option<Bson>>| format!("{result:?}");
    assert_eq!(shown(&result), shown(&expression.evaluate(DocRef::Tree(document), &cx)));
    assert_eq!(shown(&result), shown(&expression_of_raw.evaluate(raw.as_doc(), &cx)));
    Ok(result?.map_or("missing".to_owned(), |value| show(&value)))
}

#[test]
fn an_expression_at_the_nesting_limit_fits_the_stack_of_a_worker_thread() {
    let nested =
        |levels: usize| (1..levels).fold(Bson::String("$a".into()), |inner, _| doc! { "$abs": inner }.into());
    let deepest = nested(base::limits::NESTING_MAX);
    let too_deep = nested(base::limits::NESTING_MAX + 1);
    let parse = |value: &Bson| Expression::parse(&Value::from(value), &Variables::default());
    assert_eq!(parse(&too_deep).map_err(|error| error.code), Err(base::Code::OVERFLOW));
    let worker = std::thread::Builder::new().stack_size(1024 * 1024).spawn(move || {
        let root = doc! { "a": -1 };
        parse(&deepest).expect("within the limit").evaluate(DocRef::Tree(&root), &context())
    });
    let result = worker.expect("starts").join().expect("does not overflow its stack");
    assert_eq!(result, Ok(Some(Bson::Int32(1))));
}

/// An operator with arguments of any kind, fields of the document and calls among them.
fn any_expression() -> impl Strategy<Value = Bson> {
    let leaf = prop_oneof![
        any::value(),
        Just(Bson::String("$a".into())),
        Just(Bson::String("$a.b".into())),
        Just(Bson::String("$$ROOT".into())),
        Just(Bson::String("$$NOW".into())),
        (-3..100_i32).prop_map(Bson::Int32),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let names: Vec<&'static str> = operator_names().collect();
        let fields = vec![
            "input",
            "in",
            "cond",
            "initialValue",
            "date",
            "format",
            "timezone",
            "unit",
            "startDate",
            "endDate",
            "amount",
            "to",
            "onError",
            "onNull",
            "chars",
            "find",
            "replacement",
            "regex",
            "field",
            "value",
            "vars",
            "inputs",
            "sortBy",
            "year",
            "month",
            "dateString",
            "if",
            "then",
            "else",
            "binSize",
        ];
        let name = proptest::sample::select(names);
        let positional = proptest::collection::vec(inner.clone(), 0..4).prop_map(Bson::Array);
        let named = proptest::collection::vec((proptest::sample::select(fields), inner.clone()), 0..4)
            .prop_map(|fields| Bson::Document(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()));
        (name, prop_oneof![inner, positional.clone(), positional, named]).prop_map(|(name, argument)| {
            let mut call = Document::new();
            call.insert(name, argument);
            Bson::Document(call)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_000) })]

    #[test]
    fn no_expression_panics_and_trees_agree_with_bytes(
        expression in any_expression(),
        document in any::document(),
        value in any::value(),
    ) {
        let mut document = document;
        document.insert("a", value);
        let raw = DocBuf::encode(&document)?;
        if let Ok(expression) = Expression::parse(&Value::from(&expression), &Variables::default()) {
            let cx = context();
            let of_raw = expression.evaluate(raw.as_doc(), &cx);
            let of_tree = expression.evaluate(DocRef::Tree(&document), &cx);
            prop_assert_eq!(of_raw.is_ok(), of_tree.is_ok());
        }
    }

    #[test]
    fn integer_arithmetic_is_exact_where_the_result_is_a_long(a in proptest::num::i64::ANY, b in proptest::num::i64::ANY) {
        let (x, y) = (Numeric::Int64(a), Numeric::Int64(b));
        let exact = |wide: i128| i64::try_from(wide).ok().map(Bson::Int64);
        prop_assert_eq!(x.checked_add(y).map(Numeric::to_bson), exact(i128::from(a) + i128::from(b)));
        prop_assert_eq!(x.checked_subtract(y).map(Numeric::to_bson), exact(i128::from(a) - i128::from(b)));
        prop_assert_eq!(x.checked_multiply(y).map(Numeric::to_bson), exact(i128::from(a) * i128::from(b)));
    }

    #[test]
    fn decimal_arithmetic_is_exact_over_integers(a in -1_000_000_000_i64..1_000_000_000, b in -1_000_000_000_i64..1_000_000_000) {
        let decimal = |number: i64| Numeric::Decimal(Numeric::Int64(number).to_decimal());
        let expect = |number: i64| Some(number);
        prop_assert_eq!(decimal(a).widening_add(decimal(b)).number().integer(), expect(a + b));
        prop_assert_eq!(decimal(a).widening_multiply(decimal(b)).number().integer(), expect(a * b));
        if let Some(remainder) = decimal(a).remainder(decimal(b)) {
            prop_assert_eq!(remainder.number().integer(), expect(a % b));
        }
    }

    #[test]
    fn no_text_panics_when_it_is_converted(text in "[-+0-9eE._naif\u{e9}]{0,50}") {
        for operator in ["$toDecimal", "$toDouble", "$toInt", "$toDate", "$toObjectId"] {
            let call = doc! { operator: text.as_str() };
            let expression = Expression::parse(&Value::Document(DocRef::Tree(&call)), &Variables::default())?;
            let root = Document::new();
            let _ = expression.evaluate(DocRef::Tree(&root), &context());
        }
    }

    #[test]
    fn a_decimal_reads_back_as_the_double_that_it_was_made_from(number in -1e15_f64..1e15) {
        let whole = number.trunc();
        prop_assert_eq!(Numeric::Decimal(Numeric::Double(whole).to_decimal()).to_f64(), whole);
    }
}
