//! Writes to the database `config`, which shows the catalog: an update by which tools change a setting becomes that change,
//! everything else is refused with a sentence.
//!
//! Called by `dispatch` for every command that writes, and by `update`. Always holds: nothing is stored under that name.

use base::{Code, Error, Result};
use bson::{Bson, Document};
use router::command::{UpdateCommand, UpdateSpec, UpdateStatement, WriteReply};
use router::config_database::CONFIG_DATABASE;

use super::{Spec, update};
use crate::call::Call;

/// Fails with `CommandNotSupported` (115) when a command would write to the catalog's database and is no update.
pub(crate) fn check(spec: &Spec, database: &str) -> Result<()> {
    match spec.writes && database == CONFIG_DATABASE && spec.name != update::SPEC.name {
        true => Err(refusal(
            "the database config shows the catalog and cannot be written: use the commands that change the cluster",
        )),
        false => Ok(()),
    }
}

/// An update in the catalog's database.
pub(super) async fn run(call: &Call<'_>, command: &UpdateCommand) -> Result<WriteReply> {
    let mut reply = WriteReply::default();
    for statement in &command.statements {
        change(call, &command.namespace.collection, statement).await?;
        reply.n += 1;
        reply.n_modified += 1;
    }
    Ok(reply)
}

async fn change(call: &Call<'_>, collection: &str, statement: &UpdateStatement) -> Result<()> {
    let id = statement.filter.to_document();
    let id = id.get_str("_id").unwrap_or_default();
    let UpdateSpec::Document(update) = &statement.update else { return Err(refused(collection, id)) };
    let update = update.to_document();
    let set = update.get_document("$set").unwrap_or(&update);
    let backend = &call.state.backend;
    match (collection, id) {
        ("settings", "balancer") => {
            let stopped = set.get_bool("stopped").ok().or_else(|| Some(set.get_str("mode").ok()? == "off"));
            backend.set_balancer(!stopped.ok_or_else(|| refused(collection, id))?).await
        }
        ("settings", "chunksize") => {
            let megabytes = megabytes(set).ok_or_else(|| {
                Error::bad_value("chunksize needs a whole number of megabytes above 0 in `value`")
            })?;
            let settings = backend.balancer_settings().await?;
            let split_bytes = megabytes.saturating_mul(1 << 20);
            backend.change_balancer_settings(catalog::BalancerSettings { split_bytes, ..settings }).await
        }
        _ => Err(refused(collection, id)),
    }
}

fn megabytes(set: &Document) -> Option<u64> {
    let value = match set.get("value")? {
        Bson::Int32(value) => u64::try_from(*value).ok(),
        Bson::Int64(value) => u64::try_from(*value).ok(),
        Bson::Double(value) if value.fract() == 0.0 && *value < f64::from(u32::MAX) => Some(*value as u64),
        _ => None,
    };
    value.filter(|value| *value > 0)
}

fn refused(collection: &str, id: &str) -> Error {
    refusal(match (collection, id) {
        ("collections", _) => {
            "the balancer cannot be told to leave out a collection: balancerStop switches it off for all of them"
        }
        ("settings", "autosplit" | "automerge") => {
            "shards are split and merged by the balancer: balancerStart and balancerStop switch it on and off"
        }
        ("settings", _) => "of config.settings only balancer and chunksize can be changed",
        _ => {
            "the database config shows the catalog and cannot be written: use the commands that change the cluster"
        }
    })
}

fn refusal(message: &str) -> Error {
    Error::new(Code::COMMAND_NOT_SUPPORTED, message)
}
