//! Filters, by scripts. `document` lines declare documents, `match` says which of them match (and, with `positional`,
//! the array index that the positional `$` stands for).

use std::error::Error;

use bson::{Bson, Document};
use document::filter::{Filter, MatchDetails};
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
            ("match", [filter]) => Ok(matching(&documents, filter)?
                .map(|(document, _)| show(&Bson::Document(document.clone())))
                .collect::<Vec<_>>()
                .join("\n")),
            ("positional", [filter]) => Ok(matching(&documents, filter)?
                .map(|(document, details)| {
                    let index = details.array_index.map_or("none".into(), |index| index.to_string());
                    format!("{} at {index}", show(&Bson::Document(document.clone())))
                })
                .collect::<Vec<_>>()
                .join("\n")),
            _ => Err(format!("unknown command {name}").into()),
        }
    });
}

/// The documents that match. Raw documents and trees, as documents and as filters, must agree.
fn matching<'a>(
    documents: &'a [Document],
    filter: &str,
) -> Result<impl Iterator<Item = (&'a Document, MatchDetails)> + use<'a>, Box<dyn Error>> {
    let tree = support::tree(filter);
    let filter = Filter::parse(DocBuf::encode(&tree)?.as_doc(), &Variables::default())?;
    let filter_of_tree = Filter::parse(DocRef::Tree(&tree), &Variables::default())?;
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
