//! Completion: collections, databases, methods, operators, stages and constructors.
//!
//! Called by the line editor on Tab. [`candidates`] is pure; the names of databases and collections come from
//! [`Names`], which the session refreshes after each statement, so that a key press never waits for the network.

use std::sync::{Arc, Mutex};

use reedline::{Completer, CompletionResult, Span, Suggestion};

use super::method::{COLLECTION_METHODS, CURSOR_METHODS, DATABASE_METHODS, Method};
use super::words::WORDS;
use crate::literal::CONSTRUCTORS;

/// Query and update operators, pipeline stages and common expressions, sorted.
const OPERATORS: &[&str] = &[
    "$add",
    "$addFields",
    "$addToSet",
    "$all",
    "$and",
    "$arrayElemAt",
    "$avg",
    "$bit",
    "$concat",
    "$cond",
    "$convert",
    "$count",
    "$currentDate",
    "$dateToString",
    "$divide",
    "$each",
    "$elemMatch",
    "$eq",
    "$exists",
    "$expr",
    "$filter",
    "$first",
    "$group",
    "$gt",
    "$gte",
    "$ifNull",
    "$in",
    "$inc",
    "$last",
    "$let",
    "$limit",
    "$literal",
    "$lookup",
    "$lt",
    "$lte",
    "$map",
    "$match",
    "$max",
    "$mergeObjects",
    "$min",
    "$mod",
    "$mul",
    "$multiply",
    "$ne",
    "$nin",
    "$nor",
    "$not",
    "$options",
    "$or",
    "$pop",
    "$position",
    "$project",
    "$pull",
    "$pullAll",
    "$push",
    "$reduce",
    "$regex",
    "$rename",
    "$replaceRoot",
    "$set",
    "$setOnInsert",
    "$size",
    "$skip",
    "$slice",
    "$sort",
    "$split",
    "$substrCP",
    "$subtract",
    "$sum",
    "$switch",
    "$toDate",
    "$toDouble",
    "$toInt",
    "$toLower",
    "$toString",
    "$toUpper",
    "$type",
    "$unset",
    "$unwind",
    "$year",
];

/// Names on the server, as last seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// Databases.
    pub(super) databases: Vec<String>,
    /// Collections of the current database.
    pub(super) collections: Vec<String>,
}

/// The completer, which shares the names with the session.
pub(super) struct StatementCompleter {
    /// Refreshed by the session.
    pub(super) names: Arc<Mutex<Names>>,
}

impl Completer for StatementCompleter {
    fn complete(&mut self, line: &str, position: usize) -> CompletionResult {
        let before = line.get(..position).unwrap_or(line);
        let names = self.names.lock().map(|names| names.clone()).unwrap_or_default();
        let start = word_start(before);
        let suggestions: Vec<Suggestion> = candidates(before, &names)
            .into_iter()
            .map(|(value, description)| Suggestion {
                value,
                description: Some(description).filter(|d| !d.is_empty()),
                span: Span::new(start, position),
                ..Suggestion::default()
            })
            .collect();
        CompletionResult::fresh(suggestions)
    }
}

/// Where the word that ends `before` begins.
fn word_start(before: &str) -> usize {
    before
        .rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
        .map_or(0, |at| at + before.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8))
}

/// What may stand at the end of `before`, with a description each.
fn candidates(before: &str, names: &Names) -> Vec<(String, String)> {
    let start = word_start(before);
    let (head, word) = before.split_at(start);
    let mut found: Vec<(String, String)> = Vec::new();
    let mut add = |value: &str, about: &str| {
        if value.starts_with(word) {
            found.push((value.to_owned(), about.to_owned()));
        }
    };
    let add_methods = |methods: &[Method], add: &mut dyn FnMut(&str, &str)| {
        for method in methods {
            add(&format!("{}(", method.name), method.about);
        }
    };
    let first_words: Vec<&str> = head.split_whitespace().collect();
    if word.starts_with('$') {
        OPERATORS.iter().for_each(|operator| add(operator, ""));
    } else if head.ends_with(").") {
        add_methods(CURSOR_METHODS, &mut add);
    } else if head.trim_start() == "db." {
        names.collections.iter().for_each(|collection| add(collection, "collection"));
        add_methods(DATABASE_METHODS, &mut add);
    } else if head.trim_start().starts_with("db.") && head.ends_with('.') && !head.contains('(') {
        add_methods(COLLECTION_METHODS, &mut add);
    } else if first_words.is_empty() {
        WORDS.iter().for_each(|(word, example)| add(word, example));
        for word in ["db.", "exit", "help", "it", "show", "use"] {
            add(word, "");
        }
    } else if first_words == ["use"] {
        names.databases.iter().for_each(|database| add(database, "database"));
    } else if first_words == ["show"] {
        ["collections", "dbs", "indexes"].iter().for_each(|what| add(what, ""));
    } else if takes_collection(&first_words) {
        names.collections.iter().for_each(|collection| add(collection, "collection"));
    } else if !word.is_empty() {
        CONSTRUCTORS.iter().for_each(|(name, example)| add(&format!("{name}("), example));
    }
    found
}

/// Whether the next word names a collection.
fn takes_collection(words: &[&str]) -> bool {
    match words {
        ["show", "indexes"] => true,
        ["explain", word] | [word] => WORDS.iter().any(|(known, _)| known == word) && *word != "explain",
        _ => false,
    }
}
