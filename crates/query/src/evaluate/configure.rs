//! Changes of a shard's state, and the slow work that indexes need: backfill and purge.
//!
//! Called through `evaluate`. Always holds: a change that was made already changes nothing, so that the caller may
//! send it again.

use base::{Code, Error, IndexId, Namespace, ReshardId, Timestamp};
use bytes::Bytes;
use storage::{Direction, Fault, KvBatch};

use super::maintain::Maintainer;
use super::scratch::Scratch;
use super::{ConfigChange, Evaluation, Reader, ShardReply, Stop, split};
use crate::encoding;
use crate::state::{IndexStatus, ShardIndex, ShardState};

pub(super) fn change(state: &ShardState, change: &ConfigChange) -> Evaluation {
    let mut new = state.clone();
    match apply(&mut new, change) {
        Ok(()) => with_state(state, new, KvBatch::default(), ShardReply::Configured),
        Err(error) => Evaluation::refused(error),
    }
}

fn apply(state: &mut ShardState, change: &ConfigChange) -> base::Result<()> {
    match change {
        ConfigChange::AddIndex(spec) => {
            if state.index(spec.id).is_none() {
                state.indexes.push(ShardIndex::new(spec.clone(), IndexStatus::Maintained));
                state.indexes.sort_by_key(|index| index.spec.id);
            }
        }
        ConfigChange::MarkReady(id) => {
            let index = state.index_mut(*id).ok_or_else(|| no_index(*id))?;
            if index.status == IndexStatus::Dropping {
                return Err(no_index(*id));
            }
            index.status = IndexStatus::Ready;
        }
        ConfigChange::DropIndex(id) => {
            if let Some(index) = state.index_mut(*id) {
                index.status = IndexStatus::Dropping;
            }
        }
        ConfigChange::Note(reshard) => match state.noting {
            Some(other) if other != *reshard => return Err(other_reshard(*reshard)),
            _ => state.noting = Some(*reshard),
        },
        ConfigChange::Seal(reshard) => match state.noting {
            Some(noting) if noting == *reshard => state.sealed = true,
            _ => return Err(other_reshard(*reshard)),
        },
        ConfigChange::Reopen(reshard) => {
            if state.noting == Some(*reshard) {
                state.noting = None;
                state.sealed = false;
            }
        }
    }
    Ok(())
}

pub(super) fn backfill(
    state: &ShardState,
    reader: &dyn Reader,
    namespace: &Namespace,
    index: IndexId,
    document_keys: &[Bytes],
) -> Result<Evaluation, Fault> {
    let Some(index) = state.index(index).filter(|index| index.is_maintained()) else {
        return Ok(Evaluation::refused(no_index(index)));
    };
    // The commit timestamp stamps documents, and a backfill writes none.
    let maintainer = Maintainer { state, namespace, commit: Timestamp::default(), checks_unique: true };
    let mut scratch = Scratch::new(reader, true);
    match split(fill_all(&maintainer, &mut scratch, index, document_keys))? {
        Err(error) => Ok(Evaluation::refused(error)),
        Ok(entries) => Ok(scratch.finish(state, ShardReply::Backfilled { entries })),
    }
}

fn fill_all(
    maintainer: &Maintainer<'_>,
    scratch: &mut Scratch<'_>,
    index: &ShardIndex,
    document_keys: &[Bytes],
) -> Result<u64, Stop> {
    let mut entries = 0;
    for key in document_keys {
        let Some(value) = scratch.get(key)? else { continue };
        let document = encoding::decode_document(key, &value)?.document;
        entries += maintainer.fill(scratch, index, key, &document)?;
    }
    Ok(entries)
}

pub(super) fn purge(
    state: &ShardState,
    reader: &dyn Reader,
    index: IndexId,
    limit: usize,
) -> Result<Evaluation, Fault> {
    match state.index(index).map(|index| index.status) {
        None => {
            let reply = ShardReply::Purged { entries: 0, done: true };
            return Ok(Evaluation::new(KvBatch::default(), Ok(reply)));
        }
        Some(IndexStatus::Dropping) => {}
        Some(_) => {
            let message = format!("Index {} is in use and cannot be purged", index.get());
            return Ok(Evaluation::refused(Error::new(Code::ILLEGAL_OPERATION, message)));
        }
    }
    let mut batch = KvBatch::default();
    let mut done = true;
    for entry in reader.scan(encoding::index_range(index), Direction::Forward) {
        let (key, _) = entry?;
        if batch.ops.len() >= limit.max(1) {
            done = false;
            break;
        }
        batch.delete(key);
    }
    let entries = batch.ops.len() as u64;
    let mut new = state.clone();
    if done {
        new.indexes.retain(|kept| kept.spec.id != index);
    }
    Ok(with_state(state, new, batch, ShardReply::Purged { entries, done }))
}

/// Puts `new` into the batch when it differs from `old`.
pub(super) fn with_state(
    old: &ShardState,
    new: ShardState,
    mut batch: KvBatch,
    reply: ShardReply,
) -> Evaluation {
    if new == *old {
        return Evaluation::new(batch, Ok(reply));
    }
    batch.put(encoding::STATE_KEY, new.encode());
    Evaluation { new_state: Some(new), ..Evaluation::new(batch, Ok(reply)) }
}

fn other_reshard(reshard: ReshardId) -> Error {
    Error::new(Code::ILLEGAL_OPERATION, format!("The shard does not note its changes for {reshard}"))
}

fn no_index(id: IndexId) -> Error {
    Error::new(Code::INDEX_NOT_FOUND, format!("The shard has no index with id {}", id.get()))
}
