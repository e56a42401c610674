//! What the key-value commands share: documents `{_id: key, value: ...}` in one collection.

use bson::{Bson, Document};

use crate::connection::{Connection, Target, split_namespace};
use crate::failure::Failure;
use crate::shell::request::Request;

/// Where the keys live.
#[derive(clap::Args)]
pub(super) struct KvTarget {
    #[command(flatten)]
    target: Target,
    /// The collection of the keys, as DATABASE.COLLECTION.
    #[arg(long, default_value = "kv.default", value_name = "NAMESPACE")]
    namespace: String,
}

/// A connection and the collection of the keys.
pub(super) struct KvStore {
    connection: Connection,
    database: String,
    /// The collection's name.
    pub(super) collection: String,
}

impl KvTarget {
    /// Connects.
    pub(super) async fn open(&self) -> Result<KvStore, Failure> {
        let (database, collection) = split_namespace(&self.namespace)?;
        let connection = Connection::open(&self.target.uri).await?;
        Ok(KvStore { connection, database: database.to_owned(), collection: collection.to_owned() })
    }
}

impl KvStore {
    /// Sends a command and returns its reply.
    pub(super) async fn command(&mut self, request: Request) -> Result<Document, Failure> {
        self.connection.command(&self.database, &request).await
    }

    /// Opens a cursor.
    pub(super) async fn cursor(&self, request: Request) -> Result<mongodb::Cursor<Document>, Failure> {
        self.connection.cursor(&self.database, request.command).await
    }
}

/// A value as `get` prints it: strings as they are, everything else as JSON.
pub(super) fn text(value: &Bson) -> String {
    match value {
        Bson::String(text) => text.clone(),
        value => crate::literal::json::line(value, crate::literal::json::Form::Relaxed),
    }
}
