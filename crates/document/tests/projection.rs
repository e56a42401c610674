//! Projections, by scripts. `project DOCUMENT SPEC` prints what `find` returns, after `filter` for the positional `.$`;
//! `stage`, `add-fields` and `unset` print what those stages make of the document.

use std::error::Error;

use bson::Bson;
use document::filter::Filter;
use document::projection::Projection;
use document::{DocRef, Value, Variables};

use crate::support::{self, context, parse, show};

#[test]
fn projections_shape_documents_as_their_scripts_say() {
    support::run_scripts("projection", || {
        let mut filter = None;
        move |name: &str, arguments: &[&str]| match (name, arguments) {
            ("filter", [text]) => {
                filter = Some((*text).to_owned());
                Ok(String::new())
            }
            ("project", [document, spec]) => find(filter.take(), document, spec),
            ("stage", [document, spec]) => {
                let spec = support::document(spec);
                stage(document, &Projection::parse_stage(spec.as_doc(), &Variables::default())?)
            }
            ("add-fields", [document, spec]) => {
                let spec = support::document(spec);
                stage(document, &Projection::parse_add_fields(spec.as_doc(), &Variables::default())?)
            }
            ("unset", [document, fields]) => {
                stage(document, &Projection::parse_unset(&Value::from(&parse(fields)?))?)
            }
            _ => Err(format!("unknown command {name}").into()),
        }
    });
}

/// Raw documents and trees must agree.
fn find(filter: Option<String>, document: &str, spec: &str) -> Result<String, Box<dyn Error>> {
    let cx = context();
    let raw = support::document(document);
    let details = match filter {
        Some(filter) => {
            let filter = Filter::parse(support::document(&filter).as_doc(), &Variables::default())?;
            filter.matches_positional(raw.as_doc(), &cx)?
        }
        None => None,
    };
    let projection = Projection::parse(support::document(spec).as_doc(), &Variables::default())?;
    let projected = projection.apply(raw.as_doc(), details.as_ref(), &cx);
    let tree = raw.to_document();
    assert_eq!(projected, projection.apply(DocRef::Tree(&tree), details.as_ref(), &cx));
    Ok(show(&Bson::Document(projected?.to_document())))
}

fn stage(document: &str, projection: &Projection) -> Result<String, Box<dyn Error>> {
    let raw = support::document(document);
    Ok(show(&Bson::Document(projection.transform(raw.as_doc(), &context())?)))
}
