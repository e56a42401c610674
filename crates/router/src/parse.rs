//! From a command's documents to parsed filters, updates and variables.

use base::{Error, Result};
use document::filter::Filter;
use document::update::Update;
use document::{DocBuf, Variables};

use crate::command::{UpdateSpec, UpdateStatement};

/// Parses a filter; no document means every document.
pub(crate) fn filter(document: Option<&DocBuf>, variables: &Variables) -> Result<Filter> {
    document.map_or_else(|| Ok(Filter::everything()), |document| Filter::parse(document.as_doc(), variables))
}

/// The values of `let`.
pub(crate) fn variables(document: Option<&DocBuf>) -> Variables {
    let fields = document.into_iter().flat_map(|document| document.as_doc().iter());
    fields.map(|(name, value)| (name.to_owned(), value.to_bson())).collect()
}

/// The values of `let` and, over them, the constants of one update.
pub(crate) fn statement_variables(variables: &Variables, statement: &UpdateStatement) -> Variables {
    let mut all = variables.clone();
    for (name, value) in self::variables(statement.constants.as_ref()).0 {
        all.insert(name, value);
    }
    all
}

/// Parses an update. Fails with `FailedToParse` (9) on a whole document where many documents may match: they would all
/// become the same.
pub(crate) fn update(spec: &UpdateSpec, array_filters: &[DocBuf], variables: &Variables) -> Result<Update> {
    let array_filters: Vec<_> = array_filters.iter().map(DocBuf::as_doc).collect();
    match spec {
        UpdateSpec::Operators(document) => {
            let update =
                Update::parse(document::Value::Document(document.as_doc()), &array_filters, variables)?;
            if update.is_replacement() {
                return Err(Error::failed_to_parse(
                    "multi update is not supported for replacement-style update",
                ));
            }
            Ok(update)
        }
        UpdateSpec::Document(document) => {
            Update::parse(document::Value::Document(document.as_doc()), &array_filters, variables)
        }
        UpdateSpec::Pipeline(stages) => {
            let stages: Vec<bson::Bson> = stages.iter().map(|stage| stage.to_document().into()).collect();
            Update::parse(
                document::Value::Array(document::ArrayRef::Tree(&stages)),
                &array_filters,
                variables,
            )
        }
    }
}
