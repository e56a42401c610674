//! A connection to any server of the wire protocol, through the official driver.
//!
//! Used by every subcommand that talks to a server. Commands go out as documents; single-document writes carry a
//! transaction number, so that one that met a broken connection is sent again without being applied twice.

use std::time::Duration;

use bson::{Bson, Document};
use mongodb::error::{ErrorKind, RETRYABLE_WRITE_ERROR};
use mongodb::options::ClientOptions;
use mongodb::{Client, ClientSession, Cursor, Database};

use crate::failure::{Failure, server_error};
use crate::shell::request::Request;

/// Where a server is expected when no URI is given.
pub const DEFAULT_URI: &str = "mongodb://127.0.0.1:27017";

/// How long to look for a server when the URI does not say: people wait at a prompt.
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The first transaction number of our own. The driver counts the numbers of a session that it pools from 1 and does
/// not tell them; a session handed to us starts far above, and is kept until the process ends.
const TRANSACTION_NUMBER_FIRST: i64 = 1 << 40;

/// `--uri`, shared by all subcommands that need a server.
#[derive(clap::Args, Clone, Debug)]
pub struct Target {
    /// Where the server is: a connection string, or just HOST:PORT.
    #[arg(long, env = "PSDB_URI", default_value = DEFAULT_URI, value_name = "URI")]
    pub uri: String,
}

/// A driver's client and the session of its writes.
pub struct Connection {
    client: Client,
    session: Option<ClientSession>,
    transaction_number: i64,
    default_database: String,
}

impl Connection {
    /// Prepares a client; the first command connects.
    pub async fn open(uri: &str) -> Result<Connection, Failure> {
        Connection::with_pool(uri, None).await
    }

    /// As [`Connection::open`], with a pool of exactly `size` connections.
    pub async fn with_pool(uri: &str, size: Option<u32>) -> Result<Connection, Failure> {
        let uri = full_uri(uri);
        let mut options = ClientOptions::parse(&uri).await.map_err(|error| {
            Failure::usage(format!("{uri} is not a connection string: {}", plain(&error)))
        })?;
        options.app_name.get_or_insert_with(|| "psdb".to_owned());
        options.server_selection_timeout.get_or_insert(SERVER_SELECTION_TIMEOUT);
        if size.is_some() {
            options.max_pool_size = size;
        }
        let default_database = options.default_database.clone().unwrap_or_else(|| "test".to_owned());
        let client = Client::with_options(options)?;
        Ok(Connection {
            client,
            session: None,
            transaction_number: TRANSACTION_NUMBER_FIRST,
            default_database,
        })
    }

    /// The driver's client, for work that streams or runs in many tasks.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The database that the URI names, else `test`.
    pub fn default_database(&self) -> &str {
        &self.default_database
    }

    /// A database by name.
    pub fn database(&self, name: &str) -> Database {
        self.client.database(name)
    }

    /// Runs a command and returns the reply, whose write errors have become failures.
    pub async fn command(&mut self, database: &str, request: &Request) -> Result<Document, Failure> {
        let reply = if request.is_retryable_write() {
            self.write(database, request.command.clone()).await?
        } else {
            self.database(database).run_command(request.command.clone()).await?
        };
        check_reply(&reply)?;
        Ok(reply)
    }

    /// Runs a command that returns a cursor.
    pub async fn cursor(&self, database: &str, command: Document) -> Result<Cursor<Document>, Failure> {
        let batch_size = match command.get("batchSize") {
            Some(Bson::Int32(size)) => u32::try_from(*size).ok(),
            Some(Bson::Int64(size)) => u32::try_from(*size).ok(),
            _ => None,
        };
        let database = self.database(database);
        let cursor = database.run_cursor_command(command);
        Ok(match batch_size {
            Some(size) => cursor.batch_size(size).await?,
            None => cursor.await?,
        })
    }

    /// Sends a write under the session's next transaction number, once more if the connection broke.
    async fn write(&mut self, database: &str, mut command: Document) -> Result<Document, Failure> {
        if self.session.is_none() {
            self.session = Some(self.client.start_session().await?);
        }
        self.transaction_number += 1;
        command.insert("txnNumber", Bson::Int64(self.transaction_number));
        let database = self.client.database(database);
        let session = self.session.as_mut().expect("the session was opened above");
        match database.run_command(command.clone()).session(&mut *session).await {
            Err(error) if may_retry(&error) => Ok(database.run_command(command).session(session).await?),
            outcome => Ok(outcome?),
        }
    }
}

/// Splits `DATABASE.COLLECTION` at its first dot.
pub fn split_namespace(namespace: &str) -> Result<(&str, &str), Failure> {
    match namespace.split_once('.') {
        Some((database, collection)) if !database.is_empty() && !collection.is_empty() => {
            Ok((database, collection))
        }
        _ => Err(Failure::usage(format!(
            "{namespace:?} is not a namespace; write DATABASE.COLLECTION, for example shop.users"
        ))),
    }
}

/// The sentence of a driver error, without its wrapping.
pub fn plain(error: &mongodb::error::Error) -> String {
    match error.kind.as_ref() {
        ErrorKind::InvalidArgument { message, .. } => message.clone(),
        _ => Failure::from(error.clone()).message,
    }
}

/// A connection string from what the user gave: HOST:PORT is enough.
pub(crate) fn full_uri(uri: &str) -> String {
    if uri.contains("://") { uri.to_owned() } else { format!("mongodb://{uri}") }
}

fn may_retry(error: &mongodb::error::Error) -> bool {
    error.contains_label(RETRYABLE_WRITE_ERROR)
        || matches!(error.kind.as_ref(), ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. })
}

/// A write's reply says `ok: 1` also when its statements failed: their errors are in lists of their own.
fn check_reply(reply: &Document) -> Result<(), Failure> {
    let first_error = reply.get_array("writeErrors").ok().and_then(|errors| errors.first()?.as_document());
    let error = first_error.or_else(|| reply.get_document("writeConcernError").ok());
    match error {
        None => Ok(()),
        Some(error) => {
            let code = error.get_i32("code").unwrap_or_default();
            let name = error.get_str("codeName").ok();
            Err(server_error(code, name, error.get_str("errmsg").unwrap_or_default()))
        }
    }
}
