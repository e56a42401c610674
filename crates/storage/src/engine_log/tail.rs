//! Tells a torn tail of the Raft log from damage in the middle, before `raft-engine` opens it. Called by
//! [`super::EngineRaftLog`] when it opens.
//!
//! `raft-engine` ends the replay of its newest file at the first batch that it cannot read, since that is what a torn
//! write looks like. But every batch is synced before the next one is written: when an intact batch of the same file
//! follows, the unreadable one had been synced, and what it held was acknowledged. Then the log must not open.
//!
//! The format is `raft-engine`'s version 2: a file header of a magic string, a version and an alignment (8 bytes each,
//! big-endian); batches of a header (total length and compression type in 8 bytes, offset of the footer in 8 bytes), a
//! block of entries and a footer that ends in a CRC-32 of itself, xored with the number of the file. Behind the last
//! batch lies whatever a recycled file held before, under another number.

use std::path::{Path, PathBuf};

use crate::{Fault, Result};

const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
const FILE_HEADER_BYTES: usize = MAGIC.len() + 16;
const BATCH_HEADER_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;

/// Faults when the newest file of the log in `directory` has an intact batch behind one that cannot be read.
pub(super) fn check(directory: &Path) -> Result<()> {
    let Some((number, path)) = newest_file(directory)? else { return Ok(()) };
    let bytes = std::fs::read(&path)
        .map_err(|error| Fault::io(format!("reading {} failed: {error}", path.display())))?;
    if !bytes.starts_with(MAGIC) {
        // A file that was being created; `raft-engine` starts it again.
        return Ok(());
    }
    let mut end = FILE_HEADER_BYTES;
    while let Some(length) = batch_at(&bytes, end, number) {
        end += length;
    }
    match (end + 1..bytes.len()).find(|&start| batch_at(&bytes, start, number).is_some()) {
        None => Ok(()),
        Some(next) => Err(Fault::corruption(format!(
            "{} is damaged at byte {end}: an intact batch follows at byte {next}, so that what lies between was synced",
            path.display()
        ))),
    }
}

/// The newest file of entries, with its number.
fn newest_file(directory: &Path) -> Result<Option<(u64, PathBuf)>> {
    if !directory.is_dir() {
        return Ok(None);
    }
    let failed = |error| Fault::io(format!("reading {} failed: {error}", directory.display()));
    let mut newest = None;
    for item in std::fs::read_dir(directory).map_err(failed)? {
        let path = item.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(".raftlog")).and_then(|name| name.parse().ok());
        newest = newest.max(number.map(|number| (number, path)));
    }
    Ok(newest)
}

/// The length of the batch at `start`, if there is one whose footer is intact and belongs to file `number`.
fn batch_at(file: &[u8], start: usize, number: u64) -> Option<usize> {
    let bytes = file.get(start..)?;
    let header = u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    let footer = usize::try_from(u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?)).ok()?;
    let (length, compression) = (usize::try_from(header >> 8).ok()?, header as u8);
    if compression > 1 || footer < BATCH_HEADER_BYTES || footer > length {
        return None;
    }
    let (body, checksum) = bytes.get(footer..length)?.split_last_chunk::<CHECKSUM_BYTES>()?;
    let intact = !body.is_empty() && u32::from_le_bytes(*checksum) ^ number as u32 == crc32fast::hash(body);
    intact.then_some(length)
}
