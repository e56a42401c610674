//! From a request to its reply: finds the command, checks its fields, runs it, turns errors into replies.
//!
//! Called by the connection task for each message. Always holds: whatever a client sends, the outcome is a reply or,
//! where a fail point says so, a closed connection; never a panic and never silence.

use base::{Code, Error, MonoTime, Result};
use document::RawDoc;

use crate::call::Call;
use crate::command::{self, Counts, Run, Spec, Timed};
use crate::fail_point::Fault;
use crate::message::Request;
use crate::reply::{Reply, is_retryable_write_error};
use crate::state::{Client, State};

/// What becomes of a request.
pub(crate) enum Outcome {
    /// The reply's body.
    Reply(Reply),
    /// The connection closes without a reply.
    Close,
}

/// Executes a request.
pub(crate) async fn run(
    state: &State,
    client: &Client,
    request: &Request,
    default_database: &str,
) -> Outcome {
    let spec = match find(state, request.body.as_raw()) {
        Ok(spec) => spec,
        Err(error) => return Outcome::Reply(Reply::from_error(&error, &[])),
    };
    count(state, spec);
    let began = state.clock.monotonic();
    let outcome = run_found(state, client, spec, request, default_database).await;
    time(state, spec, began);
    outcome
}

async fn run_found(
    state: &State,
    client: &Client,
    spec: &'static Spec,
    request: &Request,
    default_database: &str,
) -> Outcome {
    let fault = state.fail_points.check(spec.name, || client.application.lock().clone());
    let Some(fault) = fault else {
        return Outcome::Reply(execute(state, client, spec, request, default_database, None).await);
    };
    if let Some(delay) = fault.delay {
        tokio::time::sleep(delay).await;
    }
    if fault.close_connection {
        return Outcome::Close;
    }
    Outcome::Reply(execute(state, client, spec, request, default_database, Some(fault)).await)
}

/// The command that a body names. Fails with `CommandNotFound` (59).
pub(crate) fn find(state: &State, body: RawDoc<'_>) -> Result<&'static Spec> {
    let first = body.iter().next_element();
    let name = first.and_then(|element| std::str::from_utf8(element.name).ok()).unwrap_or_default();
    let spec = command::find(name).filter(|spec| !spec.test_only || state.settings.test_commands);
    spec.ok_or_else(|| Error::new(Code::COMMAND_NOT_FOUND, format!("no such command: '{name}'")))
}

async fn execute(
    state: &State,
    client: &Client,
    spec: &'static Spec,
    request: &Request,
    default_database: &str,
    fault: Option<Fault>,
) -> Reply {
    let call = match Call::new(state, client, spec, request, default_database) {
        Ok(call) => call,
        Err(error) => return failed(state, spec, &error, false, None),
    };
    let retryable = call.context.txn_number.is_some();
    if let Some(error) = fault.as_ref().and_then(|fault| fault.error.as_ref()) {
        client.end();
        return failed(
            state,
            spec,
            error,
            retryable,
            fault.as_ref().and_then(|fault| fault.labels.as_deref()),
        );
    }
    let result = match command::config_writes::check(spec, call.database) {
        Ok(()) => guarded(&call).await,
        Err(error) => Err(error),
    };
    client.end();
    let mut reply = match result {
        Ok(mut reply) => {
            add_write_concern_error(&call, &mut reply, fault.as_ref());
            reply
        }
        Err(error) => failed(state, spec, &error, retryable, None),
    };
    // Who has no session has no use for it.
    if call.context.session.is_some() {
        reply.times(state.backend.operation_time());
    }
    reply
}

async fn guarded(call: &Call<'_>) -> Result<Reply> {
    match call.spec.run {
        Run::Now(run) => run(call),
        Run::Later(run) => run(call).await,
    }
}

fn failed(state: &State, spec: &Spec, error: &Error, retryable: bool, labels: Option<&[String]>) -> Reply {
    if let Some(counts) = command::position(spec).and_then(|position| state.metrics.commands.get(position)) {
        counts.failed.add(1);
    }
    let own = match labels {
        Some(labels) => labels.to_vec(),
        None if retryable && is_retryable_write_error(error.code) => vec!["RetryableWriteError".to_owned()],
        None => Vec::new(),
    };
    Reply::from_error(error, &own)
}

/// Reports a write concern that the cluster can never meet, or that a fail point wants reported.
fn add_write_concern_error(call: &Call<'_>, reply: &mut Reply, fault: Option<&Fault>) {
    if let Some(forced) = fault.and_then(|fault| fault.write_concern_error.as_ref()) {
        let code = forced.get_i32("code").map_or(Code(0), Code);
        reply.value("writeConcernError", &bson::Bson::Document(forced.clone()));
        let labels = fault.and_then(|fault| fault.labels.clone()).unwrap_or_else(|| {
            let retryable = call.context.txn_number.is_some() && is_retryable_write_error(code);
            if retryable { vec!["RetryableWriteError".to_owned()] } else { Vec::new() }
        });
        reply.labels(&labels);
        return;
    }
    if !call.spec.writes {
        return;
    }
    let Some(concern) = &call.write_concern else { return };
    if let Some(error) = concern.unsatisfiable(call.state.backend.data_nodes()) {
        reply.begin_document("writeConcernError");
        reply.i32("code", error.code.0);
        reply.str("codeName", &error.code.name());
        reply.str("errmsg", &error.message);
        reply.end();
    }
}

fn count(state: &State, spec: &Spec) {
    if let Some(counts) = command::position(spec).and_then(|position| state.metrics.commands.get(position)) {
        counts.total.add(1);
    }
    match spec.counts {
        Counts::Query => state.metrics.operations.query.add(1),
        Counts::GetMore => state.metrics.operations.get_more.add(1),
        Counts::Command => state.metrics.operations.command.add(1),
        // By statement, when they are known.
        Counts::ByStatement => {}
    }
}

fn time(state: &State, spec: &Spec, began: MonoTime) {
    let durations = &state.metrics.durations;
    let histogram = match spec.timed {
        Timed::Read => &durations.read,
        Timed::Write => &durations.write,
        Timed::Command => &durations.command,
        Timed::Not => return,
    };
    histogram.record(state.clock.monotonic().since(began));
}
