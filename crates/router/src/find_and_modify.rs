//! `findAndModify`: one document, found, changed or removed, and returned as it was or as it is.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use base::{Code, Error, Result};
use document::filter::Filter;
use document::projection::Projection;
use query::evaluate::{Candidates, Outcome, ReturnDocument, StatementResult, WriteOp};

use crate::command::{FindAndModifyAction, FindAndModifyCommand, FindAndModifyReply};
use crate::resolve::Place;
use crate::search::Search;
use crate::write::WriteContext;
use crate::{OperationContext, Router, parse, target};

impl Router {
    /// `findAndModify` on this node's replica.
    pub(crate) async fn find_and_modify_here(
        &self,
        cx: &OperationContext,
        place: Option<&Place>,
        command: FindAndModifyCommand,
    ) -> Result<FindAndModifyReply> {
        let variables = parse::variables(command.variables.as_ref());
        let filter = Arc::new(Filter::parse(command.filter.as_doc(), &variables)?);
        let projection = command.projection.as_ref().map(|spec| Projection::parse(spec.as_doc(), &variables));
        let projection = projection.transpose()?;
        let op = self.find_and_modify_op(&command, &filter, &variables)?;
        let search = Search {
            filter: Arc::clone(&filter),
            sort: command.sort.clone(),
            hint: command.hint,
            multi: false,
        };
        let context = WriteContext {
            cx,
            namespace: &command.namespace,
            ordered: true,
            variables: &variables,
            place,
            is_begun: AtomicBool::new(false),
        };
        let result = self.send_aimed(&context, &search, op).await?;
        let mut reply = reply(result)?;
        if let (Some(projection), Some(value)) = (projection, &reply.value) {
            let cx = self.eval_context(variables);
            let details = filter.matches_positional(value.as_doc(), &cx)?;
            reply.value = Some(projection.apply(value.as_doc(), details.as_ref(), &cx)?);
        }
        Ok(reply)
    }

    async fn send_aimed(
        &self,
        context: &WriteContext<'_>,
        search: &Search,
        mut op: WriteOp,
    ) -> Result<StatementResult> {
        let direct = if search.sort.is_none() && search.hint.is_none() {
            target::document_keys(&search.filter)
        } else {
            None
        };
        match direct {
            Some(keys) => {
                *crate::write::candidates_mut(&mut op) = Candidates { keys, exact: true, more: false };
                self.send_one(context, query::evaluate::Statement { stmt_id: 0, op }).await
            }
            None => self.send_found(context, search, 0, op).await,
        }
    }

    fn find_and_modify_op(
        &self,
        command: &FindAndModifyCommand,
        filter: &Arc<Filter>,
        variables: &document::Variables,
    ) -> Result<WriteOp> {
        let (candidates, filter) = (Candidates::default(), Arc::clone(filter));
        Ok(match &command.action {
            FindAndModifyAction::Remove => {
                let return_document = ReturnDocument::Before;
                WriteOp::Delete { candidates, filter, multi: false, return_document }
            }
            FindAndModifyAction::Update { update, upsert, return_new } => {
                let update = Arc::new(parse::update(update, &command.array_filters, variables)?);
                let return_document =
                    if *return_new { ReturnDocument::After } else { ReturnDocument::Before };
                let new_id = upsert.then(|| self.new_object_id());
                WriteOp::Update { candidates, filter, update, upsert: new_id, multi: false, return_document }
            }
        })
    }
}

fn reply(result: StatementResult) -> Result<FindAndModifyReply> {
    let retried = result.repeated;
    match result.outcome? {
        Outcome::Updated { matched, upserted, document, .. } => Ok(FindAndModifyReply {
            value: document,
            n: matched + u64::from(upserted.is_some()),
            updated_existing: Some(matched > 0),
            upserted,
            retried,
        }),
        Outcome::Deleted { deleted, document } => Ok(FindAndModifyReply {
            value: document,
            n: deleted,
            updated_existing: None,
            upserted: None,
            retried,
        }),
        other @ (Outcome::Inserted | Outcome::LostCandidate) => {
            Err(Error::new(Code::INTERNAL_ERROR, format!("a shard answered findAndModify with {other:?}")))
        }
    }
}
