//! The shell's `help`, made from the same tables that the parser and the completion use.
//!
//! Shown by the session.

use std::fmt::Write as _;

use super::method::{COLLECTION_METHODS, CURSOR_METHODS, DATABASE_METHODS, Method};
use super::words::WORDS;

const OVERVIEW: &str = r#"A statement is a method call or plain words; Enter on an open bracket starts another line.

  db.users.insertOne({name: "Ada", born: ISODate("1815-12-10")})
  db.users.find({age: {$gt: 30}}).sort({age: -1}).limit(5)
  find users {age: {$gt: 30}} sort {age: -1} limit 5
  update users {name: "Ada"} {$set: {age: 36}}

  use shop                     switch to another database
  show dbs                     databases and their sizes
  show collections             collections of this database
  show indexes users           indexes of a collection
  it                           the next page of the last result
  exit                         leave (or Ctrl-D)

  help words                   statements in plain words
  help methods                 methods of collections and databases
  help cursor                  what can follow find(..)
  help values                  dates, ids, regular expressions, numbers"#;

const VALUES: &str = r#"Documents are JSON with these freedoms: names without quotes, 'single' quotes, trailing commas, comments.

  ObjectId("65f1c0ffee65f1c0ffee65f1")      ObjectId() makes a new one
  ISODate("2024-05-01T12:30:00Z")           ISODate("2024-05-01"), new Date() is now
  /^ada/i                                   RegExp("^ada", "i")
  NumberLong("5")  NumberInt(5)             64-bit and 32-bit integers; 5.0 is a double
  NumberDecimal("9.99")                     decimal, for money
  UUID("...")  BinData(0, "aGk=")           binary
  Timestamp(1714566600, 1)                  BSON timestamp
  MinKey()  MaxKey()                        before and after every other value
  {"$oid": ".."}  {"$date": ".."}           Extended JSON works everywhere"#;

/// The help on `topic`, or the overview.
pub(super) fn text(topic: Option<&str>) -> String {
    match topic {
        None => OVERVIEW.to_owned(),
        Some("values") => VALUES.to_owned(),
        Some("words") => {
            let lines = WORDS.iter().map(|(_, example)| format!("  {example}"));
            lines.collect::<Vec<_>>().join("\n")
        }
        Some("methods") => {
            format!("{}\n{}", list("db.users.", COLLECTION_METHODS), list("db.", DATABASE_METHODS))
        }
        Some("cursor") => list("db.users.find({..}).", CURSOR_METHODS),
        Some(other) => one(other),
    }
}

fn list(prefix: &str, methods: &[Method]) -> String {
    let mut out = String::new();
    for method in methods {
        let _ = writeln!(out, "  {prefix}{}{}\n      {}", method.name, method.usage, method.about);
    }
    out.truncate(out.trim_end().len());
    out
}

/// The help on one method or word.
fn one(name: &str) -> String {
    if let Some((_, example)) = WORDS.iter().find(|(word, _)| *word == name) {
        return format!("  {example}");
    }
    let tables = [
        ("db.users.", COLLECTION_METHODS),
        ("db.", DATABASE_METHODS),
        ("db.users.find({..}).", CURSOR_METHODS),
    ];
    for (prefix, methods) in tables {
        if let Some(method) = methods.iter().find(|method| method.name == name) {
            return format!("  {prefix}{}{}\n      {}", method.name, method.usage, method.about);
        }
    }
    format!("no help on {name:?}; there is: help words, help methods, help cursor, help values")
}
