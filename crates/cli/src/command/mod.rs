//! The table of subcommands, and how the process starts and ends.
//!
//! One file per subcommand: each has its clap arguments, with examples, and a `run`. [`main`] prints a failure's
//! sentence to standard error and turns it into the exit code.

mod aggregate;
mod balancer;
mod bench;
mod chaos;
mod child;
mod cluster;
mod config;
mod count;
mod del;
mod delete;
mod demo;
mod export;
mod find;
mod get;
mod growth;
mod import;
mod input;
mod insert;
mod keys;
mod kv;
mod load;
mod node;
mod put;
mod records;
mod recut;
mod reshard;
mod shard;
mod shell;
mod start;
mod status;
mod update;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;
use crate::output;

/// A sharded, replicated document database that speaks the MongoDB wire protocol.
#[derive(Parser)]
#[command(name = "psdb", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Begin with: psdb demo\n\n\
    Exit codes: 0 done; 1 refused, rejected or not found; 2 wrong usage; 3 no server answered.")]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Start(start::Arguments),
    Config(config::Arguments),
    Demo(demo::Arguments),
    Shell(shell::Arguments),
    Insert(insert::Arguments),
    Find(find::Arguments),
    Update(update::Arguments),
    Delete(delete::Arguments),
    Count(count::Arguments),
    Aggregate(aggregate::Arguments),
    Put(put::Arguments),
    Get(get::Arguments),
    Del(del::Arguments),
    Keys(keys::Arguments),
    Import(import::Arguments),
    Export(export::Arguments),
    Bench(bench::Arguments),
    Status(status::Arguments),
    Shard(shard::Arguments),
    Reshard(reshard::Arguments),
    Node(node::Arguments),
    Balancer(balancer::Arguments),
}

/// Parses the command line, runs the subcommand, and says how it ended.
pub fn main() -> ExitCode {
    match run(CommandLine::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                output::warn(format!("psdb: {}", failure.message));
            }
            ExitCode::from(failure.exit_code)
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    // The server builds its own runtime, sized by its own options.
    if let Command::Start(arguments) = command {
        return start::run(arguments);
    }
    if let Command::Config(arguments) = command {
        return config::run(arguments);
    }
    // Never dropped: the driver ends its sessions in a task of its own once its client is gone, and panics there when a
    // runtime that shuts down has taken its connections away. The process is about to end anyway.
    let runtime = std::mem::ManuallyDrop::new(tokio::runtime::Runtime::new()?);
    runtime.block_on(async {
        match command {
            Command::Start(_) | Command::Config(_) => Ok(()),
            Command::Demo(arguments) => demo::run(arguments).await,
            Command::Shell(arguments) => shell::run(arguments).await,
            Command::Insert(arguments) => insert::run(arguments).await,
            Command::Find(arguments) => find::run(arguments).await,
            Command::Update(arguments) => update::run(arguments).await,
            Command::Delete(arguments) => delete::run(arguments).await,
            Command::Count(arguments) => count::run(arguments).await,
            Command::Aggregate(arguments) => aggregate::run(arguments).await,
            Command::Put(arguments) => put::run(arguments).await,
            Command::Get(arguments) => get::run(arguments).await,
            Command::Del(arguments) => del::run(arguments).await,
            Command::Keys(arguments) => keys::run(arguments).await,
            Command::Import(arguments) => import::run(arguments).await,
            Command::Export(arguments) => export::run(arguments).await,
            Command::Bench(arguments) => bench::run(arguments).await,
            Command::Status(arguments) => status::run(arguments).await,
            Command::Shard(arguments) => shard::run(arguments).await,
            Command::Reshard(arguments) => reshard::run(arguments).await,
            Command::Node(arguments) => node::run(arguments).await,
            Command::Balancer(arguments) => balancer::run(arguments).await,
        }
    })
}
