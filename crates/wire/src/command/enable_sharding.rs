//! `enableSharding`: every database may have sharded collections, so that there is nothing to do.

use base::{Error, Result};
use document::Value;

use super::Spec;
use crate::call::Call;
use crate::fields::{Accepts, Field, ignored};
use crate::reply::Reply;

const FIELDS: &[Field] =
    &[ignored("primaryShard", Accepts::String, "a database has no place of its own: its collections have")];

pub(crate) const SPEC: Spec = Spec {
    aliases: &["enablesharding"],
    fields: FIELDS,
    admin_only: true,
    ..Spec::now("enableSharding", "Does nothing: every database may have sharded collections.", run)
};

fn run(call: &Call<'_>) -> Result<Reply> {
    let Some(Value::String(database)) = call.target.decode() else {
        return Err(Error::type_mismatch("enableSharding needs the name of a database, as a string"));
    };
    base::namespace::check_database(database)?;
    Ok(Reply::new().ok())
}
