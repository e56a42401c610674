//! Filters, by scripts. `documents` declares documents, `match` says which of them match, by `_id` where they have one;
//! There is one variable, `wanted`, with the
//! value 3. `positional` adds the array index that the positional `$` stands for.

use std::error::Error;

use bson::{Bson, Document};
use document::filter::{Filter, MatchDetails, Regex};
use document::{DocBuf, DocRef, Variables};

use crate::support::{self, context, show};

#[test]
fn filters_match_as_their_scripts_say() {
    support::run_scripts("filter", || {
        let mut documents: Vec<Document> = Vec::new();
        move |name: &str, arguments: &[&str]| match (name, arguments) {
            ("documents", texts) => {
                documents = texts.iter().map(|text| support::tree(text)).collect();
                Ok(String::new())
            }
            ("match", [filter]) => {
                Ok(joined(matching(&documents, filter)?.map(|(document, _)| label(document))))
            }
            ("positional", [filter]) => {
                Ok(joined(matching(&documents, filter)?.map(|(document, details)| {
                    let index = details.array_index.map_or("none".into(), |index| index.to_string());
                    format!("{} at {index}", label(document))
                })))
            }
            _ => Err(format!("unknown command {name}").into()),
        }
    });
}

#[test]
fn a_path_longer_than_any_document_is_deep_is_refused_before_it_is_split() {
    let parse = |path: &str| {
        let filter = bson::doc! { path: 1 };
        Filter::parse(DocRef::Tree(&filter), &Variables::default()).map(|_| ()).map_err(|error| error.code)
    };
    assert_eq!(parse(&["a"; 200].join(".")), Ok(()));
    assert_eq!(parse(&["a"; 201].join(".")), Err(base::Code::OVERFLOW));
    assert_eq!(parse(&".".repeat(1_000_000)), Err(base::Code::OVERFLOW));
}

#[test]
fn hostile_patterns_are_refused_or_compile_within_bounds() {
    let deep = |open: &str, close: &str| format!("{}a{}", open.repeat(5_000), close.repeat(5_000));
    let patterns = [
        deep("(", ")"),
        deep("(?:", ")"),
        deep("[", "]"),
        deep("(?=", ")"),
        "(".repeat(16_000),
        "[".repeat(16_000),
        "a?".repeat(8_000),
        "(((a{1000}){1000}){1000}){1000}".to_owned(),
        "(?:".to_owned() + &"a|".repeat(8_000) + ")*",
        "\\p{L}{1000}".repeat(100),
        "a".repeat(base::limits::REGEX_BYTES_MAX + 1),
    ];
    for pattern in patterns {
        for options in ["", "i", "x"] {
            if let Ok(regex) = Regex::new(&pattern, options) {
                regex.is_match("aaaa").expect("short texts take few steps");
            }
        }
    }
}

/// A document's `_id`, or the whole document.
fn label(document: &Document) -> String {
    match document.get("_id") {
        Some(id) => show(id),
        None => show(&Bson::Document(document.clone())),
    }
}

fn joined(labels: impl Iterator<Item = String>) -> String {
    let labels: Vec<_> = labels.collect();
    if labels.is_empty() { "none".into() } else { labels.join(" ") }
}

/// The documents that match. Raw documents and trees, as documents and as filters, must agree.
fn matching<'a>(
    documents: &'a [Document],
    filter: &str,
) -> Result<impl Iterator<Item = (&'a Document, MatchDetails)> + use<'a>, Box<dyn Error>> {
    let tree = support::tree(filter);
    let variables: Variables = [("wanted".to_owned(), Bson::Int32(3))].into_iter().collect();
    let filter = Filter::parse(DocBuf::encode(&tree)?.as_doc(), &variables)?;
    let filter_of_tree = Filter::parse(DocRef::Tree(&tree), &variables)?;
    let cx = context();
    let mut matching = Vec::new();
    for document in documents {
        let raw = DocBuf::encode(document)?;
        let details = filter.matches_positional(raw.as_doc(), &cx)?;
        assert_eq!(details, filter.matches_positional(DocRef::Tree(document), &cx)?);
        assert_eq!(details, filter_of_tree.matches_positional(raw.as_doc(), &cx)?);
        assert_eq!(details.is_some(), filter.matches(raw.as_doc(), &cx)?);
        matching.extend(details.map(|details| (document, details)));
    }
    Ok(matching.into_iter())
}
