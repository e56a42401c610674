//! Goldenscripts of the literal parser and printer and of the shell's statements.
//!
//! A line `> text` is the input. For literals the output is the value as the shell prints it and as canonical
//! Extended JSON; for statements it is the command that goes over the wire and how the answer is read. After a change
//! that is meant, write the outputs anew with `UPDATE_GOLDENFILES=1 cargo test -p cli`.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

use cli::literal::print::{self, Palette};
use cli::literal::{json, parse};
use cli::shell::statement::{self, Statement};
use goldenscript::{Command, Context};

#[test]
fn literals_parse_and_print_as_in_the_scripts() {
    run_all("literal", &mut Literals);
}

#[test]
fn statements_become_the_commands_of_the_scripts() {
    run_all("statement", &mut Statements);
}

fn run_all(area: &str, runner: &mut impl goldenscript::Runner) {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(area);
    let entries = std::fs::read_dir(&directory).expect("the scripts' directory exists");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {}", directory.display());
    for path in paths {
        goldenscript::run(runner, &path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

struct Literals;

impl goldenscript::Runner for Literals {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Result<String, Box<dyn Error>> {
        let value = match parse(&command.name) {
            Ok(value) => value,
            Err(error) => return Ok(error.render(&command.name)),
        };
        if context.tags.contains("narrow") {
            return Ok(print::pretty(&value, 40, Palette::plain()));
        }
        let mut out = print::line(&value);
        write!(out, "\n{}", json::line(&value, json::Form::Canonical))?;
        if context.tags.contains("relaxed") {
            write!(out, "\n{}", json::line(&value, json::Form::Relaxed))?;
        }
        Ok(out)
    }
}

struct Statements;

impl goldenscript::Runner for Statements {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Result<String, Box<dyn Error>> {
        let request = match statement::parse(&command.name) {
            Ok(Statement::Request(request) | Statement::Show(request)) => request,
            Ok(other) => return Ok(format!("{other:?}")),
            Err(error) => return Ok(error.render(&command.name)),
        };
        let database = request.database.as_deref().map_or(String::new(), |name| format!("on {name}: "));
        Ok(format!("{database}{}\n{:?}", print::document_line(&request.command), request.answer))
    }
}
