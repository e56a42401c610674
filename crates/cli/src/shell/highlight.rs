//! Syntax colours for the line that is being typed.
//!
//! Called by the line editor on every key; it only looks at characters, so half-typed statements colour as well.

use nu_ansi_term::{Color, Style};
use reedline::{Highlighter, StyledText};

use crate::literal::Parser;

/// Colours strings, numbers, operators, comments and words.
pub(super) struct StatementHighlighter;

impl Highlighter for StatementHighlighter {
    fn highlight(&self, line: &str, _cursor: usize) -> StyledText {
        let mut styled = StyledText::new();
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let (length, style) = token(rest, first);
            let (head, tail) = rest.split_at(length);
            styled.push((style, head.to_owned()));
            rest = tail;
        }
        styled
    }
}

/// Bytes of the token that begins `rest`, at least one character, and its colour.
fn token(rest: &str, first: char) -> (usize, Style) {
    let to_end_of = |keep: &dyn Fn(char) -> bool| rest.find(|c| !keep(c)).unwrap_or(rest.len());
    match first {
        '"' | '\'' => (string_length(rest), Color::Green.normal()),
        '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), Color::DarkGray.normal()),
        '0'..='9' => (to_end_of(&|c| c.is_ascii_alphanumeric() || c == '.'), Color::Yellow.normal()),
        '$' => (to_end_of(&|c| c.is_alphanumeric() || c == '$' || c == '_'), Color::Magenta.normal()),
        c if c.is_alphabetic() || c == '_' => {
            let length = to_end_of(&|c| c.is_alphanumeric() || c == '_');
            (length, word_style(rest, length))
        }
        c => (c.len_utf8(), Style::default()),
    }
}

/// The closed string's length, else all of it.
fn string_length(rest: &str) -> usize {
    let mut parser = Parser::new(rest);
    match parser.string() {
        Ok(_) => parser.position(),
        Err(_) => rest.len(),
    }
}

fn word_style(rest: &str, length: usize) -> Style {
    let word = rest.get(..length).unwrap_or_default();
    if matches!(word, "true" | "false" | "null" | "new" | "use" | "show" | "db" | "help" | "exit" | "it") {
        return Color::Cyan.normal();
    }
    match rest.get(length..).and_then(|after| after.chars().next()) {
        Some('(') => Color::Blue.bold(),
        _ => Style::default(),
    }
}
