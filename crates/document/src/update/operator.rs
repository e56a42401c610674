//! The update operators, and what each does to one value.
//!
//! `parse` makes them, `walk` and `splice` apply them: [`Operator::create`] where the field is absent,
//! [`Operator::modify`] where it exists. One file per family of operators has the work.

use base::{Code, Error, Result};
use bson::Bson;

use super::add_to_set::AddToSet;
use super::arithmetic::Arithmetic;
use super::assign::{Assign, CurrentDate};
use super::bit::Bits;
use super::min_max::MinMax;
use super::pop::End;
use super::pull::Pull;
use super::push::Push;
use crate::context::EvalContext;
use crate::display;
use crate::value::Value;

/// One operator with its argument.
#[derive(Debug)]
pub(super) enum Operator {
    /// `$set`.
    Set(Assign),
    /// `$setOnInsert`.
    SetOnInsert(Assign),
    /// `$unset`.
    Unset,
    /// `$currentDate`.
    CurrentDate(CurrentDate),
    /// `$inc` and `$mul`.
    Arithmetic(Arithmetic),
    /// `$min` and `$max`.
    MinMax(MinMax),
    /// `$bit`.
    Bit(Bits),
    /// The new name of `$rename`: the index of the rename in the update.
    RenameTo(usize),
    /// The old name of `$rename`: holds the path against other operators.
    RenameFrom,
    /// `$push`.
    Push(Push),
    /// `$addToSet`.
    AddToSet(AddToSet),
    /// `$pull` and `$pullAll`.
    Pull(Pull),
    /// `$pop`.
    Pop(End),
}

/// An operator in the tree.
#[derive(Debug)]
pub(super) struct Leaf {
    /// What it does.
    pub(super) operator: Operator,
    /// Bytes of its argument: what it may add to a document wherever it is applied.
    pub(super) argument_bytes: usize,
}

/// Where an operator is at work, and with what.
pub(super) struct Site<'a> {
    /// The command's time and variables.
    pub(super) cx: &'a EvalContext,
    /// Whether the document is being made by an upsert.
    pub(super) inserting: bool,
    /// The values under the old names of `$rename`, taken before the walk. `None`: absent, so nothing happens.
    pub(super) renamed: Vec<Option<Bson>>,
    /// The document's `_id`, for messages.
    pub(super) id: Option<Bson>,
    /// The names down to the value.
    pub(super) path: Vec<String>,
}

/// What an operator did to an existing value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    Same,
    /// It wrote the value.
    Written,
    /// The field has to go.
    Removed,
}

/// What an operator makes of a path that a scalar blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    /// It has nothing to do.
    Ignores,
    /// It would have to create a field there.
    Creates,
    /// It would have to look at a field there.
    Traverses,
}

impl Operator {
    /// The value of a field that is absent. `None` leaves it absent.
    pub(super) fn create(&self, site: &Site<'_>) -> Result<Option<Bson>> {
        match self {
            Operator::Set(assign) => Ok(Some(assign.value.clone())),
            Operator::SetOnInsert(assign) => Ok(site.inserting.then(|| assign.value.clone())),
            Operator::CurrentDate(kind) => Ok(Some(kind.value(site.cx))),
            Operator::Arithmetic(arithmetic) => Ok(Some(arithmetic.create())),
            Operator::MinMax(min_max) => Ok(Some(min_max.value.clone())),
            Operator::Bit(bits) => Ok(Some(bits.create())),
            Operator::RenameTo(index) => Ok(site.renamed.get(*index).cloned().flatten()),
            Operator::Push(push) => push.create().map(Some),
            Operator::AddToSet(add) => Ok(Some(add.create())),
            Operator::Unset | Operator::RenameFrom | Operator::Pull(_) | Operator::Pop(_) => Ok(None),
        }
    }

    /// Changes a value in place.
    pub(super) fn modify(&self, value: &mut Bson, site: &Site<'_>) -> Result<Change> {
        match self {
            Operator::Set(assign) => Ok(assign.modify(value)),
            Operator::SetOnInsert(assign) if site.inserting => Ok(assign.modify(value)),
            Operator::CurrentDate(kind) => Ok(super::assign::replace(value, kind.value(site.cx))),
            Operator::Unset => Ok(Change::Removed),
            Operator::Arithmetic(arithmetic) => arithmetic.modify(value, site),
            Operator::MinMax(min_max) => Ok(min_max.modify(value)),
            Operator::Bit(bits) => bits.modify(value, site),
            Operator::RenameTo(index) => Ok(match site.renamed.get(*index).cloned().flatten() {
                Some(source) => super::assign::replace(value, source),
                None => Change::Same,
            }),
            Operator::Push(push) => push.modify(value, site),
            Operator::AddToSet(add) => add.modify(value, site),
            Operator::Pull(pull) => pull.modify(value, site),
            Operator::Pop(end) => end.modify(value, site),
            Operator::SetOnInsert(_) | Operator::RenameFrom => Ok(Change::Same),
        }
    }

    /// What happens when a scalar stands where the path needs a document.
    pub(super) fn blocked(&self, site: &Site<'_>) -> Blocked {
        match self {
            Operator::Unset | Operator::RenameFrom => Blocked::Ignores,
            Operator::SetOnInsert(_) if !site.inserting => Blocked::Ignores,
            Operator::RenameTo(index) if site.renamed.get(*index).is_none_or(Option::is_none) => {
                Blocked::Ignores
            }
            Operator::Pull(_) | Operator::Pop(_) => Blocked::Traverses,
            _ => Blocked::Creates,
        }
    }
}

impl Site<'_> {
    /// The name of the value at work.
    pub(super) fn name(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }

    /// The dotted path of the value at work.
    pub(super) fn dotted(&self) -> String {
        self.path.join(".")
    }

    /// The document as messages name it: `{_id: 1}`.
    pub(super) fn shown_id(&self) -> String {
        match &self.id {
            Some(id) => display::show_field("_id", &Value::from(id)),
            None => "{no id}".to_owned(),
        }
    }

    /// `PathNotViable`: a field is to be created inside a value that has none.
    pub(super) fn cannot_create(&self, field: &str, value: &Bson) -> Error {
        let element = display::show_field(self.name(), &Value::from(value));
        Error::new(Code::PATH_NOT_VIABLE, format!("Cannot create field '{field}' in element {element}"))
    }

    /// `PathNotViable`: a field is to be looked at inside a value that has none.
    pub(super) fn cannot_traverse(&self, field: &str, value: &Bson) -> Error {
        let element = display::show_field(self.name(), &Value::from(value));
        let path = self.dotted();
        Error::new(
            Code::PATH_NOT_VIABLE,
            format!("Cannot use the part ({field}) of ({path}.{field}) to traverse the element ({element})"),
        )
    }
}

/// The argument's type name, as messages print it.
pub(super) fn kind_name(value: &Bson) -> &'static str {
    Value::from(value).kind().name()
}
