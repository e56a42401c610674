//! The data directory: one lock, one identity and one place for the store and the Raft log. The server opens it before
//! anything else on disk.
//!
//! Always holds: while a [`DataDirectory`] lives, no other process has the same directory open.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use base::NodeId;
use serde::{Deserialize, Serialize};

use crate::{Fault, Result};

const LOCK_FILE: &str = "lock";
const IDENTITY_FILE: &str = "identity.json";
const IDENTITY_FILE_NEW: &str = "identity.json.new";
const SUBDIRECTORIES: [&str; 2] = ["store", "raft"];

/// Version of the data directory that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// Whose data a directory holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's id: a UUID as text.
    pub cluster_id: String,
    /// The node's id within the cluster.
    pub node_id: NodeId,
}

/// The identity file's contents.
#[derive(Serialize, Deserialize)]
struct IdentityFile {
    format_version: u32,
    #[serde(flatten)]
    identity: Identity,
    /// CRC-32 of the other fields, in hexadecimal.
    checksum: String,
}

/// An open data directory.
pub struct DataDirectory {
    path: PathBuf,
    identity: Option<Identity>,
    /// Locked as long as it is open.
    _lock: File,
}

impl DataDirectory {
    /// Opens `path`, or creates it, and locks it. Faults with a sentence for the operator when another process has it
    /// open, when it was written by a newer version, or when it holds data and has lost its identity.
    pub fn open(path: &Path) -> Result<DataDirectory> {
        if path.as_os_str().is_empty() || path.exists() && !path.is_dir() {
            return Err(Fault::directory(format!(
                "The data directory '{}' is not a directory.",
                path.display()
            )));
        }
        create(path)?;
        let lock = lock(path)?;
        let identity = read_identity(path)?;
        for subdirectory in SUBDIRECTORIES {
            if identity.is_none() {
                check_unused(path, subdirectory)?;
            }
            create(&path.join(subdirectory))?;
        }
        sync(path)?;
        Ok(DataDirectory { path: path.to_owned(), identity, _lock: lock })
    }

    /// Whose directory it is; `None` for a new one.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Makes a new directory the given node's, durably. Faults when it belongs to another.
    pub fn set_identity(&mut self, identity: Identity) -> Result<()> {
        match &self.identity {
            Some(own) if *own == identity => Ok(()),
            Some(own) => Err(Fault::directory(format!(
                "The data directory {} belongs to node {} of cluster {}, not to node {} of cluster {}.",
                self.path.display(),
                own.node_id,
                own.cluster_id,
                identity.node_id,
                identity.cluster_id
            ))),
            None => {
                write_identity(&self.path, &identity)?;
                self.identity = Some(identity);
                Ok(())
            }
        }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Faults when the directory is a node's and has no Raft log: its replicas must not come back under their old ids without
    /// their votes. Call before the engines are opened.
    pub fn check_raft_log(&self) -> Result<()> {
        let mut files = std::fs::read_dir(self.raft_path())
            .map_err(|error| Fault::io(format!("reading {}: {error}", self.raft_path().display())))?;
        match &self.identity {
            Some(identity) if files.next().is_none() => Err(Fault::directory(format!(
                "The data directory {} belongs to {} and has no Raft log any more. Nothing was changed. If the log was \
                 moved, put it back. If it is lost and other nodes have the data, move the whole directory away: the node \
                 comes back as a new one and gets its replicas from them.",
                self.path.display(),
                identity.node_id
            ))),
            _ => Ok(()),
        }
    }

    /// Where the store is.
    pub fn store_path(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Where the Raft log is.
    pub fn raft_path(&self) -> PathBuf {
        self.path.join("raft")
    }

    /// Bytes that this process may still write to the disk that holds the directory.
    pub fn free_bytes(&self) -> Result<u64> {
        let facts = rustix::fs::statvfs(&self.path).map_err(|error| {
            Fault::io(format!("asking for the free space of {} failed: {error}", self.path.display()))
        })?;
        Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
    }
}

/// Locks the directory and writes this process's number into the lock file.
fn lock(path: &Path) -> Result<File> {
    let lock_path = path.join(LOCK_FILE);
    let options = File::options().read(true).write(true).create(true).truncate(false).open(&lock_path);
    let mut file = io("opening", &lock_path, options)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The number only helps the operator; an unreadable one is left out.
            let read = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder = if read { format!(" (pid {})", holder.trim()) } else { String::new() };
            return Err(Fault::directory(format!(
                "The data directory {} is in use by another psdb process{holder}. Stop it first, or choose another \
                 directory.",
                path.display()
            )));
        }
        Err(TryLockError::Error(error)) => return io("locking", &lock_path, Err(error)),
    }
    io("writing", &lock_path, file.set_len(0))?;
    io("writing", &lock_path, file.seek(SeekFrom::Start(0)))?;
    io("writing", &lock_path, writeln!(file, "{}", std::process::id()))?;
    Ok(file)
}

