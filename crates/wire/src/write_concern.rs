//! Write concerns: checked in full, and met by every write anyway.
//!
//! A write is answered once a majority of its shard's replicas has it on disk, whatever `w` says; only what can never
//! be met is reported back.

use base::{Code, Error, Result};
use document::{RawDoc, Value};

use crate::fields::{Accepts, Field, Fields, field, ignored};

/// Most nodes that `w` may name.
const NODES_MAX: i64 = 50;

/// What the client waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteConcern {
    /// `w` as a number of nodes.
    Nodes(usize),
    /// `w: "majority"`, and no `w`.
    Majority,
    /// `w` by a name that no configuration defines.
    Named(String),
}

impl WriteConcern {
    /// Reads `{w, j, wtimeout}`.
    pub(crate) fn parse(document: RawDoc<'_>) -> Result<WriteConcern> {
        const FIELDS: &[Field] = &[
            ignored("fsync", Accepts::BoolOrNumber, "every write is synced"),
            ignored("getLastError", Accepts::Any, "legacy"),
            ignored("j", Accepts::BoolOrNumber, "every write is synced"),
            ignored("provenance", Accepts::String, "informational"),
            field("w", Accepts::Any),
            ignored("wOpTime", Accepts::Any, "legacy"),
            ignored("wElectionId", Accepts::Any, "legacy"),
            field("wtimeout", Accepts::Integer),
            ignored("wtimeoutMS", Accepts::Integer, "alias of `wtimeout`"),
        ];
        let fields = Fields::read("writeConcern", FIELDS, document)?;
        fields.integer("wtimeout")?;
        match fields.value("w") {
            None | Some(Value::Null | Value::Undefined) => Ok(WriteConcern::Majority),
            Some(Value::String("majority")) => Ok(WriteConcern::Majority),
            Some(Value::String(name)) => Ok(WriteConcern::Named(name.to_owned())),
            Some(number) if number.is_number() => {
                nodes(crate::fields::integral("writeConcern", "w", &number)?)
            }
            Some(_) => Err(Error::failed_to_parse("w has to be a number, string, or object")),
        }
    }

    /// What to report when the cluster can never meet it.
    pub(crate) fn unsatisfiable(&self, data_nodes: usize) -> Option<Error> {
        match self {
            WriteConcern::Nodes(wanted) if *wanted > data_nodes => {
                Some(Error::new(Code::UNSATISFIABLE_WRITE_CONCERN, "Not enough data-bearing nodes"))
            }
            WriteConcern::Named(name) => {
                let message =
                    format!("No write concern mode named '{name}' found in replica set configuration");
                Some(Error::new(Code::UNKNOWN_REPL_WRITE_CONCERN, message))
            }
            WriteConcern::Nodes(_) | WriteConcern::Majority => None,
        }
    }
}

fn nodes(number: i64) -> Result<WriteConcern> {
    match usize::try_from(number) {
        Ok(count) if number <= NODES_MAX => Ok(WriteConcern::Nodes(count)),
        _ => Err(Error::failed_to_parse(format!(
            "w has to be a non-negative number and not greater than {NODES_MAX}; found: {number}"
        ))),
    }
}
