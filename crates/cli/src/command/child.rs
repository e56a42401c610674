//! A `psdb start` of our own, as a child process: started, waited for, stopped.
//!
//! Used by the demo. The child's log goes to a temporary file, whose end is shown if the child fails.

use std::path::Path;
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

/// The running child; killed if it is dropped without [`Server::stop`].
pub(super) struct Server {
    child: Child,
    port: u16,
    log: NamedTempFile,
}

impl Server {
    /// Starts a node on a free port of this machine, and waits until it answers.
    pub(super) async fn start(directory: &Path) -> Result<Server, Failure> {
        let log = NamedTempFile::with_prefix("psdb-demo-log-")?;
        let port_file = NamedTempFile::with_prefix("psdb-demo-port-")?;
        let program = std::env::current_exe()?;
        let child = Command::new(program)
            .arg("start")
            .arg("--data")
            .arg(directory)
            .args(["--listen", "127.0.0.1:0"])
            .arg("--port-file")
            .arg(port_file.path())
            .stdin(Stdio::null())
            .stdout(log.reopen()?)
            .stderr(log.reopen()?)
            // Ctrl-C is for us: we stop the child in good order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let mut server = Server { child, port: 0, log };
        server.wait_until_it_answers(port_file.path()).await?;
        Ok(server)
    }

    /// The connection string, with a database.
    pub(super) fn uri(&self, database: &str) -> String {
        format!("mongodb://127.0.0.1:{}/{database}", self.port)
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
        while self.port == 0 {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failed(&format!("the database did not start ({status})")));
            }
            if Instant::now() > deadline {
                return Err(self.failed("the database does not answer"));
            }
            tokio::time::sleep(POLL).await;
            self.port = std::fs::read_to_string(port_file)?.trim().parse().unwrap_or(0);
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
