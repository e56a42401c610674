//! A `psdb start` of our own, as a child process: started, waited for, killed, stopped.
//!
//! Used by the demo. The child's log goes to a temporary file, whose end is shown if the child fails.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use bson::doc;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::connection::Connection;
use crate::failure::Failure;
use crate::output;

/// How long a start and a clean stop may take.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the start is looked at.
const POLL: Duration = Duration::from_millis(50);
/// Lines of the child's log that are shown when it fails.
const LOG_LINES: usize = 15;

/// Where a child keeps its data and is reached.
#[derive(Clone, Debug)]
pub(super) struct ChildOptions {
    /// Its data directory.
    pub(super) directory: PathBuf,
    /// Its name in the cluster.
    pub(super) name: String,
    /// Its ports on this machine, for clients and for other nodes.
    pub(super) port: u16,
    pub(super) peer_port: u16,
    /// The peer port of a node of the cluster to join.
    pub(super) join: Option<u16>,
}

impl ChildOptions {
    /// A child on free ports.
    pub(super) fn on_free_ports(directory: PathBuf, name: String) -> Result<ChildOptions, Failure> {
        // Both are held until both are known, so that they differ.
        let held = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        let (port, peer_port) = (held.0.local_addr()?.port(), held.1.local_addr()?.port());
        Ok(ChildOptions { directory, name, port, peer_port, join: None })
    }
}

/// The running child; killed if it is dropped without [`Server::stop`].
pub(super) struct Server {
    child: Child,
    options: ChildOptions,
    log: NamedTempFile,
}

impl Server {
    /// Starts a node on this machine, and waits until it answers.
    pub(super) async fn start(options: ChildOptions) -> Result<Server, Failure> {
        let log = NamedTempFile::with_prefix("psdb-demo-log-")?;
        let port_file = NamedTempFile::with_prefix("psdb-demo-port-")?;
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.arg("start").arg("--data").arg(&options.directory).args(["--name", &options.name]);
        command.args(["--listen", &format!("127.0.0.1:{}", options.port)]);
        command.args(["--peer-listen", &format!("127.0.0.1:{}", options.peer_port)]);
        if let Some(peer_port) = options.join {
            command.args(["--join", &format!("127.0.0.1:{peer_port}")]);
        }
        let child = command
            .arg("--port-file")
            .arg(port_file.path())
            .stdin(Stdio::null())
            .stdout(log.reopen()?)
            .stderr(log.reopen()?)
            // Ctrl-C is for us: we stop the child in good order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let mut server = Server { child, options, log };
        server.wait_until_it_answers(port_file.path()).await?;
        Ok(server)
    }

    /// The connection string, with a database.
    pub(super) fn uri(&self, database: &str) -> String {
        format!("mongodb://127.0.0.1:{}/{database}", self.options.port)
    }

    /// Kills the child as a crash would: it gets no chance to do anything.
    pub(super) async fn kill(mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }

    /// Waits for Ctrl-C, SIGTERM, or the child's own end.
    pub(super) async fn wait_for_signal(&mut self) -> Result<(), Failure> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            status = self.child.wait() => {
                let status = status?;
                Err(self.failed(&format!("the database stopped by itself ({status})")))
            }
        }
    }

    /// Asks the child to stop and waits until it has.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let Some(pid) = pid else {
            return Ok(());
        };
        kill_process(pid, Signal::TERM).map_err(std::io::Error::from)?;
        match tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await {
            Err(_) => Err(self.failed("the database did not stop in time")),
            Ok(status) => match status? {
                status if status.success() => Ok(()),
                status => Err(self.failed(&format!("the database stopped with {status}"))),
            },
        }
    }

    async fn wait_until_it_answers(&mut self, port_file: &Path) -> Result<(), Failure> {
        let deadline = Instant::now() + START_TIMEOUT;
        while std::fs::read_to_string(port_file)?.trim().is_empty() {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failed(&format!("the database did not start ({status})")));
            }
            if Instant::now() > deadline {
                return Err(self.failed("the database does not answer"));
            }
            tokio::time::sleep(POLL).await;
        }
        let connection = Connection::open(&self.uri("admin")).await?;
        connection.database("admin").run_command(doc! { "ping": 1 }).await?;
        Ok(())
    }

    /// A failure with the end of the child's log on standard error.
    fn failed(&self, reason: &str) -> Failure {
        let log = std::fs::read_to_string(self.log.path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(LOG_LINES)) {
            output::warn(line);
        }
        Failure::refused(reason)
    }
}
