//! The commands: one file each, and the one sorted table of them.
//!
//! Each file declares a `SPEC` with the command's fields and says how it runs. Parsing ends in the router's typed
//! commands; replies are written from its typed answers. Nothing in here decides what an operation means.

mod abort_reshard_collection;
mod aggregate;
mod balancer_collection_status;
mod balancer_start;
mod balancer_status;
mod balancer_stop;
mod build_info;
mod coll_stats;
pub(crate) mod config_writes;
mod configure_fail_point;
mod connection_status;
mod count;
mod create;
mod create_indexes;
mod db_stats;
mod delete;
mod distinct;
mod drop;
mod drop_database;
mod drop_indexes;
mod enable_sharding;
mod end_sessions;
mod explain;
mod find;
mod find_and_modify;
mod flush_router_config;
mod full_namespace;
mod get_cmd_line_opts;
mod get_log;
mod get_more;
mod get_parameter;
mod get_shard_map;
mod get_shard_version;
mod hello;
mod host_info;
mod insert;
mod kill_all_sessions;
mod kill_cursors;
mod kill_sessions;
mod list_collections;
mod list_commands;
mod list_databases;
mod list_indexes;
mod list_shards;
mod merge_chunks;
mod move_chunk;
mod ping;
mod psdb_balancer;
mod psdb_move;
mod psdb_node;
mod psdb_reshard;
mod psdb_status;
mod refresh_sessions;
mod repl_set_get_status;
mod reshard_collection;
mod server_status;
mod shard_collection;
mod split;
mod start_session;
mod update;
mod validate;
mod whatsmyuri;
mod writes;

use base::{Code, Error, Result};
use document::{DocBuf, Value};
use futures::future::BoxFuture;

use crate::call::{Call, share};
use crate::fields::Field;
use crate::message::{LegacyQuery, Request};
use crate::reply::Reply;

/// A command: what it is called, what it takes, how it runs.
pub(crate) struct Spec {
    /// Its name.
    pub(crate) name: &'static str,
    /// Other spellings that clients use.
    pub(crate) aliases: &'static [&'static str],
    /// What it does, for `listCommands` and the documentation.
    pub(crate) summary: &'static str,
    /// Its fields beside those that every command has.
    pub(crate) fields: &'static [Field],
    /// Whether fields that are not declared are passed over.
    pub(crate) any_fields: bool,
    /// Whether it must be sent to the admin database.
    pub(crate) admin_only: bool,
    /// Whether it changes data or definitions.
    pub(crate) writes: bool,
    /// Whether it may carry a `txnNumber`.
    pub(crate) retryable: bool,
    /// Whether it belongs to API version 1.
    pub(crate) api_v1: bool,
    /// Whether it exists only where test commands are enabled.
    pub(crate) test_only: bool,
    /// Where `opcounters` counts it.
    pub(crate) counts: Counts,
    /// Which durations it counts among.
    pub(crate) timed: Timed,
    /// How it runs.
    pub(crate) run: Run,
}

/// Where `opcounters` counts a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counts {
    /// `command`
    Command,
    /// `query`
    Query,
    /// `getmore`
    GetMore,
    /// `insert`, `update` or `delete`, once for each statement.
    ByStatement,
}

/// Which durations a command counts among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timed {
    /// It reads documents.
    Read,
    /// It writes documents.
    Write,
    /// It does something else.
    Command,
    /// None: it may wait on purpose, for as long as its client likes.
    Not,
}

