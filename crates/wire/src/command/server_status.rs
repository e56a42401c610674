//! `serverStatus`: counters and sizes of the running server.

use std::sync::atomic::Ordering;
use std::time::Duration;

use base::Result;
use bson::{Bson, Document, doc};

use super::Spec;
use crate::MONGODB_VERSION;
use crate::call::Call;
use crate::metrics::Counter;
use crate::reply::Reply;
use crate::state::State;

pub(crate) const SPEC: Spec = Spec {
    // Any field but the known ones switches a section on or off; every section is cheap and always there.
    any_fields: true,
    ..Spec::now("serverStatus", "Counters and sizes of the running server.", run)
};

const MIB: u64 = 1024 * 1024;

fn run(call: &Call<'_>) -> Result<Reply> {
    let state = call.state;
    let uptime: Duration = state.clock.monotonic().since(state.started);
    let (resident_bytes, virtual_bytes) = state.facts.memory();
    let metrics = &state.metrics;
    let document = doc! {
        "host": state.facts.host_name(),
        "version": MONGODB_VERSION,
        "process": "psdb",
        "pid": i64::from(std::process::id()),
        "uptime": uptime.as_secs_f64(),
        "uptimeMillis": i64::try_from(uptime.as_millis()).unwrap_or(i64::MAX),
        "uptimeEstimate": long(uptime.as_secs()),
        "localTime": bson::DateTime::from_millis(state.clock.wall_ms()),
        "connections": connections(state),
        "network": {
            "bytesIn": count(&metrics.bytes_in),
            "bytesOut": count(&metrics.bytes_out),
            "numRequests": count(&metrics.requests),
        },
        "opcounters": {
            "insert": count(&metrics.operations.insert),
            "query": count(&metrics.operations.query),
            "update": count(&metrics.operations.update),
            "delete": count(&metrics.operations.delete),
            "getmore": count(&metrics.operations.get_more),
            "command": count(&metrics.operations.command),
        },
        "mem": {
            "bits": i32::try_from(usize::BITS).unwrap_or(64),
            "resident": long(resident_bytes / MIB),
            "virtual": long(virtual_bytes / MIB),
            "supported": true,
        },
        "metrics": {
            "commands": commands(state),
            "cursor": { "open": { "total": long(state.open_cursors() as u64) } },
        },
        "psdb": state.facts.status(),
    };
    Ok(Reply::from_document(&document).ok())
}

fn connections(state: &State) -> Document {
    let current = state.metrics.connections.load(Ordering::Relaxed);
    let limit = i64::try_from(state.settings.connections_max).unwrap_or(i64::MAX);
    doc! {
        "current": current,
        "available": limit.saturating_sub(current),
        "totalCreated": count(&state.metrics.connections_created),
        "rejected": count(&state.metrics.connections_rejected),
        "active": long(state.active_connections() as u64),
    }
}

fn commands(state: &State) -> Document {
    let by_name = state.command_counts();
    by_name
        .map(|(name, counts)| {
            let counts = doc! { "total": count(&counts.total), "failed": count(&counts.failed) };
            (name.to_owned(), Bson::Document(counts))
        })
        .collect()
}

fn count(counter: &Counter) -> i64 {
    long(counter.get())
}

fn long(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
