//! Applies a tree of operators to a decoded document.
//!
//! The general way: `splice` takes the simple updates. Fields are created only where an operator has something to
//! write, so that an `$unset` of an absent path leaves no empty documents behind.

use base::{Code, Error, Result};
use bson::{Bson, Document};

use super::array_filters::ArrayFilters;
use super::operator::{Blocked, Change, Site};
use super::parse::Modifiers;
use super::tree::{Fields, Node, merge};
use crate::context::EvalContext;
use crate::display;
use crate::value::Value;

/// Most nulls that writing past the end of an array may add.
const PADDING_MAX: usize = 1_500_000;

/// Applies the update in place. `false`: nothing changed. After an error the document is of no use.
pub(super) fn apply(
    modifiers: &Modifiers,
    document: &mut Document,
    array_index: Option<u32>,
    inserting: bool,
    cx: &EvalContext,
) -> Result<bool> {
    let renamed: Vec<Option<Bson>> =
        modifiers.renames.iter().map(|rename| rename.source(document)).collect::<Result<_>>()?;
    let site = Site { cx, inserting, renamed, id: document.get("_id").cloned(), path: Vec::new() };
    let index = array_index.map(|index| index.to_string());
    let mut walk = Walk {
        site,
        index,
        array_filters: &modifiers.array_filters,
        changed: false,
        added_bytes: 0,
        padding: 0,
    };
    walk.document(&modifiers.fields, document)?;
    for (rename, value) in modifiers.renames.iter().zip(&walk.site.renamed) {
        if value.is_some() {
            super::rename::remove(document, &rename.from);
            walk.changed = true;
        }
    }
    Ok(walk.changed)
}

struct Walk<'a> {
    site: Site<'a>,
    /// What `$` stands for, as a field name.
    index: Option<String>,
    array_filters: &'a ArrayFilters,
    changed: bool,
    /// Bytes and array elements that operators have added: one small update may reach every element of an array.
    added_bytes: usize,
    padding: usize,
}

