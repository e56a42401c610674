//! Regular expressions in filters: `$regex` with `$options`, and regular expression values.
//!
//! Called by `parse` and `matching`. Patterns without look-around and back-references run in linear time; the others
//! backtrack, up to a limit.
//!
//! Always holds: a pattern is at most `limits::REGEX_BYTES_MAX` long and its compiled form bounded, so that a filter
//! costs bounded memory.

use std::sync::Arc;

use base::{Code, Error, Result, limits};

use crate::value::Value;

const COMPILED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A compiled regular expression.
#[derive(Clone, Debug)]
pub struct Regex {
    pattern: String,
    options: String,
    compiled: Arc<fancy_regex::Regex>,
}

impl Regex {
    /// Compiles a pattern with its option letters: `i`, `m`, `x`, `s`, `u`.
    pub fn new(pattern: &str, options: &str) -> Result<Regex> {
        if pattern.contains('\0') || options.contains('\0') {
            return Err(Error::new(Code(51_109), "Regular expression cannot contain an embedded null byte"));
        }
        if pattern.len() > limits::REGEX_BYTES_MAX {
            return Err(invalid("pattern is too large"));
        }
        let mut builder = fancy_regex::RegexBuilder::new(pattern);
        builder
            .backtrack_limit(limits::REGEX_BACKTRACK_MAX)
            .delegate_size_limit(COMPILED_BYTES_MAX)
            .delegate_dfa_size_limit(COMPILED_BYTES_MAX);
        for option in options.chars() {
            match option {
                'i' => builder.case_insensitive(true),
                'm' => builder.multi_line(true),
                'x' => builder.verbose_mode(true),
                's' => builder.dot_matches_new_line(true),
                'u' => &mut builder,
                other => {
                    let message = format!("invalid flag in regex options: {other}");
                    return Err(Error::new(Code(51_108), message));
                }
            };
        }
        let compiled = builder.build().map_err(|error| invalid(&reason(&error)))?;
        Ok(Regex { pattern: pattern.to_owned(), options: options.to_owned(), compiled: Arc::new(compiled) })
    }

    /// The pattern.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The option letters.
    pub fn options(&self) -> &str {
        &self.options
    }

    /// Whether the pattern occurs in the text. Fails when that takes too many steps.
    pub fn is_match(&self, text: &str) -> Result<bool> {
        self.compiled.is_match(text).map_err(|error| {
            Error::bad_value(format!("Regular expression /{}/ could not be evaluated: {error}", self.pattern))
        })
    }

    /// Every match with its groups, from the left. An error when that takes too many steps.
    pub(crate) fn captures<'t>(
        &self,
        text: &'t str,
    ) -> impl Iterator<Item = Result<fancy_regex::Captures<'t, str>>> + use<'_, 't> {
        self.compiled.captures_iter(text).map(|found| {
            found.map_err(|error| {
                let pattern = &self.pattern;
                Error::bad_value(format!("Regular expression /{pattern}/ could not be evaluated: {error}"))
            })
        })
    }

    /// The text that every match starts with, when the pattern is anchored and starts with literal characters:
    /// `/^abc.*d/` gives `abc`. What an index scan may begin and end with.
    pub fn literal_prefix(&self) -> Option<String> {
        let anchored = self.pattern.strip_prefix('^')?;
        if !self.options.chars().all(|option| option == 's' || option == 'u') || anchored.contains('|') {
            return None;
        }
        let is_literal =
            |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '_' | '-' | '@' | ':' | '/' | ',');
        let mut prefix: String = anchored.chars().take_while(is_literal).collect();
        // A quantifier belongs to the last character, which may then be absent.
        if matches!(anchored.get(prefix.len()..)?.chars().next(), Some('*' | '?' | '{')) {
            prefix.pop();
        }
        (!prefix.is_empty()).then_some(prefix)
    }

    /// Whether the value is a string that matches, or the same regular expression.
    pub(super) fn matches(&self, value: Option<&Value<'_>>) -> Result<bool> {
        match value {
            Some(Value::String(text) | Value::Symbol(text)) => self.is_match(text),
            Some(Value::Regex { pattern, options }) => {
                Ok(*pattern == self.pattern && *options == self.options)
            }
            _ => Ok(false),
        }
    }
}

/// Why a pattern does not compile, in words about the pattern.
fn reason(error: &fancy_regex::Error) -> String {
    match error {
        fancy_regex::Error::CompileError(error) => match error.as_ref() {
            fancy_regex::CompileError::InnerError(_) => "pattern is too large".to_owned(),
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

fn invalid(reason: &str) -> Error {
    Error::new(Code(51_091), format!("Regular expression is invalid: {reason}"))
}
