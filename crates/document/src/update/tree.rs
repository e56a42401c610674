//! The fields that an update writes, as a tree by path.
//!
//! Built by `parse`, one operator at a time; walked by `walk`. Siblings are kept in the order in which they are applied:
//! numbers by value, then names by bytes, so that new fields come out in that order.
//!
//! Always holds: no operator's path is equal to or below another's (that is a conflict, code 40); a node's children are
//! either fields (`a`, `0`, `$`) or array steps (`$[]`, `$[id]`), never both.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Code, Error, Result};

use super::operator::Leaf;

/// One step of an update path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A field or an array index.
    Field(Name),
    /// `$`: the array element that the filter matched.
    Positional,
    /// `$[id]`, or `$[]` for an empty identifier.
    Elements(String),
}

/// A field name in the order of application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(pub(super) String);

impl Name {
    fn digits(&self) -> Option<&str> {
        let numeric = !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_digit());
        numeric.then(|| self.0.trim_start_matches('0'))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Name) -> Ordering {
        match (self.digits(), other.digits()) {
            (Some(a), Some(b)) => {
                a.len().cmp(&b.len()).then_with(|| a.cmp(b)).then_with(|| self.0.cmp(&other.0))
            }
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.0.cmp(&other.0),
        }
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Name) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What happens at one path.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// An operator writes this value.
    Leaf(Arc<Leaf>),
    /// Operators write fields or numbered elements below.
    Fields(Fields),
    /// Operators write the elements of this array that a `$[..]` chooses, by identifier.
    Elements(BTreeMap<String, Node>),
}

/// The fields that are written below one path.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    /// By name.
    pub(super) named: BTreeMap<Name, Node>,
    /// The field `$`, whose name only the match knows.
    pub(super) positional: Option<Box<Node>>,
}

impl Fields {
    /// Adds an operator at `steps`. `path` is the same as written, for messages.
    pub(super) fn insert(&mut self, path: &str, steps: &[Step], leaf: Leaf) -> Result<()> {
        let mut root = Node::Fields(std::mem::take(self));
        let outcome = insert(&mut root, path, steps, 0, leaf);
        if let Node::Fields(fields) = root {
            *self = fields;
        }
        outcome
    }

    /// The children with `$` resolved to `index`, in the order of application.
    pub(super) fn resolved(&self, index: &str, path: &[String]) -> Result<BTreeMap<Name, Cow<'_, Node>>> {
        let mut children: BTreeMap<Name, Cow<'_, Node>> =
            self.named.iter().map(|(name, node)| (name.clone(), Cow::Borrowed(node))).collect();
        if let Some(positional) = &self.positional {
            let name = Name(index.to_owned());
            let merged = match children.remove(&name) {
                Some(other) => {
                    let mut full = path.to_vec();
                    full.push(index.to_owned());
                    Cow::Owned(merge(&other, positional, &full)?)
                }
                None => Cow::Borrowed(&**positional),
            };
            children.insert(name, merged);
        }
        Ok(children)
    }
}

/// The node `depth` steps down `path`; adds what lies below.
fn insert(node: &mut Node, path: &str, steps: &[Step], depth: usize, leaf: Leaf) -> Result<()> {
    let Some((step, rest)) = steps.get(depth..).and_then(<[Step]>::split_first) else {
        return Err(conflict(path, steps, depth));
    };
    let slot = match (node, step) {
        (Node::Fields(fields), Step::Field(name)) => match fields.named.get_mut(name) {
            Some(child) => Some(child),
            None => {
                let child = new_branch(rest, leaf);
                fields.named.insert(name.clone(), child);
                return Ok(());
            }
        },
        (Node::Fields(fields), Step::Positional) => match &mut fields.positional {
            Some(child) => Some(&mut **child),
            empty => {
                *empty = Some(Box::new(new_branch(rest, leaf)));
                return Ok(());
            }
        },
        (Node::Elements(children), Step::Elements(identifier)) => match children.get_mut(identifier) {
            Some(child) => Some(child),
            None => {
                let child = new_branch(rest, leaf);
                children.insert(identifier.clone(), child);
                return Ok(());
            }
        },
        _ => None,
    };
    match slot {
        None => Err(conflict(path, steps, depth)),
        Some(_) if rest.is_empty() => Err(conflict(path, steps, depth + 1)),
        Some(child) => insert(child, path, steps, depth + 1, leaf),
    }
}

fn new_branch(steps: &[Step], leaf: Leaf) -> Node {
    let leaf = Node::Leaf(Arc::new(leaf));
    steps.iter().rev().fold(leaf, |below, step| match step {
        Step::Field(name) => {
            Node::Fields(Fields { named: BTreeMap::from([(name.clone(), below)]), positional: None })
        }
        Step::Positional => {
            Node::Fields(Fields { named: BTreeMap::new(), positional: Some(Box::new(below)) })
        }
        Step::Elements(identifier) => Node::Elements(BTreeMap::from([(identifier.clone(), below)])),
    })
}

fn conflict(path: &str, steps: &[Step], depth: usize) -> Error {
    // Steps keep what was written, so that the same number of dots gives the prefix.
    let prefix: Vec<&str> = path.split('.').take(depth.min(steps.len())).collect();
    Error::new(
        Code::CONFLICTING_UPDATE_OPERATORS,
        format!("Updating the path '{path}' would create a conflict at '{}'", prefix.join(".")),
    )
}

/// Both nodes' operators in one node, where a positional step and a number turned out to be the same element.
pub(super) fn merge(a: &Node, b: &Node, path: &[String]) -> Result<Node> {
    match (a, b) {
        (Node::Fields(a), Node::Fields(b)) => {
            let mut merged = a.clone();
            for (name, node) in &b.named {
                let node = match merged.named.get(name) {
                    Some(other) => merge(other, node, &joined(path, &name.0))?,
                    None => node.clone(),
                };
                merged.named.insert(name.clone(), node);
            }
            merged.positional = match (&a.positional, &b.positional) {
                (Some(a), Some(b)) => Some(Box::new(merge(a, b, &joined(path, "$"))?)),
                (a, b) => a.clone().or_else(|| b.clone()),
            };
            Ok(Node::Fields(merged))
        }
        (Node::Elements(a), Node::Elements(b)) => {
            let mut merged = a.clone();
            for (identifier, node) in b {
                let node = match merged.get(identifier) {
                    Some(other) => merge(other, node, &joined(path, &format!("$[{identifier}]")))?,
                    None => node.clone(),
                };
                merged.insert(identifier.clone(), node);
            }
            Ok(Node::Elements(merged))
        }
        _ => Err(Error::new(
            Code::CONFLICTING_UPDATE_OPERATORS,
            format!("Update created a conflict at '{}'", path.join(".")),
        )),
    }
}

fn joined(path: &[String], last: &str) -> Vec<String> {
    path.iter().cloned().chain([last.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_by_value_when_numeric_and_by_bytes_otherwise() {
        let mut names: Vec<Name> =
            ["b", "10", "9", "a", "1a", "007", "7", ""].map(|name| Name(name.into())).into();
        names.sort();
        let sorted: Vec<&str> = names.iter().map(|name| name.0.as_str()).collect();
        assert_eq!(sorted, ["007", "7", "9", "10", "", "1a", "a", "b"]);
    }
}
