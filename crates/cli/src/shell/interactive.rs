//! The shell on a terminal: line editing, history, completion, colours and multi-line statements.
//!
//! Called by `psdb shell` when standard input is a terminal.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures::TryStreamExt;
use reedline::{
    ColumnarMenu, DefaultHinter, Emacs, FileBackedHistory, KeyCode, KeyModifiers, MenuBuilder, Prompt,
    PromptEditMode, PromptHistorySearch, Reedline, ReedlineEvent, ReedlineMenu, Signal, ValidationResult,
    Validator, default_emacs_keybindings,
};

use super::balance::{Balance, balance};
use super::complete::{Names, StatementCompleter};
use super::highlight::StatementHighlighter;
use super::session::{Flow, Session};
use crate::failure::Failure;
use crate::output;

const HISTORY_LINES_MAX: usize = 10_000;
const COMPLETION_MENU: &str = "completions";

/// Reads and runs statements until the user leaves.
pub async fn run(mut session: Session) -> Result<(), Failure> {
    let names = Arc::new(Mutex::new(Names::default()));
    greet(&mut session).await?;
    let mut editor = editor(names.clone());
    loop {
        refresh(&session, &names).await;
        let prompt = DatabasePrompt { database: session.database.clone() };
        match editor.read_line(&prompt)? {
            Signal::Success(line) => match session.run(&line).await {
                Ok(Flow::Continue) => {}
                Ok(Flow::Exit) => return Ok(()),
                Err(failure) => output::warn(failure.message),
            },
            Signal::CtrlD => return Ok(()),
            _ => {}
        }
    }
}

async fn greet(session: &mut Session) -> Result<(), Failure> {
    let info = session.connection.database("admin").run_command(bson::doc! { "buildInfo": 1 }).await?;
    let version = info.get_str("version").unwrap_or("an unknown version");
    output::say(format!(
        "connected to a server that speaks {version}; \"help\" shows examples, Ctrl-D leaves"
    ))
}

fn editor(names: Arc<Mutex<Names>>) -> Reedline {
    let mut keys = default_emacs_keybindings();
    let tab = ReedlineEvent::UntilFound(vec![
        ReedlineEvent::Menu(COMPLETION_MENU.to_owned()),
        ReedlineEvent::MenuNext,
    ]);
    keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, tab);
    let menu = ColumnarMenu::default().with_name(COMPLETION_MENU);
    let editor = Reedline::create()
        .with_completer(Box::new(StatementCompleter { names }))
        .with_highlighter(Box::new(StatementHighlighter))
        .with_validator(Box::new(BalanceValidator))
        .with_hinter(Box::new(DefaultHinter::default()))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
        .with_quick_completions(true)
        .with_edit_mode(Box::new(Emacs::new(keys)));
    let history = history_file().and_then(|path| FileBackedHistory::with_file(HISTORY_LINES_MAX, path).ok());
    match history {
        Some(history) => editor.with_history(Box::new(history)),
        None => editor,
    }
}

/// `$PSDB_HISTORY`, else `.psdb_history` in the home directory.
fn history_file() -> Option<PathBuf> {
    let chosen = std::env::var_os("PSDB_HISTORY").map(PathBuf::from);
    chosen.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".psdb_history")))
}

/// Fetches the names for completion; a server that does not answer costs nothing but completions.
async fn refresh(session: &Session, names: &Mutex<Names>) {
    let client = session.connection.client();
    let databases = client.list_database_names().await.unwrap_or_default();
    let database = client.database(&session.database);
    let mut collections = Vec::new();
    if let Ok(mut cursor) = database.list_collections().await {
        while let Ok(Some(collection)) = cursor.try_next().await {
            collections.push(collection.name);
        }
    }
    collections.sort();
    if let Ok(mut names) = names.lock() {
        *names = Names { databases, collections };
    }
}

struct BalanceValidator;

impl Validator for BalanceValidator {
    fn validate(&self, text: &str) -> ValidationResult {
        match balance(text) {
            Balance::Open => ValidationResult::Incomplete,
            Balance::Closed => ValidationResult::Complete,
        }
    }
}

struct DatabasePrompt {
    database: String,
}

impl Prompt for DatabasePrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.database)
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("... ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        Cow::Owned(format!("(search: {}) ", search.term))
    }
}
