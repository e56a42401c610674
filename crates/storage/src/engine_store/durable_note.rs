//! The file `durable` beside the tables: the applied index of every keyspace as of the last fsync of the store's
//! journal, and how much of the journal that fsync covered. Written after each of them, compared with what the tables
//! hold at the next open. It also reserves sequence numbers (see [`DurableNote::reserve`]).
//!
//! Why it exists: `fjall` ends the replay of its journal at the first damaged spot, as it must for a torn tail, and
//! does not know how much was synced. A keyspace that comes back behind its note lost synced data.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use base::LogIndex;
use bytes::{BufMut, Bytes};

use super::io;
use super::journals::JournalPosition;
use crate::{Fault, KeyspaceName, Result, codec};

const FILE_NAME: &str = "durable";
const FILE_NAME_NEW: &str = "durable.new";

/// The note, as read at the start and as written since.
pub(super) struct DurableNote {
    directory: PathBuf,
    indexes: BTreeMap<KeyspaceName, LogIndex>,
    journal: JournalPosition,
    /// Sequence numbers of `fjall` from here on were never used.
    unused_sequence: u64,
}

/// How many sequence numbers are reserved at a time, and how many of them may be used before the next reservation.
const RESERVE: u64 = 1 << 22;
const RESERVE_LEFT_MIN: u64 = 1 << 21;

impl DurableNote {
    /// Reads the note in the store's directory; an absent one says that nothing is durable yet.
    pub(super) fn open(directory: &Path) -> Result<DurableNote> {
        let path = directory.join(FILE_NAME);
        let mut note = DurableNote {
            directory: directory.to_owned(),
            indexes: BTreeMap::new(),
            journal: JournalPosition::default(),
            unused_sequence: 0,
        };
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            bytes => note.decode(io("reading", &path, bytes)?.into(), &path)?,
        }
        Ok(note)
    }

    /// How much of the journal is known to be synced.
    pub(super) fn journal(&self) -> JournalPosition {
        self.journal
    }

    /// The fault of a keyspace that came back at `applied`, if that is less than was durable.
    pub(super) fn damage(&self, name: KeyspaceName, applied: LogIndex) -> Option<Fault> {
        let noted = *self.indexes.get(&name)?;
        (applied < noted).then(|| {
            Fault::corruption(format!(
                "the store lost data of keyspace {name}: everything up to applied index {noted} was synced, and \
                 what can be read ends at {applied}"
            ))
        })
    }

    /// Replaces the note, durably.
    pub(super) fn write(
        &mut self,
        indexes: BTreeMap<KeyspaceName, LogIndex>,
        journal: JournalPosition,
    ) -> Result<()> {
        if self.indexes != indexes {
            self.indexes = indexes;
            self.journal = journal;
            self.save()?;
        }
        Ok(())
    }

    /// Where `fjall` is to go on counting after it opened: after a restart it forgets the numbers of created and dropped
    /// keyspaces, and what it writes under a number used before, such as that a keyspace is gone, may be without effect.
    pub(super) fn unused_sequence(&self) -> u64 {
        self.unused_sequence
    }

    /// Makes sure, durably, that the numbers used next will not be used again. Called before keyspaces come or go.
    pub(super) fn reserve(&mut self, next_sequence: u64) -> Result<()> {
        if next_sequence + RESERVE_LEFT_MIN > self.unused_sequence {
            self.unused_sequence = next_sequence + RESERVE;
            self.save()?;
        }
        Ok(())
    }

    /// Takes a keyspace out of the note, durably.
    pub(super) fn forget(&mut self, name: KeyspaceName) -> Result<()> {
        if self.indexes.remove(&name).is_some() { self.save() } else { Ok(()) }
    }

    fn save(&self) -> Result<()> {
        let new = self.directory.join(FILE_NAME_NEW);
        let mut file = io("creating", &new, File::create(&new))?;
        io("writing", &new, file.write_all(&codec::seal(&self.encode())))?;
        io("fsync of", &new, file.sync_all())?;
        io("renaming", &new, std::fs::rename(&new, self.directory.join(FILE_NAME)))?;
        let directory = io("opening", &self.directory, File::open(&self.directory))?;
        io("fsync of", &self.directory, directory.sync_all())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u64_le(self.journal.file);
        out.put_u64_le(self.journal.bytes);
        out.put_u64_le(self.unused_sequence);
        for (&name, &applied) in &self.indexes {
            codec::put_keyspace(&mut out, name);
            out.put_u64_le(applied.get());
        }
        out
    }

    fn decode(&mut self, record: Bytes, path: &Path) -> Result<()> {
        let what = path.display().to_string();
        let mut reader = codec::Reader::new(codec::unseal(record, &what)?, &what);
        self.journal = JournalPosition { file: reader.u64()?, bytes: reader.u64()? };
        self.unused_sequence = reader.u64()?;
        while !reader.is_empty() {
            let name = codec::keyspace(&mut reader)?;
            self.indexes.insert(name, LogIndex(reader.u64()?));
        }
        Ok(())
    }
}
