//! Evaluation of a client's inserts, updates and deletes.
//!
//! Called through `evaluate`. Always holds: every candidate is checked again on its current version, so that what was
//! found outside the owner loop may be stale; statements see what earlier ones of the same request did; a repeated
//! statement answers what is recorded and writes nothing.

use base::limits::{DOCUMENT_BYTES_MAX, NESTING_MAX};
use base::{Code, Error};
use bson::Bson;
use bytes::Bytes;
use document::filter::Filter;
use document::update::Update;
use document::{DocBuf, DocRef, EvalContext, RawDoc, Value};
use storage::{Fault, KvBatch};

use super::evaluator::Records;
use super::maintain::Maintainer;
use super::retry::{Past, Remembered, sum};
use super::retry_record::RetryRecord;
use super::scratch::Scratch;
use super::{
    Candidates, Evaluation, Outcome, Reader, ReturnDocument, ShardReply, Statement, StatementResult, Stop,
    WriteContext, WriteOp, WriteRequest, split,
};
use crate::encoding;
use crate::state::{Origin, ShardState};

pub(super) fn evaluate(
    state: &ShardState,
    records: &Records,
    cx: &WriteContext,
    reader: &dyn Reader,
    request: &WriteRequest,
) -> Result<Evaluation, Fault> {
    let routed = check_route(state, request);
    #[cfg(feature = "bugs")]
    let routed = if cx.route_unchecked { Ok(()) } else { routed };
    if let Err(error) = routed {
        return Ok(Evaluation::refused(error));
    }
    let mut remembered = match &request.session {
        None => None,
        Some((session, txn)) => match records.load(state, reader, *session, *txn)? {
            Ok(remembered) => Some(remembered),
            Err(error) => return Ok(Evaluation::refused(error)),
        },
    };
    let remember = request.statements.len() > 1 || request.statements.iter().any(Statement::is_multi);
    let mut scratch = Scratch::new(reader, remember);
    let writer = Writer {
        maintainer: Maintainer {
            state,
            namespace: &request.namespace,
            commit: cx.commit_timestamp,
            checks_unique: true,
        },
        eval: EvalContext::new(cx.now, cx.commit_timestamp).with_variables(request.variables.clone()),
    };
    if !is_allowed(records, request) {
        let outcome = Ok(Outcome::LostCandidate);
        let lost = StatementResult { statement: 0, outcome, repeated: false };
        return Ok(Evaluation::new(KvBatch::default(), Ok(ShardReply::Write(vec![lost]))));
    }
    let results = run_all(&writer, &mut scratch, request, remembered.as_mut())?;
    let written = match (remembered, request.session) {
        (Some(mut remembered), Some((session, _))) if !scratch.is_unchanged() => {
            for (key, page) in remembered.own.store(session, cx.now.timestamp_millis()) {
                scratch.put(key, page);
            }
            Some((session, remembered.own, remembered.all_taken))
        }
        _ => None,
    };
    Ok(Evaluation { record: written, ..scratch.finish(state, ShardReply::Write(results)) })
}

fn check_route(state: &ShardState, request: &WriteRequest) -> base::Result<()> {
    if !state.serves() {
        let message =
            "The shard does not serve: others take its place, or it is about to take that of others";
        return Err(Error::new(Code::STALE_CONFIG, message));
    }
    if state.epoch != request.epoch {
        let message = format!(
            "The request was routed by version {} of the shard map of {}, the shard serves {}",
            request.epoch.get(),
            request.namespace,
            state.epoch.get()
        );
        return Err(Error::new(Code::STALE_CONFIG, message));
    }
    Ok(())
}

/// Whether no other attempt at the request's statement has asked for it here since. A repeat of what was executed is none.
fn is_allowed(records: &Records, request: &WriteRequest) -> bool {
    let (Some(fence), Some(session)) = (&request.fence, request.session) else { return true };
    let statement = request.statements.first();
    statement.is_some_and(|statement| records.fences.allows(session, statement.stmt_id, fence))
}

