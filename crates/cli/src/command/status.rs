//! `psdb status`: what a server is doing, at a glance.

use bson::{Bson, Document, doc};

use crate::connection::{Connection, Target};
use crate::failure::Failure;
use crate::output;
use crate::shell::{execute, table};

/// Show a server's version, uptime, connections, operations and databases.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  psdb status\n  psdb status --uri 127.0.0.1:27018 --json")]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let connection = Connection::open(&arguments.target.uri).await?;
    let admin = connection.database("admin");
    let server = admin.run_command(doc! { "serverStatus": 1 }).await?;
    let mut databases = Vec::new();
    for name in connection.client().list_database_names().await? {
        databases.push(connection.database(&name).run_command(doc! { "dbStats": 1 }).await?);
    }
    if arguments.json {
        let databases: Vec<Bson> = databases.into_iter().map(Bson::Document).collect();
        return output::json_line(&doc! { "server": server, "databases": databases });
    }
    output::say(summary(&server))?;
    if databases.is_empty() {
        return output::say("no databases yet");
    }
    let rows: Vec<Vec<String>> = databases.iter().map(database_row).collect();
    let header = ["database", "collections", "documents", "data bytes", "indexes"];
    output::say(table::rows(&header, &rows, output::width()))
}

fn summary(server: &Document) -> String {
    let uptime = execute::number(server, "uptime");
    let (hours, minutes, seconds) = (uptime / 3600, uptime / 60 % 60, uptime % 60);
    let connections = server.get_document("connections").map_or(0, |c| execute::number(c, "current"));
    let mut lines = vec![
        format!("process      {} at {}", text(server, "process"), text(server, "host")),
        format!("version      {}", text(server, "version")),
        format!("up for       {hours} h {minutes} min {seconds} s"),
        format!("connections  {connections}"),
    ];
    if let Ok(counters) = server.get_document("opcounters") {
        let counts: Vec<String> = counters
            .keys()
            .map(|name| {
                let count = u64::try_from(execute::number(counters, name)).unwrap_or(0);
                format!("{name} {}", output::grouped(count))
            })
            .collect();
        lines.push(format!("operations   {}", counts.join(", ")));
    }
    lines.join("\n")
}

fn text(document: &Document, name: &str) -> String {
    document.get_str(name).unwrap_or("?").to_owned()
}

fn database_row(stats: &Document) -> Vec<String> {
    let count = |name| output::grouped(u64::try_from(execute::number(stats, name)).unwrap_or(0));
    vec![text(stats, "db"), count("collections"), count("objects"), count("dataSize"), count("indexes")]
}
