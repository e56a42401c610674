//! Names of databases and collections, checked as MongoDB checks them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{DATABASE_NAME_BYTES_MAX, NAMESPACE_BYTES_MAX};
use crate::{Code, Error, Result};

/// `database.collection`. Values made by [`Namespace::new`] are valid names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Namespace {
    /// The database: no dot, not empty.
    pub database: String,
    /// The collection: not empty; may contain dots.
    pub collection: String,
}

impl Namespace {
    /// Checks both names. Fails with `InvalidNamespace` (73).
    pub fn new(database: &str, collection: &str) -> Result<Namespace> {
        check_database(database)?;
        check_collection(database, collection)?;
        Ok(Namespace { database: database.to_owned(), collection: collection.to_owned() })
    }

    /// Splits `database.collection` at its first dot. Fails with `InvalidNamespace` (73).
    pub fn parse(text: &str) -> Result<Namespace> {
        let (database, collection) = text.split_once('.').ok_or_else(|| invalid(text))?;
        Namespace::new(database, collection)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.collection)
    }
}

/// Checks a database name. Fails with `InvalidNamespace` (73).
pub fn check_database(name: &str) -> Result<()> {
    let forbidden = |c: char| matches!(c, '/' | '\\' | '.' | ' ' | '"' | '$' | '\0');
    if name.is_empty() || name.len() > DATABASE_NAME_BYTES_MAX || name.contains(forbidden) {
        return Err(Error::new(Code::INVALID_NAMESPACE, format!("Invalid database name: '{name}'")));
    }
    Ok(())
}

fn check_collection(database: &str, name: &str) -> Result<()> {
    let full_bytes = database.len() + 1 + name.len();
    let bad = name.is_empty()
        || name.starts_with('.')
        || name.contains(['\0', '$'])
        || full_bytes > NAMESPACE_BYTES_MAX;
    if bad { Err(invalid(&format!("{database}.{name}"))) } else { Ok(()) }
}

fn invalid(text: &str) -> Error {
    Error::new(Code::INVALID_NAMESPACE, format!("Invalid namespace specified '{text}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_split_at_its_first_dot() {
        let namespace = Namespace::parse("shop.orders.2026").expect("valid");
        assert_eq!((namespace.database.as_str(), namespace.collection.as_str()), ("shop", "orders.2026"));
    }

    #[test]
    fn names_that_mongodb_refuses_are_refused() {
        for text in ["", "shop", "shop.", ".orders", "a b.c", "a$.c", "a.$c", "a..c", "a/b.c"] {
            let error = Namespace::parse(text).expect_err(text);
            assert_eq!(error.code, Code::INVALID_NAMESPACE, "{text}");
        }
        assert!(Namespace::parse(&format!("a.{}", "b".repeat(300))).is_err());
    }
}
