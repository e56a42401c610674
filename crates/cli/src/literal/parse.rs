//! A recursive-descent parser from relaxed JSON to BSON values.
//!
//! Called for every command line argument, every imported line and, through [`Parser`], by the shell's statement
//! parser. The position always lies on a character boundary, and nesting is limited, so no input can make it panic.

use bson::{Bson, Document};

use super::{constructor, extended};

/// Deepest nesting that is read. The server refuses documents nested more than 100 deep; this only protects the stack.
pub const DEPTH_MAX: usize = 250;

/// Reads a text that holds exactly one value.
pub fn parse(text: &str) -> Result<Bson, ParseError> {
    let mut parser = Parser::new(text);
    let value = parser.value()?;
    parser.end()?;
    Ok(value)
}

/// Reads a text that holds exactly one document.
pub fn parse_document(text: &str) -> Result<Document, ParseError> {
    match parse(text)? {
        Bson::Document(document) => Ok(document),
        other => Err(ParseError::new(0, format!("expected a document {{...}}, found {}", describe(&other)))),
    }
}

/// Why a text is not a value, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Byte offset into the text.
    pub offset: usize,
    /// What was wrong there.
    pub message: String,
}

impl ParseError {
    /// An error at byte `offset`.
    pub fn new(offset: usize, message: impl Into<String>) -> ParseError {
        ParseError { offset, message: message.into() }
    }

    /// The message, the line of `text` that it is about, and a caret under the place.
    pub fn render(&self, text: &str) -> String {
        let offset = floor_boundary(text, self.offset);
        let before = text.get(..offset).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = text.get(line_start..).unwrap_or_default().lines().next().unwrap_or_default();
        let column = before.get(line_start..).unwrap_or_default().chars().count();
        let (excerpt, caret) = excerpt(line, column);
        let line_number = before.matches('\n').count() + 1;
        let place = if line_number > 1 {
            format!("line {line_number}, column {}", column + 1)
        } else {
            format!("column {}", column + 1)
        };
        format!("{} ({place})\n  {excerpt}\n  {}^", self.message, " ".repeat(caret))
    }
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (at byte {})", self.message, self.offset)
    }
}

/// What a value is, for messages: "a string", "an array".
pub(crate) fn describe(value: &Bson) -> &'static str {
    match value {
        Bson::Document(_) => "a document",
        Bson::Array(_) => "an array",
        Bson::String(_) => "a string",
        Bson::Double(_) | Bson::Int32(_) | Bson::Int64(_) | Bson::Decimal128(_) => "a number",
        Bson::Boolean(_) => "true or false",
        Bson::Null => "null",
        Bson::DateTime(_) => "a date",
        Bson::ObjectId(_) => "an ObjectId",
        Bson::RegularExpression(_) => "a regular expression",
        _ => "another type of value",
    }
}