impl Walk<'_> {
    fn document(&mut self, fields: &Fields, document: &mut Document) -> Result<()> {
        self.each_child(fields, &mut |walk, name, node| walk.child_of_document(name, node, document))
    }

    /// Calls `f` for each child in the order of application, with `$` resolved.
    fn each_child(
        &mut self,
        fields: &Fields,
        f: &mut dyn FnMut(&mut Self, &str, &Node) -> Result<()>,
    ) -> Result<()> {
        if fields.positional.is_none() {
            return fields.named.iter().try_for_each(|(name, node)| f(self, &name.0, node));
        }
        let index = self.index.clone().ok_or_else(|| {
            Error::bad_value("The positional operator did not find the match needed from the query.")
        })?;
        let children = fields.resolved(&index, &self.site.path)?;
        children.iter().try_for_each(|(name, node)| f(self, &name.0, node))
    }

    fn child_of_document(&mut self, name: &str, node: &Node, document: &mut Document) -> Result<()> {
        self.site.path.push(name.to_owned());
        match document.get_mut(name) {
            Some(value) => {
                if self.node(node, value)? == Change::Removed {
                    document.remove(name);
                }
            }
            None => {
                if let Some(value) = self.build(node)? {
                    document.insert(name, value);
                    self.changed = true;
                }
            }
        }
        self.site.path.pop();
        Ok(())
    }

    /// Applies a node to an existing value. The caller drops the field on `Removed`.
    fn node(&mut self, node: &Node, value: &mut Bson) -> Result<Change> {
        match node {
            Node::Leaf(leaf) => {
                let change = leaf.operator.modify(value, &self.site)?;
                if change == Change::Written {
                    self.charge(leaf.argument_bytes)?;
                }
                self.changed |= change != Change::Same;
                return Ok(change);
            }
            Node::Elements(_) => self.elements(node, value)?,
            Node::Fields(fields) => match value {
                Bson::Document(document) => self.document(fields, document)?,
                Bson::Array(_) => {
                    self.each_child(fields, &mut |walk, name, node| walk.child_of_array(name, node, value))?;
                }
                _ => self.each_child(fields, &mut |walk, name, node| walk.blocked(name, node, value))?,
            },
        }
        Ok(Change::Same)
    }

    fn child_of_array(&mut self, name: &str, node: &Node, value: &mut Bson) -> Result<()> {
        let Some(index) = crate::path::Part::new(name).index.map(|index| index as usize) else {
            return self.blocked(name, node, value);
        };
        let Bson::Array(elements) = value else { return Ok(()) };
        self.site.path.push(name.to_owned());
        match elements.get_mut(index) {
            Some(element) => {
                // An array keeps its length: what is unset in it becomes null.
                if self.node(node, element)? == Change::Removed {
                    *element = Bson::Null;
                }
            }
            None => {
                if let Some(new) = self.build(node)? {
                    self.padding += index - elements.len();
                    if self.padding > PADDING_MAX {
                        return Err(Error::new(
                            Code::CANNOT_BACKFILL_ARRAY,
                            format!("can't backfill more than {PADDING_MAX} elements"),
                        ));
                    }
                    elements.resize(index, Bson::Null);
                    elements.push(new);
                    self.changed = true;
                }
            }
        }
        self.site.path.pop();
        Ok(())
    }

    /// A value without fields stands where the child's parent should be.
    fn blocked(&mut self, name: &str, node: &Node, value: &Bson) -> Result<()> {
        match self.strongest_demand(node) {
            Blocked::Ignores => Ok(()),
            Blocked::Creates => Err(self.site.cannot_create(name, value)),
            Blocked::Traverses => Err(self.site.cannot_traverse(name, value)),
        }
    }

    fn strongest_demand(&self, node: &Node) -> Blocked {
        let mut demands: Vec<Blocked> = Vec::new();
        self.collect_demands(node, &mut demands);
        let first = demands.into_iter().find(|demand| *demand != Blocked::Ignores);
        first.unwrap_or(Blocked::Ignores)
    }

    fn collect_demands(&self, node: &Node, demands: &mut Vec<Blocked>) {
        match node {
            Node::Leaf(leaf) => demands.push(leaf.operator.blocked(&self.site)),
            Node::Fields(fields) => {
                fields.named.values().for_each(|child| self.collect_demands(child, demands));
                fields.positional.iter().for_each(|child| self.collect_demands(child, demands));
            }
            Node::Elements(children) => {
                children.values().for_each(|child| self.collect_demands(child, demands));
            }
        }
    }

    /// Applies `$[]` and `$[id]` steps.
    fn elements(&mut self, node: &Node, value: &mut Bson) -> Result<()> {
        let Node::Elements(children) = node else { return Ok(()) };
        let Bson::Array(elements) = value else {
            return Err(Error::bad_value(format!(
                "Cannot apply array updates to non-array element {}: {}",
                self.site.name(),
                display::show_value(&Value::from(&*value))
            )));
        };
        for (index, element) in elements.iter_mut().enumerate() {
            let mut chosen = Vec::new();
            for (identifier, child) in children {
                if self.array_filters.chooses(identifier, element, self.site.cx)? {
                    chosen.push(child);
                }
            }
            let Some((first, others)) = chosen.split_first() else { continue };
            self.site.path.push(index.to_string());
            let change = if others.is_empty() {
                self.node(first, element)?
            } else {
                let mut merged = (*first).clone();
                for other in others {
                    merged = merge(&merged, other, &self.site.path)?;
                }
                self.node(&merged, element)?
            };
            if change == Change::Removed {
                *element = Bson::Null;
            }
            self.site.path.pop();
        }
        Ok(())
    }

    /// Refuses an update that makes the document too large before it takes the memory.
    fn charge(&mut self, bytes: usize) -> Result<()> {
        self.added_bytes = self.added_bytes.saturating_add(bytes);
        super::finish::check_size(self.added_bytes)
    }

    /// The value of an absent field. `None` leaves it absent.
    fn build(&mut self, node: &Node) -> Result<Option<Bson>> {
        match node {
            Node::Leaf(leaf) => {
                let value = leaf.operator.create(&self.site)?;
                if value.is_some() {
                    self.charge(leaf.argument_bytes)?;
                }
                Ok(value)
            }
            Node::Elements(_) => Err(Error::bad_value(format!(
                "The path '{}' must exist in the document in order to apply array updates.",
                self.site.dotted()
            ))),
            Node::Fields(fields) => {
                let mut document = Document::new();
                self.each_child(fields, &mut |walk, name, child| {
                    walk.site.path.push(name.to_owned());
                    if let Some(value) = walk.build(child)? {
                        document.insert(name, value);
                    }
                    walk.site.path.pop();
                    Ok(())
                })?;
                Ok((!document.is_empty()).then_some(Bson::Document(document)))
            }
        }
    }
}
