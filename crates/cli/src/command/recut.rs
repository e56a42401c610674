//! The cutting of shards as people watch it: a command that takes a while, and how far it is meanwhile.
//!
//! Used by `shard` and `reshard`. Always holds: the bar goes to standard error and is drawn on a terminal only.

use std::time::Duration;

use bson::{Bson, Document, doc};
use indicatif::ProgressBar;
use mongodb::error::Error;

use super::status::{documents, primary_of, text};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output;
use crate::shell::execute;

/// How often the progress is looked at.
const POLL: Duration = Duration::from_millis(500);
const TEMPLATE: &str = "{bar:30} {human_pos} of {human_len} documents, {per_sec}, {eta} left  {msg}";

/// How much of the cutting of a collection's shards is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// Documents in the new shards, and bytes of them.
    pub(super) documents: i64,
    pub(super) bytes: i64,
    /// The same in the shards that they replace.
    pub(super) documents_total: i64,
    pub(super) bytes_total: i64,
}

/// Runs an administrative command, and shows how far the cutting of a collection's shards is until it answers.
pub(super) async fn run(
    connection: &Connection,
    namespace: &str,
    command: Document,
) -> Result<Document, Error> {
    let admin = connection.database("admin");
    let bar = output::progress(Some(0), TEMPLATE);
    let mut running = std::pin::pin!(async { admin.run_command(command).await });
    loop {
        tokio::select! {
            answer = &mut running => {
                bar.finish_and_clear();
                return answer;
            }
            () = tokio::time::sleep(POLL) => show(connection, namespace, &bar).await,
        }
    }
}

/// Brings the bar up to date. A server that does not answer now may do so the next time.
async fn show(connection: &Connection, namespace: &str, bar: &ProgressBar) {
    let Ok(status) = status(connection).await else { return };
    let Some(reshard) = under_way(&status, namespace) else { return };
    let done = done(&status, reshard);
    bar.set_length(u64::try_from(done.documents_total).unwrap_or(0));
    bar.set_position(u64::try_from(done.documents).unwrap_or(0));
    bar.set_message(phase(reshard));
}

/// `psdbStatus`.
pub(super) async fn status(connection: &Connection) -> Result<Document, Failure> {
    Ok(connection.database("admin").run_command(doc! { "psdbStatus": 1 }).await?)
}

/// What is known of the cutting of a collection's shards that is under way.
pub(super) fn under_way<'s>(status: &'s Document, namespace: &str) -> Option<&'s Document> {
    documents(status, "reshards").find(|reshard| text(reshard, "collection") == namespace)
}

/// In a word or two.
pub(super) fn phase(reshard: &Document) -> String {
    match reshard.get_bool("paused") {
        Ok(true) => "paused".to_owned(),
        _ => text(reshard, "phase"),
    }
}

/// How far it is, as the primaries say.
pub(super) fn done(status: &Document, reshard: &Document) -> Done {
    let sum = |list: &str, field: &str| -> i64 {
        let shards = reshard.get_array(list).into_iter().flatten().filter_map(Bson::as_i64);
        shards
            .filter_map(|shard| primary_of(status, shard))
            .map(|(_, primary)| execute::number(primary, field))
            .sum()
    };
    Done {
        documents: sum("targets", "documents"),
        bytes: sum("targets", "bytes"),
        documents_total: sum("sources", "documents"),
        bytes_total: sum("sources", "bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_counted_at_the_primaries() {
        let replica = |shard: i64, role: &str, documents: i64| {
            doc! { "shard": shard, "role": role, "term": 1, "documents": documents, "bytes": documents * 10 }
        };
        let status = doc! {
            "nodes": [
                { "replicas": [replica(2, "primary", 100), replica(3, "secondary", 7), replica(4, "primary", 5)] },
                { "replicas": [replica(2, "secondary", 90), replica(3, "primary", 30)] },
            ],
            "reshards": [{ "collection": "a.b", "phase": "copying", "sources": [2_i64], "targets": [3_i64, 4_i64] }],
        };
        let reshard = under_way(&status, "a.b").expect("it is under way");
        let wanted = Done { documents: 35, bytes: 350, documents_total: 100, bytes_total: 1000 };
        assert_eq!((done(&status, reshard), phase(reshard).as_str()), (wanted, "copying"));
        assert!(under_way(&status, "a.c").is_none());
    }
}
