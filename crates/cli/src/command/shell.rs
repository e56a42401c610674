//! `psdb shell`: the interactive shell, or a script from a pipe.

use std::io::{BufReader, IsTerminal};

use crate::connection::{Connection, DEFAULT_URI};
use crate::failure::Failure;
use crate::shell::interactive;
use crate::shell::session::{Session, View, run_script};

/// Open a shell, or run statements from a pipe or a file.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    psdb shell\n  \
    psdb shell mongodb://127.0.0.1:27017/shop\n  \
    psdb shell --eval 'db.users.countDocuments()'\n  \
    echo 'find users {age: {$gt: 30}}' | psdb shell 127.0.0.1:27017/shop --json | jq .name\n\n\
    Statements come one a line, or on more lines while a bracket is open. From a pipe, the first error ends the \
    script with exit code 1, unless --continue. In the shell, \"help\" shows what it understands.")]
pub(super) struct Arguments {
    /// Where the server is, and the database to begin with.
    #[arg(env = "PSDB_URI", default_value = DEFAULT_URI)]
    uri: String,
    /// Run this statement and leave; may be given more than once.
    #[arg(long, value_name = "STATEMENT")]
    eval: Vec<String>,
    /// Print documents as JSON lines.
    #[arg(long)]
    json: bool,
    /// Go on after an error in a script; the exit code is still 1.
    #[arg(long = "continue")]
    keep_going: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let connection = Connection::open(&arguments.uri).await?;
    let interactive = std::io::stdin().is_terminal() && arguments.eval.is_empty();
    let mut session = Session::new(connection, View { json: arguments.json, paged: interactive });
    if interactive {
        return interactive::run(session).await;
    }
    if arguments.eval.is_empty() {
        return run_script(&mut session, &mut BufReader::new(std::io::stdin()), arguments.keep_going).await;
    }
    for statement in &arguments.eval {
        session.run(statement).await?;
    }
    Ok(())
}
