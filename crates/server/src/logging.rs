//! Structured logs on standard error, and the newest lines of them for `getLog`.
//!
//! Readable lines on a terminal, JSON where asked for. `PSDB_LOG` chooses levels (`debug`, `wire=debug`).

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Lines kept for `getLog`.
const RECENT_LINES: usize = 256;
/// Longest line kept; more of it is cut off.
const RECENT_LINE_BYTES: usize = 1024;
const LEVELS_VARIABLE: &str = "PSDB_LOG";
/// The Raft log cuts its unused end off at every start after a kill, and warns of it each time.
const LEVELS_DEFAULT: &str = "info,raft=warn,raft_engine=warn,raft_engine::file_pipe_log::pipe_builder=error,\
                              fjall=warn,lsm_tree=warn";

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Readable lines.
    Text,
    /// One JSON object a line.
    Json,
}

/// The newest lines.
#[derive(Debug, Default)]
pub(crate) struct RecentLog {
    lines: Mutex<VecDeque<String>>,
}

impl RecentLog {
    /// The lines, oldest first.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().iter().cloned().collect()
    }

    fn add(&self, bytes: &[u8]) {
        let kept = bytes.get(..bytes.len().min(RECENT_LINE_BYTES)).unwrap_or_default();
        let line = String::from_utf8_lossy(kept).trim_end().to_owned();
        let mut lines = self.lines.lock();
        if lines.len() == RECENT_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// Writes each line into the ring.
#[derive(Clone)]
struct RecentWriter(Arc<RecentLog>);

impl Write for RecentWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for RecentWriter {
    type Writer = RecentWriter;

    fn make_writer(&'w self) -> RecentWriter {
        self.clone()
    }
}

/// Starts logging for this process; the first call wins.
pub(crate) fn start(format: Option<LogFormat>, recent: &Arc<RecentLog>) {
    let terminal = std::io::stderr().is_terminal();
    let levels = EnvFilter::try_from_env(LEVELS_VARIABLE).unwrap_or_else(|_| EnvFilter::new(LEVELS_DEFAULT));
    let kept = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(RecentWriter(recent.clone()));
    let shown = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(levels).with(kept);
    let started = match format.unwrap_or(LogFormat::Text) {
        LogFormat::Json => registry.with(shown.json()).try_init(),
        LogFormat::Text => registry.with(shown.with_ansi(terminal).with_target(false)).try_init(),
    };
    // A process that hosts several servers, as tests do, logs as the first one said.
    drop(started);
}
