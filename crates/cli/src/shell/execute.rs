//! Sends a request and reads its answer.
//!
//! Used by the shell's session and by the one-shot commands, which differ only in how they show the outcome.

use bson::oid::ObjectId;
use bson::{Bson, Document};
use futures::TryStreamExt;
use mongodb::Cursor;

use super::request::{Answer, Request};
use crate::connection::Connection;
use crate::failure::Failure;

/// What came back.
pub enum Outcome {
    /// Documents to be read from the server as they are wanted.
    Cursor(Box<Cursor<Document>>),
    /// All documents, to be shown as a table.
    Table(Vec<Document>),
    /// One value.
    Value(Bson),
    /// Nothing was found.
    Nothing,
    /// A sentence: `inserted 1 document`.
    Sentence(String),
}

/// Sends `request`; `database` is the current one.
pub async fn execute(
    connection: &mut Connection,
    database: &str,
    mut request: Request,
) -> Result<Outcome, Failure> {
    let database = request.database.clone().unwrap_or_else(|| database.to_owned());
    let ids = if request.answer == Answer::Inserted { add_ids(&mut request.command) } else { Vec::new() };
    match request.answer {
        Answer::Documents { .. } | Answer::First | Answer::Table => {
            // With `explain: true` an aggregation answers with its plan instead of a cursor.
            if request.command.get_bool("explain").is_ok_and(|explain| explain) {
                return Ok(Outcome::Value(connection.command(&database, &request).await?.into()));
            }
            let mut cursor = connection.cursor(&database, request.command).await?;
            match request.answer {
                Answer::First => {
                    Ok(cursor.try_next().await?.map_or(Outcome::Nothing, |d| Outcome::Value(d.into())))
                }
                Answer::Table => Ok(Outcome::Table(cursor.try_collect().await?)),
                _ => Ok(Outcome::Cursor(Box::new(cursor))),
            }
        }
        Answer::Field("databases") => {
            let reply = connection.command(&database, &request).await?;
            let databases = reply.get_array("databases").cloned().unwrap_or_default();
            let rows = databases.into_iter().filter_map(|d| match d {
                Bson::Document(d) => Some(d),
                _ => None,
            });
            Ok(Outcome::Table(rows.collect()))
        }
        Answer::Field(name) => {
            let mut reply = connection.command(&database, &request).await?;
            Ok(match reply.remove(name) {
                None | Some(Bson::Null) => Outcome::Nothing,
                Some(value) => Outcome::Value(value),
            })
        }
        Answer::Reply => {
            Ok(Outcome::Value(without_session_fields(connection.command(&database, &request).await?)))
        }
        Answer::Done(ref done) => {
            let done = done.clone();
            connection.command(&database, &request).await?;
            Ok(Outcome::Sentence(done))
        }
        Answer::Inserted | Answer::Updated | Answer::Deleted => {
            let reply = connection.command(&database, &request).await?;
            Ok(Outcome::Sentence(report(&request.answer, &reply, &ids)))
        }
    }
}

/// Gives every document of an `insert` an `_id`, as its first field, and returns all the ids.
pub fn add_ids(command: &mut Document) -> Vec<Bson> {
    let Ok(documents) = command.get_array_mut("documents") else {
        return Vec::new();
    };
    let mut ids = Vec::with_capacity(documents.len());
    for document in documents.iter_mut().filter_map(Bson::as_document_mut) {
        if !document.contains_key("_id") {
            let mut with_id = Document::new();
            with_id.insert("_id", ObjectId::new());
            with_id.extend(std::mem::take(document));
            *document = with_id;
        }
        ids.extend(document.get("_id").cloned());
    }
    ids
}

/// The outcome of a write in one sentence.
fn report(answer: &Answer, reply: &Document, ids: &[Bson]) -> String {
    let n = number(reply, "n");
    match answer {
        Answer::Inserted => {
            let shown = match ids {
                [id] => format!(", _id {}", crate::literal::print::line(id)),
                _ => String::new(),
            };
            format!("inserted {}{shown}", documents(n))
        }
        Answer::Updated => {
            let upserted = reply.get_array("upserted").map_or(&[][..], Vec::as_slice);
            let id = upserted.first().and_then(|u| u.as_document()?.get("_id"));
            match id {
                Some(id) => format!("inserted {}, _id {}", documents(1), crate::literal::print::line(id)),
                None => format!("matched {}, modified {}", documents(n), number(reply, "nModified")),
            }
        }
        _ => format!("deleted {}", documents(n)),
    }
}

fn documents(count: i64) -> String {
    if count == 1 { "1 document".to_owned() } else { format!("{count} documents") }
}

/// A number of a reply, whatever its width.
pub fn number(document: &Document, name: &str) -> i64 {
    match document.get(name) {
        Some(Bson::Int32(number)) => i64::from(*number),
        Some(Bson::Int64(number)) => *number,
        Some(Bson::Double(number)) => *number as i64,
        _ => 0,
    }
}

/// A reply without the fields that belong to the protocol and not to the answer.
fn without_session_fields(mut reply: Document) -> Bson {
    for name in ["$clusterTime", "operationTime"] {
        reply.remove(name);
    }
    reply.into()
}
