//! `getParameter`: settings of the server that clients ask for.

use base::{Code, Error, Result};
use bson::{Bson, doc};
use document::Value;

use super::Spec;
use crate::call::Call;
use crate::fields::is_truthy;
use crate::reply::Reply;

pub(crate) const SPEC: Spec = Spec {
    any_fields: true,
    admin_only: true,
    ..Spec::now("getParameter", "Settings of the server, by name or all (`'*'`).", run)
};

fn run(call: &Call<'_>) -> Result<Reply> {
    let all = match call.target.decode() {
        Some(Value::String("*")) => true,
        Some(Value::Document(options)) => options.get("allParameters").is_some_and(|value| is_truthy(&value)),
        _ => false,
    };
    let asked = |name: &str| all || call.body().get(name).is_some_and(|value| is_truthy(&value));
    let mut reply = Reply::new();
    let mut found = false;
    for (name, value) in parameters(call).into_iter().filter(|(name, _)| asked(name)) {
        reply.value(name, &value);
        found = true;
    }
    if !found {
        return Err(Error::new(Code::INVALID_OPTIONS, "no option found to get"));
    }
    Ok(reply.ok())
}

fn parameters(call: &Call<'_>) -> [(&'static str, Bson); 5] {
    let timeout_minutes = i32::try_from(base::limits::SESSION_IDLE_MS_MAX / 60_000).unwrap_or(30);
    [
        ("authenticationMechanisms", Bson::Array(Vec::new())),
        ("enableTestCommands", Bson::Boolean(call.state.settings.test_commands)),
        ("featureCompatibilityVersion", Bson::Document(doc! { "version": "8.0" })),
        ("localLogicalSessionTimeoutMinutes", Bson::Int32(timeout_minutes)),
        ("requireApiVersion", Bson::Boolean(false)),
    ]
}
