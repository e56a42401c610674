//! `psdb balancer`: whether shards are kept even over the nodes, by what numbers, and what is to be done.

use bson::{Bson, Document, doc};

use crate::connection::{Connection, Target};
use crate::failure::Failure;
use crate::output;
use crate::shell::execute;

/// Switch the balancer on and off, and see what it would do.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Show whether it is on, and what it goes by.
    #[command(after_help = "Examples:\n  psdb balancer status")]
    Status(Shown),
    /// Switch it on.
    #[command(after_help = "Examples:\n  psdb balancer start")]
    Start(Target),
    /// Switch it off. Replicas are rebuilt and nodes are drained all the same.
    #[command(after_help = "Examples:\n  psdb balancer stop")]
    Stop(Target),
    /// Show what it would do, and why.
    #[command(after_help = "Examples:\n  psdb balancer explain")]
    Explain(Shown),
}

#[derive(clap::Args)]
struct Shown {
    #[command(flatten)]
    target: Target,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.action {
        Action::Status(shown) => show(&shown, doc! { "psdbBalancer": 1 }, status).await,
        Action::Explain(shown) => show(&shown, doc! { "psdbBalancer": 1, "explain": true }, explained).await,
        Action::Start(target) => {
            ask(&target, doc! { "balancerStart": 1 }).await?;
            output::say("the balancer is on")
        }
        Action::Stop(target) => {
            ask(&target, doc! { "balancerStop": 1 }).await?;
            output::say("the balancer is off")
        }
    }
}

async fn show(shown: &Shown, command: Document, page: fn(&Document) -> String) -> Result<(), Failure> {
    let mut answer = ask(&shown.target, command).await?;
    answer.remove("ok");
    match shown.json {
        true => output::json_line(&answer),
        false => output::say(page(&answer)),
    }
}

async fn ask(target: &Target, command: Document) -> Result<Document, Failure> {
    let connection = Connection::open(&target.uri).await?;
    Ok(connection.database("admin").run_command(command).await?)
}

fn status(answer: &Document) -> String {
    let count = |name| output::grouped(u64::try_from(execute::number(answer, name)).unwrap_or(0));
    format!(
        "balancer        {}\nsplits above    {} bytes or {} operations a second\nmoves per node  {} at a time\ndead after      {} seconds without an answer",
        if answer.get_bool("enabled").unwrap_or(false) { "on" } else { "off" },
        count("splitBytes"),
        count("splitOperationsPerSecond"),
        count("movesPerNodeMax"),
        count("nodeDeadAfterSeconds"),
    )
}

fn explained(answer: &Document) -> String {
    let reasons: Vec<&str> =
        answer.get_array("proposals").into_iter().flatten().filter_map(Bson::as_str).collect();
    match reasons.is_empty() {
        true => "there is nothing to do".to_owned(),
        false => reasons.join("\n"),
    }
}
