//! Commands on documents.

use base::{Error, Result};
use document::DocBuf;
use document::validate::into_document;
use router::command::{
    AggregateCommand, CountCommand, DeleteCommand, DeleteStatement, DistinctCommand, ExplainCommand,
    FindAndModifyAction, FindAndModifyCommand, FindCommand, Hint, InsertCommand, UpdateCommand, UpdateSpec,
    UpdateStatement, Verbosity,
};

use super::{Wire, all_from, all_into, missing, required, unwrap_array, wrap};
use crate::v1;

impl Wire for Hint {
    type Message = v1::Hint;

    fn into_wire(self) -> Result<v1::Hint> {
        let hint = match self {
            Hint::Name(name) => v1::hint::Hint::Name(name),
            Hint::Key(key) => v1::hint::Hint::Key(key.into_wire()?),
        };
        Ok(v1::Hint { hint: Some(hint) })
    }

    fn from_wire(message: v1::Hint) -> Result<Hint> {
        match message.hint.ok_or_else(|| missing("a hint"))? {
            v1::hint::Hint::Name(name) => Ok(Hint::Name(name)),
            v1::hint::Hint::Key(key) => DocBuf::from_wire(key).map(Hint::Key),
        }
    }
}

impl Wire for InsertCommand {
    type Message = v1::Insert;

    fn into_wire(self) -> Result<v1::Insert> {
        Ok(v1::Insert {
            namespace: Some(self.namespace.into_wire()?),
            documents: all_into(self.documents)?,
            ordered: self.ordered,
            statement_ids: self.statement_ids,
        })
    }

    fn from_wire(message: v1::Insert) -> Result<InsertCommand> {
        // These are stored as they are: the stricter limit on nesting counts.
        let documents: Result<Vec<_>> = message.documents.into_iter().map(into_document).collect();
        Ok(InsertCommand {
            namespace: required(message.namespace, "a namespace")?,
            documents: documents?,
            ordered: message.ordered,
            statement_ids: message.statement_ids,
        })
    }
}

impl Wire for UpdateSpec {
    type Message = v1::UpdateSpec;

    fn into_wire(self) -> Result<v1::UpdateSpec> {
        let spec = match self {
            UpdateSpec::Document(document) => v1::update_spec::Spec::Document(document.into_wire()?),
            UpdateSpec::Operators(document) => v1::update_spec::Spec::Operators(document.into_wire()?),
            UpdateSpec::Pipeline(stages) => {
                v1::update_spec::Spec::Pipeline(v1::UpdatePipeline { stages: all_into(stages)? })
            }
        };
        Ok(v1::UpdateSpec { spec: Some(spec) })
    }

    fn from_wire(message: v1::UpdateSpec) -> Result<UpdateSpec> {
        match message.spec.ok_or_else(|| missing("an update"))? {
            v1::update_spec::Spec::Document(document) => {
                DocBuf::from_wire(document).map(UpdateSpec::Document)
            }
            v1::update_spec::Spec::Operators(document) => {
                DocBuf::from_wire(document).map(UpdateSpec::Operators)
            }
            v1::update_spec::Spec::Pipeline(pipeline) => all_from(pipeline.stages).map(UpdateSpec::Pipeline),
        }
    }
}

impl Wire for UpdateStatement {
    type Message = v1::UpdateStatement;

    fn into_wire(self) -> Result<v1::UpdateStatement> {
        Ok(v1::UpdateStatement {
            filter: self.filter.into_wire()?,
            update: Some(self.update.into_wire()?),
            multi: self.multi,
            upsert: self.upsert,
            array_filters: all_into(self.array_filters)?,
            constants: self.constants.into_wire()?,
            hint: self.hint.into_wire()?,
            sort: self.sort.into_wire()?,
        })
    }

    fn from_wire(message: v1::UpdateStatement) -> Result<UpdateStatement> {
        Ok(UpdateStatement {
            filter: Wire::from_wire(message.filter)?,
            update: required(message.update, "an update")?,
            multi: message.multi,
            upsert: message.upsert,
            array_filters: all_from(message.array_filters)?,
            constants: Wire::from_wire(message.constants)?,
            hint: Wire::from_wire(message.hint)?,
            sort: Wire::from_wire(message.sort)?,
        })
    }
}

impl Wire for UpdateCommand {
    type Message = v1::Update;

    fn into_wire(self) -> Result<v1::Update> {
        Ok(v1::Update {
            namespace: Some(self.namespace.into_wire()?),
            statements: all_into(self.statements)?,
            ordered: self.ordered,
            variables: self.variables.into_wire()?,
            statement_ids: self.statement_ids,
        })
    }

