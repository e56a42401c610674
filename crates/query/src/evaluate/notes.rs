//! Notes of what changes in a shard whose place others are about to take: which keys each command wrote.
//!
//! Called for every command of a shard that notes. Whoever copies the shard reads them in order behind its scan, and sends
//! what is under those keys by then. Always holds: a note is in the same batch as the changes that it is about.

use base::{Code, Error, Timestamp};
use storage::{Direction, Fault, KvBatch};

use super::{Evaluation, Reader, ShardReply};
use crate::encoding;
use crate::state::ShardState;

/// Adds a note of what the batch changes of documents and retry records, if it changes any.
pub(super) fn note(batch: &mut KvBatch, commit: Timestamp) {
    let tags = [encoding::TAG_DOCUMENT, encoding::TAG_RETRY];
    let is_copied = |key: &[u8]| key.first().is_some_and(|tag| tags.contains(tag));
    let mut keys = batch.ops.iter().map(|op| op.key()).filter(|key| is_copied(key)).peekable();
    if keys.peek().is_some() {
        let note = encoding::encode_note(keys);
        batch.put(encoding::note_key(commit), note);
    }
}

/// Removes notes that nobody will read.
pub(super) fn purge(state: &ShardState, reader: &dyn Reader, limit: usize) -> Result<Evaluation, Fault> {
    if state.noting.is_some() {
        let message = "The shard's notes of changes are in use and cannot be purged";
        return Ok(Evaluation::refused(Error::new(Code::ILLEGAL_OPERATION, message)));
    }
    let mut batch = KvBatch::default();
    for entry in
        reader.scan(encoding::notes_after(Timestamp::default()), Direction::Forward).take(limit.max(1))
    {
        batch.delete(entry?.0);
    }
    let done = batch.ops.len() < limit.max(1);
    Ok(Evaluation::new(batch, Ok(ShardReply::NotesPurged { done })))
}
