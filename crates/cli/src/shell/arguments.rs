//! The arguments of one method call, taken from left to right with messages that name the method and the argument.
//!
//! Used by `method` only.

use bson::{Bson, Document, doc};

use crate::literal::ParseError;

/// Arguments that are left to take.
pub(super) struct Arguments {
    method: String,
    left: std::collections::VecDeque<Bson>,
    offset: usize,
}

impl Arguments {
    /// The arguments of `method`, which stands at byte `offset`.
    pub(super) fn new(method: &str, arguments: Vec<Bson>, offset: usize) -> Arguments {
        Arguments { method: method.to_owned(), left: arguments.into(), offset }
    }

    /// A value of any type that must be there.
    pub(super) fn value(&mut self, what: &str) -> Result<Bson, ParseError> {
        self.left.pop_front().ok_or_else(|| self.error(&format!("needs its argument {what}")))
    }

    /// A document that must be there.
    pub(super) fn document(&mut self, what: &str) -> Result<Document, ParseError> {
        match self.value(what)? {
            Bson::Document(document) => Ok(document),
            _ => Err(self.error(&format!("needs a document {{..}} as {what}"))),
        }
    }

    /// A document, empty when the argument is missing, null or undefined.
    pub(super) fn optional_document(&mut self, what: &str) -> Result<Document, ParseError> {
        match self.left.front() {
            None => Ok(Document::new()),
            Some(Bson::Null | Bson::Undefined) => {
                self.left.pop_front();
                Ok(Document::new())
            }
            Some(_) => self.document(what),
        }
    }

    /// An array that must be there.
    pub(super) fn array(&mut self, what: &str) -> Result<Vec<Bson>, ParseError> {
        match self.value(what)? {
            Bson::Array(values) => Ok(values),
            _ => Err(self.error(&format!("needs an array [..] as {what}"))),
        }
    }

    /// A string that must be there.
    pub(super) fn string(&mut self, what: &str) -> Result<String, ParseError> {
        match self.value(what)? {
            Bson::String(text) => Ok(text),
            _ => Err(self.error(&format!("needs a string as {what}"))),
        }
    }

    /// A command: a document, or a string for a command without fields.
    pub(super) fn command(&mut self) -> Result<Document, ParseError> {
        match self.value("command")? {
            Bson::Document(command) if !command.is_empty() => Ok(command),
            Bson::String(name) => Ok(doc! { name: 1 }),
            _ => Err(self.error("needs a command, as in {ping: 1}")),
        }
    }

    /// Options, of which only `known` ones are allowed.
    pub(super) fn options(&mut self, known: &[&str]) -> Result<Document, ParseError> {
        let options = self.optional_document("options")?;
        match options.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(options),
            Some(name) if known.is_empty() => Err(self.error(&format!("takes no options, found {name}"))),
            Some(name) => {
                let known = known.join(", ");
                Err(self.error(&format!("has no option {name}; there are {known}")))
            }
        }
    }

    /// Options that the server checks.
    pub(super) fn any_options(&mut self) -> Result<Document, ParseError> {
        self.optional_document("options")
    }

    /// Whether an array comes next.
    pub(super) fn next_is_array(&self) -> bool {
        matches!(self.left.front(), Some(Bson::Array(_)))
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> Vec<Bson> {
        std::mem::take(&mut self.left).into()
    }

    /// Fails if anything is left.
    pub(super) fn end(&self) -> Result<(), ParseError> {
        match self.left.len() {
            0 => Ok(()),
            1 => Err(self.error("got an argument too many")),
            extra => Err(self.error(&format!("got {extra} arguments too many"))),
        }
    }

    /// An error about this method.
    pub(super) fn error(&self, message: &str) -> ParseError {
        ParseError::new(self.offset, format!("{} {message}", self.method))
    }
}