/// A position in a text, and the readers that move it.
pub struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    /// Starts at the beginning of `text`.
    pub fn new(text: &'t str) -> Parser<'t> {
        Parser { text, at: 0, depth: 0 }
    }

    /// Byte offset of the next character.
    pub fn position(&self) -> usize {
        self.at
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next character, white space and comments skipped; it is not consumed.
    pub fn peek(&mut self) -> Result<Option<char>, ParseError> {
        self.skip_space()?;
        Ok(self.rest().chars().next())
    }

    /// Fails unless only white space and comments are left.
    pub fn end(&mut self) -> Result<(), ParseError> {
        match self.peek()? {
            None => Ok(()),
            Some(found) => Err(self.error(format!("expected the end, found {found:?}"))),
        }
    }

    /// Consumes `wanted` if it comes next.
    pub fn eat(&mut self, wanted: char) -> Result<bool, ParseError> {
        let found = self.peek()? == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        Ok(found)
    }

    /// Consumes `wanted` or fails.
    pub fn expect(&mut self, wanted: char) -> Result<(), ParseError> {
        if self.eat(wanted)? {
            return Ok(());
        }
        let found = self.found();
        Err(self.error(format!("expected '{wanted}', found {found}")))
    }

    /// Consumes an identifier (letters, digits, `_`, `$`) if one comes next.
    pub fn identifier(&mut self) -> Result<Option<&'t str>, ParseError> {
        self.skip_space()?;
        let rest = self.rest();
        let length = rest
            .char_indices()
            .find(|&(index, c)| !(is_name_start(c) || (index > 0 && c.is_numeric())))
            .map_or(rest.len(), |(index, _)| index);
        self.at += length;
        Ok(rest.get(..length).filter(|name| !name.is_empty()))
    }

    /// Reads one value.
    pub fn value(&mut self) -> Result<Bson, ParseError> {
        let Some(first) = self.peek()? else {
            return Err(self.error("expected a value, found the end"));
        };
        match first {
            '{' => self.nested(Self::object),
            '[' => self.nested(Self::array),
            '"' | '\'' => Ok(Bson::String(self.string()?)),
            '/' => self.regex(),
            '-' | '+' | '.' | '0'..='9' => self.number(),
            c if is_name_start(c) => self.nested(Self::word),
            other => Err(self.error(format!("expected a value, found {other:?}"))),
        }
    }

    /// Reads `(value, value, ...)`; a trailing comma is allowed.
    pub fn arguments(&mut self) -> Result<Vec<Bson>, ParseError> {
        self.expect('(')?;
        self.list(')')
    }

    /// An error at the present position.
    pub fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError::new(self.at, message)
    }

    /// What comes next, for messages.
    pub(crate) fn found(&mut self) -> String {
        match self.peek() {
            Ok(Some(found)) => format!("{found:?}"),
            _ => "the end".to_owned(),
        }
    }

    /// The whole text, for the readers of strings and numbers in `text.rs`.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        assert!(self.text.is_char_boundary(self.at), "the parser moves by whole characters");
    }

    fn nested(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Bson, ParseError>,
    ) -> Result<Bson, ParseError> {
        if self.depth >= DEPTH_MAX {
            return Err(self.error(format!("nested more than {DEPTH_MAX} levels deep")));
        }
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Bson, ParseError> {
        let start = self.at;
        self.expect('{')?;
        let mut document = Document::new();
        while !self.eat('}')? {
            let name_at = self.at;
            let name = self.name()?;
            if name.contains('\0') {
                return Err(ParseError::new(name_at, "a field name must not contain a NUL character"));
            }
            self.expect(':')?;
            let value = self.value()?;
            if document.insert(name.clone(), value).is_some() {
                return Err(ParseError::new(name_at, format!("field {name:?} appears twice")));
            }
            self.separator('}')?;
        }
        extended::interpret(document).map_err(|message| ParseError::new(start, message))
    }

    fn array(&mut self) -> Result<Bson, ParseError> {
        self.expect('[')?;
        Ok(Bson::Array(self.list(']')?))
    }

    fn list(&mut self, close: char) -> Result<Vec<Bson>, ParseError> {
        let mut values = Vec::new();
        while !self.eat(close)? {
            values.push(self.value()?);
            self.separator(close)?;
        }
        Ok(values)
    }

    /// A comma, or nothing when `close` comes next.
    fn separator(&mut self, close: char) -> Result<(), ParseError> {
        if self.eat(',')? || self.peek()? == Some(close) {
            return Ok(());
        }
        let found = self.found();
        Err(self.error(format!("expected ',' or '{close}', found {found}")))
    }

    fn name(&mut self) -> Result<String, ParseError> {
        match self.peek()? {
            Some('"' | '\'') => self.string(),
            Some(c) if c.is_ascii_digit() => Ok(self.digits_name()),
            _ => match self.identifier()? {
                Some(name) => Ok(name.to_owned()),
                None => {
                    let found = self.found();
                    Err(self.error(format!("expected a field name, found {found}")))
                }
            },
        }
    }

    /// Names of digits, as in `{0: "a"}`.
    fn digits_name(&mut self) -> String {
        let digits: String = self.rest().chars().take_while(char::is_ascii_digit).collect();
        self.advance(digits.len());
        digits
    }

    /// A keyword or a constructor call.
    fn word(&mut self) -> Result<Bson, ParseError> {
        let start = self.at;
        let mut word = self.identifier()?.unwrap_or_default();
        if word == "new" {
            word = self.identifier()?.ok_or_else(|| self.error("expected a type name after 'new'"))?;
        }
        let keyword = match word {
            "true" => Some(Bson::Boolean(true)),
            "false" => Some(Bson::Boolean(false)),
            "null" => Some(Bson::Null),
            "undefined" => Some(Bson::Undefined),
            "Infinity" => Some(Bson::Double(f64::INFINITY)),
            "NaN" => Some(Bson::Double(f64::NAN)),
            _ => None,
        };
        if let Some(value) = keyword {
            return Ok(value);
        }
        let arguments = if self.peek()? == Some('(') { Some(self.arguments()?) } else { None };
        constructor::call(word, arguments).map_err(|message| ParseError::new(start, message))
    }

    fn skip_space(&mut self) -> Result<(), ParseError> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("//") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if trimmed.starts_with("/*") {
                let Some(length) = trimmed.find("*/") else {
                    return Err(self.error("the comment is not closed with */"));
                };
                self.at += length + 2;
            } else {
                return Ok(());
            }
        }
    }
}

/// Characters that may begin a name.
pub(crate) fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || c == '_' || c == '$'
}

/// The greatest character boundary at or below `offset`.
fn floor_boundary(text: &str, offset: usize) -> usize {
    (0..=offset.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// At most 76 characters of `line` around `column`, and the column within them.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    const WIDTH: usize = 76;
    let start = if column < WIDTH { 0 } else { column - WIDTH / 2 };
    let shown = line.chars().skip(start).take(WIDTH).map(|c| if c.is_control() { ' ' } else { c }).collect();
    (shown, column - start)
}
