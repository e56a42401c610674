//! The methods of the shell's language: what `db.users.METHOD(...)` and `db.METHOD(...)` mean.
//!
//! [`request`] is called by the statement parser. One sorted table each for methods of collections, of databases and
//! of cursors feeds the parser's messages, the completion and the help, so that they cannot disagree.

use bson::{Bson, Document, doc};

use super::arguments::Arguments;
use super::request::{self, Answer, Request};
use crate::literal::ParseError;

/// One `name(arguments)`.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method's name.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<Bson>,
    /// Where it stands in the statement, in bytes.
    pub offset: usize,
}

/// A method and how it is written.
pub struct Method {
    /// The name, without parentheses.
    pub name: &'static str,
    /// An example of its arguments.
    pub usage: &'static str,
    /// What it does.
    pub about: &'static str,
}

const fn method(name: &'static str, usage: &'static str, about: &'static str) -> Method {
    Method { name, usage, about }
}

/// Methods of a collection, sorted.
pub const COLLECTION_METHODS: &[Method] = &[
    method("aggregate", "([{$match: {..}}, {$group: {..}}])", "run an aggregation pipeline"),
    method("countDocuments", "({age: {$gt: 30}})", "count the documents that match"),
    method("createIndex", "({age: 1}, {unique: true})", "create an index"),
    method("deleteMany", "({age: {$lt: 18}})", "delete all documents that match"),
    method("deleteOne", "({_id: 1})", "delete the first document that matches"),
    method("distinct", "(\"city\", {age: {$gt: 30}})", "the different values of a field"),
    method("drop", "()", "delete the collection"),
    method("dropIndex", "(\"age_1\")", "delete an index, by name or keys"),
    method("estimatedDocumentCount", "()", "count all documents"),
    method("explain", "(\"executionStats\")", "say how the method that follows would run"),
    method("find", "({age: {$gt: 30}}, {name: 1})", "the documents that match"),
    method("findOne", "({_id: 1})", "the first document that matches"),
    method("findOneAndDelete", "({_id: 1})", "delete a document and show it"),
    method(
        "findOneAndReplace",
        "({_id: 1}, {..}, {returnDocument: \"after\"})",
        "replace a document and show it",
    ),
    method(
        "findOneAndUpdate",
        "({_id: 1}, {$inc: {n: 1}}, {returnDocument: \"after\"})",
        "change a document and show it",
    ),
    method("getIndexes", "()", "list the indexes"),
    method("insertMany", "([{..}, {..}], {ordered: false})", "insert documents"),
    method("insertOne", "({name: \"Ada\"})", "insert one document"),
    method("replaceOne", "({_id: 1}, {..}, {upsert: true})", "replace the first document that matches"),
    method("stats", "()", "sizes and counts of the collection"),
    method("updateMany", "({..}, {$set: {..}})", "change all documents that match"),
    method("updateOne", "({..}, {$set: {..}}, {upsert: true})", "change the first document that matches"),
    method("validate", "()", "check the collection and its indexes"),
];

/// Methods of a database, sorted.
pub const DATABASE_METHODS: &[Method] = &[
    method("adminCommand", "({serverStatus: 1})", "run a command on the admin database"),
    method("createCollection", "(\"users\")", "create an empty collection"),
    method("dropDatabase", "()", "delete the database"),
    method("getCollection", "(\"odd name\").find()", "a collection by its name"),
    method("getCollectionNames", "()", "list the collections"),
    method("getSiblingDB", "(\"other\").users.find()", "another database for this statement"),
    method("runCommand", "({ping: 1})", "run a command on this database"),
    method("serverStatus", "()", "the server's counters"),
    method("stats", "()", "sizes and counts of the database"),
    method("version", "()", "the server's version"),
];