/// Runs statements in order; stops after the first failure of an ordered request.
fn run_all(
    writer: &Writer<'_>,
    scratch: &mut Scratch<'_>,
    request: &WriteRequest,
    mut remembered: Option<&mut Remembered<'_>>,
) -> Result<Vec<StatementResult>, Fault> {
    let mut results = Vec::with_capacity(request.statements.len());
    for (position, statement) in request.statements.iter().enumerate() {
        let stmt_id = statement.stmt_id;
        let is_multi = statement.is_multi();
        let past = remembered.as_ref().map(|known| known.past(writer.maintainer.state, stmt_id, is_multi));
        let Past { outcome: recorded, is_complete, after, elsewhere } = past.unwrap_or_default();
        if let (Some(outcome), true) = (&recorded, is_complete) {
            results.push(StatementResult {
                statement: position,
                outcome: Ok(outcome.clone()),
                repeated: true,
            });
            continue;
        }
        let mut walk = Walk { after, elsewhere, reached: None };
        let outcome = split(writer.run(scratch, &statement.op, &mut walk))?;
        let outcome = outcome.map(|outcome| recorded.iter().cloned().fold(outcome, sum));
        let failed = matches!(outcome, Err(_) | Ok(Outcome::LostCandidate));
        if let Some(Remembered { own: record, .. }) = remembered.as_deref_mut() {
            match &outcome {
                Ok(Outcome::LostCandidate) => {}
                Ok(outcome) if !statement.has_more() => record.add(stmt_id, outcome),
                // A repeat goes on behind the last candidate that was dealt with, also when the next one failed.
                _ => walk.note(stmt_id, recorded, record),
            }
        }
        results.push(StatementResult { statement: position, outcome, repeated: false });
        if failed && request.ordered {
            break;
        }
    }
    Ok(results)
}

impl Statement {
    fn is_multi(&self) -> bool {
        matches!(self.op, WriteOp::Update { multi: true, .. } | WriteOp::Delete { multi: true, .. })
    }

    /// Whether later requests bring more candidates for it.
    fn has_more(&self) -> bool {
        match &self.op {
            WriteOp::Update { candidates, .. } | WriteOp::Delete { candidates, .. } => candidates.more,
            WriteOp::Insert { .. } => false,
        }
    }
}

/// How far a statement of many documents has come.
struct Walk<'a> {
    /// Candidates up to this key were dealt with by earlier requests.
    after: Option<Bytes>,
    /// Candidates that were dealt with in the shards that they came from.
    elsewhere: Vec<(&'a Origin, Option<Bytes>)>,
    /// The last candidate that this request dealt with, and what it did up to there.
    reached: Option<(Bytes, Outcome)>,
}

impl Walk<'_> {
    fn skips(&self, key: &Bytes) -> bool {
        self.after.as_ref().is_some_and(|after| key <= after)
    }

    /// Whether the document was dealt with in the shard that it came from.
    fn has_passed(&self, key: &Bytes, document: &DocBuf) -> bool {
        let upto = |upto: &Option<Bytes>| upto.as_ref().is_none_or(|upto| key <= upto);
        self.elsewhere.iter().any(|(origin, reached)| upto(reached) && origin.had(document.as_doc()))
    }

    fn note(self, stmt_id: i32, recorded: Option<Outcome>, record: &mut RetryRecord) {
        if let Some((position, outcome)) = self.reached {
            record.add_partial(stmt_id, &recorded.into_iter().fold(outcome, sum), position);
        }
    }
}

/// Evaluates single statements.
struct Writer<'a> {
    maintainer: Maintainer<'a>,
    eval: EvalContext,
}

