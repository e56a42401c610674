//! What the write commands have in common: their reply, and the rules of retryable writes.

use base::limits::WRITE_BATCH_MAX;
use base::{Code, Error, Result};
use router::command::WriteReply;

use crate::call::Call;
use crate::message::batch_size_error;
use crate::reply::{ArrayIndex, Reply};

/// Fails when a batch is empty or too long: `InvalidLength` (16).
pub(crate) fn check_batch_size(statements: usize) -> Result<()> {
    if (1..=WRITE_BATCH_MAX).contains(&statements) { Ok(()) } else { Err(batch_size_error(statements)) }
}

/// Fails when a retryable write has a statement that may touch several documents: such a statement cannot be
/// repeated harmlessly as one.
pub(crate) fn check_retryable(call: &Call<'_>, any_multi: bool, what: &str) -> Result<()> {
    if call.context.txn_number.is_some() && any_multi {
        let message = format!("Cannot use (or request) retryable writes with {what}");
        return Err(Error::new(Code::INVALID_OPTIONS, message));
    }
    Ok(())
}

/// The reply to insert, update or delete.
pub(crate) fn write_reply(outcome: &WriteReply, with_modified: bool) -> Reply {
    let mut reply = Reply::new();
    reply.count("n", outcome.n);
    if with_modified {
        reply.count("nModified", outcome.n_modified);
    }
    if !outcome.upserted.is_empty() {
        reply.begin_array("upserted");
        let mut position = ArrayIndex::default();
        for (index, id) in &outcome.upserted {
            reply.begin_document(position.next());
            reply.count("index", *index as u64);
            reply.value("_id", id);
            reply.end();
        }
        reply.end();
    }
    if !outcome.write_errors.is_empty() {
        write_errors(&mut reply, &outcome.write_errors);
    }
    if !outcome.retried_statement_ids.is_empty() {
        let ids: Vec<bson::Bson> =
            outcome.retried_statement_ids.iter().map(|id| bson::Bson::Int32(*id)).collect();
        reply.values("retriedStmtIds", &ids);
    }
    reply.ok()
}

fn write_errors(reply: &mut Reply, errors: &[(usize, Error)]) {
    reply.begin_array("writeErrors");
    let mut position = ArrayIndex::default();
    for (index, error) in errors {
        reply.begin_document(position.next());
        reply.count("index", *index as u64);
        reply.i32("code", error.code.0);
        reply.str("errmsg", &error.message);
        if let Some(details) = &error.details {
            reply.fields_of(details);
        }
        reply.end();
    }
    reply.end();
}