/// Methods of a cursor, sorted.
pub const CURSOR_METHODS: &[Method] = &[
    method("allowDiskUse", "()", "let sorts and groups spill"),
    method("batchSize", "(100)", "documents in a batch"),
    method("collation", "({..})", "language rules for comparisons"),
    method("comment", "(\"why\")", "a note for the server's logs"),
    method("count", "()", "how many documents match"),
    method("explain", "(\"executionStats\")", "say how the query would run"),
    method("hint", "(\"age_1\")", "use this index"),
    method("limit", "(5)", "at most this many"),
    method("maxTimeMS", "(1000)", "give up after so many milliseconds"),
    method("pretty", "()", "no effect: documents are always shown so"),
    method("project", "({name: 1})", "the fields to show"),
    method("projection", "({name: 1})", "the fields to show"),
    method("skip", "(10)", "leave out the first"),
    method("sort", "({age: -1})", "the order"),
    method("table", "()", "show everything as a table"),
    method("toArray", "()", "show everything, not page by page"),
];

/// What `first` and the calls chained to it ask of the server.
pub fn request(collection: Option<&str>, first: Call, chain: Vec<Call>) -> Result<Request, ParseError> {
    let offset = first.offset;
    let Some(collection) = collection else {
        let request = database_request(first)?;
        return match chain.into_iter().find(|call| call.name != "pretty") {
            Some(call) => Err(unknown(&call, "nothing can follow a method of a database", &[])),
            None => Ok(request),
        };
    };
    let mut chain = chain.into_iter().peekable();
    let (verbosity, first) = if first.name == "explain" {
        let verbosity = verbosity(first)?;
        let Some(next) = chain.next() else {
            return Err(ParseError::new(offset, "explain needs a method after it, as in explain().find({})"));
        };
        (Some(verbosity), next)
    } else {
        (None, first)
    };
    let mut request = collection_request(collection, first)?;
    for call in chain {
        request = chained(request, call)?;
    }
    Ok(match verbosity {
        Some(verbosity) => request.explained(&verbosity),
        None => request,
    })
}

fn database_request(call: Call) -> Result<Request, ParseError> {
    let offset = call.offset;
    let unknown_name = unknown(&call, "there is no such method of a database", DATABASE_METHODS);
    let mut arguments = Arguments::new(&call.name, call.arguments, offset);
    let admin = |command: Document, answer| Request { database: Some("admin".to_owned()), command, answer };
    let request = match call.name.as_str() {
        "runCommand" => Request::new(arguments.command()?, Answer::Reply),
        "adminCommand" => admin(arguments.command()?, Answer::Reply),
        "createCollection" => {
            let name = arguments.string("name")?;
            let mut command = doc! { "create": &name };
            command.extend(arguments.any_options()?);
            Request::new(command, Answer::Done(format!("created collection {name}")))
        }
        "dropDatabase" => {
            Request::new(doc! { "dropDatabase": 1 }, Answer::Done("dropped the database".into()))
        }
        "stats" => Request::new(doc! { "dbStats": 1 }, Answer::Reply),
        "getCollectionNames" => request::list_collections(),
        "serverStatus" => admin(doc! { "serverStatus": 1 }, Answer::Reply),
        "version" => admin(doc! { "buildInfo": 1 }, Answer::Field("version")),
        _ => return Err(unknown_name),
    };
    arguments.end()?;
    Ok(request)
}

