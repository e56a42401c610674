//! Reads in small batches, with pauses in between: shards are cut anew, and primaries change, while they go on.
//!
//! Always holds: a document that nobody inserts or deletes meanwhile comes out exactly once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::Code;
use bson::{Document, doc};
use document::DocBuf;
use futures::future::BoxFuture;
use router::command::{FindCommand, GetMoreCommand};
use router::{OperationContext, Router};

use super::client::{Client, MANY_TAG, THINGS, encode, many_names, namespace};
use crate::rpc::{NoAnswer, call_router};

/// Documents of a batch.
const BATCH: u64 = 2;
/// How long a client waits for a whole read, in milliseconds.
const PATIENCE_MS: u64 = 60_000;

impl Client {
    /// Reads the documents that are updated together.
    pub(super) async fn read_many(&mut self) {
        let Some(found) = self.read_in_batches(doc! { "tag": MANY_TAG }).await else { return };
        if !many_names().eq(found.iter().cloned()) {
            self.world.violation(format!("{found:?} were found, and not all that are updated together"));
        }
    }

    /// Reads the documents that this client has inserted.
    pub(super) async fn read_own(&mut self) {
        let Some(found) = self.read_in_batches(doc! { "owner": i32::from(self.number) }).await else {
            return;
        };
        let mut expected = self.own.clone();
        expected.sort_unstable();
        let sure: Vec<String> = {
            let history = self.world.history.lock();
            found.iter().filter(|id| !history.doubtful.contains_key(*id)).cloned().collect()
        };
        if sure != expected {
            self.world.violation(format!(
                "client {} has inserted {expected:?}, and these were found: {found:?}",
                self.number
            ));
        }
    }

    /// The sorted names of the documents that the filter accepts; `None` where the cursor was lost with its node.
    async fn read_in_batches(&mut self, filter: Document) -> Option<Vec<String>> {
        let sort = self.world.chance(50).then(|| encode(&doc! { "_id": 1 }));
        let is_slow = self.world.is_faulting.load(Ordering::SeqCst) && self.world.chance(50);
        let (pause_ms, patience_ms) = if is_slow { (1_500, PATIENCE_MS) } else { (0, self.patience_ms) };
        let world = self.world.clone();
        let read = |router: Arc<Router>| -> BoxFuture<'static, _> {
            Box::pin(async move {
                let cx = OperationContext::default();
                let command = FindCommand {
                    filter: Some(encode(&filter)),
                    sort,
                    batch_size: Some(BATCH),
                    ..FindCommand::all(namespace(THINGS))
                };
                let mut reply = router.find(&cx, command).await?;
                let mut documents = std::mem::take(&mut reply.batch);
                while let Some(cursor) = reply.cursor {
                    world.pause(pause_ms).await;
                    let (namespace, batch_size) = (reply.namespace.clone(), Some(BATCH));
                    reply = router.get_more(&cx, GetMoreCommand { cursor, namespace, batch_size }).await?;
                    documents.append(&mut reply.batch);
                }
                Ok(documents.iter().map(DocBuf::to_document).collect::<Vec<_>>())
            })
        };
        match call_router(&self.world, self.node, patience_ms, read).await {
            Ok(documents) => {
                let names = documents.iter().filter_map(|found| found.get_str("_id").ok());
                let mut names: Vec<String> = names.map(str::to_owned).collect();
                names.sort_unstable();
                Some(names)
            }
            // A cursor ends with its node.
            Err(NoAnswer::Refused(error)) if error.code == Code::CURSOR_NOT_FOUND => None,
            Err(failure) => {
                self.wait_after(&failure).await;
                None
            }
        }
    }
}
