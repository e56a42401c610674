//! What must hold of documents for any bytes whatsoever. One function for each fuzz target; the crate's tests run the same
//! functions over `fuzz/corpus`, so that what a fuzzer once found stays fixed.
//!
//! Input: BSON documents one after the other. The first says what to do (a filter, an update, a pipeline), the others
//! are what it is done to. Documents that validation refuses are left out, as a server leaves them out.

use bson::Bson;
use bytes::Bytes;
use document::filter::Filter;
use document::pipeline::{Flow, Pipeline, Row, Runner, Stage};
use document::update::Update;
use document::{DocBuf, DocRef, EvalContext, Value, Variables, key, order, validate};

/// Runs the check of one fuzz target. Panics when something does not hold.
pub(crate) fn run(target: &str, data: &[u8]) {
    match target {
        "validate" => validate_bytes(data),
        "key" => key_order(data),
        "filter" => filter(data),
        "update" => update(data),
        "pipeline" => pipeline(data),
        _ => panic!("there is no fuzz target {target}"),
    }
}

/// Valid bytes read back as a document that encodes to valid bytes again.
fn validate_bytes(data: &[u8]) {
    let Ok(document) = validate::into_document(Bytes::copy_from_slice(data)) else {
        return;
    };
    let again = DocBuf::encode(&document.to_document()).expect("what was valid encodes");
    validate::validate(again.bytes()).expect("what was encoded is valid");
}

/// Encoded keys compare as their values do, and none is a prefix of another.
fn key_order(data: &[u8]) {
    let documents = documents(data);
    let values: Vec<Value<'_>> = documents
        .iter()
        .flat_map(|document| document.as_doc().iter().map(|(_, value)| value))
        .take(64)
        .collect();
    let encoded: Vec<Vec<u8>> = values.iter().map(|value| encoded(value, key::encode)).collect();
    for (a, a_key) in values.iter().zip(&encoded) {
        let a_descending = encoded_descending(a);
        for (b, b_key) in values.iter().zip(&encoded) {
            let expected = order::compare(a, b);
            assert_eq!(a_key.cmp(b_key), expected, "{a:?} and {b:?}");
            assert_eq!(a_descending.cmp(&encoded_descending(b)), expected.reverse(), "{a:?} and {b:?}");
            assert!(a_key == b_key || !b_key.starts_with(a_key), "{a:?} and {b:?}");
        }
    }
}

/// Matching agrees with itself.
fn filter(data: &[u8]) {
    let documents = documents(data);
    let Some((filter, subjects)) = documents.split_first() else {
        return;
    };
    let Ok(filter) = Filter::parse(filter.as_doc(), &Variables::default()) else {
        return;
    };
    for subject in subjects {
        let matches = filter.matches(subject.as_doc(), &context());
        let details = filter.matches_positional(subject.as_doc(), &context());
        assert_eq!(matches.ok(), details.ok().map(|details| details.is_some()));
    }
}

/// What an update makes is a valid document, and the same however often it is made.
fn update(data: &[u8]) {
    let documents = documents(data);
    let Some((statement, rest)) = documents.split_first() else {
        return;
    };
    let statement = statement.as_doc();
    let update = statement.get("u").unwrap_or(Value::Document(statement));
    let array_filters: Vec<DocRef<'_>> = match statement.get("arrayFilters") {
        Some(Value::Array(filters)) => filters.iter().filter_map(|filter| filter.as_document()).collect(),
        _ => Vec::new(),
    };
    let Ok(update) = Update::parse(update, &array_filters, &Variables::default()) else {
        return;
    };
    let filter = Filter::everything();
    let _ = update.upsert_document(&filter, Bson::Int32(1), &context());
    for subject in rest {
        let outcome = update.apply(subject.as_doc(), None, &context());
        assert_eq!(outcome, update.apply(subject.as_doc(), None, &context()));
        if let Ok(Some(changed)) = outcome {
            let nesting_max = 4 * base::limits::NESTING_MAX;
            validate::validate_nested(changed.bytes(), nesting_max).expect("an update makes valid documents");
        }
    }
}

/// A pipeline ends, and never panics.
fn pipeline(data: &[u8]) {
    let documents = documents(data);
    let Some((command, rest)) = documents.split_first() else {
        return;
    };
    let stages: Vec<Bson> = match command.as_doc().get("pipeline") {
        Some(Value::Array(stages)) => stages.iter().map(|stage| stage.to_bson()).collect(),
        _ => return,
    };
    let Ok(pipeline) = Pipeline::parse(&stages, &Variables::default()) else {
        return;
    };
    if !pipeline.has_lookup() {
        let _ = run_pipeline(&pipeline.stages, rest);
    }
}

fn run_pipeline(stages: &[Stage], rows: &[DocBuf]) -> base::Result<()> {
    let mut runner = Runner::new(stages, context());
    let mut out = Vec::new();
    for row in rows {
        if runner.push(Row::Raw(row.clone()), &mut out)? == Flow::Done {
            break;
        }
    }
    runner.finish()?;
    while runner.drain(16, &mut out)? {}
    for row in out {
        row.into_docbuf()?;
    }
    Ok(())
}

/// The documents at the start of `data` that validation accepts.
fn documents(data: &[u8]) -> Vec<DocBuf> {
    let mut rest = data;
    let mut documents = Vec::new();
    while let Some(len) = rest.first_chunk().and_then(|len| usize::try_from(i32::from_le_bytes(*len)).ok()) {
        let Some((document, after)) = rest.split_at_checked(len.max(5)) else {
            break;
        };
        documents.extend(validate::into_document(Bytes::copy_from_slice(document)));
        rest = after;
    }
    documents
}

fn encoded(value: &Value<'_>, encode: impl Fn(&Value<'_>, &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(value, &mut out);
    out
}

fn encoded_descending(value: &Value<'_>) -> Vec<u8> {
    encoded(value, key::encode_descending)
}

fn context() -> EvalContext {
    EvalContext::new(bson::DateTime::from_millis(0), base::Timestamp::default())
}
