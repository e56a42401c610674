//! `configureFailPoint`: faults on demand, where test commands are enabled.

use base::{Error, Result};
use document::Value;

use super::Spec;
use crate::call::Call;
use crate::fields::{Accepts, Field, field, required};
use crate::reply::Reply;

const FIELDS: &[Field] = &[field("data", Accepts::Object), required("mode", Accepts::StringOrObject)];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    admin_only: true,
    test_only: true,
    ..Spec::now("configureFailPoint", "Sets the fail point `failCommand`; for test suites of drivers.", run)
};

fn run(call: &Call<'_>) -> Result<Reply> {
    let Some(Value::String(name)) = call.target.decode() else {
        return Err(Error::type_mismatch("configureFailPoint takes the name of a fail point"));
    };
    let mode = call.fields.value("mode").unwrap_or(Value::Null);
    let data = call.document("data");
    let entered = call.state.fail_points.configure(name, &mode, data.as_ref().map(|data| data.as_raw()))?;
    let mut reply = Reply::new();
    reply.i64("count", entered);
    Ok(reply.ok())
}
