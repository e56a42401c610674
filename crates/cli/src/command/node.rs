//! `psdb node`: the nodes of a cluster, emptied and taken out of it.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::error::ErrorKind;

use super::recut;
use super::status::{documents, nodes_table, text};
use crate::connection::{Connection, Target};
use crate::failure::Failure;
use crate::output;
use crate::shell::execute;

/// How often a node that empties is looked at.
const POLL: Duration = Duration::from_millis(500);
/// How long others may take to take over a node's vote in the catalog.
const VOTE_TIMEOUT: Duration = Duration::from_secs(60);
const TEMPLATE: &str = "{bar:30} {pos} of {len} replicas have left {msg}, {eta} left";

/// Show, drain and remove nodes.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Show the nodes.
    #[command(after_help = "Examples:\n  psdb node list\n  psdb node list --json")]
    List {
        #[command(flatten)]
        target: Target,
        /// Print one line of JSON for each node.
        #[arg(long)]
        json: bool,
    },
    /// Move everything off a node, and wait until it may be removed.
    #[command(after_help = "Examples:\n  psdb node drain n3\n  psdb node drain n3 --cancel")]
    Drain {
        #[command(flatten)]
        target: Target,
        /// The name of the node.
        name: String,
        /// Take it back into use.
        #[arg(long)]
        cancel: bool,
    },
    /// Take a node out of the cluster that is drained or dead; it may be stopped then.
    #[command(after_help = "Examples:\n  psdb node remove n3 --uri 127.0.0.1:27017")]
    Remove {
        #[command(flatten)]
        target: Target,
        /// The name of the node.
        name: String,
    },
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.action {
        Action::List { target, json } => list(&Connection::open(&target.uri).await?, json).await,
        Action::Drain { target, name, cancel: true } => {
            ask(&Connection::open(&target.uri).await?, "cancelDrain", &name).await?;
            output::say(format!("{name} is in use"))
        }
        Action::Drain { target, name, cancel: false } => {
            drain(&Connection::open(&target.uri).await?, &name).await
        }
        Action::Remove { target, name } => remove(&Connection::open(&target.uri).await?, &name).await,
    }
}

async fn list(connection: &Connection, json: bool) -> Result<(), Failure> {
    let status = recut::status(connection).await?;
    if json {
        return documents(&status, "nodes").try_for_each(output::json_line);
    }
    output::say(nodes_table(&status))?;
    for node in documents(&status, "nodes") {
        let name = text(node, "name");
        let is = |flag: &str| node.get_bool(flag).unwrap_or(false);
        if is("draining") {
            output::say(format!("{name} is being drained"))?;
        }
        if is("dead") {
            output::say(format!("{name} is dead: its replicas are rebuilt on other nodes"))?;
        }
    }
    Ok(())
}

async fn drain(connection: &Connection, name: &str) -> Result<(), Failure> {
    let mut progress = ask(connection, "drain", name).await?;
    let bar = output::progress(Some(0), TEMPLATE).with_message(name.to_owned());
    let mut empty_since: Option<Instant> = None;
    loop {
        let (left, total) =
            (execute::number(&progress, "replicas"), execute::number(&progress, "replicasTotal"));
        bar.set_length(u64::try_from(total).unwrap_or(0));
        bar.set_position(u64::try_from(total - left).unwrap_or(0));
        if text(&progress, "state") != "draining" {
            bar.finish_and_clear();
            return Err(Failure::refused(format!("somebody has taken {name} back into use")));
        }
        let votes = progress.get_bool("votesInCatalog").unwrap_or(false);
        if left == 0 {
            let since = empty_since.get_or_insert_with(Instant::now);
            // It votes on where no other node can: removing it is allowed then.
            if !votes || since.elapsed() > VOTE_TIMEOUT {
                break;
            }
        }
        tokio::time::sleep(POLL).await;
        progress = ask(connection, "progress", name).await?;
    }
    bar.finish_and_clear();
    output::say(format!(
        "{name} holds nothing any more; take it out of the cluster with: psdb node remove {name}"
    ))
}

async fn remove(connection: &Connection, name: &str) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let command = doc! { "psdbNode": 1, "remove": name };
        match connection.database("admin").run_command(command).await {
            Ok(_) => {
                return output::say(format!(
                    "{name} does not belong to the cluster any more and may be stopped"
                ));
            }
            // Another node is taking over its vote in the catalog.
            Err(error) if is_conflict(&error) && began.elapsed() < VOTE_TIMEOUT => {
                tokio::time::sleep(POLL).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_conflict(error: &mongodb::error::Error) -> bool {
    let code = base::Code::CONFLICTING_OPERATION_IN_PROGRESS.0;
    matches!(error.kind.as_ref(), ErrorKind::Command(error) if error.code == code)
}

async fn ask(connection: &Connection, action: &str, name: &str) -> Result<Document, Failure> {
    Ok(connection.database("admin").run_command(doc! { "psdbNode": 1, action: name }).await?)
}
