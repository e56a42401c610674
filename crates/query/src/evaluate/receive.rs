//! What a shard takes from those whose place it is about to take: their documents and retry records.
//!
//! Called through `evaluate` until every source is complete. Always holds: batches of one source are taken in the order of
//! their numbers, from its newest driver, each once; whatever is sent is the newest that the source had, so
//! that a key which is sent again gets its newer value.

use base::{Code, Error, Namespace, ShardId};
use bytes::Bytes;
use document::DocBuf;
use storage::Fault;

use super::configure::with_state;
use super::maintain::Maintainer;
use super::scratch::Scratch;
use super::{Evaluation, Reader, ShardReply, Stop, split};
use crate::encoding;
use crate::state::{Driver, Origin, Reached, ShardState, Source};

/// A piece of a shard on its way to another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The shard that is copied.
    pub source: ShardId,
    /// Who copies it, and sends this.
    pub driver: Driver,
    /// Counts the driver's batches; 0 begins, carries nothing, and asks how far copying has come.
    pub number: u64,
    /// Keys with their values of now; without one where there is none any more.
    pub pairs: Vec<(Bytes, Option<Bytes>)>,
    /// How far copying has come with this batch.
    pub reached: Reached,
    /// With number 0: the shards whose retry records come with it.
    pub origins: Vec<Origin>,
}

impl Batch {
    /// Bytes of what it carries.
    pub fn size_bytes(&self) -> usize {
        self.pairs.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum()
    }
}

pub(super) fn evaluate(state: &ShardState, reader: &dyn Reader, batch: &Batch) -> Result<Evaluation, Fault> {
    let Some(source) = state.receiving.iter().find(|source| source.shard == batch.source) else {
        return Ok(no_more(state, batch));
    };
    if batch.driver < source.driver {
        return Ok(refuse(format!("{} is copied by somebody who began later", batch.source)));
    }
    if batch.number == 0 {
        return Ok(begin(state, batch));
    }
    if batch.driver > source.driver || batch.number > source.number + 1 {
        return Ok(refuse(format!("batch {} of {} comes out of turn", batch.number, batch.source)));
    }
    if batch.number <= source.number {
        return Ok(received(state, state.clone(), source.clone()));
    }
    take(state, reader, batch)
}

/// A source that is complete sends nothing more, and one that is not known should not.
fn no_more(state: &ShardState, batch: &Batch) -> Evaluation {
    if state.origins.iter().all(|origin| origin.shard != batch.source) {
        return refuse(format!("the shard does not take anything from {}", batch.source));
    }
    let reached = Reached { complete: true, all_scanned: true, ..Reached::default() };
    let done = Source { shard: batch.source, driver: batch.driver, number: batch.number, reached };
    received(state, state.clone(), done)
}

fn begin(state: &ShardState, batch: &Batch) -> Evaluation {
    let mut new = state.clone();
    for origin in &batch.origins {
        match new.origins.iter_mut().find(|known| known.shard == origin.shard) {
            // It was split before, and one of its parts counts for it.
            Some(known) => known.counts |= origin.counts,
            None => new.origins.push(origin.clone()),
        }
    }
    let source = new.source_mut(batch.source).expect("the caller found it");
    // A beginning that is sent again, late, begins nothing.
    if source.driver < batch.driver {
        (source.driver, source.number) = (batch.driver, 0);
    }
    let source = source.clone();
    received(state, new, source)
}

fn take(state: &ShardState, reader: &dyn Reader, batch: &Batch) -> Result<Evaluation, Fault> {
    let mut scratch = Scratch::new(reader, true);
    for (key, value) in &batch.pairs {
        match split(put(state, &mut scratch, key, value.as_ref()))? {
            Ok(()) => {}
            Err(error) => return Ok(Evaluation::refused(error)),
        }
    }
    let mut new = scratch.state_with_arrays(state);
    let source = new.source_mut(batch.source).expect("the caller found it");
    source.number = batch.number;
    source.reached = batch.reached.clone();
    let source = source.clone();
    new.receiving.retain(|source| !source.reached.complete);
    Ok(scratch.finish_with(state, new, ShardReply::Received(source)))
}

/// Gives a key the value that the source has under it.
fn put(
    state: &ShardState,
    scratch: &mut Scratch<'_>,
    key: &Bytes,
    value: Option<&Bytes>,
) -> Result<(), Stop> {
    if key.first() != Some(&encoding::TAG_DOCUMENT) {
        scratch.set(key, value.cloned());
        return Ok(());
    }
    let old = scratch.get(key)?;
    let old = old.map(|old| encoding::decode_document(key, &old)).transpose()?;
    // It comes from another node: damage on the way is no fault of this one's store.
    let damaged =
        |fault: Fault| Error::new(Code::INTERNAL_ERROR, format!("a copied document is damaged: {fault}"));
    let new = value.map(|new| encoding::decode_document(key, new).map_err(damaged)).transpose()?;
    let commit = new.as_ref().map_or_else(Default::default, |new| new.commit);
    let namespace = Namespace::new("a", "b").expect("two letters are names");
    let maintainer = Maintainer { state, namespace: &namespace, commit, checks_unique: false };
    let document = |stored: encoding::StoredDocument| -> DocBuf { stored.document };
    match (old.map(document), new.map(document)) {
        (None, Some(new)) => maintainer.insert(scratch, key, &new),
        (Some(old), Some(new)) => {
            let touched: Vec<_> = state.indexes.iter().filter(|index| index.is_maintained()).collect();
            maintainer.replace(scratch, key, &old, &new, &touched)
        }
        (Some(old), None) => {
            maintainer.remove(scratch, key, &old);
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

fn received(old: &ShardState, new: ShardState, source: Source) -> Evaluation {
    with_state(old, new, storage::KvBatch::default(), ShardReply::Received(source))
}

fn refuse(message: String) -> Evaluation {
    Evaluation::refused(Error::new(Code::ILLEGAL_OPERATION, message))
}
