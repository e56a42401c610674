//! Statements in plain words: `find users {age: {$gt: 30}} sort {age: -1} limit 5`, `insert users {name: "Ada"}`.
//!
//! Called by the statement parser with the first word taken. They become the same requests as the methods do.

use bson::{Bson, Document};

use super::request::{self, Answer, Request};
use crate::literal::{ParseError, Parser};

/// The words that begin a statement, with an example each, sorted.
pub const WORDS: &[(&str, &str)] = &[
    ("aggregate", "aggregate users [{$group: {_id: \"$city\", n: {$sum: 1}}}]"),
    ("count", "count users {age: {$gt: 30}}"),
    ("delete", "delete users {age: {$lt: 18}} multi"),
    ("distinct", "distinct users city {age: {$gt: 30}}"),
    ("drop", "drop users"),
    ("explain", "explain find users {age: 30}"),
    ("find", "find users {age: {$gt: 30}} sort {age: -1} limit 5"),
    ("index", "index users {age: 1} unique"),
    ("insert", "insert users {name: \"Ada\", age: 36}"),
    ("update", "update users {name: \"Ada\"} {$set: {age: 37}} multi upsert"),
];

/// The statement that begins with `word`, which stands at byte `start`.
pub(super) fn statement(word: &str, start: usize, mut parser: Parser<'_>) -> Result<Request, ParseError> {
    let Some(&(_, example)) = WORDS.iter().find(|(known, _)| *known == word) else {
        return Err(ParseError::new(start, format!("{word:?} begins no statement; try: help")));
    };
    if word == "explain" {
        let start = parser.position();
        let inner = parser.identifier()?.unwrap_or_default();
        if inner == "explain" {
            return Err(ParseError::new(start, "explain goes before another statement, once"));
        }
        return Ok(statement(inner, start, parser)?.explained("executionStats"));
    }
    let Some(collection) = collection(&mut parser)? else {
        return Err(parser.error(format!("{word} needs a collection: {example}")));
    };
    let request = match word {
        "insert" => insert(&collection, &mut parser, example)?,
        "find" => find(&collection, &mut parser)?,
        "update" => update(&collection, &mut parser, example)?,
        "delete" => delete(&collection, &mut parser, example)?,
        "count" => request::count(&collection, optional_document(&mut parser)?, Document::new()),
        "aggregate" => aggregate(&collection, &mut parser, example)?,
        "distinct" => {
            let Some(field) = dotted(&mut parser)? else {
                return Err(parser.error(format!("distinct needs a field: {example}")));
            };
            request::distinct(&collection, &field, optional_document(&mut parser)?)
        }
        "index" => index(&collection, &mut parser, example)?,
        _ => {
            let command = bson::doc! { "drop": &collection };
            Request::new(command, Answer::Done(format!("dropped {collection}")))
        }
    };
    parser.end()?;
    Ok(request)
}

fn insert(collection: &str, parser: &mut Parser<'_>, example: &str) -> Result<Request, ParseError> {
    let mut documents = Vec::new();
    while let Some(next) = parser.peek()? {
        match parser.value()? {
            Bson::Array(many) if next == '[' => documents.extend(many),
            value @ Bson::Document(_) => documents.push(value),
            _ => return Err(parser.error(format!("insert takes documents: {example}"))),
        }
        parser.eat(',')?;
    }
    if documents.is_empty() {
        return Err(parser.error(format!("insert needs a document: {example}")));
    }
    Ok(request::insert(collection, documents, true))
}

fn find(collection: &str, parser: &mut Parser<'_>) -> Result<Request, ParseError> {
    let filter = optional_document(parser)?;
    let mut options = Document::new();
    let mut answer = Answer::Documents { all: false };
    loop {
        parser.peek()?;
        let at = parser.position();
        let Some(option) = parser.identifier()? else {
            break;
        };
        let field = match option {
            "sort" | "limit" | "skip" | "hint" => option,
            "projection" | "project" | "fields" => "projection",
            "table" => {
                answer = Answer::Table;
                continue;
            }
            other => {
                let known = "sort, limit, skip, projection, hint, table";
                return Err(ParseError::new(at, format!("find has no option {other}; there are {known}")));
            }
        };
        options.insert(field, parser.value()?);
    }
    Ok(Request { answer, ..request::find(collection, filter, options) })
}