    fn from_wire(message: v1::Update) -> Result<UpdateCommand> {
        Ok(UpdateCommand {
            namespace: required(message.namespace, "a namespace")?,
            statements: all_from(message.statements)?,
            ordered: message.ordered,
            variables: Wire::from_wire(message.variables)?,
            statement_ids: message.statement_ids,
        })
    }
}

impl Wire for DeleteStatement {
    type Message = v1::DeleteStatement;

    fn into_wire(self) -> Result<v1::DeleteStatement> {
        Ok(v1::DeleteStatement {
            filter: self.filter.into_wire()?,
            multi: self.multi,
            hint: self.hint.into_wire()?,
        })
    }

    fn from_wire(message: v1::DeleteStatement) -> Result<DeleteStatement> {
        Ok(DeleteStatement {
            filter: Wire::from_wire(message.filter)?,
            multi: message.multi,
            hint: Wire::from_wire(message.hint)?,
        })
    }
}

impl Wire for DeleteCommand {
    type Message = v1::Delete;

    fn into_wire(self) -> Result<v1::Delete> {
        Ok(v1::Delete {
            namespace: Some(self.namespace.into_wire()?),
            statements: all_into(self.statements)?,
            ordered: self.ordered,
            variables: self.variables.into_wire()?,
            statement_ids: self.statement_ids,
        })
    }

    fn from_wire(message: v1::Delete) -> Result<DeleteCommand> {
        Ok(DeleteCommand {
            namespace: required(message.namespace, "a namespace")?,
            statements: all_from(message.statements)?,
            ordered: message.ordered,
            variables: Wire::from_wire(message.variables)?,
            statement_ids: message.statement_ids,
        })
    }
}

impl Wire for FindAndModifyAction {
    type Message = v1::find_and_modify::Action;

    fn into_wire(self) -> Result<v1::find_and_modify::Action> {
        Ok(match self {
            FindAndModifyAction::Remove => v1::find_and_modify::Action::Remove(v1::FindAndRemove {}),
            FindAndModifyAction::Update { update, upsert, return_new } => {
                let update = Some(update.into_wire()?);
                v1::find_and_modify::Action::Update(v1::FindAndUpdate { update, upsert, return_new })
            }
        })
    }

    fn from_wire(message: v1::find_and_modify::Action) -> Result<FindAndModifyAction> {
        Ok(match message {
            v1::find_and_modify::Action::Remove(v1::FindAndRemove {}) => FindAndModifyAction::Remove,
            v1::find_and_modify::Action::Update(update) => FindAndModifyAction::Update {
                update: required(update.update, "an update")?,
                upsert: update.upsert,
                return_new: update.return_new,
            },
        })
    }
}

impl Wire for FindAndModifyCommand {
    type Message = v1::FindAndModify;

    fn into_wire(self) -> Result<v1::FindAndModify> {
        Ok(v1::FindAndModify {
            namespace: Some(self.namespace.into_wire()?),
            filter: self.filter.into_wire()?,
            sort: self.sort.into_wire()?,
            action: Some(self.action.into_wire()?),
            projection: self.projection.into_wire()?,
            array_filters: all_into(self.array_filters)?,
            hint: self.hint.into_wire()?,
            variables: self.variables.into_wire()?,
        })
    }

    fn from_wire(message: v1::FindAndModify) -> Result<FindAndModifyCommand> {
        Ok(FindAndModifyCommand {
            namespace: required(message.namespace, "a namespace")?,
            filter: Wire::from_wire(message.filter)?,
            sort: Wire::from_wire(message.sort)?,
            action: required(message.action, "an action")?,
            projection: Wire::from_wire(message.projection)?,
            array_filters: all_from(message.array_filters)?,
            hint: Wire::from_wire(message.hint)?,
            variables: Wire::from_wire(message.variables)?,
        })
    }
}

impl Wire for FindCommand {
    type Message = v1::Find;

    fn into_wire(self) -> Result<v1::Find> {
        Ok(v1::Find {
            namespace: Some(self.namespace.into_wire()?),
            filter: self.filter.into_wire()?,
            sort: self.sort.into_wire()?,
            projection: self.projection.into_wire()?,
            skip: self.skip,
            limit: self.limit,
            batch_size: self.batch_size,
            single_batch: self.single_batch,
            hint: self.hint.into_wire()?,
            variables: self.variables.into_wire()?,
        })
    }

    fn from_wire(message: v1::Find) -> Result<FindCommand> {
        Ok(FindCommand {
            namespace: required(message.namespace, "a namespace")?,
            filter: Wire::from_wire(message.filter)?,
            sort: Wire::from_wire(message.sort)?,
            projection: Wire::from_wire(message.projection)?,
            skip: message.skip,
            limit: message.limit,
            batch_size: message.batch_size,
            single_batch: message.single_batch,
            hint: Wire::from_wire(message.hint)?,
            variables: Wire::from_wire(message.variables)?,
        })
    }
}

impl Wire for CountCommand {
    type Message = v1::Count;

