//! `psdb start`: runs a node.

use std::path::PathBuf;

use crate::failure::Failure;

/// Run a node: one node is a complete database; others join it with --join.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    psdb start --data /var/lib/psdb\n  \
    psdb start --data ./d2 --listen 127.0.0.1:27018 --join 127.0.0.1:27117\n  \
    psdb start --data ./d1 --admin 127.0.0.1:27217\n  \
    psdb start --config psdb.toml --node node1\n\n\
    The node stops cleanly on SIGTERM and on Ctrl-C. An address off this machine is refused unless --insecure says \
    that the network is trusted. PSDB_LOG chooses what is logged (PSDB_LOG=debug).\n\n\
    Exit codes: 0 stopped as asked; 1 could not start; 2 wrong options; 3 the storage cannot be trusted.")]
pub(super) struct Arguments {
    /// The directory of the data; made if it does not exist.
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    data: Option<PathBuf>,
    /// The address to listen on; port 0 picks a free one [default: 127.0.0.1:27017].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where other nodes reach this one [default: the address and port of --listen, the port plus 100].
    #[arg(long, value_name = "ADDRESS")]
    peer_listen: Option<String>,
    /// Serve metrics (/metrics) and health (/healthz, /readyz) over HTTP on this address [default: nowhere].
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// Join the cluster of the node with this peer address; give several for when one is down.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    join: Vec<String>,
    /// The node's name, which no other node of the cluster has [default: its address].
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    name: Option<String>,
    /// A configuration file; options on the command line override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which node of the configuration file this is.
    #[arg(long, value_name = "NAME", requires = "config")]
    node: Option<String>,
    /// Listen on an address off this machine although there are no users and no TLS yet.
    #[arg(long)]
    insecure: bool,
    /// Memory for cached data [default: a quarter of the machine's, at most 4 GiB].
    #[arg(long, value_name = "BYTES")]
    cache_bytes: Option<u64>,
    /// Hand over to other nodes, and refuse writes that stay, while the disk has less free space than this.
    #[arg(long, value_name = "BYTES")]
    disk_reserve_bytes: Option<u64>,
    /// Write the port to this file once connections are taken.
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
    /// How logs look [default: text].
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
    /// Allow configureFailPoint, for the tests of drivers.
    #[arg(long)]
    enable_test_commands: bool,
    /// Make every fsync take this many microseconds longer, for experiments with group commit.
    #[arg(long, value_name = "US")]
    fsync_delay_us: Option<u64>,
}

/// How logs look.
#[derive(Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    /// Readable lines.
    Text,
    /// One JSON object a line.
    Json,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let options = server::Options {
        data: arguments.data,
        listen: arguments.listen,
        peer_listen: arguments.peer_listen,
        admin: arguments.admin,
        join: arguments.join,
        name: arguments.name,
        cache_bytes: arguments.cache_bytes,
        insecure: arguments.insecure,
        test_commands: arguments.enable_test_commands,
        config: arguments.config,
        node: arguments.node,
        fsync_delay_us: arguments.fsync_delay_us,
        disk_reserve_bytes: arguments.disk_reserve_bytes,
        port_file: arguments.port_file,
        log_format: arguments.log_format.map(|format| match format {
            LogFormat::Text => server::LogFormat::Text,
            LogFormat::Json => server::LogFormat::Json,
        }),
    };
    server::main(&options).map_err(|failure| {
        let message = match &failure {
            server::Failure::Options(_) => failure.to_string(),
            // The log has said it.
            _ => String::new(),
        };
        Failure { message, exit_code: failure.exit_code() }
    })
}
