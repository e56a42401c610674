//! What evaluation needs from outside: the time and the variables of the command.
//!
//! Made once for each command by `router` or `query` and handed to filters, updates, projections, expressions and
//! stages, so that none of them reads a clock.

use std::collections::BTreeMap;

use bson::Bson;

/// The surroundings of one command's evaluation. The same on every shard and at every retry of the command.
#[derive(Clone, Debug)]
pub struct EvalContext {
    /// `$$NOW`, and what `$currentDate` writes.
    pub now: bson::DateTime,
    /// `$$CLUSTER_TIME`.
    pub cluster_time: base::Timestamp,
    /// The command's `let` variables.
    pub variables: Variables,
}

impl EvalContext {
    /// A context without `let` variables.
    pub fn new(now: bson::DateTime, cluster_time: base::Timestamp) -> EvalContext {
        EvalContext { now, cluster_time, variables: Variables::default() }
    }

    /// The same context with these `let` variables.
    #[must_use]
    pub fn with_variables(mut self, variables: Variables) -> EvalContext {
        self.variables = variables;
        self
    }
}

/// The `let` variables of a command, by name without `$$`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Variables(pub BTreeMap<String, Bson>);

impl Variables {
    /// The variable's value.
    pub fn get(&self, name: &str) -> Option<&Bson> {
        self.0.get(name)
    }

    /// Whether the variable is defined.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Defines or replaces a variable.
    pub fn insert(&mut self, name: impl Into<String>, value: Bson) {
        self.0.insert(name.into(), value);
    }
}

impl FromIterator<(String, Bson)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, Bson)>>(pairs: I) -> Variables {
        Variables(pairs.into_iter().collect())
    }
}