impl Writer<'_> {
    fn run(&self, scratch: &mut Scratch<'_>, op: &WriteOp, walk: &mut Walk<'_>) -> Result<Outcome, Stop> {
        match op {
            WriteOp::Insert { document } => {
                check_size_for_insert(document)?;
                self.insert(scratch, document)?;
                Ok(Outcome::Inserted)
            }
            WriteOp::Update { candidates, filter, update, upsert, multi, return_document } => {
                let walk = multi.then_some(walk);
                let found = self.update(scratch, candidates, filter, update, walk, *return_document)?;
                let Outcome::Updated { matched: 0, .. } = found else { return Ok(found) };
                if candidates.may_be_stale() && (upsert.is_some() || !multi) {
                    return Ok(Outcome::LostCandidate);
                }
                match upsert {
                    Some(id) => self.upsert(scratch, filter, update, id, *return_document),
                    None => Ok(found),
                }
            }
            WriteOp::Delete { candidates, filter, multi, return_document } => {
                let walk = multi.then_some(walk);
                let found = self.delete(scratch, candidates, filter, walk, *return_document)?;
                match found {
                    Outcome::Deleted { deleted: 0, .. } if candidates.may_be_stale() && !multi => {
                        Ok(Outcome::LostCandidate)
                    }
                    _ => Ok(found),
                }
            }
        }
    }

    fn insert(&self, scratch: &mut Scratch<'_>, document: &DocBuf) -> Result<(), Stop> {
        let id = document.as_doc().get("_id");
        let id = id.ok_or_else(|| Error::new(Code::INVALID_ID_FIELD, "The document has no '_id' value"))?;
        check_id(&id)?;
        self.check_owned(document)?;
        self.maintainer.insert(scratch, &encoding::document_key(&id), document)
    }

    fn update(
        &self,
        scratch: &mut Scratch<'_>,
        candidates: &Candidates,
        filter: &Filter,
        update: &Update,
        mut walk: Option<&mut Walk<'_>>,
        return_document: ReturnDocument,
    ) -> Result<Outcome, Stop> {
        let touched = self.maintainer.touched(update);
        let moves = self.may_move(update);
        let (mut matched, mut modified, mut returned) = (0, 0, None);
        for key in &candidates.keys {
            if walk.as_ref().is_some_and(|walk| walk.skips(key)) {
                continue;
            }
            let Some(old) = read(scratch, key)? else { continue };
            if walk.as_ref().is_some_and(|walk| walk.has_passed(key, &old)) {
                continue;
            }
            let Some(details) = filter.matches_positional(old.as_doc(), &self.eval)? else { continue };
            matched += 1;
            let new = update.apply(old.as_doc(), Some(&details), &self.eval)?;
            if let Some(new) = &new {
                check_updated(key, new)?;
                if moves {
                    self.check_stays(new)?;
                }
                self.maintainer.replace(scratch, key, &old, new, &touched)?;
                modified += 1;
            }
            returned = match return_document {
                ReturnDocument::None => None,
                ReturnDocument::Before => Some(old),
                ReturnDocument::After => Some(new.unwrap_or(old)),
            };
            let Some(walk) = &mut walk else { break };
            let outcome = Outcome::Updated { matched, modified, upserted: None, document: None };
            walk.reached = Some((key.clone(), outcome));
        }
        Ok(Outcome::Updated { matched, modified, upserted: None, document: returned })
    }

    /// Whether an update may give a document another shard key.
    fn may_move(&self, update: &Update) -> bool {
        let state = self.maintainer.state;
        !state.owns_everything() && state.shard_key.paths().iter().any(|path| update.touches(path))
    }

    /// Fails when an updated document belongs to another shard.
    fn check_stays(&self, document: &DocBuf) -> base::Result<()> {
        let state = self.maintainer.state;
        if state.hash_range.contains(state.shard_key.hash(document.as_doc())?) {
            return Ok(());
        }
        let fields: Vec<String> = state.shard_key.clone().into();
        let message = format!(
            "The update would move a document of {} to another shard by changing its shard key ({}), which is not supported \
             yet: delete the document, and insert it with its new key",
            self.maintainer.namespace,
            fields.join(", ")
        );
        Err(Error::new(Code::ILLEGAL_OPERATION, message))
    }

    /// Fails when a new document belongs to another shard, or to none.
    fn check_owned(&self, document: &DocBuf) -> base::Result<()> {
        let state = self.maintainer.state;
        if state.owns_everything() {
            return Ok(());
        }
        let hash = state.shard_key.hash(document.as_doc())?;
        if state.hash_range.contains(hash) {
            return Ok(());
        }
        let message = format!(
            "The document's shard key does not belong to this shard of {}: an upsert may not give a document another shard \
             key than its filter says",
            self.maintainer.namespace
        );
        Err(Error::new(Code::ILLEGAL_OPERATION, message))
    }

    fn upsert(
        &self,
        scratch: &mut Scratch<'_>,
        filter: &Filter,
        update: &Update,
        id: &Bson,
        return_document: ReturnDocument,
    ) -> Result<Outcome, Stop> {
        let document = update.upsert_document(filter, id.clone(), &self.eval)?;
        check_size_for_update(&document)?;
        match self.insert(scratch, &document) {
            Ok(()) => {}
            // Someone inserted what the filter looks for since the candidates were sought.
            Err(Stop::Duplicate { document_key, error }) => {
                let taken = read(scratch, &document_key)?;
                let matches = match &taken {
                    Some(taken) => filter.matches(taken.as_doc(), &self.eval)?,
                    None => false,
                };
                return if matches { Ok(Outcome::LostCandidate) } else { Err(Stop::Error(error)) };
            }
            Err(stop) => return Err(stop),
        }
        let upserted = document.as_doc().get("_id").map(|id| id.to_bson());
        let document = (return_document == ReturnDocument::After).then_some(document);
        Ok(Outcome::Updated { matched: 0, modified: 0, upserted, document })
    }

    fn delete(
        &self,
        scratch: &mut Scratch<'_>,
        candidates: &Candidates,
        filter: &Filter,
        mut walk: Option<&mut Walk<'_>>,
        return_document: ReturnDocument,
    ) -> Result<Outcome, Stop> {
        let (mut deleted, mut returned) = (0, None);
        for key in &candidates.keys {
            if walk.as_ref().is_some_and(|walk| walk.skips(key)) {
                continue;
            }
            let Some(old) = read(scratch, key)? else { continue };
            if walk.as_ref().is_some_and(|walk| walk.has_passed(key, &old)) {
                continue;
            }
            if !filter.matches(old.as_doc(), &self.eval)? {
                continue;
            }
            self.maintainer.remove(scratch, key, &old);
            deleted += 1;
            returned = (return_document == ReturnDocument::Before).then_some(old);
            let Some(walk) = &mut walk else { break };
            walk.reached = Some((key.clone(), Outcome::Deleted { deleted, document: None }));
        }
        Ok(Outcome::Deleted { deleted, document: returned })
    }
}

