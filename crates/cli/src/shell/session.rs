//! A shell session: the current database, the open cursor, and what happens with each statement.
//!
//! The interactive shell feeds it lines from the editor; [`run_script`] feeds it a file or a pipe.

use std::io::BufRead;

use bson::{Bson, Document};
use futures::TryStreamExt;
use mongodb::Cursor;

use super::balance::{Balance, balance};
use super::execute::{Outcome, execute};
use super::request::{Answer, Request};
use super::statement::{self, Statement};
use super::{help, table};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::literal::{json, print};
use crate::output;

/// Documents shown at a time on a terminal.
const PAGE_DOCUMENTS: usize = 20;

/// How documents are shown.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// One line of Extended JSON a document, for programs.
    pub json: bool,
    /// Whether long results stop after a page, to go on with `it`.
    pub paged: bool,
}

/// Whether the shell goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Read the next statement.
    Continue,
    /// The user asked to leave.
    Exit,
}

/// The state between statements.
pub struct Session {
    /// The server.
    pub connection: Connection,
    /// The current database.
    pub database: String,
    view: View,
    cursor: Option<Cursor<Document>>,
}

impl Session {
    /// Starts in the database that the connection string names.
    pub fn new(connection: Connection, view: View) -> Session {
        let database = connection.default_database().to_owned();
        Session { connection, database, view, cursor: None }
    }

    /// Runs one statement and shows its outcome.
    pub async fn run(&mut self, text: &str) -> Result<Flow, Failure> {
        let statement = statement::parse(text).map_err(|error| Failure::refused(error.render(text)))?;
        match statement {
            Statement::Empty => {}
            Statement::Exit => return Ok(Flow::Exit),
            Statement::Help(topic) => output::say(help::text(topic.as_deref()))?,
            Statement::CurrentDatabase => output::say(&self.database)?,
            Statement::Use(database) => {
                if self.view.paged {
                    output::say(format!("switched to {database}"))?;
                }
                self.database = database;
            }
            Statement::More => match self.cursor.take() {
                Some(cursor) => self.show_cursor(cursor, false).await?,
                None => output::say("no more documents")?,
            },
            Statement::Show(request) | Statement::Request(request) => self.send(request).await?,
        }
        Ok(Flow::Continue)
    }

    async fn send(&mut self, request: Request) -> Result<(), Failure> {
        let all = request.answer == Answer::Documents { all: true };
        match execute(&mut self.connection, &self.database, request).await? {
            Outcome::Cursor(cursor) => self.show_cursor(*cursor, all).await,
            Outcome::Table(documents) if self.view.json => documents.iter().try_for_each(output::json_line),
            Outcome::Table(documents) if documents.is_empty() => Ok(()),
            Outcome::Table(documents) => output::say(table::documents(&documents, output::width())),
            Outcome::Value(value) => self.show(&value),
            Outcome::Nothing => output::say("null"),
            Outcome::Sentence(sentence) => output::say(sentence),
        }
    }

    /// Shows a page, or everything where no one would ask for more, and keeps the cursor if there is more.
    async fn show_cursor(&mut self, mut cursor: Cursor<Document>, all: bool) -> Result<(), Failure> {
        let page = if all || !self.view.paged { usize::MAX } else { PAGE_DOCUMENTS };
        for _ in 0..page {
            match cursor.try_next().await? {
                Some(document) => self.show(&Bson::Document(document))?,
                None => return Ok(()),
            }
        }
        if cursor.has_next() {
            self.cursor = Some(cursor);
            output::say("type \"it\" for more")?;
        }
        Ok(())
    }

    fn show(&self, value: &Bson) -> Result<(), Failure> {
        if self.view.json {
            return output::say(json::line(value, json::Form::Relaxed));
        }
        output::say(print::pretty(value, output::width(), output::palette()))
    }
}

/// Runs statements from a pipe or a file: one a line, or more lines while brackets are open.
pub async fn run_script(
    session: &mut Session,
    input: &mut dyn BufRead,
    keep_going: bool,
) -> Result<(), Failure> {
    let mut failed = 0u64;
    let mut pending = String::new();
    let mut pending_line = 0u64;
    for (index, line) in input.lines().enumerate() {
        let line = line?;
        if pending.is_empty() {
            pending_line = index as u64 + 1;
        } else {
            pending.push('\n');
        }
        pending.push_str(&line);
        if balance(&pending) == Balance::Open {
            continue;
        }
        match session.run(&std::mem::take(&mut pending)).await {
            Ok(Flow::Continue) => {}
            Ok(Flow::Exit) => return Ok(()),
            Err(failure) if keep_going && failure.exit_code != 3 => {
                failed += 1;
                output::warn(format!("line {pending_line}: {}", failure.message));
            }
            Err(failure) => return Err(failure.context(format!("line {pending_line}"))),
        }
    }
    if !pending.trim().is_empty() {
        return Err(Failure::refused(format!("line {pending_line}: the statement is not closed at the end")));
    }
    match failed {
        0 => Ok(()),
        failed => Err(Failure::refused(format!("{failed} statements failed"))),
    }
}
