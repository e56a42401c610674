//! What one statement asks of the server: a command of the wire protocol and how its answer is to be read.
//!
//! Built here, purely, for the shell's methods, for its plain words and for the one-shot commands of the command
//! line, so that all three mean the same. `execute` sends them.

use bson::{Bson, Document, doc};

/// A command and the meaning of its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The database; `None` is the current one.
    pub database: Option<String>,
    /// The command as it goes over the wire, without session fields.
    pub command: Document,
    /// How the answer is read.
    pub answer: Answer,
}

/// What an answer consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A cursor over documents. `all`: shown to the end instead of page by page.
    Documents {
        /// Whether to read to the end.
        all: bool,
    },
    /// A cursor, read to the end and shown as a table.
    Table,
    /// A cursor of which only the first document counts.
    First,
    /// The outcome of an insert.
    Inserted,
    /// The outcome of an update.
    Updated,
    /// The outcome of a delete.
    Deleted,
    /// One field of the reply.
    Field(&'static str),
    /// The whole reply.
    Reply,
    /// Nothing but success, said in these words.
    Done(String),
}

impl Request {
    /// A request to the current database.
    pub fn new(command: Document, answer: Answer) -> Request {
        Request { database: None, command, answer }
    }

    /// Whether the command changes data, so that it gets a transaction number and can be sent again safely.
    pub fn is_retryable_write(&self) -> bool {
        let many = |statements: &str, field: &str, value: Bson| {
            self.command.get_array(statements).is_ok_and(|list| {
                list.iter().any(|s| s.as_document().and_then(|s| s.get(field)) == Some(&value))
            })
        };
        match self.command.keys().next().map(String::as_str) {
            Some("insert" | "findAndModify") => true,
            Some("update") => !many("updates", "multi", Bson::Boolean(true)),
            Some("delete") => !many("deletes", "limit", Bson::Int32(0)),
            _ => false,
        }
    }

    /// Asks how the command would run instead of running it.
    #[must_use]
    pub fn explained(self, verbosity: &str) -> Request {
        let command = doc! { "explain": self.command, "verbosity": verbosity };
        Request { database: self.database, command, answer: Answer::Reply }
    }
}

/// `find` with `filter`; options are fields of the command (`sort`, `limit`, `skip`, `projection`, `hint`).
pub fn find(collection: &str, filter: Document, options: Document) -> Request {
    let mut command = doc! { "find": collection, "filter": filter };
    command.extend(options);
    Request::new(command, Answer::Documents { all: false })
}

/// `insert` of documents; those without an `_id` get one when they are sent.
pub fn insert(collection: &str, documents: Vec<Bson>, ordered: bool) -> Request {
    let command = doc! { "insert": collection, "documents": documents, "ordered": ordered };
    Request::new(command, Answer::Inserted)
}

/// `update` of one document or (`multi`) of all that match; options go beside the statement's filter.
pub fn update(collection: &str, filter: Document, update: Bson, multi: bool, options: Document) -> Request {
    let mut statement = doc! { "q": filter, "u": update, "multi": multi };
    statement.extend(options);
    let command = doc! { "update": collection, "updates": [statement], "ordered": true };
    Request::new(command, Answer::Updated)
}

/// `delete` of one document or (`multi`) of all that match.
pub fn delete(collection: &str, filter: Document, multi: bool, options: Document) -> Request {
    let mut statement = doc! { "q": filter, "limit": if multi { 0 } else { 1 } };
    statement.extend(options);
    let command = doc! { "delete": collection, "deletes": [statement], "ordered": true };
    Request::new(command, Answer::Deleted)
}

/// `count` of the documents that match.
pub fn count(collection: &str, filter: Document, options: Document) -> Request {
    let mut command = doc! { "count": collection };
    if !filter.is_empty() {
        command.insert("query", filter);
    }
    command.extend(options);
    Request::new(command, Answer::Field("n"))
}

/// `aggregate` over a collection.
pub fn aggregate(collection: &str, pipeline: Vec<Bson>, options: Document) -> Request {
    let mut command = doc! { "aggregate": collection, "pipeline": pipeline, "cursor": {} };
    command.extend(options);
    Request::new(command, Answer::Documents { all: false })
}

/// `distinct` values of a field.
pub fn distinct(collection: &str, field: &str, filter: Document) -> Request {
    let mut command = doc! { "distinct": collection, "key": field };
    if !filter.is_empty() {
        command.insert("query", filter);
    }
    Request::new(command, Answer::Field("values"))
}

/// `createIndexes` for one index; its name follows from its keys unless the options give one.
pub fn create_index(collection: &str, keys: Document, options: Document) -> Request {
    let name = options.get_str("name").map_or_else(|_| index_name(&keys), ToOwned::to_owned);
    let mut index = doc! { "key": keys, "name": &name };
    index.extend(options);
    let command = doc! { "createIndexes": collection, "indexes": [index] };
    Request::new(command, Answer::Done(format!("index {name}")))
}

/// `listIndexes` of a collection.
pub fn list_indexes(collection: &str) -> Request {
    Request::new(doc! { "listIndexes": collection, "cursor": {} }, Answer::Table)
}

/// `listCollections`, the names only.
pub fn list_collections() -> Request {
    let command = doc! { "listCollections": 1, "nameOnly": true, "cursor": {} };
    Request::new(command, Answer::Table)
}

/// `listDatabases` with their sizes.
pub fn list_databases() -> Request {
    Request {
        database: Some("admin".to_owned()),
        command: doc! { "listDatabases": 1 },
        answer: Answer::Field("databases"),
    }
}

/// MongoDB's name for an index on `keys`: `age_1_name_-1`.
fn index_name(keys: &Document) -> String {
    let parts: Vec<String> = keys
        .iter()
        .map(|(field, kind)| match kind {
            Bson::String(kind) => format!("{field}_{kind}"),
            Bson::Double(direction) => format!("{field}_{direction:.0}"),
            kind => format!("{field}_{kind}"),
        })
        .collect();
    parts.join("_")
}