impl Candidates {
    /// Whether there were candidates, and other documents may match although none of them does any more.
    fn may_be_stale(&self) -> bool {
        !self.exact && !self.keys.is_empty()
    }
}

fn read(scratch: &Scratch<'_>, key: &[u8]) -> Result<Option<DocBuf>, Stop> {
    let Some(value) = scratch.get(key)? else { return Ok(None) };
    Ok(Some(encoding::decode_document(key, &value)?.document))
}

fn check_id(id: &Value<'_>) -> base::Result<()> {
    match id {
        Value::Array(_) | Value::Regex { .. } | Value::Undefined => {
            let message = format!("The '_id' value cannot be of type {}", id.kind().name());
            Err(Error::new(Code::INVALID_ID_FIELD, message))
        }
        Value::Document(document) => check_id_document(*document),
        _ => Ok(()),
    }
}

fn check_id_document(id: DocRef<'_>) -> base::Result<()> {
    match id.iter().find(|(name, _)| name.starts_with('$')) {
        None => Ok(()),
        Some((name, _)) => {
            let message =
                format!("_id fields may not contain '$'-prefixed fields: {name} is not valid for storage.");
            Err(Error::new(Code::DOLLAR_PREFIXED_FIELD_NAME, message))
        }
    }
}

fn check_size_for_insert(document: &DocBuf) -> base::Result<()> {
    let bytes = document.bytes().len();
    if bytes <= DOCUMENT_BYTES_MAX {
        return Ok(());
    }
    Err(Error::bad_value(format!(
        "object to insert too large. size in bytes: {bytes}, max size: {DOCUMENT_BYTES_MAX}"
    )))
}

/// Checks what an update made: it may have grown too large or too deep, or have another `_id`.
fn check_updated(document_key: &Bytes, new: &DocBuf) -> base::Result<()> {
    check_size_for_update(new)?;
    let id = new.as_doc().get("_id").unwrap_or(Value::Undefined);
    if encoding::document_key(&id) == document_key[..] {
        return Ok(());
    }
    let message = format!(
        "After applying the update, the (immutable) field '_id' was found to have been altered to _id: {}",
        document::display::show_value(&id)
    );
    Err(Error::new(Code::IMMUTABLE_FIELD, message))
}

fn check_size_for_update(document: &DocBuf) -> base::Result<()> {
    if document.bytes().len() > DOCUMENT_BYTES_MAX {
        let message = format!("Resulting document after update is larger than {DOCUMENT_BYTES_MAX}");
        return Err(Error::new(Code(17_419), message));
    }
    if is_deeper_than(document.as_raw(), NESTING_MAX) {
        let message = format!("The resulting document exceeds {NESTING_MAX} levels of nesting");
        return Err(Error::new(Code::OVERFLOW, message));
    }
    Ok(())
}

/// Whether a document has more than `levels` levels, itself included.
fn is_deeper_than(document: RawDoc<'_>, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return true };
    let mut fields = document.iter();
    while let Some(element) = fields.next_element() {
        if matches!(element.tag, 0x03 | 0x04) && is_deeper_than(RawDoc::new(element.value), below) {
            return true;
        }
    }
    false
}
