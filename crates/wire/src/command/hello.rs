//! `hello` and its older spellings: what the server is, agreed compression, and word when that changes.
//!
//! Every node acts as a router, so that drivers treat a cluster as routers they may choose from.

use std::time::Duration;

use base::limits::{DOCUMENT_BYTES_MAX, MESSAGE_BYTES_MAX, SESSION_IDLE_MS_MAX, WRITE_BATCH_MAX};
use base::{Code, Error, Result};
use document::{DocRef, Value};
use futures::FutureExt;
use futures::future::BoxFuture;
use tracing::debug;

use super::{Spec, Timed};
use crate::WIRE_VERSION_MAX;
use crate::call::Call;
use crate::compression::Compressor;
use crate::fields::{Accepts, Field, field, ignored};
use crate::reply::Reply;
use crate::state::stop_wanted;

/// Longest a client may wait for news, in milliseconds.
const AWAIT_MS_MAX: u64 = 3_600_000;

const FIELDS: &[Field] = &[
    ignored("backpressure", Accepts::Any, "overload is answered by waiting, not by an error label"),
    field("client", Accepts::Object),
    field("compression", Accepts::Array),
    ignored("forShell", Accepts::Any, "informational"),
    field("helloOk", Accepts::BoolOrNumber),
    ignored("hostInfo", Accepts::Any, "informational"),
    ignored("internalClient", Accepts::Any, "meant for other servers"),
    ignored("loadBalanced", Accepts::BoolOrNumber, "there is no load balancer support"),
    field("maxAwaitTimeMS", Accepts::Integer),
    ignored("saslSupportedMechs", Accepts::Any, "there are no users yet"),
    ignored("speculativeAuthenticate", Accepts::Object, "there are no users yet"),
    field("topologyVersion", Accepts::Object),
];

pub(crate) const SPEC: Spec = Spec {
    aliases: &["isMaster", "ismaster"],
    fields: FIELDS,
    // Newer drivers announce what older servers have never heard of.
    any_fields: true,
    api_v1: true,
    timed: Timed::Not,
    ..Spec::later("hello", "Describes the server; with `topologyVersion`, waits for a change.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        note_client(call);
        let await_ms = await_time_ms(call)?;
        if let Some(await_ms) = await_ms {
            wait_for_change(call, await_ms).await;
        }
        if call.state.is_stopping() {
            let message = "The server is in quiesce mode and will shut down";
            return Err(Error::new(Code::SHUTDOWN_IN_PROGRESS, message));
        }
        let mut reply = describe(call);
        reply.streams = await_ms.is_some() && call.exhaust_allowed;
        Ok(reply)
    }
    .boxed()
}

/// How long to wait, if at all: when the client already knows the current topology.
fn await_time_ms(call: &Call<'_>) -> Result<Option<u64>> {
    let await_ms = call.fields.non_negative("maxAwaitTimeMS")?;
    let known = call.fields.value("topologyVersion").and_then(|value| value.as_document());
    match (known, await_ms) {
        (None, None) => Ok(None),
        (Some(known), Some(await_ms)) => Ok(is_current(call, known)?.then_some(await_ms.min(AWAIT_MS_MAX))),
        (Some(_), None) => {
            let message = "A request with a 'topologyVersion' must include 'maxAwaitTimeMS'";
            Err(Error::new(Code(31_368), message))
        }
        (None, Some(_)) => {
            let message = "A request with 'maxAwaitTimeMS' must include a 'topologyVersion'";
            Err(Error::new(Code(31_368), message))
        }
    }
}

fn is_current(call: &Call<'_>, known: DocRef<'_>) -> Result<bool> {
    match (known.get("processId"), known.get("counter")) {
        (Some(Value::ObjectId(process)), Some(Value::Int64(counter))) => {
            Ok(process == call.state.process_id.bytes() && counter == 0)
        }
        _ => Err(Error::type_mismatch("topologyVersion needs an ObjectId 'processId' and a long 'counter'")),
    }
}

async fn wait_for_change(call: &Call<'_>, await_ms: u64) {
    let mut stopping = call.state.stopping();
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(await_ms)) => {}
        () = stop_wanted(&mut stopping) => {}
    }
}

fn describe(call: &Call<'_>) -> Reply {
    let limit = |bytes: usize| i32::try_from(bytes).expect("limits fit 32 bits");
    let legacy = call.target.name != b"hello";
    let mut reply = Reply::new();
    if call.fields.bool("helloOk") == Some(true) {
        reply.bool("helloOk", true);
    }
    reply.bool(if legacy { "ismaster" } else { "isWritablePrimary" }, true);
    reply.str("msg", "isdbgrid");
    reply.begin_document("topologyVersion");
    reply.value("processId", &bson::Bson::ObjectId(call.state.process_id));
    reply.i64("counter", 0);
    reply.end();
    reply.i32("maxBsonObjectSize", limit(DOCUMENT_BYTES_MAX));
    reply.i32("maxMessageSizeBytes", limit(MESSAGE_BYTES_MAX));
    reply.i32("maxWriteBatchSize", limit(WRITE_BATCH_MAX));
    reply.date("localTime", call.state.clock.wall_ms());
    reply.i32("logicalSessionTimeoutMinutes", i32::try_from(SESSION_IDLE_MS_MAX / 60_000).unwrap_or(30));
    reply.i32("connectionId", i32::try_from(call.client.id).unwrap_or(i32::MAX));
    reply.i32("minWireVersion", 0);
    reply.i32("maxWireVersion", WIRE_VERSION_MAX);
    reply.bool("readOnly", false);
    let compressors = agreed_compressors(call);
    if !compressors.is_empty() {
        reply.strings("compression", compressors);
    }
    reply.ok()
}

/// Those of the client's compressors that are known here, in its order.
fn agreed_compressors(call: &Call<'_>) -> Vec<&'static str> {
    let Some(wanted) = call.fields.value("compression").and_then(|value| value.as_array()) else {
        return Vec::new();
    };
    let known = |value: Value<'_>| {
        let name = value.as_str()?;
        Compressor::NEGOTIABLE.into_iter().map(Compressor::name).find(|known| *known == name)
    };
    wanted.iter().filter_map(known).collect()
}

fn note_client(call: &Call<'_>) {
    let Some(client) = call.fields.value("client").and_then(|value| value.as_document()) else { return };
    let part = |section: &str, field: &str| -> Option<String> {
        Some(client.get(section)?.as_document()?.get(field)?.as_str()?.to_owned())
    };
    let application = part("application", "name");
    debug!(
        connection = call.client.id,
        driver = part("driver", "name"),
        version = part("driver", "version"),
        application,
        "client metadata"
    );
    *call.client.application.lock() = application;
}
