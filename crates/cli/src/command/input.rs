//! Arguments that are documents, and the requests made from them: shared by the one-shot commands.

use bson::{Bson, Document};
use futures::TryStreamExt;

use crate::connection::{Connection, Target, split_namespace};
use crate::failure::Failure;
use crate::literal;
use crate::output;
use crate::shell::execute::{Outcome, execute};
use crate::shell::request::Request;

/// Reads an argument that is a value.
pub(super) fn value(text: &str, what: &str) -> Result<Bson, Failure> {
    literal::parse(text).map_err(|error| Failure::usage(format!("{what}: {}", error.render(text))))
}

/// Reads an argument that is a document.
pub(super) fn document(text: &str, what: &str) -> Result<Document, Failure> {
    literal::parse_document(text).map_err(|error| Failure::usage(format!("{what}: {}", error.render(text))))
}

/// Reads an argument that is a document, or the name of something.
pub(super) fn document_or_name(text: &str, what: &str) -> Result<Bson, Failure> {
    if text.trim_start().starts_with('{') {
        Ok(document(text, what)?.into())
    } else {
        Ok(Bson::String(text.to_owned()))
    }
}

/// Sends the request that `build` makes for the collection of `namespace`, and writes the outcome as JSON lines;
/// sentences about writes go to standard error, so that standard output holds nothing but documents.
pub(super) async fn send(
    target: &Target,
    namespace: &str,
    build: impl FnOnce(&str) -> Request,
) -> Result<(), Failure> {
    let (database, collection) = split_namespace(namespace)?;
    let mut connection = Connection::open(&target.uri).await?;
    match execute(&mut connection, database, build(collection)).await? {
        Outcome::Cursor(mut cursor) => {
            while let Some(document) = cursor.try_next().await? {
                output::json_line(&document)?;
            }
            Ok(())
        }
        Outcome::Table(documents) => documents.iter().try_for_each(output::json_line),
        Outcome::Value(value) => output::say(literal::json::line(&value, literal::json::Form::Relaxed)),
        Outcome::Nothing => Ok(()),
        Outcome::Sentence(sentence) => {
            output::warn(sentence);
            Ok(())
        }
    }
}
