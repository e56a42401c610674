//! `fjall`'s journal files as seen from outside: syncing the newest one without holding back writers, and noticing at
//! open when `fjall` dropped more of them than a torn tail. Called by the store when it opens and when it persists.
//!
//! What is relied on: the files are called `<number>.jnl`, only the highest one is written, a file is synced before the
//! next one appears, records end in a byte other than zero and unwritten space reads as zeros, and replay cuts a file
//! at the first record that it cannot read.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;

use super::durable_note::DurableNote;
use super::io;
use crate::{Fault, Result};

/// A place in the journal: everything in earlier files and the first `bytes` of `file`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct JournalPosition {
    /// Number of the file.
    pub(super) file: u64,
    /// Bytes of it.
    pub(super) bytes: u64,
}

/// The journal files of a store.
pub(super) struct JournalFiles {
    directory: PathBuf,
    /// Files with the ends of their data, as they were before the store opened; sorted.
    before: Vec<JournalPosition>,
    /// The newest file, kept open so that an error of its writeback is reported here.
    newest: Option<(u64, File)>,
}

impl JournalFiles {
    /// Looks at the files before `fjall` opens them. The directory may be absent.
    pub(super) fn before_open(directory: &Path) -> Result<JournalFiles> {
        let mut before = Vec::new();
        for number in numbers(directory)? {
            let path = path_of(directory, number);
            let file = io("opening", &path, File::open(&path))?;
            before.push(JournalPosition { file: number, bytes: data_end(&path, &file)? });
        }
        Ok(JournalFiles { directory: directory.to_owned(), before, newest: None })
    }

    /// Cuts away what no fsync has covered, for a journal that cannot be replayed as it is. Returns whether there was
    /// anything to cut.
    pub(super) fn cut_back_to(&self, note: &DurableNote) -> Result<bool> {
        let Some(newest) = self.before.last() else { return Ok(false) };
        let synced = note.journal();
        // A file newer than the noted one started after the last fsync that was noted.
        let keep = if newest.file == synced.file { synced.bytes } else { 0 };
        if newest.file < synced.file || keep >= newest.bytes {
            return Ok(false);
        }
        let path = path_of(&self.directory, newest.file);
        let file = io("opening", &path, File::options().write(true).open(&path))?;
        io("cutting", &path, file.set_len(keep))?;
        io("fsync of", &path, file.sync_all())?;
        tracing::warn!(path = %path.display(), from = newest.bytes, to = keep, "cut an unsynced tail off the journal");
        Ok(true)
    }

    /// Faults when `fjall` dropped data of a file that had been synced as a whole. (Data dropped from the newest file
    /// shows in the applied indexes.)
    pub(super) fn check_after_open(&self, note: &DurableNote) -> Result<()> {
        let Some((newest, older)) = self.before.split_last() else { return Ok(()) };
        let whole = older.iter().chain((newest.file < note.journal().file).then_some(newest));
        for before in whole {
            let path = path_of(&self.directory, before.file);
            // A file that is gone was needed by no keyspace any more.
            let Ok(after) = std::fs::metadata(&path) else { continue };
            if after.len() < before.bytes {
                return Err(Fault::corruption(format!(
                    "{} is damaged: it was synced with {} bytes, and replay ended after {}",
                    path.display(),
                    before.bytes,
                    after.len()
                )));
            }
        }
        Ok(())
    }

    /// The number of the file that is written.
    pub(super) fn newest(&self) -> Result<u64> {
        self.numbers()?.last().copied().ok_or_else(|| self.gone())
    }

    /// The number of the oldest file that `fjall` has not removed.
    pub(super) fn oldest(&self) -> Result<u64> {
        self.numbers()?.first().copied().ok_or_else(|| self.gone())
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        numbers(&self.directory)
    }

    fn gone(&self) -> Fault {
        Fault::corruption(format!("the journal of the store in {} is gone", self.directory.display()))
    }

    /// Makes durable what was written to the journal before the call. Returns how far it reaches at least.
    pub(super) fn sync(&mut self) -> Result<JournalPosition> {
        let number = self.newest()?;
        let path = path_of(&self.directory, number);
        let file = match self.newest.take() {
            Some((known, file)) if known == number => file,
            _ => io("opening", &path, File::open(&path))?,
        };
        let bytes = data_end(&path, &file)?;
        io("fsync of", &path, file.sync_data())?;
        self.newest = Some((number, file));
        Ok(JournalPosition { file: number, bytes })
    }
}

fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number}.jnl"))
}

/// The numbers of the journal files, ascending.
fn numbers(directory: &Path) -> Result<Vec<u64>> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let mut numbers = Vec::new();
    for item in io("reading", directory, std::fs::read_dir(directory))? {
        let name = io("reading", directory, item)?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_suffix(".jnl")).and_then(|number| number.parse().ok());
        numbers.extend::<Option<u64>>(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The offset behind the last byte of a file that is not zero.
fn data_end(path: &Path, file: &File) -> Result<u64> {
    const STEP: u64 = 64 << 10;
    let length = io("reading", path, file.metadata())?.len();
    // Files are created larger than their data: skip the hole behind it instead of reading it.
    let mut end = rustix::fs::seek(file, SeekFrom::Hole(0)).unwrap_or(length).min(length);
    let mut buffer = vec![0; STEP as usize];
    while end > 0 {
        let start = end.saturating_sub(STEP);
        let block = buffer.get_mut(..(end - start) as usize).unwrap_or_default();
        io("reading", path, file.read_exact_at(block, start))?;
        if let Some(last) = block.iter().rposition(|&byte| byte != 0) {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
