//! The shell's language: `db.users.find({...}).sort({...})`, plain words (`find users {...}`), `use`, `show`, `help`.
//!
//! [`parse`] turns one statement into what the shell shall do. It is pure: what a statement means can be read from
//! scripts of input and output without a server.

use bson::Bson;

use super::method::{self, Call};
use super::request::{self, Request};
use super::words;
use crate::literal::{ParseError, Parser};

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// Nothing but white space or comments.
    Empty,
    /// `help`, or `help TOPIC`.
    Help(Option<String>),
    /// `exit` or `quit`.
    Exit,
    /// `it`: the next page of the last cursor.
    More,
    /// `use DATABASE`.
    Use(String),
    /// `db`: the name of the current database.
    CurrentDatabase,
    /// `show dbs`, `show collections`, `show indexes COLLECTION`.
    Show(Request),
    /// A command for the server.
    Request(Request),
}

/// Reads one statement; a closing semicolon is optional.
pub fn parse(text: &str) -> Result<Statement, ParseError> {
    let text = text.trim_end().trim_end_matches(';');
    let mut parser = Parser::new(text);
    if parser.peek()?.is_none() {
        return Ok(Statement::Empty);
    }
    let start = parser.position();
    let Some(word) = parser.identifier()? else {
        let found = parser.found();
        return Err(parser.error(format!("a statement begins with a word, found {found}; try: help")));
    };
    match word {
        "help" => Ok(Statement::Help(bare_word(&mut parser))),
        "exit" | "quit" => finish(parser, Statement::Exit, true),
        "it" => finish(parser, Statement::More, false),
        "use" => match bare_word(&mut parser) {
            Some(database) => Ok(Statement::Use(database)),
            None => Err(parser.error("use needs the name of a database: use shop")),
        },
        "show" => show(&mut parser),
        "db" => database_statement(parser),
        _ => words::statement(word, start, parser).map(Statement::Request),
    }
}

/// `db` and what follows it.
fn database_statement(mut parser: Parser<'_>) -> Result<Statement, ParseError> {
    if parser.peek()?.is_none() {
        return Ok(Statement::CurrentDatabase);
    }
    let mut database = None;
    let mut path: Vec<String> = Vec::new();
    loop {
        let mut at = parser.position();
        if parser.eat('.')? {
            at = parser.position();
            let Some(name) = parser.identifier()? else {
                return Err(parser.error("expected the name of a collection or a method after '.'"));
            };
            path.push(name.to_owned());
        } else if parser.eat('[')? {
            path.push(string_argument(parser.value()?, at, "a collection name")?);
            parser.expect(']')?;
        } else {
            let found = parser.found();
            return Err(parser.error(format!("expected '.', found {found}; as in db.users.find()")));
        }
        if parser.peek()? != Some('(') {
            continue;
        }
        let name = path.pop().unwrap_or_default();
        let arguments = parser.arguments()?;
        match (name.as_str(), path.is_empty(), arguments.as_slice()) {
            ("getCollection", true, [Bson::String(collection)]) => path.push(collection.clone()),
            ("getSiblingDB", true, [Bson::String(other)]) => database = Some(other.clone()),
            _ => {
                let first = Call { name, arguments, offset: at };
                let chain = calls(&mut parser)?;
                let collection = (!path.is_empty()).then(|| path.join("."));
                let mut request = method::request(collection.as_deref(), first, chain)?;
                request.database = request.database.or(database);
                return Ok(Statement::Request(request));
            }
        }
    }
}

/// `.name(...)`, any number of times, to the end of the statement.
fn calls(parser: &mut Parser<'_>) -> Result<Vec<Call>, ParseError> {
    let mut calls = Vec::new();
    while parser.eat('.')? {
        let offset = parser.position();
        let Some(name) = parser.identifier()? else {
            return Err(parser.error("expected a method name after '.'"));
        };
        calls.push(Call { name: name.to_owned(), arguments: parser.arguments()?, offset });
    }
    parser.end()?;
    Ok(calls)
}

fn show(parser: &mut Parser<'_>) -> Result<Statement, ParseError> {
    let request = match parser.identifier()? {
        Some("dbs" | "databases") => request::list_databases(),
        Some("collections" | "tables") => request::list_collections(),
        Some("indexes") => match bare_word(parser) {
            Some(collection) => return Ok(Statement::Show(request::list_indexes(&collection))),
            None => return Err(parser.error("show indexes needs a collection: show indexes users")),
        },
        _ => return Err(parser.error("there is: show dbs, show collections, show indexes COLLECTION")),
    };
    parser.end()?;
    Ok(Statement::Show(request))
}

/// `statement`, if nothing follows; `call` also allows empty parentheses.
fn finish(mut parser: Parser<'_>, statement: Statement, call: bool) -> Result<Statement, ParseError> {
    if call && parser.peek()? == Some('(') {
        parser.arguments()?;
    }
    parser.end()?;
    Ok(statement)
}

/// The rest of the statement as one word.
fn bare_word(parser: &mut Parser<'_>) -> Option<String> {
    let word = parser.rest().trim().trim_matches(['"', '\'']);
    (!word.is_empty()).then(|| word.to_owned())
}

fn string_argument(value: Bson, at: usize, what: &str) -> Result<String, ParseError> {
    match value {
        Bson::String(text) => Ok(text),
        _ => Err(ParseError::new(at, format!("expected {what} in quotes"))),
    }
}
