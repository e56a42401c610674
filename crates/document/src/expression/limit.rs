//! Bounds on what an expression may build.
//!
//! Called where a result can outgrow its inputs: loops over arrays, concatenation, ranges. The memory of one evaluation
//! stays within [`limits::SORT_MEMORY_BYTES_MAX`], strings within the size of a document.

use base::{Code, Error, Result, limits};
use bson::Bson;

/// Deepest nesting of a computed value: room above stored documents for the stages of one pipeline.
const DEPTH_MAX: usize = 2 * limits::NESTING_MAX;

/// Refuses values that nest too deeply to be read again without exhausting the stack.
pub(crate) fn check_depth(value: &Bson) -> Result<()> {
    if is_within(value, DEPTH_MAX) {
        return Ok(());
    }
    Err(Error::new(
        Code::OVERFLOW,
        format!("cannot build a value that nests more than {DEPTH_MAX} levels deep"),
    ))
}

fn is_within(value: &Bson, depth: usize) -> bool {
    match value {
        Bson::Array(array) => depth > 0 && array.iter().all(|element| is_within(element, depth - 1)),
        Bson::Document(document) => {
            depth > 0 && document.values().all(|element| is_within(element, depth - 1))
        }
        _ => true,
    }
}

/// Refuses a string that no document could hold, before it is built.
pub(crate) fn check_string_len(operator: &str, len: usize) -> Result<()> {
    if len <= limits::DOCUMENT_INTERNAL_BYTES_MAX {
        return Ok(());
    }
    let limit = limits::DOCUMENT_INTERNAL_BYTES_MAX;
    let message = format!("{operator} would make a string of {len} bytes, more than a document's {limit}");
    Err(Error::new(Code::BSON_OBJECT_TOO_LARGE, message))
}

/// What a value takes in memory, in bytes, about.
pub(crate) fn memory_bytes(value: &Bson) -> usize {
    let content = match value {
        Bson::String(text) | Bson::Symbol(text) | Bson::JavaScriptCode(text) => text.len(),
        Bson::Binary(binary) => binary.bytes.len(),
        Bson::Array(array) => array.iter().map(memory_bytes).sum(),
        Bson::Document(document) => {
            document.iter().map(|(name, value)| 2 * name.len() + 40 + memory_bytes(value)).sum()
        }
        _ => 0,
    };
    size_of::<Bson>() + content
}

/// The memory of one operator's result while it grows.
pub(crate) struct Budget {
    operator: &'static str,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(operator: &'static str) -> Budget {
        Budget { operator, bytes: 0 }
    }

    /// Accounts for one more value.
    pub(crate) fn charge(&mut self, value: &Bson) -> Result<()> {
        self.charge_bytes(memory_bytes(value))
    }

    /// Accounts for this many bytes.
    pub(crate) fn charge_bytes(&mut self, bytes: usize) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes <= limits::SORT_MEMORY_BYTES_MAX {
            return Ok(());
        }
        let message = format!(
            "{} would use too much memory ({} bytes) and cannot spill to disk. Memory limit: {} bytes",
            self.operator,
            self.bytes,
            limits::SORT_MEMORY_BYTES_MAX
        );
        Err(Error::new(Code::EXCEEDED_MEMORY_LIMIT, message))
    }
}
