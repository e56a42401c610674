//! A node's engines on its data directory, and its place in a cluster as the directory knows it.

use std::path::Path;
use std::sync::Arc;

use storage::{
    DataDirectory, EngineRaftLog, FjallStore, GroupCommitOptions, GroupCommitWriter, LogOptions, RaftLog,
    StoreOptions,
};

use crate::Failure;
use crate::options::Settings;

/// The node's engines.
pub(crate) struct Engines {
    pub(crate) store: Arc<FjallStore>,
    pub(crate) raft_log: Arc<dyn RaftLog>,
    pub(crate) writer: Arc<GroupCommitWriter>,
}

impl Engines {
    pub(crate) fn open(directory: &DataDirectory, settings: &Settings) -> Result<Engines, Failure> {
        let store_options = StoreOptions { cache_bytes: settings.cache_bytes, ..StoreOptions::default() };
        let store = Arc::new(FjallStore::open(&directory.store_path(), store_options)?);
        let raft_log: Arc<dyn RaftLog> =
            Arc::new(EngineRaftLog::open(&directory.raft_path(), &LogOptions::default())?);
        let commit_options =
            GroupCommitOptions { fsync_delay_us: settings.fsync_delay_us, ..GroupCommitOptions::default() };
        let writer = Arc::new(GroupCommitWriter::start(raft_log.clone(), commit_options)?);
        Ok(Engines { store, raft_log, writer })
    }
}

/// Written under another name first, so that whoever waits for the file finds it whole.
pub(crate) fn write_port_file(path: &Path, port: u16) -> Result<(), Failure> {
    let unfinished = path.with_extension("unfinished");
    std::fs::write(&unfinished, format!("{port}\n"))
        .and_then(|()| std::fs::rename(&unfinished, path))
        .map_err(|error| Failure::Start(format!("cannot write the port file {}: {error}", path.display())))
}
