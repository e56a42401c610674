//! A node as a process: a runtime, logs, and signals that end it.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

use crate::logging::{self, RecentLog};
use crate::options::{Options, Settings};
use crate::{Failure, Server};

/// Runs a node until SIGTERM or SIGINT, or until it fails. What it returns decides the exit code, and is in the log
/// already unless it is [`Failure::Options`].
pub fn main(options: &Options) -> Result<(), Failure> {
    let settings = options.resolve()?;
    let recent = Arc::new(RecentLog::default());
    logging::start(settings.log_format, &recent);
    run_to_end(settings, recent).inspect_err(|failure| error!("{failure}"))
}

fn run_to_end(settings: Settings, recent: Arc<RecentLog>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Start(format!("cannot start threads: {error}")))?;
    let ended = runtime.block_on(run(settings, recent));
    // Work that still blocks on the disk would hold the process back; everything owed was written before.
    runtime.shutdown_background();
    ended
}

async fn run(settings: Settings, recent: Arc<RecentLog>) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let mut server = tokio::select! {
        started = Server::start_with_log(settings, recent) => started?,
        // A node may wait for its cluster for as long as it takes; it owes nobody anything yet.
        name = signals.next() => {
            info!(signal = name, "stopping before the start was complete");
            return Ok(());
        }
    };
    tokio::select! {
        name = signals.next() => {
            info!(signal = name, "stopping");
            server.stop().await
        }
        failure = server.failed() => Err(failure),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Signals, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::Start(format!("cannot take signals: {error}")));
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
