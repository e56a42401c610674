//! Standard output and the terminal: where all subcommands write, and what they may assume about the reader.
//!
//! Writing returns errors instead of panicking, so that a reader that closes its pipe ends a command quietly.

use std::io::{IsTerminal, Write};

use bson::Document;

use crate::failure::Failure;
use crate::literal::{json, print};

/// Columns assumed when the output is no terminal.
const WIDTH_DEFAULT: usize = 100;

/// Whether standard output is a terminal that wants colours.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Colours for documents: none unless standard output is a terminal.
pub fn palette() -> print::Palette {
    if is_terminal() { print::Palette::coloured() } else { print::Palette::plain() }
}

/// Columns of the terminal.
pub fn width() -> usize {
    match comfy_table::Table::new().width() {
        Some(columns) if columns >= 20 => usize::from(columns),
        _ => WIDTH_DEFAULT,
    }
}

/// Writes one line to standard output.
pub fn say(line: impl std::fmt::Display) -> Result<(), Failure> {
    writeln!(std::io::stdout().lock(), "{line}")?;
    Ok(())
}

/// Writes one line to standard error; when that is closed there is no one to tell.
pub fn warn(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// How many documents, in words.
pub fn documents(count: u64) -> String {
    if count == 1 { "1 document".to_owned() } else { format!("{} documents", grouped(count)) }
}

/// Writes a document as one line of relaxed Extended JSON.
pub fn json_line(document: &Document) -> Result<(), Failure> {
    say(json::document_line(document, json::Form::Relaxed))
}

/// A progress bar on standard error that draws only on a terminal.
pub fn progress(length: Option<u64>, template: &str) -> indicatif::ProgressBar {
    let bar = match length {
        Some(length) => indicatif::ProgressBar::new(length),
        None => indicatif::ProgressBar::new_spinner(),
    };
    let style = indicatif::ProgressStyle::with_template(template)
        .expect("the templates are constants")
        .progress_chars("=> ");
    bar.with_style(style)
}

/// A number with commas between its thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