    fn into_wire(self) -> Result<v1::Count> {
        Ok(v1::Count {
            namespace: Some(self.namespace.into_wire()?),
            filter: self.filter.into_wire()?,
            skip: self.skip,
            limit: self.limit,
            hint: self.hint.into_wire()?,
        })
    }

    fn from_wire(message: v1::Count) -> Result<CountCommand> {
        Ok(CountCommand {
            namespace: required(message.namespace, "a namespace")?,
            filter: Wire::from_wire(message.filter)?,
            skip: message.skip,
            limit: message.limit,
            hint: Wire::from_wire(message.hint)?,
        })
    }
}

impl Wire for DistinctCommand {
    type Message = v1::Distinct;

    fn into_wire(self) -> Result<v1::Distinct> {
        Ok(v1::Distinct {
            namespace: Some(self.namespace.into_wire()?),
            key: self.key,
            filter: self.filter.into_wire()?,
            hint: self.hint.into_wire()?,
        })
    }

    fn from_wire(message: v1::Distinct) -> Result<DistinctCommand> {
        Ok(DistinctCommand {
            namespace: required(message.namespace, "a namespace")?,
            key: message.key,
            filter: Wire::from_wire(message.filter)?,
            hint: Wire::from_wire(message.hint)?,
        })
    }
}

impl Wire for AggregateCommand {
    type Message = v1::Aggregate;

    fn into_wire(self) -> Result<v1::Aggregate> {
        Ok(v1::Aggregate {
            namespace: Some(self.namespace.into_wire()?),
            pipeline: wrap(self.pipeline)?,
            batch_size: self.batch_size,
            hint: self.hint.into_wire()?,
            variables: self.variables.into_wire()?,
        })
    }

    fn from_wire(message: v1::Aggregate) -> Result<AggregateCommand> {
        Ok(AggregateCommand {
            namespace: required(message.namespace, "a namespace")?,
            pipeline: unwrap_array(message.pipeline)?,
            batch_size: message.batch_size,
            hint: Wire::from_wire(message.hint)?,
            variables: Wire::from_wire(message.variables)?,
        })
    }
}

/// An explained command and how much is said about it.
pub(super) struct Explained(pub(super) ExplainCommand, pub(super) Verbosity);

impl Wire for Explained {
    type Message = v1::Explain;

    fn into_wire(self) -> Result<v1::Explain> {
        use v1::explain::Command;
        let verbosity = match self.1 {
            Verbosity::QueryPlanner => v1::Verbosity::QueryPlanner,
            Verbosity::ExecutionStats => v1::Verbosity::ExecutionStats,
            Verbosity::AllPlansExecution => v1::Verbosity::AllPlansExecution,
        };
        let command = match self.0 {
            ExplainCommand::Find(command) => Command::Find(command.into_wire()?),
            ExplainCommand::Aggregate(command) => Command::Aggregate(command.into_wire()?),
            ExplainCommand::Count(command) => Command::Count(command.into_wire()?),
            ExplainCommand::Distinct(command) => Command::Distinct(command.into_wire()?),
            ExplainCommand::Update(command) => Command::Update(command.into_wire()?),
            ExplainCommand::Delete(command) => Command::Delete(command.into_wire()?),
            ExplainCommand::FindAndModify(command) => Command::FindAndModify(command.into_wire()?),
        };
        Ok(v1::Explain { verbosity: verbosity.into(), command: Some(command) })
    }

    fn from_wire(message: v1::Explain) -> Result<Explained> {
        use v1::explain::Command;
        let unknown = |_| Error::failed_to_parse(format!("verbosity {} is unknown", message.verbosity));
        let verbosity = match v1::Verbosity::try_from(message.verbosity).map_err(unknown)? {
            v1::Verbosity::QueryPlanner => Verbosity::QueryPlanner,
            v1::Verbosity::ExecutionStats => Verbosity::ExecutionStats,
            v1::Verbosity::AllPlansExecution => Verbosity::AllPlansExecution,
        };
        let command = match message.command.ok_or_else(|| missing("a command to explain"))? {
            Command::Find(command) => ExplainCommand::Find(Wire::from_wire(command)?),
            Command::Aggregate(command) => ExplainCommand::Aggregate(Wire::from_wire(command)?),
            Command::Count(command) => ExplainCommand::Count(Wire::from_wire(command)?),
            Command::Distinct(command) => ExplainCommand::Distinct(Wire::from_wire(command)?),
            Command::Update(command) => ExplainCommand::Update(Wire::from_wire(command)?),
            Command::Delete(command) => ExplainCommand::Delete(Wire::from_wire(command)?),
            Command::FindAndModify(command) => ExplainCommand::FindAndModify(Wire::from_wire(command)?),
        };
        Ok(Explained(command, verbosity))
    }
}