fn update(collection: &str, parser: &mut Parser<'_>, example: &str) -> Result<Request, ParseError> {
    let filter = document(parser, "a filter", example)?;
    if parser.peek()?.is_none() {
        return Err(parser.error(format!("update needs a filter and what to change: {example}")));
    }
    let change = parser.value()?;
    let flags = flags(parser, &["multi", "upsert"])?;
    let mut options = Document::new();
    if flags.contains(&"upsert") {
        options.insert("upsert", true);
    }
    Ok(request::update(collection, filter, change, flags.contains(&"multi"), options))
}

fn delete(collection: &str, parser: &mut Parser<'_>, example: &str) -> Result<Request, ParseError> {
    let filter = document(parser, "a filter", example)?;
    let flags = flags(parser, &["multi"])?;
    Ok(request::delete(collection, filter, flags.contains(&"multi"), Document::new()))
}

fn aggregate(collection: &str, parser: &mut Parser<'_>, example: &str) -> Result<Request, ParseError> {
    if parser.peek()? != Some('[') {
        return Err(parser.error(format!("aggregate needs a pipeline: {example}")));
    }
    match parser.value()? {
        Bson::Array(pipeline) => Ok(request::aggregate(collection, pipeline, Document::new())),
        _ => Err(parser.error(format!("aggregate needs a pipeline: {example}"))),
    }
}

fn index(collection: &str, parser: &mut Parser<'_>, example: &str) -> Result<Request, ParseError> {
    let keys = document(parser, "its keys", example)?;
    let flags = flags(parser, &["unique"])?;
    let mut options = Document::new();
    if flags.contains(&"unique") {
        options.insert("unique", true);
    }
    Ok(request::create_index(collection, keys, options))
}

/// Words that stand alone, in any order.
fn flags(parser: &mut Parser<'_>, known: &[&'static str]) -> Result<Vec<&'static str>, ParseError> {
    let mut found = Vec::new();
    loop {
        parser.peek()?;
        let at = parser.position();
        let Some(word) = parser.identifier()? else {
            return Ok(found);
        };
        match known.iter().find(|flag| **flag == word) {
            Some(flag) => found.push(*flag),
            None => {
                return Err(ParseError::new(at, format!("{word}: expected {} or the end", known.join(", "))));
            }
        }
    }
}

fn document(parser: &mut Parser<'_>, what: &str, example: &str) -> Result<Document, ParseError> {
    let at = parser.position();
    if parser.peek()? == Some('{')
        && let Bson::Document(document) = parser.value()?
    {
        return Ok(document);
    }
    Err(ParseError::new(at, format!("expected {what} {{..}}: {example}")))
}

fn optional_document(parser: &mut Parser<'_>) -> Result<Document, ParseError> {
    if parser.peek()? == Some('{') { document(parser, "a filter", "{}") } else { Ok(Document::new()) }
}

/// The name of a collection: `users`, `app.users`, or anything in quotes.
fn collection(parser: &mut Parser<'_>) -> Result<Option<String>, ParseError> {
    match parser.peek()? {
        Some('"' | '\'') => parser.string().map(Some),
        _ => dotted(parser),
    }
}

/// Identifiers joined by dots.
fn dotted(parser: &mut Parser<'_>) -> Result<Option<String>, ParseError> {
    if let Some('"' | '\'') = parser.peek()? {
        return parser.string().map(Some);
    }
    let Some(first) = parser.identifier()? else {
        return Ok(None);
    };
    let mut name = first.to_owned();
    while parser.eat('.')? {
        let Some(part) = parser.identifier()? else {
            return Err(parser.error("expected a name after '.'"));
        };
        name.push('.');
        name.push_str(part);
    }
    Ok(Some(name))
}