/// A directory is given its identity before anything else is written to it: data without one has lost it.
fn check_unused(path: &Path, subdirectory: &str) -> Result<()> {
    let subdirectory = path.join(subdirectory);
    let used = match std::fs::read_dir(&subdirectory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        items => io("reading", &subdirectory, items)?.next().is_some(),
    };
    if used {
        return Err(Fault::corruption(format!(
            "{} holds data, but the identity file {} is gone. Bring the file back from a copy, or start in an empty \
             directory.",
            subdirectory.display(),
            path.join(IDENTITY_FILE).display()
        )));
    }
    Ok(())
}

fn read_identity(path: &Path) -> Result<Option<Identity>> {
    let file_path = path.join(IDENTITY_FILE);
    let text = match std::fs::read_to_string(&file_path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        result => io("reading", &file_path, result)?,
    };
    let damaged = |what: &str| {
        Fault::corruption(format!("The identity file {} is damaged: {what}.", file_path.display()))
    };
    // The version is read by itself first: a newer one may have other fields and another checksum.
    let any: serde_json::Value = serde_json::from_str(&text).map_err(|error| damaged(&error.to_string()))?;
    let version = any.get("format_version").and_then(serde_json::Value::as_u64);
    match version {
        Some(version) if version > u64::from(FORMAT_VERSION) => {
            return Err(Fault::directory(format!(
                "The data directory {} has format version {version}, written by a newer psdb; this one reads up to \
                 version {FORMAT_VERSION}. Use the newer program.",
                path.display()
            )));
        }
        Some(_) => {}
        None => return Err(damaged("it has no format version")),
    }
    let file: IdentityFile = serde_json::from_value(any).map_err(|error| damaged(&error.to_string()))?;
    if file.checksum != checksum(file.format_version, &file.identity) {
        return Err(damaged("its checksum does not match"));
    }
    Ok(Some(file.identity))
}

fn write_identity(path: &Path, identity: &Identity) -> Result<()> {
    let file = IdentityFile {
        format_version: FORMAT_VERSION,
        identity: identity.clone(),
        checksum: checksum(FORMAT_VERSION, identity),
    };
    let text = serde_json::to_string_pretty(&file).expect("plain fields always encode");
    let new = path.join(IDENTITY_FILE_NEW);
    let mut out = io("creating", &new, File::create(&new))?;
    io("writing", &new, writeln!(out, "{text}"))?;
    io("fsync of", &new, out.sync_all())?;
    io("renaming", &new, std::fs::rename(&new, path.join(IDENTITY_FILE)))?;
    sync(path)
}

fn checksum(version: u32, identity: &Identity) -> String {
    let text = format!("{version} {} {}", identity.cluster_id, identity.node_id.get());
    format!("{:08x}", crc32fast::hash(text.as_bytes()))
}

fn create(path: &Path) -> Result<()> {
    io("creating", path, std::fs::create_dir_all(path))
}

fn sync(path: &Path) -> Result<()> {
    let directory = io("opening", path, File::open(path))?;
    io("fsync of", path, directory.sync_all())
}

fn io<T>(what: &str, path: &Path, result: std::io::Result<T>) -> Result<T> {
    result.map_err(|error| Fault::io(format!("{what} {} failed: {error}", path.display())))
}