/// How a command runs.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// At once.
    Now(fn(&Call<'_>) -> Result<Reply>),
    /// Waiting for others.
    Later(for<'c, 'a> fn(&'c Call<'a>) -> BoxFuture<'c, Result<Reply>>),
}

impl Spec {
    /// A command that answers at once and touches no data.
    const fn now(name: &'static str, summary: &'static str, run: fn(&Call<'_>) -> Result<Reply>) -> Spec {
        Spec::new(name, summary, Run::Now(run))
    }

    /// A command that waits for the router.
    const fn later(
        name: &'static str,
        summary: &'static str,
        run: for<'c, 'a> fn(&'c Call<'a>) -> BoxFuture<'c, Result<Reply>>,
    ) -> Spec {
        Spec::new(name, summary, Run::Later(run))
    }

    const fn new(name: &'static str, summary: &'static str, run: Run) -> Spec {
        Spec {
            name,
            aliases: &[],
            summary,
            fields: &[],
            any_fields: false,
            admin_only: false,
            writes: false,
            retryable: false,
            api_v1: false,
            test_only: false,
            counts: Counts::Command,
            timed: Timed::Command,
            run,
        }
    }
}

/// Every command, by name.
pub(crate) static TABLE: &[&Spec] = &[
    &abort_reshard_collection::SPEC,
    &aggregate::SPEC,
    &balancer_collection_status::SPEC,
    &balancer_start::SPEC,
    &balancer_status::SPEC,
    &balancer_stop::SPEC,
    &build_info::SPEC,
    &coll_stats::SPEC,
    &configure_fail_point::SPEC,
    &connection_status::SPEC,
    &count::SPEC,
    &create::SPEC,
    &create_indexes::SPEC,
    &db_stats::SPEC,
    &delete::SPEC,
    &distinct::SPEC,
    &drop::SPEC,
    &drop_database::SPEC,
    &drop_indexes::SPEC,
    &enable_sharding::SPEC,
    &end_sessions::SPEC,
    &explain::SPEC,
    &find::SPEC,
    &find_and_modify::SPEC,
    &flush_router_config::SPEC,
    &get_cmd_line_opts::SPEC,
    &get_log::SPEC,
    &get_more::SPEC,
    &get_parameter::SPEC,
    &get_shard_map::SPEC,
    &get_shard_version::SPEC,
    &hello::SPEC,
    &host_info::SPEC,
    &insert::SPEC,
    &kill_all_sessions::SPEC,
    &kill_cursors::SPEC,
    &kill_sessions::SPEC,
    &list_collections::SPEC,
    &list_commands::SPEC,
    &list_databases::SPEC,
    &list_indexes::SPEC,
    &list_shards::SPEC,
    &merge_chunks::SPEC,
    &move_chunk::SPEC,
    &ping::SPEC,
    &psdb_balancer::SPEC,
    &psdb_move::SPEC,
    &psdb_node::SPEC,
    &psdb_reshard::SPEC,
    &psdb_status::SPEC,
    &refresh_sessions::SPEC,
    &repl_set_get_status::SPEC,
    &reshard_collection::SPEC,
    &server_status::SPEC,
    &shard_collection::SPEC,
    &split::SPEC,
    &start_session::SPEC,
    &update::SPEC,
    &validate::SPEC,
    &whatsmyuri::SPEC,
];

/// The fields of the documents within commands, for the documentation.
pub(crate) static STATEMENTS: &[(&str, &[Field])] = &[
    ("createIndexes.indexes", create_indexes::INDEX),
    ("delete.deletes", delete::STATEMENT),
    ("update.updates", update::STATEMENT),
];

/// The command of this name or alias.
pub(crate) fn find(name: &str) -> Option<&'static Spec> {
    match TABLE.binary_search_by(|spec| spec.name.cmp(name)) {
        Ok(position) => TABLE.get(position).copied(),
        Err(_) => TABLE.iter().find(|spec| spec.aliases.contains(&name)).copied(),
    }
}

/// Where a command stands in the table.
pub(crate) fn position(spec: &Spec) -> Option<usize> {
    TABLE.binary_search_by(|other| other.name.cmp(spec.name)).ok()
}

/// What may come as a legacy query: the handshake, sent to some database's `$cmd`. Answers the database and the
/// command. Fails on anything else with `UnsupportedOpQueryCommand` (352).
pub(crate) fn legacy_handshake(query: LegacyQuery) -> Result<(String, Request)> {
    let Some(database) = query.namespace.strip_suffix(".$cmd") else {
        let message = "Unsupported OP_QUERY request. The client driver may require an upgrade.";
        return Err(Error::new(Code::UNSUPPORTED_OP_QUERY_COMMAND, message));
    };
    let body = unwrap_query(&query.query);
    let first = body.as_raw().iter().next().map(|(name, _)| name.to_owned()).unwrap_or_default();
    if find(&first).is_none_or(|spec| spec.name != hello::SPEC.name) {
        let message =
            format!("Unsupported OP_QUERY command: {first}. The client driver may require an upgrade.");
        return Err(Error::new(Code::UNSUPPORTED_OP_QUERY_COMMAND, message));
    }
    let request = Request { body, sequences: Vec::new(), more_to_come: false, exhaust_allowed: false };
    Ok((database.to_owned(), request))
}

/// `{$query: command, ...}` is the command.
fn unwrap_query(query: &DocBuf) -> DocBuf {
    for name in ["$query", "query"] {
        if let Some(Value::Document(document::DocRef::Raw(inner))) = query.as_raw().get(name) {
            return share(query.bytes(), inner.bytes());
        }
    }
    query.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_no_name_is_there_twice() {
        assert!(TABLE.is_sorted_by(|a, b| a.name < b.name));
        let mut names: Vec<&str> =
            TABLE.iter().flat_map(|spec| spec.aliases.iter().copied().chain([spec.name])).collect();
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }

    #[test]
    fn no_command_declares_a_field_twice_or_one_that_every_command_has() {
        for spec in TABLE {
            let generic = crate::fields::GENERIC.iter();
            let mut names: Vec<&str> = spec.fields.iter().chain(generic).map(|field| field.name).collect();
            names.sort_unstable();
            assert!(names.is_sorted_by(|a, b| a < b), "{}: {names:?}", spec.name);
        }
    }
}