fn collection_request(collection: &str, call: Call) -> Result<Request, ParseError> {
    let unknown_name = unknown(&call, "there is no such method of a collection", COLLECTION_METHODS);
    let mut arguments = Arguments::new(&call.name, call.arguments, call.offset);
    let request = match call.name.as_str() {
        "find" | "findOne" => find(collection, &mut arguments, call.name == "findOne")?,
        "insertOne" => {
            let document = arguments.document("document")?;
            arguments.options(&[])?;
            request::insert(collection, vec![document.into()], true)
        }
        "insertMany" => {
            let documents = arguments.array("documents")?;
            let ordered = arguments.options(&["ordered"])?.get_bool("ordered").unwrap_or(true);
            request::insert(collection, documents, ordered)
        }
        "updateOne" | "updateMany" | "replaceOne" => update(collection, &mut arguments, &call.name)?,
        "deleteOne" | "deleteMany" => {
            let filter = arguments.document("filter")?;
            let options = arguments.options(&["hint", "collation"])?;
            request::delete(collection, filter, call.name == "deleteMany", options)
        }
        "findOneAndUpdate" | "findOneAndReplace" | "findOneAndDelete" => {
            find_and_modify(collection, &mut arguments, &call.name)?
        }
        "countDocuments" => {
            let filter = arguments.optional_document("filter")?;
            request::count(collection, filter, arguments.options(&["limit", "skip", "hint", "maxTimeMS"])?)
        }
        "estimatedDocumentCount" => request::count(collection, Document::new(), Document::new()),
        "distinct" => {
            let field = arguments.string("field")?;
            request::distinct(collection, &field, arguments.optional_document("filter")?)
        }
        "aggregate" => aggregate(collection, &mut arguments)?,
        "createIndex" => {
            let keys = arguments.document("keys")?;
            request::create_index(collection, keys, arguments.any_options()?)
        }
        "getIndexes" => request::list_indexes(collection),
        "dropIndex" => {
            let index = arguments.value("index")?;
            Request::new(doc! { "dropIndexes": collection, "index": index }, Answer::Done("dropped".into()))
        }
        "drop" => Request::new(doc! { "drop": collection }, Answer::Done(format!("dropped {collection}"))),
        "stats" => Request::new(doc! { "collStats": collection }, Answer::Reply),
        "validate" => Request::new(doc! { "validate": collection }, Answer::Reply),
        _ => return Err(unknown_name),
    };
    arguments.end()?;
    Ok(request)
}

fn find(collection: &str, arguments: &mut Arguments, one: bool) -> Result<Request, ParseError> {
    let filter = arguments.optional_document("filter")?;
    let projection = arguments.optional_document("projection")?;
    let mut options =
        arguments.options(&["sort", "limit", "skip", "hint", "collation", "maxTimeMS", "let"])?;
    if !projection.is_empty() {
        options.insert("projection", projection);
    }
    let mut request = request::find(collection, filter, options);
    if one {
        request.command.insert("limit", 1);
        request.command.insert("singleBatch", true);
        request.answer = Answer::First;
    }
    Ok(request)
}

fn update(collection: &str, arguments: &mut Arguments, name: &str) -> Result<Request, ParseError> {
    let filter = arguments.document("filter")?;
    let update = arguments.value("update")?;
    let replaces = update.as_document().is_some_and(|u| !u.keys().next().is_some_and(|k| k.starts_with('$')));
    if name == "replaceOne" && !replaces {
        return Err(arguments.error("takes a whole document; use updateOne for operators such as $set"));
    }
    if name != "replaceOne" && replaces {
        return Err(
            arguments.error("takes operators such as {$set: {..}}; use replaceOne for a whole document")
        );
    }
    let options = arguments.options(&["upsert", "arrayFilters", "hint", "collation", "sort"])?;
    Ok(request::update(collection, filter, update, name == "updateMany", options))
}

fn find_and_modify(collection: &str, arguments: &mut Arguments, name: &str) -> Result<Request, ParseError> {
    let mut command = doc! { "findAndModify": collection, "query": arguments.document("filter")? };
    if name == "findOneAndDelete" {
        command.insert("remove", true);
    } else {
        command.insert("update", arguments.value("update")?);
    }
    let mut options = arguments.options(&[
        "sort",
        "projection",
        "upsert",
        "returnDocument",
        "returnNewDocument",
        "arrayFilters",
        "hint",
        "collation",
    ])?;
    let after = options.remove("returnDocument") == Some(Bson::String("after".to_owned()));
    let new = options.remove("returnNewDocument") == Some(Bson::Boolean(true));
    if after || new {
        command.insert("new", true);
    }
    if let Some(projection) = options.remove("projection") {
        command.insert("fields", projection);
    }
    command.extend(options);
    Ok(Request::new(command, Answer::Field("value")))
}

