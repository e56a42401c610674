//! The conditions of a filter that an index can serve: predicates on paths that every match must satisfy.
//!
//! Called by the planner. Always holds: each condition is implied by the filter; conditions of one group hold for one and
//! the same array element, so that their bounds may be combined even where arrays stand.

use document::filter::{Filter, Node, Predicate};

/// A predicate that every matching document satisfies.
#[derive(Clone, Debug)]
pub(super) struct Condition<'f> {
    /// The dotted path.
    pub(super) path: String,
    pub(super) predicate: &'f Predicate,
    pub(super) group: Group,
}

/// Which conditions speak of the same array element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Zero for the filter's own level, another number for each `$elemMatch`.
    id: usize,
    /// How many leading components of the path are fixed by the `$elemMatch`: arrays there make no difference.
    pub(super) fixed_components: usize,
}

impl Group {
    const TOP: Group = Group { id: 0, fixed_components: 0 };
}

/// What a filter says that indexes can use.
#[derive(Default)]
pub(super) struct Conditions<'f> {
    pub(super) all: Vec<Condition<'f>>,
    /// The branches of each `$or` at the top.
    pub(super) ors: Vec<&'f [Node]>,
    /// Whether the filter says more than `all`.
    pub(super) opaque: bool,
    groups: usize,
}

impl<'f> Conditions<'f> {
    pub(super) fn of(filter: &'f Filter) -> Conditions<'f> {
        Conditions::of_node(filter.root())
    }

    pub(super) fn of_node(node: &'f Node) -> Conditions<'f> {
        let mut conditions = Conditions::default();
        conditions.collect(node, "", Group::TOP);
        conditions
    }

    fn collect(&mut self, node: &'f Node, prefix: &str, group: Group) {
        match node {
            Node::And(children) => {
                for child in children {
                    self.collect(child, prefix, group);
                }
            }
            Node::True => {}
            Node::Or(branches) if group == Group::TOP => {
                self.opaque = true;
                self.ors.push(branches);
            }
            Node::Field { path, predicate } => {
                // Inside $elemMatch, a number may be a position in a nested array, which is not indexed as such.
                let nested = group != Group::TOP;
                if nested && path.parts().first().is_some_and(|part| part.index.is_some()) {
                    return;
                }
                let path = if nested { format!("{prefix}.{path}") } else { path.to_string() };
                self.add(path, predicate, group);
            }
            _ => self.opaque = true,
        }
    }

    fn add(&mut self, path: String, predicate: &'f Predicate, group: Group) {
        match predicate {
            Predicate::All(predicates) => {
                for predicate in predicates {
                    self.add(path.clone(), predicate, group);
                }
            }
            Predicate::ElemMatchValue(predicates) => {
                let group = self.new_group(&path);
                for predicate in predicates {
                    self.add(path.clone(), predicate, group);
                }
            }
            Predicate::ElemMatchDocument(node) => {
                let group = self.new_group(&path);
                self.collect(node, &path, group);
            }
            _ => self.all.push(Condition { path, predicate, group }),
        }
    }

    fn new_group(&mut self, path: &str) -> Group {
        self.opaque = true;
        self.groups += 1;
        Group { id: self.groups, fixed_components: path.split('.').count() }
    }
}
