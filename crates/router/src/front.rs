//! The commands on documents, as clients' connections call them: here when this node's replica leads, else routed.
//!
//! Called by `wire`. Always holds: a write that may be sent twice, because it leaves this node or its group can change its
//! leader, has an identity before it is tried the first time.

use base::{Namespace, Result};
use bson::{Bson, Document};

use crate::command::{
    CollectionStats, CountCommand, CursorId, CursorReply, DeleteCommand, DistinctCommand, ExplainCommand,
    FindAndModifyAction, FindAndModifyCommand, FindAndModifyReply, FindCommand, GetMoreCommand,
    InsertCommand, ReadMode, ScanCommand, UpdateCommand, Verbosity, WriteReply,
};
use crate::config_database::is_config;
use crate::cursor::Cursor;
use crate::gather::{Gather, unexpected};
use crate::peer::{Operation, OperationReply};
use crate::read::{first_batch, nothing, scan_of};
use crate::resolve::{Place, places_of, sole_place};
use crate::retry::{is_refusal, is_stale};
use crate::{OperationContext, Router, parse};

impl Router {
    /// `insert`. Creates the collection when it is absent. On return: fsynced on a majority.
    pub async fn insert(&self, cx: &OperationContext, command: InsertCommand) -> Result<WriteReply> {
        let cx = &self.identified(cx);
        let mut tried = None;
        if let Some(place) = self.led(&command.namespace) {
            let outcome = self.insert_here(cx, Some(&place), command.clone()).await;
            if !has_moved(&outcome) {
                return outcome;
            }
            tried = may_be_done(&outcome).then_some(place.record.id);
        }
        let (namespace, create) = (command.namespace.clone(), true);
        match Box::pin(self.route(cx, &namespace, create, tried, Operation::Insert(command))).await? {
            OperationReply::Write(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    /// `update`. Creates the collection when it is absent and a statement may insert. On return: fsynced on a majority.
    pub async fn update(&self, cx: &OperationContext, command: UpdateCommand) -> Result<WriteReply> {
        let cx = &self.identified(cx);
        let mut tried = None;
        if let Some(place) = self.led(&command.namespace) {
            let outcome = self.update_here(cx, Some(&place), command.clone()).await;
            if !has_moved(&outcome) {
                return outcome;
            }
            tried = may_be_done(&outcome).then_some(place.record.id);
        }
        let create = command.statements.iter().any(|statement| statement.upsert);
        let namespace = command.namespace.clone();
        match Box::pin(self.route(cx, &namespace, create, tried, Operation::Update(command))).await? {
            OperationReply::Write(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    /// `delete`. On return: fsynced on a majority.
    pub async fn delete(&self, cx: &OperationContext, command: DeleteCommand) -> Result<WriteReply> {
        let cx = &self.identified(cx);
        let mut tried = None;
        if let Some(place) = self.led(&command.namespace) {
            let outcome = self.delete_here(cx, Some(&place), command.clone()).await;
            if !has_moved(&outcome) {
                return outcome;
            }
            tried = may_be_done(&outcome).then_some(place.record.id);
        }
        let (namespace, create) = (command.namespace.clone(), false);
        match Box::pin(self.route(cx, &namespace, create, tried, Operation::Delete(command))).await? {
            OperationReply::Write(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    /// `findAndModify`. On return: fsynced on a majority.
    pub async fn find_and_modify(
        &self,
        cx: &OperationContext,
        command: FindAndModifyCommand,
    ) -> Result<FindAndModifyReply> {
        let cx = &self.identified(cx);
        let mut tried = None;
        if let Some(place) = self.led(&command.namespace) {
            let outcome = self.find_and_modify_here(cx, Some(&place), command.clone()).await;
            if !has_moved(&outcome) {
                return outcome;
            }
            tried = may_be_done(&outcome).then_some(place.record.id);
        }
        let create = matches!(command.action, FindAndModifyAction::Update { upsert: true, .. });
        let namespace = command.namespace.clone();
        match Box::pin(self.route(cx, &namespace, create, tried, Operation::FindAndModify(command))).await? {
            OperationReply::FindAndModify(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    /// `find`. A collection that does not exist has no documents.
    pub async fn find(&self, cx: &OperationContext, command: FindCommand) -> Result<CursorReply> {
        if is_config(&command.namespace) {
            return Box::pin(self.find_config(cx, command)).await;
        }
        let namespace = command.namespace.to_string();
        let size = first_batch(command.batch_size);
        let (scan, single_batch) = scan_of(command, &size);
        let Some(mut gather) = self.begin_find(cx, scan).await? else { return Ok(nothing(namespace)) };
        let mut batch = Vec::new();
        let more = self.fill_gather(cx, &mut gather, &size, &mut batch).await?;
        let cursor = (more && !single_batch).then(|| Cursor::Find(Box::new(gather)));
        self.reply(cx, namespace, cursor, batch)
    }

    /// The documents that a find means, from all shards that may have some. `None` when there is no collection.
    async fn begin_find(&self, cx: &OperationContext, scan: ScanCommand) -> Result<Option<Gather>> {
        let variables = parse::variables(scan.variables.as_ref());
        let Some(record) = self.collection(&scan.namespace).await? else {
            // What is wrong with a command is said whether or not there is a collection.
            self.scan_here(cx, None, scan).await?;
            return Ok(None);
        };
        let place = match sole_place(&record) {
            Some(place) => place,
            None => {
                let filter = parse::filter(scan.filter.as_ref(), &variables)?;
                let mut places = places_of(&record, &filter);
                match places.len() {
                    1 => places.remove(0),
                    _ => return Ok(Some(self.gather(cx, &record, &filter, scan))),
                }
            }
        };
        if cx.reads.mode == ReadMode::Primary && self.leads(&place) {
            let outcome = self.scan_here(cx, Some(&place), scan.clone()).await;
            if !has_moved(&outcome) {
                let reply = outcome?;
                return Ok(Some(self.gather_after(cx, place, scan, reply)));
            }
        }
        Ok(Some(self.gather_from(cx, place, scan)))
    }

    /// `count`. Without a filter it costs one key for each shard, however large the collection.
    pub async fn count(&self, cx: &OperationContext, command: CountCommand) -> Result<u64> {
        if is_config(&command.namespace) {
            return self.count_config(&command).await;
        }
        if let Some(place) = self.led_for_read(cx, &command.namespace) {
            let outcome = self.count_here(cx, Some(&place), command.clone()).await;
            if !has_moved(&outcome) {
                return outcome;
            }
        }
        let namespace = command.namespace.clone();
        match Box::pin(self.route(cx, &namespace, false, None, Operation::Count(command))).await? {
            OperationReply::Count(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    /// `distinct`, in BSON order. Fails with 17217 when the values exceed the size of a document.
    pub async fn distinct(&self, cx: &OperationContext, command: DistinctCommand) -> Result<Vec<Bson>> {
        if is_config(&command.namespace) {
            return self.distinct_config(&command).await;
        }
        if let Some(place) = self.led_for_read(cx, &command.namespace) {
            let outcome = self.distinct_here(cx, Some(&place), command.clone()).await;
            if !has_moved(&outcome) {
                return outcome;
            }
        }
        let namespace = command.namespace.clone();
        match Box::pin(self.route(cx, &namespace, false, None, Operation::Distinct(command))).await? {
            OperationReply::Values(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    /// `getMore`. Fails with `CursorNotFound` (43), and in another session than the cursor's.
    pub async fn get_more(&self, cx: &OperationContext, command: GetMoreCommand) -> Result<CursorReply> {
        self.get_more_here(cx, command).await
    }

    /// `killCursors`. Returns those that were open.
    pub async fn kill_cursors(
        &self,
        _cx: &OperationContext,
        namespace: &str,
        cursors: &[CursorId],
    ) -> Result<Vec<CursorId>> {
        Ok(cursors.iter().copied().filter(|cursor| self.kill_cursor(*cursor, namespace)).collect())
    }

    /// `explain`. The reply lacks the command itself, which the caller has.
    pub async fn explain(
        &self,
        cx: &OperationContext,
        command: ExplainCommand,
        verbosity: Verbosity,
    ) -> Result<Document> {
        let namespace = command.namespace().clone();
        self.routed_document(cx, namespace, Operation::Explain(command, verbosity)).await
    }

    /// `validate`: reads every document and every index entry. Fails with `NamespaceNotFound` (26).
    pub async fn validate(&self, cx: &OperationContext, namespace: Namespace) -> Result<Document> {
        self.routed_document(cx, namespace.clone(), Operation::Validate(namespace)).await
    }

    /// `collStats`. Zeros for a collection that does not exist.
    pub async fn collection_stats(
        &self,
        cx: &OperationContext,
        namespace: Namespace,
    ) -> Result<CollectionStats> {
        let operation = Operation::CollectionStats(namespace.clone());
        match Box::pin(self.route(cx, &namespace, false, None, operation)).await? {
            OperationReply::CollectionStats(stats) => Ok(stats),
            other => Err(unexpected(&other)),
        }
    }

    /// The collection's only shard, if this node's replica of it leads, as far as it knows.
    pub(crate) fn led(&self, namespace: &Namespace) -> Option<Place> {
        let catalog = self.catalog_copy();
        let place = sole_place(catalog.find(namespace)?)?;
        self.leads(&place).then_some(place)
    }

    /// The same for a read that shall go to the primary.
    fn led_for_read(&self, cx: &OperationContext, namespace: &Namespace) -> Option<Place> {
        (cx.reads.mode == ReadMode::Primary).then(|| self.led(namespace)).flatten()
    }

    async fn routed_document(
        &self,
        cx: &OperationContext,
        namespace: Namespace,
        operation: Operation,
    ) -> Result<Document> {
        match Box::pin(self.route(cx, &namespace, false, None, operation)).await? {
            OperationReply::Document(document) => Ok(document),
            other => Err(unexpected(&other)),
        }
    }

    /// The context with an identity, unless the client gave the write one.
    fn identified(&self, cx: &OperationContext) -> OperationContext {
        let mut cx = cx.clone();
        if cx.txn_number.is_none() || cx.session.is_none() {
            cx.identity = Some(self.next_request());
        }
        cx
    }
}

/// Whether the shard's primary turned out to be elsewhere, or to be about to change.
fn has_moved<T>(outcome: &Result<T>) -> bool {
    outcome.as_ref().is_err_and(is_stale)
}

/// Whether a write that failed may have been done all the same.
fn may_be_done<T>(outcome: &Result<T>) -> bool {
    !outcome.as_ref().is_err_and(is_refusal)
}
