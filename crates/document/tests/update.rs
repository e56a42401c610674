//! Updates, by scripts. `update DOCUMENT UPDATE` prints the updated document or "no change"; `filter` and
//! `array-filters` before it give the filter that the positional `$` refers to and the filters of `$[id]`; `upsert FILTER
//! UPDATE` prints the document that an upsert inserts; `touches UPDATE PATH...` prints what each path answers.

use std::error::Error;

use bson::{Bson, doc};
use document::filter::Filter;
use document::path::Path;
use document::update::Update;
use document::{DocBuf, DocRef, Value, Variables};

use crate::support::{self, context, parse, show};

#[test]
fn updates_change_documents_as_their_scripts_say() {
    support::run_scripts("update", || {
        let mut case = Case::default();
        move |name: &str, arguments: &[&str]| match (name, arguments) {
            ("filter", [filter]) => {
                case.filter = Some((*filter).to_owned());
                Ok(String::new())
            }
            ("array-filters", filters) => {
                case.array_filters = filters.iter().map(|text| support::document(text)).collect();
                Ok(String::new())
            }
            ("update", [document, update]) => std::mem::take(&mut case).update(document, update),
            ("upsert", [filter, update]) => std::mem::take(&mut case).upsert(filter, update),
            ("touches", [update, paths @ ..]) => std::mem::take(&mut case).touches(update, paths),
            _ => Err(format!("unknown command {name}").into()),
        }
    });
}

#[derive(Default)]
struct Case {
    filter: Option<String>,
    array_filters: Vec<DocBuf>,
}

impl Case {
    fn update(&self, document: &str, update: &str) -> Result<String, Box<dyn Error>> {
        let cx = context();
        let old = support::document(document);
        let details = match &self.filter {
            Some(filter) => {
                let filter = Filter::parse(support::document(filter).as_doc(), &Variables::default())?;
                filter.matches_positional(old.as_doc(), &cx)?
            }
            None => None,
        };
        let update = self.parse(update)?;
        let spliced = update.apply(old.as_doc(), details.as_ref(), &cx);
        assert_eq!(spliced, update.apply_decoded(old.as_doc(), details.as_ref(), &cx));
        Ok(spliced?.map_or_else(|| "no change".to_owned(), |new| show(&Bson::Document(new.to_document()))))
    }

    fn upsert(&self, filter: &str, update: &str) -> Result<String, Box<dyn Error>> {
        let filter = Filter::parse(support::document(filter).as_doc(), &Variables::default())?;
        let inserted =
            self.parse(update)?.upsert_document(&filter, Bson::String("new".into()), &context())?;
        Ok(show(&Bson::Document(inserted.to_document())))
    }

    fn touches(&self, update: &str, paths: &[&str]) -> Result<String, Box<dyn Error>> {
        let update = self.parse(update)?;
        let lines: Vec<String> =
            paths.iter().map(|path| format!("{path}: {}", update.touches(&Path::parse(path)))).collect();
        Ok(lines.join("\n"))
    }

    fn parse(&self, update: &str) -> Result<Update, Box<dyn Error>> {
        let update = parse(update)?;
        let filters: Vec<DocRef<'_>> = self.array_filters.iter().map(DocBuf::as_doc).collect();
        Ok(Update::parse(Value::from(&update), &filters, &Variables::default())?)
    }
}

#[test]
fn a_small_update_of_every_element_is_refused_before_it_takes_much_memory() {
    let elements: Vec<Bson> = (0..100_000).map(Bson::Int32).collect();
    let old = DocBuf::encode(&doc! { "_id": 1, "a": elements }).expect("encodes");
    let value = "x".repeat(1_000_000);
    let updates = [
        doc! { "$set": { "a.$[]": &value } },
        doc! { "$max": { "a.$[]": &value } },
        doc! { "$set": { "b.c": &value, "a.$[]": [&value] } },
    ];
    for update in updates {
        let update = Update::parse(Value::Document(DocRef::Tree(&update)), &[], &Variables::default());
        let outcome = update.expect("parses").apply(old.as_doc(), None, &context());
        assert_eq!(outcome.expect_err("too large").code.0, 17419);
    }
}
