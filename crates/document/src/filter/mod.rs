//! Filters: parsed once for a command, matched against every document that a scan meets.
//!
//! Called by `query` (scans, rechecks of candidates), updates (`$pull`, array filters, positional `$`) and the `$match`
//! stage; the planner reads the tree through [`Filter::root`]. One file for each family of operators.
//!
//! Always holds: matching reads bytes in place and allocates nothing, except in `$expr`; a filter from a
//! client never panics, whatever it holds.

mod array;
mod bits;
mod comparison;
mod element;
mod matching;
mod modulo;
mod parse;
mod regex;

use bson::Bson;

use crate::context::{EvalContext, Variables};
use crate::expression::Expression;
use crate::path::Path;
use crate::value::DocRef;

pub use self::bits::{BitMask, BitTest};
pub use self::comparison::{Comparison, InList};
pub use self::element::TypeSet;
pub use self::modulo::Modulo;
pub use self::regex::Regex;

/// A parsed filter.
#[derive(Clone, Debug)]
pub struct Filter {
    root: Node,
}

/// A condition on a document.
#[derive(Clone, Debug)]
pub enum Node {
    /// Matches every document.
    True,
    /// Matches none.
    False,
    /// All must match. Never empty, never directly inside another.
    And(Vec<Node>),
    /// One must match. Never empty.
    Or(Vec<Node>),
    /// None may match. Never empty.
    Nor(Vec<Node>),
    /// A condition on the values at a path.
    Field {
        /// Where.
        path: Path,
        /// What.
        predicate: Predicate,
    },
    /// `$expr`: the expression's value counts as true. Only for whole documents, never inside `$elemMatch`.
    Expr(Box<Expression>),
}

/// A condition on the values at a path. Each but the negations holds when one of the values there satisfies it, so
/// that `{a: {$gt: 1, $lt: 5}}` is two predicates that different elements of an array may satisfy.
#[derive(Clone, Debug)]
pub enum Predicate {
    /// `$eq`, or a plain value.
    Eq(Bson),
    /// `$gt`.
    Gt(Bson),
    /// `$gte`.
    Gte(Bson),
    /// `$lt`.
    Lt(Bson),
    /// `$lte`.
    Lte(Bson),
    /// `$ne`: no value there equals it.
    Ne(Bson),
    /// `$in`. `$nin` is `Not([In])`.
    In(InList),
    /// `$exists`.
    Exists(bool),
    /// `$type`.
    Type(TypeSet),
    /// `$regex`, or a plain regular expression.
    Regex(Regex),
    /// `$size`.
    Size(i64),
    /// `$all`: each must hold. Empty matches nothing.
    All(Vec<Predicate>),
    /// `$elemMatch` with conditions on fields of an element.
    ElemMatchDocument(Box<Node>),
    /// `$elemMatch` with operators on an element itself: all must hold for one element.
    ElemMatchValue(Vec<Predicate>),
    /// `$mod`.
    Mod(Modulo),
    /// `$not`: not all of them hold.
    Not(Vec<Predicate>),
    /// `$bitsAllSet`, `$bitsAnySet`, `$bitsAllClear`, `$bitsAnyClear`.
    Bits {
        /// Which of the four.
        test: BitTest,
        /// The bits it looks at.
        mask: BitMask,
    },
}

/// What a match tells beside yes or no.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MatchDetails {
    /// The index, in the outermost array that the match went through, of the element that matched: what the positional
    /// `$` stands for. `None` when the match went through no array.
    pub array_index: Option<u32>,
}

impl Filter {
    /// Parses a filter document. Errors are MongoDB's, mostly `BadValue`.
    pub fn parse(doc: DocRef<'_>, vars: &Variables) -> base::Result<Filter> {
        Ok(Filter { root: parse::filter(doc, vars)? })
    }

    /// A filter with this tree.
    pub fn from_node(root: Node) -> Filter {
        Filter { root }
    }

    /// A filter that matches every document.
    pub fn everything() -> Filter {
        Filter { root: Node::True }
    }

    /// Whether the document matches. Fails when a regular expression takes too many steps, or as expressions fail.
    pub fn matches(&self, doc: DocRef<'_>, cx: &EvalContext) -> base::Result<bool> {
        self.root.matches(doc, cx)
    }

    /// As [`Filter::matches`], with the array index for the positional `$`. `None` when the document does not match.
    pub fn matches_positional(
        &self,
        doc: DocRef<'_>,
        cx: &EvalContext,
    ) -> base::Result<Option<MatchDetails>> {
        let mut details = MatchDetails::default();
        Ok(self.root.matches_with(doc, cx, &mut details)?.then_some(details))
    }

    /// The tree, for the planner.
    pub fn root(&self) -> &Node {
        &self.root
    }
}

impl Node {
    /// Whether the document satisfies this condition.
    pub fn matches(&self, doc: DocRef<'_>, cx: &EvalContext) -> base::Result<bool> {
        self.matches_with(doc, cx, &mut MatchDetails::default())
    }
}

/// Whether a document is made of operators (`{$gt: 5}`) and not a value to compare with. A DBRef is a value.
pub fn is_operator_document(doc: DocRef<'_>) -> bool {
    doc.iter()
        .next()
        .is_some_and(|(name, _)| name.starts_with('$') && !matches!(name, "$ref" | "$id" | "$db"))
}