/// `aggregate([stages], options)`, or `aggregate(stage, stage, ...)`.
fn aggregate(collection: &str, arguments: &mut Arguments) -> Result<Request, ParseError> {
    if !arguments.next_is_array() {
        let stages = arguments.rest();
        return Ok(request::aggregate(collection, stages, Document::new()));
    }
    let pipeline = arguments.array("pipeline")?;
    let options = arguments.options(&[
        "allowDiskUse",
        "hint",
        "let",
        "maxTimeMS",
        "comment",
        "collation",
        "explain",
    ])?;
    Ok(request::aggregate(collection, pipeline, options))
}

/// A call on the cursor that `request` returns.
fn chained(mut request: Request, call: Call) -> Result<Request, ParseError> {
    if call.name == "pretty" {
        return Ok(request);
    }
    if !matches!(request.answer, Answer::Documents { .. } | Answer::Table | Answer::First) {
        return Err(unknown(&call, "nothing can follow a method that returns no cursor", &[]));
    }
    let is_find = request.command.contains_key("find");
    let unknown_name = unknown(&call, "there is no such method of a cursor", CURSOR_METHODS);
    if call.name == "explain" {
        let verbosity = verbosity(call)?;
        return Ok(request.explained(&verbosity));
    }
    let field = match call.name.as_str() {
        "toArray" | "table" => {
            Arguments::new(&call.name, call.arguments, call.offset).end()?;
            let table = call.name == "table";
            request.answer = if table { Answer::Table } else { Answer::Documents { all: true } };
            return Ok(request);
        }
        "count" if is_find => return Ok(counted(&request)),
        "allowDiskUse" => "allowDiskUse",
        "batchSize" => "batchSize",
        "collation" => "collation",
        "comment" => "comment",
        "hint" => "hint",
        "maxTimeMS" => "maxTimeMS",
        "limit" if is_find => "limit",
        "project" | "projection" if is_find => "projection",
        "skip" if is_find => "skip",
        "sort" if is_find => "sort",
        _ => return Err(unknown_name),
    };
    let mut arguments = Arguments::new(&call.name, call.arguments, call.offset);
    let value = if field == "allowDiskUse" { Bson::Boolean(true) } else { arguments.value(field)? };
    arguments.end()?;
    match (field, is_find) {
        ("batchSize", false) => request.command.insert("cursor", doc! { "batchSize": value }),
        _ => request.command.insert(field, value),
    };
    Ok(request)
}

/// `find(...).count()`: the number of documents that the filter matches, without limit and skip.
fn counted(request: &Request) -> Request {
    let collection = request.command.get_str("find").unwrap_or_default();
    let filter = request.command.get_document("filter").cloned().unwrap_or_default();
    let mut counted = request::count(collection, filter, Document::new());
    counted.database.clone_from(&request.database);
    counted
}

fn verbosity(call: Call) -> Result<String, ParseError> {
    let mut arguments = Arguments::new(&call.name, call.arguments, call.offset);
    let verbosity = match arguments.rest().as_slice() {
        [] => "queryPlanner".to_owned(),
        [Bson::String(verbosity)] => verbosity.clone(),
        [Bson::Boolean(true)] => "allPlansExecution".to_owned(),
        _ => {
            return Err(
                arguments.error("takes \"queryPlanner\", \"executionStats\" or \"allPlansExecution\"")
            );
        }
    };
    Ok(verbosity)
}

fn unknown(call: &Call, why: &str, known: &[Method]) -> ParseError {
    let lower = call.name.to_lowercase();
    let same = known.iter().find(|m| m.name.to_lowercase() == lower);
    let similar = same
        .or_else(|| known.iter().find(|m| m.name.starts_with(&call.name) || call.name.starts_with(m.name)));
    let hint = similar.map_or(String::new(), |m| format!("; did you mean {}{}?", m.name, m.usage));
    ParseError::new(call.offset, format!("{}: {why}{hint}", call.name))
}
