//! The sorted table of operators, and the forms their arguments take.
//!
//! Called by the parser. An operator is one row here and one function in its family's file.

use std::fmt;

use base::Result;

use super::parse::Parser;
use super::{Call, Expression, Outcome, arithmetic, boolean, comparison, conditional, variable};
use crate::value::Value;

/// An operator: how its arguments are read and what it does with them.
pub(crate) struct Operator {
    /// With its `$`.
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    pub(crate) apply: for<'a> fn(&Call<'a>) -> Outcome<'a>,
}

/// How an operator's arguments are written.
pub(crate) enum Form {
    /// `{$op: [a, b]}`, from `min` to `max` of them; a single one may stand without brackets.
    Positional { min: usize, max: usize },
    /// `{$op: {name: a, other: b}}`: arguments in the order of this list.
    Named(&'static [Field]),
    /// Its own way.
    Custom(fn(&Value<'_>, &mut Parser<'_>) -> Result<Vec<Option<Expression>>>),
}

/// A named argument.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
}

/// A named argument that must be there.
pub(crate) const fn required(name: &'static str) -> Field {
    Field { name, required: true }
}

/// A named argument that may be left out.
pub(crate) const fn optional(name: &'static str) -> Field {
    Field { name, required: false }
}

/// No bound on the number of arguments.
pub(crate) const MANY: usize = usize::MAX;

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Operator {
    fn eq(&self, other: &Operator) -> bool {
        self.name == other.name
    }
}

/// The operator called `name`.
pub(crate) fn find(name: &str) -> Option<&'static Operator> {
    let index = OPERATORS.binary_search_by(|operator| operator.name.cmp(name)).ok()?;
    OPERATORS.get(index)
}

/// The names of all operators, sorted.
pub fn operator_names() -> impl Iterator<Item = &'static str> {
    OPERATORS.iter().map(|operator| operator.name)
}

type Apply = for<'a> fn(&Call<'a>) -> Outcome<'a>;

const fn positional(name: &'static str, min: usize, max: usize, apply: Apply) -> Operator {
    Operator { name, form: Form::Positional { min, max }, apply }
}

const fn named(name: &'static str, fields: &'static [Field], apply: Apply) -> Operator {
    Operator { name, form: Form::Named(fields), apply }
}

const fn custom(
    name: &'static str,
    parse: fn(&Value<'_>, &mut Parser<'_>) -> Result<Vec<Option<Expression>>>,
    apply: Apply,
) -> Operator {
    Operator { name, form: Form::Custom(parse), apply }
}

static OPERATORS: &[Operator] = &[
    positional("$abs", 1, 1, arithmetic::abs),
    positional("$add", 0, MANY, arithmetic::add),
    positional("$and", 0, MANY, boolean::and),
    positional("$ceil", 1, 1, arithmetic::ceil),
    positional("$cmp", 2, 2, comparison::cmp),
    custom("$cond", conditional::parse_cond, conditional::cond),
    custom("$const", variable::parse_literal, variable::literal),
    positional("$divide", 2, 2, arithmetic::divide),
    positional("$eq", 2, 2, comparison::eq),
    positional("$floor", 1, 1, arithmetic::floor),
    positional("$gt", 2, 2, comparison::gt),
    positional("$gte", 2, 2, comparison::gte),
    positional("$ifNull", 2, MANY, conditional::if_null),
    custom("$let", variable::parse_let, variable::apply_let),
    custom("$literal", variable::parse_literal, variable::literal),
    positional("$lt", 2, 2, comparison::lt),
    positional("$lte", 2, 2, comparison::lte),
    positional("$mod", 2, 2, arithmetic::modulo),
    positional("$multiply", 0, MANY, arithmetic::multiply),
    positional("$ne", 2, 2, comparison::ne),
    positional("$not", 1, 1, boolean::not),
    positional("$or", 0, MANY, boolean::or),
    positional("$round", 1, 2, arithmetic::round),
    positional("$subtract", 2, 2, arithmetic::subtract),
    custom("$switch", conditional::parse_switch, conditional::switch),
    positional("$trunc", 1, 2, arithmetic::trunc),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_a_search_finds_every_operator() {
        assert!(OPERATORS.is_sorted_by(|a, b| a.name < b.name));
    }
}
